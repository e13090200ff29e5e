"""Per-example gradients of every trainable parameter, as factors where layers have them.

One place decides how (`gradient_check`): from one backward pass read layer by layer, example by
example, or not at all. What asks for gradients does not know.
"""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from unseen.engine.example_gradients import gradients_by_loop, gradients_by_vmap
from unseen.engine.gradient_check import check_after, check_gradients
from unseen.engine.gradient_factors import FullGradient, GradientFactor
from unseen.engine.gradient_guards import GradientCheck
from unseen.engine.layer_taps import LayerTaps, NoFactors
from unseen.engine.layers import forms as forms
from unseen.engine.mixing import refuse_mixing_layers
from unseen.engine.parameters import trainable
from unseen.errors import UnsupportedLayer
from unseen.task import Batch, PerExample

T = TypeVar("T")


@dataclass(frozen=True)
class ReducedGradients(Generic[T]):
    """What one pass over a batch gives."""

    values: Tensor
    """f of each example."""
    by_parameter: dict[str, T]


def tap(model: nn.Module, batch: Batch, f: PerExample) -> dict[str, GradientFactor]:
    """The gradient of f(model, example) with respect to each trainable parameter, for every example
    of the batch.

    The model, its mode, `requires_grad` and `.grad` are left as they were, also after an error.
    """
    return tap_and_reduce(model, batch, f, lambda name, form: form)


def tap_and_reduce(
    model: nn.Module, batch: Batch, f: PerExample, by: Callable[[str, GradientFactor], T]
) -> dict[str, T]:
    """`by` of each parameter's name and form, taken as soon as the backward pass has it; then the
    form is dropped.

    For what is summed over a stream: one layer's factors are in memory at a time, and still in the
    cache.
    """
    return evaluate_and_reduce(model, batch, f, by).by_parameter


def evaluate_and_reduce(
    model: nn.Module, batch: Batch, f: PerExample, by: Callable[[str, GradientFactor], T]
) -> ReducedGradients[T]:
    """`tap_and_reduce` with f itself, from the same pass."""
    refuse_mixing_layers(model)
    _refuse_sharded(model)
    batch = {name: tensor.detach() for name, tensor in batch.items()}
    with _eager(model):
        check = check_gradients(model, batch, f)
        try:
            return _reduce(model, batch, f, by, check)
        except _NotYetBegun as stopped:
            # this batch shows what the checked examples did not: a length that equals its size, say
            return _reduce(model, batch, f, by, check_after(model, batch, f, stopped.reasons))


class _NotYetBegun(NoFactors):
    """A layer without factors that was found before `by` was called."""


def _reduce(
    model: nn.Module,
    batch: Batch,
    f: PerExample,
    by: Callable[[str, GradientFactor], T],
    check: GradientCheck,
) -> ReducedGradients[T]:
    parameters = trainable(model)
    found: dict[str, T] = {}
    factored = {name: parameters[name] for name in check.factored}
    others = {name: parameters[name] for name in check.one_by_one}
    if factored:
        taps = LayerTaps(
            model, factored, by, copy_views=check.copy_views, may_be_shared=check.shared
        )
        try:
            values, found = taps.run(batch, f)
        except NoFactors as error:
            if not taps.begun:
                raise _NotYetBegun(error.reasons) from error
            raise UnsupportedLayer(
                f"Some gradients of this batch cannot be read from layers: {error}.",
                why="the examples on which the model was checked did not show it.",
                fix="use the out-of-place operation, or freeze the parameters.",
            ) from error
    if others:
        run = gradients_by_vmap if check.vectorized else gradients_by_loop
        alone, rows = run(model, batch, f, others)
        values = values if factored else alone
        for name in others:
            found[name] = by(name, _form(rows[name], name in check.unused))
    return ReducedGradients(values, {name: found[name] for name in parameters})


def _form(rows: Tensor, is_unused: bool) -> FullGradient:
    n, shape = len(rows), rows.shape[1:]
    # zeros that take no memory, as of a layer that did not run; rare examples may have used it
    if is_unused and not rows.any():
        return FullGradient(rows.new_zeros(()).expand(n, shape.numel()), shape)
    return FullGradient(rows.reshape(n, -1), shape)


def _refuse_sharded(model: nn.Module) -> None:
    distributed = sys.modules.get("torch.distributed.tensor")
    if distributed is None:
        return
    for name, p in model.named_parameters():
        if isinstance(p, distributed.DTensor):
            raise UnsupportedLayer(
                f"Parameter `{name}` is sharded over devices.",
                why="its layer makes the parameter anew in every forward pass.",
                fix="load the model once per process and share the examples; influence functions "
                "also read models that fully_shard has sharded.",
            )


def _eager(model: nn.Module) -> AbstractContextManager[object]:
    """Compiled modules run as they were written, so that layers can be read."""
    dynamo = sys.modules.get("torch._dynamo.eval_frame")
    if dynamo is None or not any(
        isinstance(layer, dynamo.OptimizedModule) or layer._compiled_call_impl is not None
        for layer in model.modules()
    ):
        return nullcontext()
    return torch.compiler.set_stance("force_eager")
