"""What Python's objects hold: attributes, plain values, and what of a class computes nothing."""

import copyreg
import pathlib
import re
import types
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import torch

_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented))
_CONTENT = (int, float, complex, str, bytes, bytearray, deque)
_BY_REPR = (
    slice,
    range,
    pathlib.PurePath,
    re.Pattern,
    torch.dtype,
    torch.device,
    torch.Size,
    torch.layout,
    torch.memory_format,
)
# what Python and dataclasses write into every class: names, texts and tools that compute nothing
_ABOUT = {
    "__module__",
    "__qualname__",
    "__doc__",
    "__dict__",
    "__weakref__",
    "__annotations__",
    "__dataclass_fields__",
    "__dataclass_params__",
    "__match_args__",
    "__abstractmethods__",
    "_abc_impl",
    "__orig_bases__",
    "__parameters__",
    "__protocol_attrs__",
    "_is_protocol",
    "_is_runtime_protocol",
    "__firstlineno__",
    "__static_attributes__",
    "__repr__",
    "__str__",
    "__reduce__",
    "__reduce_ex__",
    "__getstate__",
    "__setstate__",
    "__init_subclass__",
    "__subclasshook__",
    "__annotate__",
    "__annotate_func__",
    "__annotations_cache__",
    "extra_repr",
}
_MAKING = {"__init__", "__new__", "__post_init__"}
"""They have run already for an object in hand; they count where the class itself is reached."""
# the training loop sets the mode, and hooks are numbered by a counter of the process
_MODES = {"training", "_is_full_backward_hook", "call_super_init", "_compiled_call_impl"}


# transformers remembers Python's hash of its settings, which is another one in every process
_SALTED = {"_original_object_hash"}


def _strip_type_checks(value: types.FunctionType) -> types.FunctionType:
    """Without the wrappers that check types, as the tests put them around everything."""
    inner: Any = value
    while "jaxtyping" in inner.__code__.co_filename or "beartype" in inner.__code__.co_filename:
        if not isinstance(getattr(inner, "__wrapped__", None), types.FunctionType):
            break
        inner = inner.__wrapped__
    return inner


def _state(value: Any) -> Mapping[str, Any] | None:
    """The attributes of an object; of one written in C what it gives to `copy`."""
    slots = [name for base in type(value).__mro__ for name in _slots(base)]
    found = {name: getattr(value, name) for name in slots if hasattr(value, name)}
    if hasattr(value, "__dict__"):
        # a number, text or queue of a class of one's own has more than its attributes
        inside = _copied_parts(value) if isinstance(value, _CONTENT) else None
        return {**found, **vars(value), **(inside or {})}
    if found or any("__slots__" in vars(base) for base in type(value).__mro__):
        return found
    return _copied_parts(value)


def _copied_parts(value: Any) -> Mapping[str, Any] | None:
    """What an object gives to `copy`; None where it refuses."""
    try:
        reduced = (
            copyreg.dispatch_table[type(value)](value)
            if type(value) in copyreg.dispatch_table
            else value.__reduce_ex__(2)
        )
    except Exception:  # an open file, a lock, a handle: whatever refuses in its own way
        return None
    return (
        {"reduced": reduced}
        if isinstance(reduced, str)
        # items come as an iterator, which would be used up
        else {
            str(k): list(part) if isinstance(part, Iterator) else part
            for k, part in enumerate(reduced)
        }
    )


def _slots(kind: type) -> list[str]:
    slots = vars(kind).get("__slots__", ())
    names = [slots] if isinstance(slots, str) else list(slots)
    return [name for name in names if name not in ("__dict__", "__weakref__")]
