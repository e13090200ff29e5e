"""Activations by module name: read them, or put others in their place (interchange interventions,
Vig et al., 2020).
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from unseen.errors import InvalidData, UnknownName, UnsupportedLayer

Replacement = Tensor | Callable[[Tensor], Tensor]


@contextlib.contextmanager
def record(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Inside the block, every forward pass fills the dictionary with the named modules' outputs.

    A module that returns a tuple gives its first tensor (hidden states, by the field's habit). A
    module called more than once keeps its last output. Tensors stay in the graph: detach what you
    keep.
    """
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            found[name] = _first(name, output)

        return hook

    with _register_hooks(model, {name: keep(name) for name in names}):
        yield found


@contextlib.contextmanager
def patch(model: nn.Module, values: Mapping[str, Replacement]) -> Iterator[None]:
    """Inside the block, the named modules output the given tensor, or the given function of their
    own output.

    Of a tuple the first tensor is replaced. The replacement must have the shape of what it
    replaces.
    """

    def put(name: str, value: Replacement) -> Callable[[nn.Module, Any, Any], Any]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
            old = _first(name, output)
            new = value if isinstance(value, Tensor) else value(old)
            if new.shape != old.shape:
                raise InvalidData(
                    f"The patch of `{name}` has shape {tuple(new.shape)}, its output "
                    f"{tuple(old.shape)}.",
                    why="what follows would broadcast it or fail.",
                    fix="record the replacement on a batch of the same size, or expand it.",
                )
            return new if isinstance(output, Tensor) else _replace_first(output, new)

        return hook

    with _register_hooks(model, {name: put(name, value) for name, value in values.items()}):
        yield


@contextlib.contextmanager
def _register_hooks(model: nn.Module, hooks: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    modules = dict(model.named_modules())
    for name in hooks:
        if name not in modules:
            raise UnknownName.near("module", name, modules)
    handles = [modules[name].register_forward_hook(hook) for name, hook in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _first(name: str, output: Any) -> Tensor:
    values = (
        list(output.values()) if isinstance(output, Mapping) else output
    )  # transformers' ModelOutput is a mapping
    first = values[0] if isinstance(values, tuple | list) and values else values
    if not isinstance(first, Tensor):
        raise UnsupportedLayer(
            f"Module `{name}` returns {type(output).__name__}, whose first element is not a "
            "tensor.",
            why="an activation to read or replace is a tensor.",
            fix="name a module inside it.",
        )
    return first


def _replace_first(output: Any, new: Tensor) -> Any:
    if isinstance(output, Mapping):
        first = next(iter(output))
        return type(output)({**output, first: new})  # type: ignore[call-arg]
    if hasattr(output, "_replace"):  # a named tuple
        return output._replace(**{output._fields[0]: new})
    return type(output)((new, *output[1:]))
