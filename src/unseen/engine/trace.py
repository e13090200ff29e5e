"""Activations by module name: read them, or put others in their place (interchange interventions,
Vig et al., 2020).

A module that a forward pass calls more than once, as the blocks of a model that applies them in
loops, has an activation per call: `blocks.0@1` is the second one of `blocks.0`. Calls are counted
from where the model itself is called.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from unseen.errors import InvalidData, UnknownName, UnsupportedLayer

Replacement = Tensor | Callable[[Tensor], Tensor]


@contextlib.contextmanager
def record(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Inside the block, every forward pass fills the dictionary with the named modules' outputs.

    A module that returns a tuple gives its first tensor (hidden states, by the field's habit). A
    module called more than once keeps its last output, or that of the call that is named. Tensors
    stay in the graph: detach what you keep.
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
def skip(model: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside the block, the named modules give these tensors without running.

    As `patch` with tensors, and faster, for modules that return one tensor and leave nothing else
    behind.
    """
    modules = dict(model.named_modules())
    by_module: dict[str, dict[int | None, Tensor]] = {}
    for name, value in values.items():
        module, call = _module_and_call(name, modules)
        by_module.setdefault(module, {})[call] = value
    counts: Counter[str] = Counter()
    replaced = {name: modules[name].__dict__.get("forward") for name in by_module}

    def replace_forward(name: str, outputs: Mapping[int | None, Tensor]) -> None:
        run = modules[name].forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            call, counts[name] = counts[name], counts[name] + 1
            value = outputs.get(call, outputs.get(None))
            return run(*args, **kwargs) if value is None else value

        modules[name].forward = forward

    handles = [model.register_forward_pre_hook(lambda *_: counts.clear())]
    # a Transformer runs its blocks on slices of the batch unless a hook listens
    handles += [modules[name].register_forward_hook(lambda *_: None) for name in by_module]
    try:
        for name, outputs in by_module.items():
            replace_forward(name, outputs)
        yield
    finally:
        for handle in handles:
            handle.remove()
        for name, forward in replaced.items():
            if forward is None:  # the method of the class shows again
                modules[name].__dict__.pop("forward", None)
            else:
                modules[name].forward = forward


@dataclass(frozen=True)
class Call:
    """One call of a module in a forward pass."""

    name: str
    """The module's; with the number of the call where there are several."""
    is_plain: bool
    """Whether it returns one tensor and nothing else."""


def list_calls(model: nn.Module, names: Sequence[str], run: Callable[[], Any]) -> list[Call]:
    """The calls of these modules in the order in which `run` makes them."""
    order: list[tuple[str, bool]] = []

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda module, inputs, output: order.append((name, isinstance(output, Tensor)))

    with _register_hooks(model, {name: note(name) for name in names}):
        run()
    total, seen, calls = Counter(name for name, _ in order), Counter[str](), []
    if silent := [name for name in names if name not in total]:
        raise InvalidData(
            f"Module `{silent[0]}` is not called.",
            why="it has no activation that could be read or replaced.",
            fix="name a module that the forward pass runs.",
        )
    for name, is_plain in order:
        calls.append(Call(name if total[name] == 1 else f"{name}@{seen[name]}", is_plain))
        seen[name] += 1
    return calls


@contextlib.contextmanager
def _register_hooks(model: nn.Module, hooks: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    modules = dict(model.named_modules())
    chosen = {name: _module_and_call(name, modules) for name in hooks}
    counts: Counter[str] = Counter()

    def at_call(name: str, call: int | None) -> Callable[[nn.Module, Any, Any], Any]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
            counts[name] += 1
            return hooks[name](module, inputs, output) if counts[name] - 1 == call else None

        return hooks[name] if call is None else hook

    handles = [
        modules[module].register_forward_hook(at_call(name, call))
        for name, (module, call) in chosen.items()
    ]
    if any(call is not None for _, call in chosen.values()):
        handles.append(model.register_forward_pre_hook(lambda *_: counts.clear()))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _module_and_call(name: str, modules: Mapping[str, nn.Module]) -> tuple[str, int | None]:
    """`blocks.0@1` as module and number of its call; no number without one in the name."""
    module, at, call = name.rpartition("@")
    found = (module, int(call)) if at and call.isdigit() else (name, None)
    if found[0] not in modules:
        raise UnknownName.near("module", found[0], modules)
    return found


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


@contextlib.contextmanager
def keep_last_position(model: nn.Module) -> Iterator[None]:
    """Inside the block, a causal language model computes logits at the last position alone and
    repeats them at all others: the largest matrix product of a small model is that of its head.
    """
    head, length = output_head(model), [1]

    def narrow(module: nn.Module, inputs: Any) -> Any:
        length[0] = inputs[0].shape[1]
        return (inputs[0][:, -1:], *inputs[1:])

    def repeat(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return output.expand(-1, length[0], -1)

    handles = [head.register_forward_pre_hook(narrow), head.register_forward_hook(repeat)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def output_head(model: nn.Module) -> nn.Module:
    """The map from the residual stream to logits: what transformers calls the output embedding, or
    a module `head`.
    """
    for module in model.modules():
        named = getattr(module, "get_output_embeddings", None)
        found = named() if named is not None else getattr(module, "head", None)
        if isinstance(found, nn.Module):
            return found
    raise UnsupportedLayer(
        f"{type(model).__name__} has no output embedding and no module `head`.",
        why="the map from the last layer to logits is not known.",
        fix="use models.transformer.Transformer, or a causal LM of transformers.",
    )


def residual_stream(model: nn.Module) -> list[str]:
    """Names of the blocks whose outputs are the states of the residual stream: the members of the
    model's longest list of modules, the outermost where several are as long.
    """
    lists = {
        name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)
    }
    if not lists:
        raise UnsupportedLayer(
            f"{type(model).__name__} has no list of blocks (nn.ModuleList).",
            why="the layers to look at are not known.",
            fix="name the modules.",
        )
    name = max(lists, key=lambda one: (len(lists[one]), -one.count(".")))
    return [f"{name}.{k}" for k in range(len(lists[name]))]
