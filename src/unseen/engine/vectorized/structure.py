"""What decides how a model computes, beside the values of its parameters and buffers."""

import hashlib
from collections.abc import Hashable
from dataclasses import dataclass, fields, is_dataclass
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn

_PLAIN = (bool, int, float, complex, str, bytes, type, FunctionType, BuiltinFunctionType)


@dataclass(frozen=True)
class Unknown:
    """An attribute that is not looked into: equal to any of its kind."""

    kind: type


def structure(model: nn.Module) -> tuple[Hashable, ...]:
    """The model without the values of its parameters and buffers: two models that compute in
    different ways have different ones, unless they differ within an `Unknown` or a hook.
    """
    own = vars(nn.Module()).keys()
    modules = tuple(
        (
            type(layer),
            *(_hooks(hooks) for hooks in (layer._forward_hooks, layer._forward_pre_hooks)),
            *((name, _value(each)) for name, each in vars(layer).items() if name not in own),
        )
        for layer in model.modules()
    )
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers()]
    tensors = tuple((name, t.shape, t.dtype, t.requires_grad) for name, t in named)
    return str(model), modules, tensors, sum(1 for _ in model.parameters())


def is_known(value: Any) -> bool:
    """Whether a structure holds no `Unknown`."""
    if isinstance(value, tuple):
        return all(map(is_known, value))
    return not isinstance(value, Unknown)


def _hooks(hooks: dict[int, Any]) -> tuple[Hashable, ...]:
    return tuple(Unknown(type(hook)) for hook in hooks.values())


def _value(value: Any) -> Hashable:
    if value is None or isinstance(value, (*_PLAIN, torch.dtype, torch.device)):
        return value
    if isinstance(value, tuple | list):
        return tuple(map(_value, value))
    if isinstance(value, dict):
        return tuple((_value(key), _value(each)) for key, each in value.items())
    if is_dataclass(value):
        each = tuple((field.name, _value(getattr(value, field.name))) for field in fields(value))
        return type(value), each
    if isinstance(value, nn.Parameter):  # as recurrent layers list their weights
        return value.shape, value.dtype
    if isinstance(value, Tensor) and value.layout is torch.strided and not value.is_meta:
        flat = value.detach().cpu().contiguous().flatten().view(torch.uint8)
        return value.shape, value.dtype, hashlib.sha256(flat.numpy().tobytes()).hexdigest()
    return Unknown(type(value))
