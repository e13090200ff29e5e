"""What is read from the values of the chosen runs: a mean score, or an area under the ROC curve."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol as Structure
from typing import runtime_checkable

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from unseen import stats
from unseen.objectives import all_tokens_right, correct, correct_sign, negative_absolute_error
from unseen.questions.audit.results import LOWER_IS_BETTER
from unseen.questions.compare import statistics
from unseen.reading import Reading
from unseen.subjects.subject import Subject
from unseen.task import Task


def score_name(task: Task) -> str:
    """What the scores are the mean of, in words; of errors lower is better."""
    score = task.objective.score
    if score is negative_absolute_error:
        return "mean absolute error"
    return "accuracy" if score in (correct, correct_sign, all_tokens_right) else "score"


def score_scale(subject: Subject) -> float:
    """What a score is multiplied with to be in the target's own unit; of negative errors below
    zero, so that an error is shown as one.
    """
    return -subject.unit if subject.task.objective.score is negative_absolute_error else 1.0


def is_lower_better(metric: str) -> bool:
    """Whether less is better; of a subgroup ("mean absolute error: female") as of its metric."""
    return metric.partition(": ")[0] in LOWER_IS_BETTER


def gain(metric: str, change: Reading) -> Reading:
    """The change with its sign turned where less is better: above zero is better."""
    return negate(change) if is_lower_better(metric) else change


def negate(reading: Reading) -> Reading:
    """The reading with its sign and limits turned."""
    low, high = -reading.high, -reading.low
    return replace(reading, value=-reading.value, low=low, high=high, detail=None)


def side_of_zero(metric: str) -> str:
    """On which side of zero a change is better."""
    return "below" if is_lower_better(metric) else "above"


BySeed = Mapping[int, ndarray]
"""Values of every evaluation example [n], by seed."""


@runtime_checkable
class Quantity(Structure):
    """A number of the evaluation examples of one site, and its paired difference between two
    methods.
    """

    @property
    def name(self) -> str: ...

    def exists(self, site: str) -> bool: ...

    def reading(self, site: str, values: BySeed) -> Reading: ...

    def change(self, site: str, one: BySeed, other: BySeed) -> Reading: ...


@dataclass(frozen=True)
class Mean:
    """The mean of the scores in their own unit."""

    name: str
    scale: float = 1.0

    def exists(self, site: str) -> bool:
        return True

    def reading(self, site: str, values: BySeed) -> Reading:
        return stats.mean_score(self.scale * np.stack(list(values.values())))

    def change(self, site: str, one: BySeed, other: BySeed) -> Reading:
        a, b = statistics.pair_by_seed(one, other)
        return stats.crossed_mean(self.scale * (a - b))


@dataclass(frozen=True, eq=False)
class Area:
    """The area under the ROC curve of the margins; `positive` says by site which examples are of
    class 1.
    """

    positive: Mapping[str, Bool[ndarray, " n"]]
    name: str = "AUC"

    def exists(self, site: str) -> bool:
        return site in self.positive

    def reading(self, site: str, values: BySeed) -> Reading:
        return replace(
            stats.crossed_auc(np.stack(list(values.values())), self.positive[site]), unit=""
        )

    def change(self, site: str, one: BySeed, other: BySeed) -> Reading:
        a, b = statistics.pair_by_seed(one, other)
        return replace(stats.crossed_auc(a, self.positive[site], against=b), unit="")
