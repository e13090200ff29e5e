"""Performance by subgroup, and what drives it (the analyses of Rahman et al., 2024,
arXiv:2402.10965).

Which groups do badly: AUC with DeLong's interval or accuracy with Wilson's. Why: a regression of
the groups' performance on their size, base rate and mean features; and a model of which examples go
wrong, whose features are ranked by permutation on held-out entities.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import stats as scipy_stats
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GroupKFold
from torch import Tensor

from unseen import stats
from unseen.engine.batches import once
from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.lab import Lab
from unseen.method import Trained
from unseen.reading import Reading

LEAST = 20
"""Fewer positives (or negatives) than that are shown, get no verdict: an AUC of 20 is uncertain by
about ±0.1.
"""


class Metric(StrEnum):
    """What performance means."""

    AUC = "auc"
    """Of the second of two classes."""
    ACCURACY = "accuracy"


@dataclass(frozen=True)
class GroupPerformance:
    """One subgroup: its reading where one exists, and whether it has enough examples for a
    verdict.
    """

    name: str
    n: int
    positives: int
    """Examples of the second class (accuracy: right answers)."""
    reading: Reading | None
    is_sufficient: bool


@dataclass(frozen=True)
class WorstGroup:
    """The lowest performance of a subgroup with enough examples, with an interval for the lowest of
    the true ones (`stats.lowest_of`).

    `column` holds each example's group as an integer, −1 for none ("group:sex" of a table).
    `detail` is [group, (performance, low, high, n, judged)], NaN where a group has no AUC.
    """

    column: str = "group"
    split: str = "train"
    metric: Metric = Metric.AUC
    least: int = LEAST

    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        scores, y, group = outputs(subject, self.split, self.column, self.metric, lab)
        names = [str(k) for k in range(int(group.max()) + 1)]
        found = by_group(scores, y, group, names, self.metric, self.least)
        judged = [each.reading for each in found if each.is_sufficient and each.reading is not None]
        if not judged:
            raise InvalidData(
                f"No group of `{self.column}` has {self.least} examples of either class.",
                why="the lowest of uncertain numbers says nothing.",
                fix="merge groups, or lower `least`.",
            )
        lowest = stats.lowest_of(judged)
        return replace(
            lowest,
            n=sum(reading.n for reading in judged),
            unit=self.metric.value,
            detail=_table(found),
        )


def _table(found: Sequence[GroupPerformance]) -> Float[Tensor, "group 5"]:
    nothing = Reading(np.nan)
    readings = [each.reading or nothing for each in found]
    return torch.tensor(
        [
            [r.value, r.low, r.high, each.n, each.is_sufficient]
            for r, each in zip(readings, found, strict=True)
        ],
        dtype=torch.float64,
    )


@torch.no_grad()
def outputs(
    subject: Trained, split: str, column: str, metric: Metric, lab: Lab
) -> tuple[Float[np.ndarray, " n"], Bool[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Score and outcome of each example as `performance` reads them, and its group."""
    # dropout off: a subgroup is measured on the model as it is used
    model, was_training = subject.model, subject.model.training
    model.eval()
    parts = []
    try:
        for batch in once(subject.task.split(split).data, 1024, lab):
            if column not in batch:
                raise UnknownName.near("column", column, batch)
            logits = model(batch["x"]).cpu()
            logits = (
                torch.stack([-logits.flatten(), logits.flatten()], 1) / 2
                if logits[0].numel() == 1
                else logits
            )
            parts.append((logits, batch["y"].cpu(), batch[column].cpu()))
    finally:
        model.train(was_training)
    logits, y, group = (torch.cat(column) for column in zip(*parts, strict=True))
    if not torch.isfinite(logits).all():
        raise InvalidData(
            "A logit is not finite.",
            why="it has no place in a ranking.",
            fix="look for the input that overflows.",
        )
    if metric is Metric.ACCURACY:
        right = logits.argmax(1) == y
        return right.double().numpy(), right.numpy(), group.numpy()
    if logits.shape[1] != 2:
        raise InvalidData(
            f"The AUC got {logits.shape[1]} classes.",
            why="it ranks two.",
            fix="use metric=Metric.ACCURACY.",
        )
    return (logits[:, 1] - logits[:, 0]).double().numpy(), (y == 1).numpy(), group.numpy()


def performance(
    scores: Float[np.ndarray, " n"], outcome: Bool[np.ndarray, " n"], metric: Metric
) -> Reading:
    """AUC of the scores with DeLong's interval; accuracy of right answers with Wilson's."""
    return (
        stats.auc(scores, outcome)
        if metric is Metric.AUC
        else stats.proportion(int(outcome.sum()), outcome.size)
    )


def by_group(
    scores: Float[np.ndarray, " n"],
    outcome: Bool[np.ndarray, " n"],
    group: Int[np.ndarray, " n"],
    names: Sequence[str],
    metric: Metric = Metric.AUC,
    least: int = LEAST,
) -> list[GroupPerformance]:
    """The performance inside each group, in the order of `names`. A group without both classes has
    no AUC.
    """
    found = []
    for k, name in enumerate(names):
        s, y = scores[group == k], outcome[group == k]
        # an AUC is as uncertain as its rarer class; an accuracy depends on all examples
        rarest = min(int(y.sum()), int((~y).sum())) if metric is Metric.AUC else y.size
        reading = performance(s, y, metric) if rarest > 0 else None
        found.append(GroupPerformance(name, y.size, int(y.sum()), reading, rarest >= least))
    return found


def drivers(
    performance: Float[np.ndarray, " group"], covariates: Mapping[str, Float[np.ndarray, " group"]]
) -> dict[str, Reading]:
    """Standardised least-squares slopes of the groups' performance on all covariates together, with
    t intervals.

    A slope is the change in performance per standard deviation of the covariate, the others held
    fixed.
    """
    names = list(covariates)
    freedom = len(performance) - len(names) - 1
    if freedom < 1:
        raise InvalidData(
            f"{len(performance)} groups cannot tell {len(names)} drivers apart.",
            why="there are as many unknowns as groups.",
            fix="use more groups (sites × seeds) or fewer drivers.",
        )
    columns = [np.asarray(covariates[name], float) for name in names]
    for name, x in zip(names, columns, strict=True):
        if not np.isfinite(x).all() or np.ptp(x) == 0:
            raise InvalidData(
                f"Driver `{name}` is constant or not finite over the groups.",
                why="it has no slope.",
                fix="leave it out.",
            )
    design = np.stack([np.ones(len(performance)), *[(x - x.mean()) / x.std() for x in columns]], 1)
    if np.linalg.matrix_rank(design) < design.shape[1]:
        raise InvalidData(
            f"The drivers {', '.join(names)} determine each other.",
            why="their slopes cannot be told apart.",
            fix="leave one of them out.",
        )
    inverse = np.linalg.inv(design.T @ design)
    beta = inverse @ design.T @ performance
    variance = float(np.square(performance - design @ beta).sum() / freedom)
    half = scipy_stats.t.ppf(0.5 + stats.LEVEL / 2, freedom) * np.sqrt(variance * np.diag(inverse))
    return {
        name: Reading(float(b), float(b - h), float(b + h), len(performance), "per SD")
        for name, b, h in zip(names, beta[1:], half[1:], strict=True)
    }


@dataclass(frozen=True)
class HighLossFeatures:
    """Ranks features by how well they tell examples with a loss above the median from the others.

    A random forest learns on some entities; on held-out ones a feature's inputs are permuted
    together, and the loss of AUC is its importance (Breiman, 2001; permutation on held-out data,
    grouped by entity as by feature).
    """

    folds: int = 5
    repeats: int = 3
    trees: int = 100
    least_leaf: int = 20

    def __post_init__(self) -> None:
        if min(self.folds - 1, self.repeats, self.trees, self.least_leaf) < 1:
            raise InvalidConfig(
                f"{self} cannot be run.",
                why="each number must be positive, folds ≥ 2.",
                fix="raise it.",
            )

    def rank(
        self,
        x: Float[np.ndarray, "n input"],
        losses: Float[np.ndarray, " n"],
        blocks: Mapping[str, slice],
        entity: Int[np.ndarray, " n"],
        lab: Lab,
    ) -> dict[str, Reading]:
        """Importance by feature, largest first: mean loss of held-out AUC over the folds, with its
        interval.
        """
        wrong = losses > np.median(losses)
        if not wrong.any():
            raise InvalidData(
                "No loss lies above the median.",
                why="all examples go equally well.",
                fix="use more examples.",
            )
        rng = lab.child("permutations").numpy()
        drops: dict[str, list[float]] = {name: [] for name in blocks}
        for fit, held in GroupKFold(self.folds).split(x, wrong, entity):
            forest = RandomForestClassifier(
                self.trees,
                min_samples_leaf=self.least_leaf,
                random_state=int(rng.integers(2**31)),
                n_jobs=1,
            ).fit(x[fit], wrong[fit])
            base = stats.auc(forest.predict_proba(x[held])[:, 1], wrong[held]).value
            for name, block in blocks.items():
                permuted = [
                    stats.auc(
                        forest.predict_proba(shuffle_block(x[held], block, rng))[:, 1], wrong[held]
                    ).value
                    for _ in range(self.repeats)
                ]
                drops[name].append(base - float(np.mean(permuted)))
        readings = {name: stats.mean(values, unit="AUC") for name, values in drops.items()}
        return dict(sorted(readings.items(), key=lambda item: -item[1].value))


def shuffle_block(
    x: Float[np.ndarray, "n input"], block: slice, rng: np.random.Generator
) -> Float[np.ndarray, "n input"]:
    """A copy in which the inputs of one feature come from other rows, together."""
    copy = x.copy()
    copy[:, block] = x[rng.permutation(len(x)), block]
    return copy


def example() -> WorstGroup:
    """Any integer column serves as a group: here the classes themselves, so accuracy."""
    return WorstGroup(column="y", metric=Metric.ACCURACY, least=1)
