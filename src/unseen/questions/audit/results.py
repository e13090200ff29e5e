"""What an audit found, as values: every number with its interval, every skipped part with its
reason.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from unseen.questions.influence.results import Confirmation
from unseen.questions.measure.results import Measurement
from unseen.reading import Reading
from unseen.report.json import NOT_PLAIN
from unseen.subjects.examples import Example
from unseen.subjects.predictions import SplitPredictions

LOWER_IS_BETTER = ("mean absolute error", "loss")


def gain(metric: str, change: Reading) -> Reading:
    """The change of a metric with the sign turned where needed: above zero is better."""
    if metric not in LOWER_IS_BETTER:
        return change
    return replace(change, value=-change.value, low=-change.high, high=-change.low, detail=None)


@dataclass(frozen=True, kw_only=True)
class Score:
    """One metric of one model on one split, or on one level of a group within it."""

    model: str
    split: str
    metric: str
    reading: Reading
    group: str = ""
    level: str = ""


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Examples that two splits share, exactly or nearly."""

    fitted: str
    evaluated: str
    exact: int
    near: int | None
    """None where distance means nothing (tokens)."""
    n: int
    pairs: Sequence[tuple[int, int, float]] = ()
    searched: int | None = None
    """Examples among which near ones were looked for; None: none."""


@dataclass(frozen=True, kw_only=True)
class WorstError:
    """An evaluation example with a large loss and the training examples that pushed its loss down
    and up.

    The examples' `value` is their influence on the log-likelihood of the error, or what the audit's
    attribution gives: for the order, not a size.
    """

    query: Example
    helpful: Sequence[Example]
    harmful: Sequence[Example]
    confirmations: Sequence[Confirmation] = ()
    """What retraining without those that harmed does to the error, where the model is small."""


@dataclass(frozen=True, kw_only=True)
class ErrorExplanation:
    """What the model looked at in some of the worst errors, by the explanation that fits it best
    there.
    """

    method: str
    why: str
    """Why this method: its faithfulness beside the runner-up's."""
    faithfulness: Reading
    """Share of the output's variation that the method explains."""
    behaviour: str
    """What is explained, in words."""
    errors: Mapping[int, Mapping[str, float]]
    """Credits by feature, token or patch, by position of the error within its split."""
    heat: Mapping[int, Sequence[Sequence[float]]] = field(default_factory=dict)
    """The same as a picture, where the input is one."""


@dataclass(frozen=True, kw_only=True)
class Feature:
    """How much the score drops when the feature is shuffled among the evaluation examples, and how
    far it moved.
    """

    name: str
    split: str
    reliance: Reading
    shift: float
    """Distance between its fitted and evaluated distribution, 0 … 1 (Kolmogorov–Smirnov or total
    variation).
    """
    moved: bool
    """Whether the shift is significant at a false discovery rate of 5 % over all features."""


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """How narrow a gap's interval gets with n labelled examples of the site: (upper limit −
    value)² = fixed + per_label / n.
    """

    fixed: float
    """Of what it is compared with, and of the training runs."""
    per_label: float


@dataclass(frozen=True, kw_only=True)
class Gap:
    """How much worse a metric is on an evaluation split than on a reference split (below zero:
    better).
    """

    metric: str
    reference: str
    """Held-out examples of known positions, or the training split."""
    split: str
    worse: Reading
    resolution: Resolution | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Paired change of a metric against the audited model: by a remedy (same budget and seeds), or
    by another model.
    """

    remedy: str
    split: str
    metric: str
    change: Reading
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Performance:
    """How well it holds: by split and subgroup, and from known to unseen."""

    scores: Sequence[Score] = ()
    gaps: Sequence[Gap] = ()
    warnings: Sequence[str] = ()
    """Which subgroups have one example only, and no score."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How far probabilities can be believed."""

    readings: Mapping[str, Reading] = field(default_factory=dict)
    curves: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    """Reliability curve by split: (predicted, observed)."""
    p_values: Mapping[str, float] = field(default_factory=dict)
    """By split: how often calibrated forecasts look as far off (`miscalibration`)."""


@dataclass(frozen=True, kw_only=True)
class Coherence:
    """Whether training examples agree, and which are most in conflict with the rest."""

    readings: Mapping[str, Reading] = field(default_factory=dict)
    conflicting: Sequence[Example] = ()


@dataclass(frozen=True, kw_only=True)
class Comparisons:
    """What comparison models reach on the same splits."""

    scores: Sequence[Score] = ()
    changes: Sequence[Outcome] = ()
    """Paired differences from the audited model."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """The audit of one subject."""

    name: str
    task: str
    score_name: str
    seeds: int
    mode: str = ""
    """Whether a model of a table was audited as it is or trained again without the site."""
    decisions: Sequence[str] = ()
    """How the data were treated, in plain sentences."""
    conversions: Sequence[str] = ()
    """Those of the decisions that say what was read otherwise than it is written."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    sites: Mapping[str, str] = field(default_factory=dict)
    """Position of each split on the task's axis."""
    unseen: Sequence[str] = ()
    """Evaluation splits at positions where nothing was fitted."""
    known: Sequence[str] = ()
    """Evaluation splits at positions where something was fitted."""
    scores: Sequence[Score] = ()
    gaps: Sequence[Gap] = ()
    readings: Mapping[str, Reading] = field(default_factory=dict)
    """Coherence, sharpness, calibration …: by name."""
    curves: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    """Reliability curve by split: (predicted, observed)."""
    calibration_p_values: Mapping[str, float] = field(default_factory=dict)
    """By split: how often calibrated forecasts look as far off by chance."""
    conflicting: Sequence[Example] = ()
    self_influential: Sequence[Example] = ()
    """Training examples with the largest influence on their own loss."""
    overlaps: Sequence[Overlap] = ()
    checked: Mapping[str, Any] = field(default_factory=dict)
    """The result of each check by its part; typed by the check (`checks/`)."""
    measured: Sequence[Measurement] = ()
    """The measures of `unseen measure`, but for those that parts of the audit read themselves."""
    unmeasured: Mapping[str, str] = field(default_factory=dict)
    """Those that do not apply: measure → why."""
    worst: Sequence[WorstError] = ()
    error_explanation: ErrorExplanation | None = None
    """Which inputs the worst errors rest on."""
    features: Sequence[Feature] = ()
    outcomes: Sequence[Outcome] = ()
    comparisons: Sequence[Outcome] = ()
    """Comparison models minus the audited one; `remedy` names the model."""
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Part → why it could not be done."""
    warnings: Sequence[str] = ()
    """What the reader should beware of in the data."""
    small_groups: Sequence[str] = ()
    """Subgroups with one example only, which have no score: "sex female at Bern"."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    predictions: Mapping[str, SplitPredictions] = field(
        default_factory=dict, repr=False, compare=False, metadata=NOT_PLAIN
    )
    """By evaluation split, what the audited model said of each example: pairs two audits."""

    def score(
        self, split: str, metric: str, model: str = "", group: str = "", level: str = ""
    ) -> Reading | None:
        """The matching reading of the audited model (or of a named one), or None."""
        for item in self.scores:
            if (item.split, item.metric, item.group, item.level) == (
                split,
                metric,
                group,
                level,
            ) and (item.model == (model or self.name)):
                return item.reading
        return None


def evaluation_sites(one: Findings) -> list[str]:
    """The splits that stand for the sites of use."""
    judged = [split for split in one.sizes if one.score(split, one.score_name)]
    return list(one.unseen) or judged[-1:]
