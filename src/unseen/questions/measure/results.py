"""What `unseen measure` found, as values: every measure of every model, and why others were left
out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from unseen.reading import Direction, Reading


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One measure of one model, on the training data or on one evaluated split."""

    name: str
    family: str
    split: str = ""
    """Empty: what the measure says itself, mostly the training examples or the weights alone."""
    reading: Reading
    """Of the first model; of scores, of all trainings together."""
    trainings: Sequence[Reading] = ()
    """Of each training, where there are several."""
    meaning: str
    direction: Direction
    passes: int
    interval: str
    """Over what the interval is; empty: it has none."""
    covered: float | None = None
    """Share of the model's parameters that are read; None: outputs only."""
    is_of_model: bool = True
    """False where only the data are read, and where it is a difference already."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """This model minus another one, by one measure."""

    name: str
    split: str = ""
    direction: Direction
    reading: Reading
    how: str
    """What the interval is over, or why there is none."""


@dataclass(frozen=True, kw_only=True)
class MeasureReport:
    """One model with its measures."""

    name: str
    task: str
    dataset: str = ""
    held_out: str = ""
    """The site that the model was trained without, where there are several."""
    splits: Mapping[str, str] = field(default_factory=dict)
    """How evaluated splits are called, by their name in the task."""
    unseen: Sequence[str] = ()
    """The evaluated splits at sites where nothing was fitted."""
    trainings: int = 1
    parameters: int = 0
    measurements: Sequence[Measurement] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Measure → why."""
    against: "MeasureReport | None" = None
    """The model that it is compared with."""
    differences: Sequence[Difference] = ()
    decisions: Sequence[str] = ()
    warnings: Sequence[str] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
