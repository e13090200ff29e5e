"""Outputs and last features of a model as values, so that losses can be read from them without
another pass.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from unseen.errors import InvalidData, UnknownName, UnsupportedLayer


class FixedOutput(nn.Module):
    """A model whose output is known already; objectives may be read from it as often as wanted."""

    def __init__(self, outputs: Tensor) -> None:
        super().__init__()
        self._outputs = (outputs,)  # in a tuple: it is neither a parameter nor a buffer

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        return self._outputs[0]


def last_linear(model: nn.Module, layer: str = "") -> str:
    """The name of the last linear layer, or `layer` if that is the name of a module."""
    if layer:
        if layer not in dict(model.named_modules()):
            raise UnknownName.near("module", layer, dict(model.named_modules()))
        return layer
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise UnsupportedLayer(
            f"{type(model).__name__} has no linear layer.",
            why="the features that a method compares are the inputs of the last one.",
            fix="name the module whose inputs are the features: layer=….",
        )
    return linear[-1]


@contextlib.contextmanager
def record_features(model: nn.Module, layer: str = "") -> Iterator[list[Tensor]]:
    """Inside the block, every forward pass adds the inputs of the last linear layer (or of
    `layer`), flattened.
    """
    found: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        found.append(inputs[0].flatten(1))

    name = last_linear(model, layer)
    handle = model.get_submodule(name).register_forward_pre_hook(keep)
    try:
        yield found
    finally:
        handle.remove()
    if not found:
        raise InvalidData(
            f"Module `{name}` was not called.",
            why="it has no features.",
            fix="name a module that every pass calls.",
        )
