"""Do queries get their answers from the same documents? Correlations of the rows of a score matrix,
by group of queries.

Ruis et al. (2025), arXiv:2411.12580, section 4.1: rows of influence correlate between queries that
need the same procedure.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.reading import Reading
from unseen.stats import LEVEL

LEAST = 3
"""Fewest queries of a group: two have one correlation and no spread."""
ROUNDING = 8
"""A row of scores counts as constant if its standard deviation is below so many machine epsilons
(of the scores' own dtype) of its mean: the distance between neighbouring numbers cannot be told
from rounding."""


def correlations(chunks: Iterable[Tensor]) -> Float[Tensor, "query query"]:
    """Pearson's r between all pairs of rows, from chunks [query, document] of columns that are seen
    once.

    Σ (x − x̄)(y − ȳ) is merged from chunk to chunk (Chan, Golub & LeVeque, 1983) in float64.
    """
    n, mean, moment, epsilon = 0, torch.zeros(0), torch.zeros(0), 0.0
    for chunk in chunks:
        x = chunk.double()
        if chunk.is_floating_point():
            epsilon = max(epsilon, torch.finfo(chunk.dtype).eps)
        if not torch.isfinite(x).all():
            raise InvalidData(
                f"{int((~torch.isfinite(x)).any(1).sum())} of {len(x)} queries have scores that "
                "are NaN or infinite.",
                why="they have no correlation.",
                fix="look for the query or the document whose gradient overflows.",
            )
        size = x.shape[1]
        if not size:
            continue
        centre = x.mean(1)
        x = x - centre[:, None]
        if n == 0:
            mean, moment = centre, x @ x.T
        else:
            gap = centre - mean
            moment = moment + x @ x.T + torch.outer(gap, gap) * (n * size / (n + size))
            mean = mean + gap * (size / (n + size))
        n += size
    _refuse(n, mean, moment, epsilon)
    scale = moment.diagonal().sqrt()
    return (moment / torch.outer(scale, scale)).clamp(-1, 1)


def _refuse(n: int, mean: Tensor, moment: Tensor, epsilon: float) -> None:
    if n < 2 or not len(mean):
        raise InvalidData(
            f"Correlation got {len(mean)} queries with {n} documents.",
            why="it compares queries over documents.",
            fix="score at least two documents for at least one query.",
        )
    constant = moment.diagonal() <= (ROUNDING * epsilon) ** 2 * (mean.square() * n)
    if constant.any():
        raise InvalidData(
            f"Query {int(constant.nonzero()[0])} has the same score for all {n} documents "
            f"({int(constant.sum())} such of {len(mean)}).",
            why="the correlation of a constant is 0/0.",
            fix="leave the query out: its gradient is zero, or its completion is certain.",
        )


@dataclass(frozen=True)
class Blocks:
    """Mean correlation of every pair of groups, and the same for resampled queries."""

    means: Float[Tensor, "group group"]
    drawn: Float[Tensor, "draw group group"]

    def reading(self, effect: Callable[[Tensor], Tensor], n: int = 1) -> Reading:
        """An effect of `[…, group, group]` means with its percentile interval."""
        value, drawn = float(effect(self.means)), effect(self.drawn).numpy()
        drawn = drawn[np.isfinite(drawn)]  # with three queries, one in nine resamples has no pair
        low, high = np.quantile(drawn, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
        return Reading(value, min(float(low), value), max(float(high), value), n)

    def of(self, first: int, second: int, n: int = 1) -> Reading:
        """The mean correlation of two groups, or within one."""
        return self.reading(lambda means: means[..., first, second], n)


def blocks(
    correlation: Float[Tensor, "query query"],
    groups: Int[Tensor, " query"],
    rng: np.random.Generator,
    draws: int = 1_000,
) -> Blocks:
    """Means over pairs of different queries; the bootstrap draws queries within their groups.

    A query drawn twice is no pair with itself: its correlation of 1 would lift the mean. Groups are
    numbered 0 … g − 1. The percentile interval is a little short: of a known correlation it held 91
    % with 40 queries, 87 % with 15.
    """
    sizes = torch.bincount(groups).tolist() if len(groups) else []
    if correlation.shape != (len(groups), len(groups)) or min(sizes, default=0) < LEAST:
        raise InvalidData(
            f"Blocks got a correlation of shape {tuple(correlation.shape)} and groups of {sizes} "
            "queries.",
            why=f"every group needs {LEAST} queries, and every query belongs to one.",
            fix="ask more queries, or leave the group out; number the groups from 0 without gaps.",
        )
    weights = torch.zeros(draws + 1, len(sizes), len(groups), dtype=torch.float64)
    for group, size in enumerate(sizes):
        mine = groups == group
        counts = rng.multinomial(size, np.full(size, 1 / size), size=draws)
        weights[0, group, mine] = 1.0
        weights[1:, group, mine] = torch.from_numpy(counts).double()
    others = 1 - torch.eye(len(groups), dtype=torch.float64)
    means = (weights @ (correlation.double().cpu() * others) @ weights.mT) / (
        weights @ others @ weights.mT
    )
    return Blocks(means[0], means[1:])


@dataclass(frozen=True)
class QueryCorrelation:
    """Mean correlation over documents between the queries of two groups (of one: all pairs without
    the diagonal).

    Of a table with `scores` [query, document] and `groups` [query]. `detail` has all groups' means.
    """

    first: int = 0
    second: int = 0
    draws: int = 1_000

    def __call__(self, subject: Mapping[str, Tensor], lab: Lab) -> Reading:
        found = blocks(
            correlations([subject["scores"]]),
            subject["groups"],
            lab.child("queries").numpy(),
            self.draws,
        )
        if not 0 <= min(self.first, self.second) <= max(self.first, self.second) < len(found.means):
            raise InvalidConfig(
                f"QueryCorrelation(first={self.first}, second={self.second}) of {len(found.means)} "
                "groups.",
                why="there is no such group.",
                fix=f"choose from 0 … {len(found.means) - 1}.",
            )
        reading = found.of(self.first, self.second, len(subject["groups"]))
        return Reading(
            reading.value, reading.low, reading.high, reading.n, "correlation", found.means
        )


def example() -> tuple[QueryCorrelation, dict[str, Tensor]]:
    """Two groups of four queries; those of the first share half of their variance."""
    noise = torch.randn(
        9, 60, generator=Lab().child("correlation").generator(), dtype=torch.float64
    )
    scores, groups = noise[:8], torch.arange(8) // 4
    return QueryCorrelation(), {
        "scores": torch.where(groups[:, None] == 0, scores + noise[8], scores),
        "groups": groups,
    }
