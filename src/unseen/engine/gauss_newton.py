"""Products of the Gauss–Newton matrix of a model's loss with many vectors at once (Schraudolph,
2002).

G = mean over examples of Jᵀ H J: J the Jacobian of the model's outputs, H the Hessian of the loss
in them. J v runs forwards, H on the outputs, Jᵀ backwards; no matrix is formed.
"""

import warnings
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vjp, vmap

from unseen.engine.batches import size
from unseen.engine.example_gradients import ModelAsArgument, double_differentiable
from unseen.engine.features import FixedOutput
from unseen.errors import InvalidConfig
from unseen.task import Batch, PerExample

COPIES = 32
"""Tensors as large as the outputs that a product holds for every vector, roughly."""


def summed_products(
    model: nn.Module,
    batches: Iterable[Batch],
    loss: PerExample,
    vectors: Mapping[str, Tensor],
    memory: int = 1 << 30,
) -> tuple[dict[str, Tensor], int]:
    """(Σ over the examples of Jᵀ H J v for every vector, the number of examples).

    `vectors` holds `[q, *shape]` by parameter; other parameters stay where they are. The loss may
    depend on the parameters through one call of the model only.
    """
    own = {name: model.get_parameter(name).detach() for name in vectors}
    total = {name: torch.zeros_like(v) for name, v in vectors.items()}
    q, n = len(next(iter(vectors.values()))), 0
    for batch in batches:
        n += size(batch)
        for name, part in _of_batch(model, batch, loss, own, vectors, q, memory).items():
            total[name] += part
    return total, n


def _of_batch(
    model: nn.Module,
    batch: Batch,
    loss: PerExample,
    own: Mapping[str, Tensor],
    vectors: Mapping[str, Tensor],
    q: int,
    memory: int,
) -> dict[str, Tensor]:
    wrapped = ModelAsArgument(model)

    def predict(values: Mapping[str, Tensor]) -> Tensor:
        given = {f"model.{name}": value for name, value in values.items()}
        return functional_call(wrapped, given, (lambda m, b: outputs_in(loss, m, b), batch))

    def slope(z: Tensor) -> Tensor:
        return grad(lambda z: loss(FixedOutput(z), batch).sum())(z)

    def product(v: Mapping[str, Tensor]) -> dict[str, Tensor]:
        z, moved = jvp(predict, (dict(own),), (dict(v),))[:2]
        curved = jvp(slope, (z,), (moved,))[1]
        return vjp(predict, dict(own))[1](curved)[0]

    with torch.no_grad(), double_differentiable(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*performance drop.*")
        z = outputs_in(loss, model, batch)
        together = memory // max(1, COPIES * z.numel() * z.element_size())
        return vmap(product, chunk_size=max(1, min(q, together)))(dict(vectors))


def outputs_in(loss: PerExample, model: nn.Module, batch: Batch) -> Tensor:
    """What the model returns where the loss calls it."""
    seen: list[Tensor] = []
    handle = model.register_forward_hook(lambda module, given, output: seen.append(output))
    try:
        loss(model, batch)
    finally:
        handle.remove()
    if len(seen) != 1 or not isinstance(seen[0], Tensor):
        what = f"{len(seen)} times" if len(seen) != 1 else "and is not given one tensor"
        raise InvalidConfig(
            f"The loss calls the model {what}.",
            why="the Gauss–Newton matrix needs a loss of one tensor of outputs.",
            fix="use curvature=Curvature.EKFAC, or a loss that calls the model once.",
        )
    return seen[0]
