"""What decides how a model computes, beside the values of its parameters and buffers."""

import hashlib
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from types import (
    BuiltinFunctionType,
    FunctionType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_PLAIN = (
    *(bool, int, float, complex, str, bytes),
    *(type, FunctionType, BuiltinFunctionType, ModuleType),
)
DEEPEST = 32
"""Objects within objects, beyond which nothing is looked into."""


@dataclass(frozen=True)
class Unknown:
    """A value that is not looked into: equal to any of its kind."""

    kind: type


@dataclass(frozen=True)
class Reference:
    """An object that was met before, by its number among them."""

    number: int


def structure(model: nn.Module) -> tuple[Hashable, ...]:
    """The model without the values of its parameters and buffers: two models that compute in
    different ways have different ones, unless they differ within an `Unknown`.
    """
    own = vars(nn.Module()).keys()
    values = _Values(model)
    modules = tuple(
        (
            type(layer),
            *(values.of_hooks(hooks) for hooks in _hooks(layer)),
            *((name, values.of(each)) for name, each in vars(layer).items() if name not in own),
        )
        for layer in model.modules()
    )
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers()]
    tensors = tuple((name, t.shape, t.dtype, t.requires_grad) for name, t in named)
    return str(model), modules, tensors, sum(1 for _ in model.parameters())


def is_known(value: Any) -> bool:
    """Whether a structure holds no `Unknown`."""
    if isinstance(value, tuple | frozenset):
        return all(map(is_known, value))
    return not isinstance(value, Unknown)


class _Values:
    """What values are made of. Objects are numbered as they are met, since one may hold itself."""

    def __init__(self, model: nn.Module) -> None:
        self.parameters = {id(p) for p in model.parameters()}
        self.seen = {id(layer): k for k, layer in enumerate(model.modules())}
        self.made: list[Any] = []
        """Parts made while looking: alive, so that no other object gets the number of one."""

    def of(self, value: Any, depth: int = DEEPEST) -> Hashable:
        if value is None or isinstance(value, (*_PLAIN, torch.dtype, torch.device)):
            return value
        if isinstance(value, Tensor):  # recurrent layers list their weights
            return _numbers(value, is_shape_enough=id(value) in self.parameters)
        if isinstance(value, np.ndarray | np.generic):
            return str(value.dtype), value.shape, _digest(value.tobytes())
        if isinstance(value, Enum):
            return type(value), value.name
        if isinstance(value, MethodType):
            return value.__func__, self.of(value.__self__, depth)
        if isinstance(value, set | frozenset):
            return type(value), frozenset(self.all_of(value, depth))
        if not depth:
            return Unknown(type(value))
        if id(value) in self.seen:
            return Reference(self.seen[id(value)])
        self.seen[id(value)] = len(self.seen)
        inside = _inside(value) or _parts_of_copy(value)
        self.made.append(inside)
        return (type(value), *self.all_of(inside, depth)) if inside else Unknown(type(value))

    def all_of(self, values: Iterable[Any], depth: int) -> tuple[Hashable, ...]:
        return tuple(self.of(value, depth - 1) for value in values)

    def of_hooks(self, hooks: Mapping[int, Any]) -> tuple[Hashable, ...]:
        """Never known: what a hook does may change from call to call."""
        return tuple((Unknown(type(hook)), self.of(hook)) for hook in hooks.values())


def _inside(value: Any) -> tuple[Any, ...]:
    """The values that one consists of; none where that is not known."""
    found: dict[str, Any] = {**getattr(value, "__dict__", {})}
    for kind in type(value).__mro__:
        for name, member in vars(kind).items():
            if isinstance(member, MemberDescriptorType):
                with suppress(AttributeError):  # a slot without a value
                    found[f"{kind.__name__}.{name}"] = member.__get__(value)
    items: tuple[Any, ...] = ()
    if isinstance(value, tuple | list):
        items = len(value), *value
    elif isinstance(value, dict):
        items = len(value), *value.keys(), *value.values()
    return *items, *found.keys(), *found.values()


def _parts_of_copy(value: Any) -> tuple[Any, ...]:
    """What a copy would be made of: of types that keep their values out of Python's sight."""
    with suppress(Exception):  # whatever a type raises that has no copies
        parts = value.__reduce_ex__(2)
        parts = parts if isinstance(parts, tuple) else (parts,)
        return tuple(list(part) if isinstance(part, Iterator) else part for part in parts)
    return ()


def _hooks(layer: nn.Module) -> tuple[Mapping[int, Any], ...]:
    forward = layer._forward_hooks, layer._forward_pre_hooks
    return *forward, layer._backward_hooks, layer._backward_pre_hooks


def _numbers(tensor: Tensor, is_shape_enough: bool) -> Hashable:
    if is_shape_enough:
        return tensor.shape, tensor.dtype
    if tensor.layout is not torch.strided or tensor.is_meta:
        return Unknown(type(tensor))
    flat = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
    return tensor.shape, tensor.dtype, _digest(flat.numpy().tobytes())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
