"""Many small models of one shape as one stacked model (torch.func.vmap), and their joint training.

A step for many models is one set of batched matrix products instead of K small ones: below about
20k parameters most of a training step is not arithmetic but the way to it, and that way is gone
once. Randomness inside the model (dropout) cannot follow K separate streams under vmap, so such
models are trained one after the other.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, vmap

from unseen.engine import parameters
from unseen.errors import InvalidData, UnsupportedLayer


class Ensemble(nn.Module):
    """K models of one shape as one module; each parameter and buffer has the model axis first.

    The models given are copied, not tied: `write` copies the stacked values back into them.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        _refuse_mixed(models)
        self.n = len(models)
        template = ModelCall(copy.deepcopy(models[0]))
        for module in template.modules():
            if type(module) is nn.Linear and module.bias is not None:
                module.__class__ = StackedLinear
        self._template = (
            template,
        )  # in a tuple: its own parameters are placeholders, not the ensemble's
        named = [dict(model.named_parameters()) for model in models]
        for name, first in models[0].named_parameters():
            stacked = torch.stack([one[name].detach() for one in named])
            self.register_parameter(
                _key(name), nn.Parameter(stacked, requires_grad=first.requires_grad)
            )
        buffers = [dict(model.named_buffers()) for model in models]
        for name in buffers[0]:
            self.register_buffer(_key(name), torch.stack([one[name] for one in buffers]))

    @property
    def template(self) -> nn.Module:
        """One model's modules; the values of its parameters mean nothing."""
        return self._template[0].model

    @property
    def values(self) -> dict[str, Tensor]:
        """The stacked parameters and buffers under the names they have in one model."""
        return {
            _name(key): tensor for key, tensor in (*self.named_parameters(), *self.named_buffers())
        }

    @property
    def trainable(self) -> dict[str, Tensor]:
        """The stacked parameters that require gradients."""
        return {_name(key): p for key, p in parameters.trainable(self).items()}

    def train(self, mode: bool = True) -> "Ensemble":
        self._template[0].train(mode)
        return super().train(mode)

    def evaluate(
        self, f: Callable[..., Any], *batched: Any, also: Mapping[str, Tensor] | None = None
    ) -> Any:
        """f(model k, arguments k, settings k) for every k, stacked; every tensor given has the
        model axis first.
        """
        return vmap(lambda values, settings, *rest: self.at(values, f, *rest, **settings))(
            self.values, dict(also or {}), *batched
        )

    def at(
        self, values: Mapping[str, Tensor], f: Callable[..., Any], *rest: Any, **settings: Any
    ) -> Any:
        """f(one model with these values, *rest). For use inside vmap."""
        named = {f"model.{name}": tensor for name, tensor in values.items()}
        return functional_call(self._template[0], named, (f, *rest), settings)

    def forward(self, x: Float[Tensor, "batch *rest"]) -> Float[Tensor, "model batch *outputs"]:
        """Every model's output for the same inputs."""
        return vmap(lambda values: self.at(values, nn.Module.__call__, x))(self.values)

    @torch.no_grad()
    def write(self, models: Sequence[nn.Module]) -> None:
        """Copies the stacked values into the models."""
        values = self.values
        for k, model in enumerate(models):
            parameters.load(model, {name: tensor[k] for name, tensor in values.items()})


class RowModel(nn.Module):
    """The models as one module on the rows of all of them, one model after the other.

    A loss [row] of its outputs is every model's loss, and plain autograd does the rest.
    """

    def __init__(self, ensemble: Ensemble) -> None:
        super().__init__()
        self.ensemble = ensemble

    def empty_gradients(self) -> None:
        for p in self.ensemble.parameters():
            p.grad = None

    def forward(self, *inputs: Tensor, **named: Tensor) -> Tensor:
        """Every model's outputs for its own rows; refuses what is no tensor of rows."""
        k = self.ensemble.n
        stacked = [tensor.unflatten(0, (k, -1)) for tensor in inputs]
        also = {name: tensor.unflatten(0, (k, -1)) for name, tensor in named.items()}
        return self.ensemble.evaluate(nn.Module.__call__, *stacked, also=also).flatten(0, 1)


class ModelCall(nn.Module):
    """f(model, …) as a module call, so that `functional_call` can exchange the model's
    parameters.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, f: Callable[..., Any], *rest: Any, **settings: Any) -> Any:
        return f(self.model, *rest, **settings)


def expand(scalar: Float[Tensor, " model"], like: Float[Tensor, "model *rest"]) -> Tensor:
    """One number per model with axes of length 1 behind, in the dtype of `like`."""
    return scalar.to(like.dtype).view(-1, *[1] * (like.dim() - 1))


def _key(name: str) -> str:
    return name.replace(".", "/")  # a registered name may not hold a dot


def _name(key: str) -> str:
    return key.replace("/", ".")


def _refuse_mixed(models: Sequence[nn.Module]) -> None:
    if not models:
        raise InvalidData(
            "An ensemble of no models.",
            why="there is nothing to stack.",
            fix="give at least one model.",
        )
    shapes = [
        {
            name: (t.shape, t.dtype, t.requires_grad)
            for name, t in (*m.named_parameters(), *m.named_buffers())
        }
        for m in models
    ]
    for k, (model, shape) in enumerate(zip(models, shapes, strict=True)):
        if shape != shapes[0] or str(model) != str(models[0]):
            raise UnsupportedLayer(
                f"Model {k} does not have the shape of model 0.",
                why="stacked models share one computation; only the values of their parameters "
                "differ.",
                fix="group the models by shape and make one ensemble of each group.",
            )


class StackedLinear(nn.Linear):
    """nn.Linear whose stacked form is two batched products with contiguous gradients.

    vmap's own rule copies the bias in the forward and each weight gradient in the backward pass: a
    fifth of the time.
    """

    def forward(self, input: Tensor) -> Tensor:
        return (
            _Affine.apply(input, self.weight, self.bias)
            if input.dim() == 2
            else super().forward(input)
        )


class _Affine(torch.autograd.Function):
    """x Wᵀ + b of one model."""

    @staticmethod
    def forward(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return F.linear(x, w, b)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        (x, w), (by_x, by_w, by_b) = ctx.saved_tensors, ctx.needs_input_grad
        return g @ w if by_x else None, g.t() @ x if by_w else None, g.sum(0) if by_b else None

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, int]:
        stacked = [
            t.unsqueeze(0).expand(info.batch_size, *t.shape) if dim is None else t.movedim(dim, 0)
            for t, dim in zip((x, w, b), in_dims, strict=True)
        ]
        return _StackedAffine.apply(*stacked), 0


class _StackedAffine(torch.autograd.Function):
    """x_k W_kᵀ + b_k of every model k. Without `setup_context`, whose argument binding costs as
    much as a product.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return torch.baddbmm(b.unsqueeze(1), x, w.transpose(1, 2))

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        (x, w), (by_x, by_w, by_b) = ctx.saved_tensors, ctx.needs_input_grad
        return (
            torch.bmm(g, w) if by_x else None,
            torch.bmm(g.transpose(1, 2), x) if by_w else None,
            g.sum(1) if by_b else None,
        )
