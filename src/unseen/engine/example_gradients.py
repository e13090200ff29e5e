"""Per-example gradients by their definition: of every example alone. Exact for any model whose loss
of one example does not depend on the others; costs a pass per example.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from unseen.engine.batches import size
from unseen.errors import InvalidData, TooBig
from unseen.task import Batch, PerExample

MOST_ENTRIES = 1 << 30
"""Entries of all gradients of a batch together."""
AT_ONCE = 1 << 24
"""Entries of gradients that one call of `vmap` makes."""

Rows = dict[str, Tensor]
"""`[n, *shape]` by parameter."""


def gradients_by_loop(
    model: nn.Module, batch: Batch, f: PerExample, parameters: Mapping[str, nn.Parameter]
) -> tuple[Tensor, Rows]:
    """(f, its gradient) of each example alone: a forward and a backward pass per example."""
    n = size(batch)
    _refuse_memory(n, parameters)
    rows = {name: p.detach().new_zeros(n, *p.shape) for name, p in parameters.items()}
    values, buffers = [], buffers_of(model)
    for k in range(n):
        restore(buffers)  # every example sees the same model
        with torch.enable_grad():
            value = f(model, {name: tensor[k : k + 1] for name, tensor in batch.items()})
            _refuse_shape(value)
            values.append(value.detach())
            if not value.requires_grad:
                continue
            found = torch.autograd.grad(value.sum(), list(parameters.values()), allow_unused=True)
        for name, gradient in zip(parameters, found, strict=True):
            if gradient is not None:
                rows[name][k] = gradient.to_dense() if gradient.is_sparse else gradient
    return torch.cat(values), rows


def gradients_by_vmap(
    model: nn.Module, batch: Batch, f: PerExample, parameters: Mapping[str, nn.Parameter]
) -> tuple[Tensor, Rows]:
    """The same with all examples of a part at once. Not every model can be run so."""
    n, entries = size(batch), sum(p.numel() for p in parameters.values())
    _refuse_memory(n, parameters)
    wrapped = ModelAsArgument(model)
    values = {f"model.{name}": p.detach() for name, p in parameters.items()}

    def value(values: Mapping[str, Tensor], example: Batch) -> Tensor:
        one = {name: tensor[None] for name, tensor in example.items()}
        return functional_call(wrapped, dict(values), (f, one)).sum()

    per_example = vmap(
        grad_and_value(value),
        in_dims=(None, 0),
        randomness="different",
        chunk_size=max(1, min(n, AT_ONCE // max(1, entries))),
    )
    with torch.no_grad(), double_differentiable(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*performance drop.*")
        found, losses = per_example(values, dict(batch))
    return losses, {name.removeprefix("model."): rows for name, rows in found.items()}


def buffers_of(model: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Buffers that a forward pass may change, with copies; none in evaluation mode."""
    if not any(layer.training for layer in model.modules()):
        return []
    return [(buffer, buffer.clone()) for buffer in model.buffers()]


@torch.no_grad()
def restore(buffers: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Gives buffers their copied values back."""
    for buffer, copy in buffers:
        buffer.copy_(copy)


class ModelAsArgument(nn.Module):
    """f(model, batch) as a module's forward pass, for `functional_call`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, f: Callable[[nn.Module, Batch], Tensor], batch: Batch) -> Tensor:
        return f(self.model, batch)


@contextmanager
def double_differentiable() -> Iterator[None]:
    """Attention by plain matrix products: the fused kernels of a CPU have no second derivative, and
    none for `vmap`.
    """
    with sdpa_kernel(SDPBackend.MATH):
        yield


def _refuse_shape(value: Tensor) -> None:
    if not isinstance(value, Tensor) or value.shape != (1,):
        shape = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise InvalidData(
            f"f returned {shape} for one example alone; shape [1] is needed.",
            why="this model's gradients are computed example by example, so f must work on a "
            "batch of one.",
            fix="let f and the model take the batch size from the batch.",
        )


def _refuse_memory(n: int, parameters: Mapping[str, nn.Parameter]) -> None:
    entries = sum(p.numel() for p in parameters.values())
    if n * entries > MOST_ENTRIES:
        raise TooBig(
            f"Gradients of {n:,} examples with respect to {entries:,} parameters are "
            f"{n * entries:,} numbers.",
            why="these parameters have no factors, so their gradients are held whole.",
            fix=f"use a batch_size of at most {max(1, MOST_ENTRIES // max(1, entries)):,}, or "
            "freeze them.",
        )
