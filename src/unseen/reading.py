"""Measure: a number about a model and data, with its uncertainty."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import inf, isfinite, nan
from typing import Any, Protocol, TypeVar, runtime_checkable

from torch import Tensor, nn

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


class Direction(StrEnum):
    """Which way a measure is better."""

    HIGHER = "higher"
    LOWER = "lower"
    NEITHER = "neither"
    """A description, or best at a value in between."""


class Need(StrEnum):
    """What a measure asks of a model and its data."""

    MODEL = "model"
    """The model itself: its predictions alone are not enough."""
    GRADIENTS = "gradients"
    CLASSES = "classes"
    """Targets that are classes."""
    PROBABILITIES = "probabilities"
    INPUTS = "inputs"
    """A column `x` of numbers."""
    START = "start"
    """The weights before training."""
    CONVOLUTIONS = "convolutions"
    MEMBERS = "members"
    """Several models that answer together: of a single one, its trainings from several seeds."""


class Scope(StrEnum):
    """On which data a measure is taken."""

    TRAINING = "training"
    """The training examples (the field `split` names them), or the weights alone."""
    SITES = "sites"
    """Every evaluated split in turn (the field `split`)."""
    TASK = "task"
    """All splits together."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """About what a measure takes, so that it can be told before anything is read."""

    forward: float = 0
    """Passes of the examples through the model."""
    gradients: float = 0
    """Passes with a gradient."""
    products: float = 0
    """Products with the Hessian over the examples."""
    sweeps: float = 0
    """How often all weights are read, drawn or written beside that."""
    copies: float = 4
    """Copies of all weights, of four bytes each, that are held at a time."""
    shared: str = ""
    """What it is spent on, where other measures read that, too: it is computed once."""


@dataclass(frozen=True, kw_only=True)
class MeasureEntry:
    """A measure as users meet it. A file in `measures/` lists its own as `MEASURES`; the folder is
    the catalogue of `unseen measure` and of the audit.
    """

    name: str
    measure: Measure[Any]
    """Called with a `Trained`, or a `Task`, with the settings that suit any model."""
    meaning: str
    """One sentence."""
    direction: Direction
    family: str
    """The heading it stands under."""
    passes: int
    """How often at most the examples that it reads go through the model; 0: weights alone."""
    interval: str = ""
    """Over what the interval is: "examples", "random directions"; empty: it has none."""
    needs: frozenset[Need] = frozenset()
    scope: Scope = Scope.TRAINING
    most: int = 0
    """Examples that are read, evenly spaced; 0: all, or as many as the measure says itself."""
    covers: Callable[[nn.Module], Mapping[str, Tensor]] | None = None
    """The parameters that it reads; None: outputs of the model only."""
    work: Work | None = None
    """None: a gradient for every pass."""

    @property
    def examples(self) -> float:
        """How many examples are read at most."""
        return self.most or getattr(self.measure, "most", inf)

    @property
    def effort(self) -> Work:
        return self.work or Work(gradients=self.passes)
