"""What removing training examples does to a behaviour, by training again without them, and whether
credits foretell it.

Leave-one-out (Cook & Weisberg, 1982) and, for groups, counterfactual removal. The models come from
`engine/retrain.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unseen import stats
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.reading import Reading


def without(
    n: int, groups: Int[Tensor, " group"] | Sequence[Int[Tensor, "..."]]
) -> Bool[Tensor, "group example"]:
    """Subsets of n examples, each without one group: an index, or a tensor of indices."""
    kept = torch.ones(len(groups), n, dtype=torch.bool)
    for row, group in zip(kept, groups, strict=True):
        members = group.reshape(-1)
        if not len(members) or int(members.min()) < 0 or int(members.max()) >= n:
            raise InvalidData(
                f"The group {members.tolist()} cannot be removed from {n} examples.",
                why="it must hold indices from 0 on.",
                fix="use positions in the task's TRAIN splits.",
            )
        row[members] = False
    return kept


def removal_effects(
    left: Float[Tensor, "group repeat query"], full: Float[Tensor, "repeat query"]
) -> Float[Tensor, "query group"]:
    """Behaviour without the group minus behaviour with everything, paired by repeat and averaged
    over repeats.
    """
    _refuse_unpaired(left, full)
    return (left - full).mean(1).T


def _refuse_unpaired(left: Tensor, full: Tensor) -> None:
    if left.shape[1:] != full.shape or not left.numel():
        raise InvalidData(
            f"Removal got outputs {tuple(left.shape)} without groups and {tuple(full.shape)} with "
            "everything.",
            why="both need the same repeats and queries, and at least one group.",
            fix="retrain on everything with the same lab and `repeats`.",
        )


def first_order_effects(
    scores: Float[Tensor, "query example"], kept: Bool[Tensor, "group example"]
) -> Float[Tensor, "query group"]:
    """The first-order effect of removing a group: minus the sum of its members' credits (each per
    added copy).
    """
    return -(scores @ (~kept).T.to(scores))


def correlation(
    predicted: Float[Tensor, "query change"], actual: Float[Tensor, "query change"], unit: str = "r"
) -> Reading:
    """Mean over queries of Pearson's r between predicted and actual changes; `detail` has each
    query's.
    """
    _refuse(predicted, actual)
    a, b = (t.double() - t.double().mean(1, keepdim=True) for t in (predicted, actual))
    scale = (a.square().sum(1) * b.square().sum(1)).sqrt()
    if not scale.all():
        raise InvalidData(
            f"{int((scale == 0).sum())} of {len(scale)} queries change equally whatever is done.",
            why="a constant correlates with nothing.",
            fix="leave these queries out.",
        )
    return _over_queries((a * b).sum(1) / scale, unit)


def proportionality(
    predicted: Float[Tensor, "query change"], actual: Float[Tensor, "query change"]
) -> Reading:
    """Mean over queries of the slope through the origin of actual on predicted changes: 1 where
    their size is right, too.
    """
    _refuse(predicted, actual)
    a, b = predicted.double(), actual.double()
    size = a.square().sum(1)
    if not size.all():
        raise InvalidData(
            "A query has no predicted change.", why="0 has no multiple.", fix="leave the query out."
        )
    return _over_queries((a * b).sum(1) / size, "slope")


def _over_queries(each: Tensor, unit: str) -> Reading:
    found = stats.mean(each.cpu().numpy(), unit=unit)
    return Reading(found.value, found.low, found.high, found.n, unit, each)


def _refuse(predicted: Tensor, actual: Tensor) -> None:
    if predicted.shape != actual.shape or not len(actual) or actual.shape[1] < 2:
        raise InvalidData(
            f"{tuple(predicted.shape)} predicted changes cannot be compared with "
            f"{tuple(actual.shape)} actual ones.",
            why="both are [query, change] with at least two changes.",
            fix="score the same queries and the same removals.",
        )
    if not (torch.isfinite(predicted).all() and torch.isfinite(actual).all()):
        raise InvalidData(
            "Some changes are NaN or infinite.",
            why="one would decide the result.",
            fix="look for a diverged model.",
        )


@dataclass(frozen=True)
class RemovalCorrelation:
    """`correlation` of a table: `scores` [query, example], `kept` [group, example], `left` [group,
    repeat, query] and `full` [repeat, query] outputs."""

    def __call__(self, subject: Mapping[str, Tensor], lab: Lab) -> Reading:
        _refuse_unpaired(subject["left"], subject["full"])
        actual = removal_effects(subject["left"], subject["full"])
        return correlation(first_order_effects(subject["scores"], subject["kept"]), actual)


def example() -> tuple[RemovalCorrelation, dict[str, Tensor]]:
    """Six of ten examples removed, one at a time; two repeats with a little noise of their own."""
    generator = Lab().child("removal").generator()
    scores = torch.randn(3, 10, generator=generator, dtype=torch.float64)
    kept = without(10, torch.arange(6))
    noise = torch.randn(6, 2, 3, generator=generator, dtype=torch.float64)
    full = torch.zeros(2, 3, dtype=torch.float64)
    left = first_order_effects(scores, kept).T[:, None] + 0.5 * noise
    return RemovalCorrelation(), {"scores": scores, "kept": kept, "left": left, "full": full}
