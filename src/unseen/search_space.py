"""Ranges from which random search draws hyperparameters (Bergstra & Bengio, 2012, JMLR 13:281–305).

A method declares beside its fields what may be searched:
`search: ClassVar[Space] = {"rho": LogUniform(0.01, 0.3)}`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, isfinite, log
from typing import TypeAlias

from unseen.errors import InvalidConfig
from unseen.lab import Lab


@dataclass(frozen=True)
class Uniform:
    """Every value between `low` and `high` is equally likely."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (isfinite(self.low) and isfinite(self.high) and self.low <= self.high):
            raise InvalidConfig(
                f"Uniform({self.low}, {self.high}) is no range.",
                why="values are drawn between two finite limits, the lower one first.",
                fix="give low ≤ high.",
            )

    def at(self, share: float) -> float:
        """The value at this share of the range: `low` at 0, `high` at 1."""
        return self.low + share * (self.high - self.low)


@dataclass(frozen=True)
class LogUniform:
    """Every order of magnitude between `low` and `high` is equally likely: log value is uniform."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (0 < self.low <= self.high and isfinite(self.high)):
            raise InvalidConfig(
                f"LogUniform({self.low}, {self.high}) is no range.",
                why="a logarithm needs positive limits, the lower one first.",
                fix="give 0 < low ≤ high, or use Uniform.",
            )

    def at(self, share: float) -> float:
        """The value at this share of the range: `low` at 0, `high` at 1."""
        return exp(log(self.low) + share * (log(self.high) - log(self.low)))


Range: TypeAlias = Uniform | LogUniform
Space: TypeAlias = Mapping[str, Range]


def sample(space: Space, lab: Lab) -> dict[str, float]:
    """One value per name. A name's value depends on its range and the lab only, not on what else is
    searched.
    """
    return {
        name: scale.at(float(lab.child(name).numpy().random())) for name, scale in space.items()
    }
