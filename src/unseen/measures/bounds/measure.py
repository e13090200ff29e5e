"""A generalization measure: a number that should grow, or fall, with the generalization gap."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite, log, nan, sqrt
from typing import Any

from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.measures.bounds.shared_pass import Coverage, SharedPass
from unseen.method import Trained
from unseen.reading import Reading, Work


class Family(StrEnum):
    """What a measure is made of."""

    NORM = "norm"
    MARGIN = "margin"
    SPECTRAL = "spectral"
    PATH = "path"
    PAC_BAYES = "pac-bayes"
    SHARPNESS = "sharpness"
    GRADIENT = "gradient"
    OPTIMISATION = "optimisation"


class Direction(StrEnum):
    """Which end the theory behind a measure calls good."""

    HIGHER = "higher"
    LOWER = "lower"


class Scope(StrEnum):
    """Which parameters a measure reads: the cached coverage of that name."""

    LAYERS = "layer_coverage"
    """Weights of linear maps."""
    WEIGHTS = "weight_coverage"
    """All weights with two or more axes."""
    ALL = "full_coverage"
    """The function itself."""


@dataclass(frozen=True)
class GeneralizationMeasure:
    """One number about a trained model on its training examples.

    Called with a `SharedPass`, which many measures share, or with a `Trained`.
    """

    name: str
    family: Family
    meaning: str
    """One sentence."""
    read: Callable[[SharedPass], float | Reading]
    scope: Scope = Scope.LAYERS
    direction: Direction = Direction.LOWER
    passes: int = 0
    """About how many passes over the training examples it takes beyond what others share."""
    is_log: bool = False
    """Whether the value is a logarithm: its size adjustment subtracts."""
    unit: str = ""
    work: Work | None = None
    """About what it takes; None: a gradient for every pass."""
    needs_start: bool = False
    """Whether it reads the weights before training, and more that takes long."""
    most: int = 10_000
    """Examples that a `SharedPass` reads for it, where it is as it comes."""

    def __call__(self, subject: Any, lab: Lab) -> Reading:
        shared = _share(subject, lab)
        found = self.read(shared)
        reading = found if isinstance(found, Reading) else Reading(found, n=shared.n)
        if not isfinite(reading.value):
            raise InvalidData(
                f"`{self.name}` is {reading.value}.",
                why="a weight or a norm is not finite.",
                fix="look for weights that are NaN, infinite or all zero.",
            )
        return Reading(
            reading.value, reading.low, reading.high, reading.n, self.unit, reading.detail
        )

    def coverage(self, subject: Any, lab: Lab) -> Coverage:
        """The share of the parameters that this reads, and what it leaves out by name."""
        found: Coverage = getattr(_share(subject, lab), self.scope)
        return found


def _share(subject: Trained | SharedPass, lab: Lab) -> SharedPass:
    return subject if isinstance(subject, SharedPass) else SharedPass(subject, lab)


def adjust_for_size(measure: GeneralizationMeasure, value: float, n: int) -> float:
    """√(μ/m), or ½ (μ − log m) of a logarithm: what a bound on the gap looks like for m examples.

    NaN where μ < 0: such a value has no root.
    """
    if n < 1:
        raise InvalidData(
            f"A measure of {n} examples.",
            why="it is divided by their number.",
            fix="give the number of training examples.",
        )
    if measure.is_log:
        return 0.5 * (value - log(n))
    return sqrt(value / n) if value >= 0 else nan
