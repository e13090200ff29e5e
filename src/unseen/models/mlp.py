"""Multilayer perceptrons."""

from collections.abc import Sequence
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn


class SelectInputs(nn.Module):
    """Some of the inputs, by their positions."""

    def __init__(self, positions: Sequence[int]) -> None:
        super().__init__()
        self.positions = tuple(positions)

    def forward(self, x: Float[Tensor, "batch *input"]) -> Float[Tensor, "batch chosen"]:
        return x.flatten(1)[:, list(self.positions)]


def mlp(
    widths: Sequence[int], *, norm: type[nn.Module] | None = None, dropout: float = 0.0
) -> nn.Sequential:
    """Flattened input → Linear (→ norm) → ReLU (→ dropout) … → Linear, for example
    `mlp([784, 256, 10])`.
    """
    layers: list[nn.Module] = [nn.Flatten()]
    for k, (inside, outside) in enumerate(pairwise(widths)):
        layers.append(nn.Linear(inside, outside))
        if k < len(widths) - 2:
            layers += [norm(outside)] if norm else []
            layers.append(nn.ReLU())
            layers += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*layers)
