"""One walk over live objects that digests all that decides what they compute."""

import enum
import functools
import hashlib
import inspect
import pathlib
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset

from unseen.identity.bytecode import reads
from unseen.identity.libraries import (
    Origin,
    is_library,
    is_worldly,
    of_class,
    of_function,
    version_of,
)
from unseen.identity.objects import (
    _ABOUT,
    _BY_REPR,
    _MAKING,
    _MODES,
    _PLAIN,
    _SALTED,
    _state,
    _strip_type_checks,
)
from unseen.identity.tensors import digest_of

_ABSENT = object()


@dataclass(frozen=True)
class Structure:
    """A model without the values of its parameters and buffers."""

    model: nn.Module


@dataclass(frozen=True)
class _Member:
    """A method that counts in full only if its name is asked for somewhere."""

    name: str
    value: object
    at: str


class Walk:
    """Digests one value with everything it reaches. `code` and `unknown` are filled on the way."""

    def __init__(self) -> None:
        self.code: list[object] = []
        self.unknown: list[str] = []
        self._total = hashlib.sha256()
        self._met: dict[int, int] = {}
        self._alive: list[object] = []  # so that no number of an object is given twice
        self._names: set[str] = set()
        self._waiting: list[_Member] = []
        self._is_reached = True
        self._weights: set[int] = set()

    def __call__(self, value: object, at: str) -> str:
        try:
            self._value(value, at)
            self._members()
        except RecursionError:
            self._doubt(f"{at} is nested too deeply to be read")
        return self._total.hexdigest()

    def _members(self) -> None:
        """Methods whose name is asked for, until nothing new is; then the others, whose doubts do
        not matter.
        """
        while chosen := [one for one in self._waiting if one.name in self._names]:
            self._waiting = [one for one in self._waiting if one.name not in self._names]
            for one in chosen:
                self._write("member", one.name)
                self._value(one.value, one.at)
        self._is_reached = False
        while self._waiting:
            one = self._waiting.pop(0)
            self._write("member", one.name)
            self._value(one.value, one.at)

    def _write(self, *words: object) -> None:
        for word in words:
            text = word if isinstance(word, bytes) else str(word).encode()
            self._total.update(f"{len(text)}:".encode() + text)

    def _doubt(self, reason: str) -> None:
        if self._is_reached and reason not in self.unknown:
            self.unknown.append(reason)

    def _note_definition(self, definition: Any) -> None:
        """Notes a definition of Unseen, by the top-level one that it stands in."""
        module = sys.modules.get(definition.__module__)
        outermost = getattr(module, definition.__qualname__.split(".")[0], definition)
        if not any(one is outermost for one in self.code):
            self.code.append(outermost)
        self._write("unseen", definition.__module__, definition.__qualname__)

    def _value(self, value: Any, at: str) -> None:
        if isinstance(value, _PLAIN) and type(value) in _PLAIN:
            self._write(type(value).__name__, repr(value))
            return
        if id(value) in self._met:
            self._write("again", self._met[id(value)])
            return
        self._met[id(value)] = len(self._met)
        self._alive.append(value)
        for kind, read in _READERS:
            if isinstance(value, kind):
                read(self, value, at)
                return
        if callable(value) and isinstance(getattr(value, "__wrapped__", None), types.FunctionType):
            self._value(value.__wrapped__, at)  # functools.lru_cache
            return
        self._instance(value, at)

    def _enum(self, value: enum.Enum, at: str) -> None:
        if of_class(type(value)) is Origin.USER:
            self._kind(type(value), at)
        self._write("enum", type(value).__qualname__, value.name)
        self._value(value.value, at)

    def _by_repr(self, value: object, at: str) -> None:
        self._write(type(value).__name__, repr(value))

    def _tensor(self, value: Tensor, at: str) -> None:
        self._write("tensor", type(value).__name__, value.requires_grad)
        if id(value) in self._weights:
            self._write(tuple(value.shape))
            return
        try:
            self._write(digest_of({"": value}))
        except (
            RuntimeError,
            NotImplementedError,
            TypeError,
        ) as error:  # no values (meta), or no plain memory (sparse)
            self._doubt(f"{at} holds a tensor that cannot be read ({error})")

    def _array(self, value: NDArray[Any], at: str) -> None:
        if isinstance(value, np.memmap):
            self._doubt(f"{at} reads a file as an array")
        self._write("array", value.dtype, value.shape)
        if value.dtype.hasobject:
            self._items(value.ravel().tolist(), at)
        else:
            self._write(np.ascontiguousarray(value).tobytes())

    def _number(self, value: Any, at: str) -> None:
        self._write("number", value.dtype, repr(value.item()))

    def _generator(self, value: torch.Generator, at: str) -> None:
        self._write("generator", value.device, digest_of({"": value.get_state()}))

    def _container(self, value: Any, at: str) -> None:
        kind = type(value)
        if kind.__module__ != "builtins":  # the environment is a mapping, too
            self._kind(kind, at)
        self._write(kind.__qualname__, len(value))

    def _mapping(self, value: Mapping[Any, Any], at: str) -> None:
        self._container(value, at)
        for key, item in value.items():
            self._value(key, at)
            self._value(item, f"{at}.{key}" if isinstance(key, str) else at)
        self._value(getattr(value, "default_factory", None), at)

    def _items(self, value: Any, at: str) -> None:
        self._container(value, at)
        for item in value:
            self._value(item, at)

    def _set(self, value: Any, at: str) -> None:
        self._write("set", len(value))
        digests = []
        for item in value:
            inner = Walk()
            digests.append(inner(item, at))
            self.code += [one for one in inner.code if all(one is not known for known in self.code)]
            for reason in inner.unknown:
                self._doubt(reason)
        self._write(*sorted(digests))

    def _module(self, value: types.ModuleType, at: str) -> None:
        self._write("module", value.__name__)
        if not is_library(value):
            self._doubt(f"{at} passes the module `{value.__name__}` on as a value")
        else:
            self._library(value.__name__, at)

    def _library(self, dotted: str, at: str, module: str = "") -> None:
        self._write("library", dotted, version_of(module or dotted))
        if is_worldly(dotted):
            self._doubt(f"{at} reads {dotted}")

    def _function(self, value: types.FunctionType, at: str) -> None:
        value = _strip_type_checks(value)
        if of_function(value) is Origin.UNSEEN:
            self._note_definition(value)
            self._cells(value, at)
            return
        at = (
            f"`{value.__qualname__}` "
            f"({pathlib.Path(value.__code__.co_filename).name}:{value.__code__.co_firstlineno})"
        )
        if of_function(value) is Origin.LIBRARY:
            home = str(value.__globals__.get("__name__", ""))
            self._library(f"{home}.{value.__qualname__}", at, home)
            self._cells(value, at)
            return
        self._write("function")
        self._code(value.__code__)
        self._cells(value, at)
        self._value(value.__defaults__, at)
        self._value(value.__kwdefaults__, at)
        self._value(vars(value), at)
        self._reads(value, at)

    def _cells(self, value: types.FunctionType, at: str) -> None:
        """The values of the enclosing function; modules among them are read with the attributes
        taken.
        """
        read = reads(value.__code__)
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            try:
                inside = cell.cell_contents
            except ValueError:  # not yet assigned
                self._write("empty")
                continue
            if isinstance(inside, types.ModuleType):
                for chain in read.cells:
                    if chain[0] == name:
                        self._chain(chain[1:], inside, at)
            else:
                self._value(inside, at)

    def _code(self, code: types.CodeType) -> None:
        self._write(
            code.co_code,
            code.co_exceptiontable,
            code.co_flags,
            code.co_argcount,
            code.co_kwonlyargcount,
        )
        self._write(*code.co_names)
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self._code(constant)
            elif isinstance(constant, frozenset):
                self._write("frozenset", *sorted(map(repr, constant)))
            else:
                self._write(type(constant).__name__, repr(constant))

    def _reads(self, value: types.FunctionType, at: str) -> None:
        read = reads(value.__code__)
        self._names |= read.names
        for chain in read.chains:
            found = value.__globals__.get(chain[0], _ABSENT)
            if found is not _ABSENT:
                self._write("global", *chain)
                self._chain(chain[1:], found, at)
            elif chain[0] in vars(sys.modules["builtins"]):
                self._library(f"builtins.{chain[0]}", at)
            else:
                self._write("nothing", chain[0])
        for name, level, taken in read.imports:
            self._import(name, level, taken, read.names, at)

    def _chain(self, names: tuple[str, ...], found: Any, at: str) -> None:
        """What a name and the attributes after it lead to."""
        for k, name in enumerate(names):
            if not isinstance(found, types.ModuleType):
                break
            if is_library(found):
                return self._library(".".join([found.__name__, *names[k:]]), at, found.__name__)
            found = getattr(found, name, None)
        return self._value(found, at)

    def _import(
        self, name: str, level: int, taken: tuple[str, ...], names: frozenset[str], at: str
    ) -> None:
        self._write("import", name, level, *taken)
        module = sys.modules.get(name)
        if level or (module is not None and not is_library(module) and not taken):
            self._doubt(f"{at} imports `{name or '.'}` while it runs")
        elif module is None or is_library(module):
            for last in (*taken, *sorted(names)) or ("",):
                if is_worldly(f"{name}.{last}"):
                    self._doubt(f"{at} reads {name}.{last}")
        else:
            for one in taken:
                self._value(getattr(module, one, None), at)

    def _descriptor(self, value: Any, at: str) -> None:
        self._write("descriptor", value.__name__)

    def _method(self, value: types.MethodType, at: str) -> None:
        self._write("method")
        self._value(value.__self__, at)
        self._value(value.__func__, at)

    def _partial(self, value: Any, at: str) -> None:
        self._write("partial")
        self._items((value.func, value.args, value.keywords), at)

    def _property(self, value: property, at: str) -> None:
        self._items((value.fget, value.fset), at)

    def _wrapper(self, value: Any, at: str) -> None:
        """staticmethod, classmethod, cached_property."""
        self._write(type(value).__name__)
        self._value(getattr(value, "func", None) or value.__func__, at)

    def _builtin(self, value: Any, at: str) -> None:
        """A function written in C."""
        owner = getattr(value, "__self__", None)
        home = getattr(value, "__module__", None) or getattr(
            getattr(value, "__objclass__", None), "__module__", None
        )
        self._library(f"{home or 'builtins'}.{value.__name__}", at, home or "builtins")
        if owner is not None and not isinstance(owner, types.ModuleType | type):
            self._value(owner, at)

    def _type(self, value: type, at: str) -> None:
        self._kind(value, at, is_made=True)

    def _kind(self, kind: type, at: str, is_made: bool = False) -> None:
        """A class with its bases; `is_made`: it may still make objects."""
        for base in kind.__mro__[:-1]:
            origin = of_class(base)
            if origin is Origin.UNSEEN:
                self._note_definition(base)
            elif origin is Origin.LIBRARY:
                self._library(f"{base.__module__}.{base.__qualname__}", at, base.__module__)
            elif (mark := (id(base), is_made)) not in self._met_kinds:
                self._met_kinds.add(mark)
                self._alive.append(base)
                self._user_kind(base, is_made)
            else:
                self._write("again", base.__qualname__)

    @functools.cached_property
    def _met_kinds(self) -> set[tuple[int, bool]]:
        return set()

    def _user_kind(self, kind: type, is_made: bool) -> None:
        self._write("class")
        known = {
            name
            for base in kind.__mro__[1:-1]
            if of_class(base) is not Origin.USER
            for name in vars(base)
        }
        for name, member in vars(kind).items():
            if name in _ABOUT or (name in _MAKING and not is_made):
                continue
            at = f"`{kind.__qualname__}.{name}`"
            is_special = name.startswith("__") and name.endswith("__")
            # a module is called by `forward`; whatever else may be called by those who know the
            # base class, or any name
            if is_special or name in known or name == "forward" or not issubclass(kind, nn.Module):
                self._write("member", name)
                self._value(member, at)
            else:
                self._waiting.append(_Member(name, member, at))

    def _network(self, value: nn.Module, at: str) -> None:
        self._kind(type(value), at)
        self._write("network")
        still = [name for name, part in value.named_modules() if value.training > part.training]
        if still:  # while the rest trains
            self._write("in evaluation mode", *still)
        for name, parameter in value.named_parameters(recurse=False):
            for hooks in (parameter._backward_hooks, parameter._post_accumulate_grad_hooks):
                if hooks:
                    self._write("hooks on the gradient of", name)
                    self._items(list(hooks.values()), at)
        for name, item in vars(value).items():
            if name in _MODES or isinstance(
                getattr(type(value), name, None), functools.cached_property
            ):
                continue
            if name.endswith(
                ("_hooks", "_hooks_with_kwargs", "_hooks_always_called")
            ) and isinstance(item, dict):
                if item:
                    self._write(name)
                    self._items(list(item.values()), at)
                continue
            self._write(name)
            self._value(item, at)

    def _structure(self, value: Structure, at: str) -> None:
        state = {*value.model.state_dict(keep_vars=True)}
        named = [
            *value.model.named_parameters(remove_duplicate=False),
            *value.model.named_buffers(remove_duplicate=False),
        ]
        self._weights |= {id(tensor) for name, tensor in named if name in state}
        self._value(value.model, at)

    def _dataset(self, value: Any, at: str) -> None:
        named = getattr(value, "content_digest", None)
        if isinstance(named, str):
            self._kind(type(value), at)
            self._write("content", named)
        elif isinstance(value, IterableDataset):
            self._doubt(f"{at} is a stream")
        elif of_class(type(value)) is Origin.USER:
            self._doubt(
                f"{at} is a dataset of your own, `{type(value).__name__}`, without a "
                "`content_digest`"
            )
        else:
            self._instance(value, at)

    def _instance(self, value: Any, at: str) -> None:
        kind = type(value)
        self._kind(kind, at)
        state = _state(value)
        if state is None:
            self._doubt(
                f"{at} holds a `{kind.__module__}.{kind.__qualname__}`, which cannot be read"
            )
            return
        self._write("instance", kind.__qualname__, len(state))
        for name, item in state.items():
            # what a property has remembered depends on who asked before
            is_derived = isinstance(
                inspect.getattr_static(kind, str(name), None), functools.cached_property
            )
            if not is_derived and name not in _SALTED:
                self._write(name)
                self._value(item, f"{at}.{name}")


_READERS: tuple[tuple[Any, Callable[[Walk, Any, str], None]], ...] = (
    (Structure, Walk._structure),
    (enum.Enum, Walk._enum),
    (_BY_REPR, Walk._by_repr),
    (Tensor, Walk._tensor),
    (np.ndarray, Walk._array),
    (np.generic, Walk._number),
    (torch.Generator, Walk._generator),
    (nn.Module, Walk._network),
    (Dataset, Walk._dataset),
    (types.ModuleType, Walk._module),
    (types.FunctionType, Walk._function),
    (types.MethodType, Walk._method),
    (functools.partial, Walk._partial),
    (property, Walk._property),
    ((staticmethod, classmethod, functools.cached_property), Walk._wrapper),
    (
        (
            types.BuiltinFunctionType,
            types.MethodDescriptorType,
            types.WrapperDescriptorType,
            types.MethodWrapperType,
            types.ClassMethodDescriptorType,
            np.ufunc,
        ),
        Walk._builtin,
    ),
    ((types.MemberDescriptorType, types.GetSetDescriptorType), Walk._descriptor),
    (type, Walk._type),
    (Mapping, Walk._mapping),
    ((set, frozenset), Walk._set),
    ((list, tuple), Walk._items),
)
