"""Stacked multilayer perceptrons without vmap: every layer is one batched product.

A per-example loss of the rows of all models, [model · batch, …], is every model's loss, so plain
autograd does the rest.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unseen.engine.vectorized.ensemble import Ensemble, StackedLinear

ELEMENTWISE = (
    nn.ReLU,
    nn.Tanh,
    nn.Sigmoid,
    nn.GELU,
    nn.SiLU,
    nn.ELU,
    nn.LeakyReLU,
    nn.Softplus,
    nn.Identity,
)


class Affine(torch.autograd.Function):
    """x_k W_kᵀ + b_k of every model k; the gradients are added to those that the leaves W and b
    already have.

    In place, because a fresh gradient of a megabyte costs more page faults than the product that
    fills it.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        ctx.leaves = w, b
        ctx.save_for_backward(x)
        return torch.baddbmm(b.detach().unsqueeze(1), x, w.detach().transpose(1, 2))

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, None, None]:
        (x,), (w, b) = ctx.saved_tensors, ctx.leaves
        if w.requires_grad:
            w.grad.baddbmm_(g.transpose(1, 2), x)
        if b.requires_grad:
            b.grad.add_(g.sum(1))
        return torch.bmm(g, w.detach()) if ctx.needs_input_grad[0] else None, None, None


class BatchedMLP(nn.Module):
    """The stacked chain on the rows of all models, one model after the other."""

    def __init__(self, ensemble: Ensemble) -> None:
        super().__init__()
        self.ensemble = ensemble

    @staticmethod
    def fits(model: nn.Module) -> bool:
        """Whether the model is a chain of untied linear layers and elementwise functions."""
        identities = [id(p) for _, p in model.named_parameters(remove_duplicate=False)]
        return (
            type(model) is nn.Sequential
            and len(set(identities)) == len(identities)
            and all(
                type(layer) in ELEMENTWISE
                or (type(layer) in (nn.Linear, StackedLinear) and layer.bias is not None)
                or (type(layer) is nn.Flatten and (layer.start_dim, layer.end_dim) == (1, -1))
                for layer in model
            )
        )

    def empty_gradients(self) -> None:
        """Zeros in every `.grad`, in the same memory at every step; `Affine` adds to them."""
        for p in self.ensemble.trainable.values():
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad.zero_()

    def forward(self, x: Float[Tensor, "rows *shape"]) -> Float[Tensor, "rows *outputs"]:
        ensemble = self.ensemble
        for (
            name,
            layer,
        ) in ensemble.template._modules.items():  # not named_children: a ReLU may be used twice
            if isinstance(layer, nn.Linear):
                w, b = (
                    ensemble.get_parameter(f"{name}/weight"),
                    ensemble.get_parameter(f"{name}/bias"),
                )
                x = Affine.apply(x.reshape(ensemble.n, -1, x.shape[-1]), w, b).flatten(0, 1)
            else:
                x = layer(x)  # type: ignore[misc]
        return x
