"""The worst group and the worst domain by the task's own score (Sagawa et al., 2020,
arXiv:1911.08731).

`measures/subgroups.py` has areas under the curve and what drives a group's performance; here any
score and any column do.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from unseen import stats
from unseen.engine.batches import once
from unseen.engine.evaluate import per_example
from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.lab import Lab
from unseen.method import Trained
from unseen.reading import Direction, MeasureEntry, Reading, Scope
from unseen.task import Use


def by_group(values: Float[np.ndarray, " n"], groups: Int[np.ndarray, " m"]) -> dict[int, Reading]:
    """The mean of each group's values with its interval, by the group's number."""
    if len(values) != len(groups):
        raise InvalidData(
            f"by_group got {len(values)} values and {len(groups)} groups.",
            "each value has a group.",
            "give as many.",
        )
    return {int(g): stats.of_scores(values[groups == g]) for g in np.unique(groups)}


def lowest(values: Float[np.ndarray, " n"], groups: Int[np.ndarray, " n"], least: int) -> Reading:
    """The lowest mean of a group of at least `least` examples, with an interval for the lowest of
    the true means (`stats.lowest`): the smallest of many observed means is too small, and its own
    interval does not know that.

    A negative number says that an example is in no group. `detail` is [group, (number, mean, low,
    high, n)], of all groups.
    """
    everything = by_group(values, groups)
    large = [g for g, reading in everything.items() if g >= 0 and reading.n >= least]
    if not large:
        raise InvalidData(
            f"No group has {least} examples (the largest has "
            f"{max((r.n for r in everything.values()), default=0)}).",
            why="the lowest of uncertain numbers says nothing.",
            fix="merge groups, or lower `least`.",
        )
    reading = stats.lowest(
        lambda level: [stats.of_scores(values[groups == g], level=level) for g in large]
    )
    rows = [[g, r.value, r.low, r.high, r.n] for g, r in everything.items()]
    return replace(reading, detail=torch.tensor(rows, dtype=torch.float64))


def column_of(subject: Trained, split: str, column: str, lab: Lab) -> Int[np.ndarray, " n"]:
    """An integer column of a split."""
    parts: list[Tensor] = []
    for batch in once(subject.task.split(split).data, 4096, lab):
        if column not in batch:
            raise UnknownName.near(f"column of split `{split}`", column, batch)
        parts.append(batch[column].flatten().cpu())
    labels = torch.cat(parts)
    if labels.is_floating_point():
        raise InvalidData(
            f"The group column `{column}` holds {labels.dtype} values.",
            why="groups are named by integers.",
            fix=f"encode `{column}` as integers 0 … G − 1.",
        )
    return labels.long().numpy()


def _refuse(least: int) -> None:
    if least < 1:
        raise InvalidConfig(
            f"The worst group got least={least}.", "a group has an example.", "set least ≥ 1."
        )


@dataclass(frozen=True)
class WorstGroupScore:
    """The lowest mean score of a group of examples within one split: 1 if no group is ever
    wrong.
    """

    column: str = "group"
    split: str = "test"
    least: int = 10

    def __post_init__(self) -> None:
        _refuse(self.least)

    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        groups = column_of(subject, self.split, self.column, lab)
        data = subject.task.split(self.split).data
        values = (
            per_example(subject.model, data, subject.task.objective.score, lab).double().numpy()
        )
        return lowest(values, groups, self.least)


@dataclass(frozen=True)
class WorstDomainScore:
    """The lowest mean score of an evaluation split: how bad it gets somewhere. `detail` is in the
    order of the splits.
    """

    splits: tuple[str, ...] = ()
    """Empty: all evaluation splits at positions that were not fitted, or all evaluated ones where
    there are none.
    """
    least: int = 10

    def __post_init__(self) -> None:
        _refuse(self.least)

    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        task = subject.task
        names = self.splits or tuple(task.unseen) or tuple(task.of(Use.EVALUATE))
        if not names:
            raise InvalidData(
                f"`{task.name}` has no evaluation split.",
                "there is no domain.",
                "add one with Use.EVALUATE.",
            )
        parts = domain_scores(subject, names, lab)
        domains = np.concatenate([np.full(len(v), k) for k, v in enumerate(parts.values())])
        return lowest(np.concatenate(list(parts.values())), domains, self.least)


def domain_scores(
    subject: Trained, splits: tuple[str, ...], lab: Lab
) -> Mapping[str, Float[np.ndarray, " n"]]:
    """The score of every example, by split."""
    score = subject.task.objective.score
    return {
        name: per_example(subject.model, subject.task.split(name).data, score, lab).double().numpy()
        for name in splits
    }


MEASURES = (
    MeasureEntry(
        name="score of the worst group",
        measure=WorstGroupScore(),
        meaning="Lowest mean score among the groups of the examples (the first of --group).",
        direction=Direction.HIGHER,
        family="performance",
        passes=1,
        interval="examples",
        scope=Scope.SITES,
    ),
    MeasureEntry(
        name="score at the worst site",
        measure=WorstDomainScore(),
        meaning="Lowest mean score among the evaluated sites, with an interval that allows for the "
        "choice.",
        direction=Direction.HIGHER,
        family="performance",
        passes=1,
        interval="examples",
        scope=Scope.TASK,
    ),
)


def example() -> WorstGroupScore:
    """On the evaluation split of the contract battery's task."""
    return WorstGroupScore(split="same")
