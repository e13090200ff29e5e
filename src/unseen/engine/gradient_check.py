"""What was found about a model's gradients, remembered with the model until it changes."""

from collections.abc import Mapping
from types import FunctionType, MethodType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from unseen.engine.batches import size
from unseen.engine.gradient_guards import GradientCheck, examine
from unseen.task import Batch, PerExample

MOST_REMEMBERED = 64
"""Checks per model; more kinds of batches than that are checked again."""


def check_gradients(model: nn.Module, batch: Batch, f: PerExample) -> GradientCheck:
    """How gradients of f are computed for batches of this kind.

    Remembered with the model for: its modules with their modes, attributes and hooks, its
    parameters (not their values), the code of f, and names, dtypes and sizes of the batch, sizes up
    to the next power of two. Anything else is looked at anew.
    """
    known = _remembered.setdefault(model, {})
    key = (_structure(model), _code(f), _signature(batch))
    if key not in known:
        found = examine(model, batch, f, {})
        if not found.is_finite:
            return found  # other weights or data say more
        while len(known) >= MOST_REMEMBERED:
            del known[next(iter(known))]
        known[key] = found
    return known[key]


def check_after(
    model: nn.Module, batch: Batch, f: PerExample, reasons: Mapping[str, str]
) -> GradientCheck:
    """The check of one batch in which these parameters turned out to have no factors."""
    return examine(model, batch, f, reasons)


def remembered_checks(model: nn.Module) -> tuple[GradientCheck, ...]:
    """What was found about a model so far."""
    return tuple(_remembered.get(model, {}).values())


def gradient_sentences(model: nn.Module) -> list[str]:
    """What a report about this model's gradients has to say."""
    return list(dict.fromkeys(s for one in remembered_checks(model) if (s := one.sentence())))


_remembered: WeakKeyDictionary[nn.Module, dict[tuple[Any, ...], GradientCheck]] = (
    WeakKeyDictionary()
)


def _structure(model: nn.Module) -> tuple[Any, ...]:
    modules = tuple(
        (
            type(layer),
            layer.training,
            len(layer._forward_hooks),
            len(layer._forward_pre_hooks),
            *(
                (name, value)
                for name, value in vars(layer).items()
                if name[0] != "_" and isinstance(value, _PLAIN)
            ),
        )
        for layer in model.modules()
    )
    parameters = tuple(
        (name, id(p), p.requires_grad, p.dtype, p.device)
        for name, p in model.named_parameters(remove_duplicate=False)
    )
    return modules, parameters


_PLAIN = (bool, int, float, str, type, FunctionType, type(None))
"""Kinds of attributes that decide how a layer computes."""


def _signature(batch: Batch) -> tuple[Any, ...]:
    device = next(iter(batch.values())).device.type
    return (
        size(batch) > 1,
        torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device),
        *(
            (name, tensor.dtype, *(length.bit_length() for length in tensor.shape[1:]))
            for name, tensor in batch.items()
        ),
    )


def _code(f: Any, depth: int = 8) -> Any:
    """The code of a function with that of the functions in its closure: closures made anew for
    every call are the same function.
    """
    if depth == 0:
        return None
    if isinstance(f, MethodType):
        return (_code(f.__func__, depth - 1), id(f.__self__))
    if isinstance(f, FunctionType):
        cells = tuple(_cell(cell, depth - 1) for cell in f.__closure__ or ())
        defaults = tuple(_code(value, depth - 1) for value in f.__defaults__ or ())
        return (f.__code__, cells, defaults)
    if hasattr(f, "func") and hasattr(f, "args"):  # functools.partial
        given = (*f.args, *f.keywords.values())
        return (_code(f.func, depth - 1), *(_code(value, depth - 1) for value in given))
    if isinstance(f, _PLAIN):
        return f
    if isinstance(f, Tensor):
        return (f.dtype, f.shape)
    return (type(f), id(f)) if callable(f) else type(f)


def _cell(cell: Any, depth: int) -> Any:
    try:
        return _code(cell.cell_contents, depth)
    except ValueError:  # not filled yet
        return None
