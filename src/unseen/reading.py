"""Measure: a number about a model and data, with its uncertainty."""

from dataclasses import dataclass
from math import inf, isfinite, nan
from typing import Protocol, TypeVar, runtime_checkable

from torch import Tensor

from unseen.lab import Lab

Subject_contra = TypeVar("Subject_contra", contravariant=True)


@dataclass(frozen=True)
class Reading:
    """A value with its 95 % interval (NaN limits: none is known), the number of units behind it,
    and its unit.
    """

    value: float
    low: float = nan
    high: float = nan
    n: int = 1
    unit: str = ""
    detail: Tensor | None = None
    """The per-example, per-class or per-layer values behind the number, where there are some."""
    freedom: float = inf
    """Degrees of freedom of the t distribution behind the interval: two for three seeds. Widening
    needs them.
    """

    def __str__(self) -> str:
        interval = (
            f" [{self.low:.3g}, {self.high:.3g}]"
            if isfinite(self.low) and isfinite(self.high)
            else ""
        )
        return f"{self.value:.3g}{interval}" + (f" {self.unit}" if self.unit else "")


@runtime_checkable
class Measure(Protocol[Subject_contra]):
    """A frozen dataclass called with a Trained, a Task or a table of scores."""

    def __call__(self, subject: Subject_contra, lab: Lab) -> Reading: ...
