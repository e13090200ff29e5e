"""One example of a split as a person sees it."""

from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

Shown: TypeAlias = str | Tensor
"""How an example is shown: a line of text, or a grey image [height, width] in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """A training or evaluation example, with the number that singled it out."""

    split: str
    index: int
    """Position within its split."""
    shown: Shown
    label: str = ""
    predicted: str = ""
    """What the audited model says instead, where that was asked."""
    value: float = 0.0
    row: int | None = None
    """Row in the user's own file, where there is one (column `index` of the data)."""
