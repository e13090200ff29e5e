"""How concentrated influence is: the exponent of its tail, and the share that the largest ones
carry.

Grosse et al. (2023), arXiv:2308.03296, section 5.2.1: the influences of the top sequences follow a
power law in their rank. Ruis et al. (2025), arXiv:2411.12580, compare its exponent between kinds of
queries.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

import numpy as np
import torch
from jaxtyping import Float
from scipy import stats as scipy_stats
from torch import Tensor

from unseen import stats
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.reading import Reading

LEAST = 10
"""Fewest positive influences to which a line is fitted."""


def tail_exponent(influence: Float[Tensor, " example"], top: int = 500) -> Reading:
    """α in influence ∝ rank^−α over the `top` largest positive influences: least squares of
    logarithms.

    The rank is shifted by ½, which takes the bias out, and the interval is α ± z·α·√(2/k) (Gabaix &
    Ibragimov, 2011, JBES 29): ordered values depend on each other, and the regression's own
    interval would be several times too narrow.
    """
    largest = _positive(influence, top)
    k = len(largest)
    rank = np.log(np.arange(1, k + 1) - 0.5)
    value = -float(scipy_stats.linregress(rank, np.log(largest)).slope)
    half = float(scipy_stats.norm.ppf(0.5 + stats.LEVEL / 2)) * value * sqrt(2 / k)
    return Reading(value, value - half, value + half, k)


def top_share(influence: Float[Tensor, " example"], share: float = 0.01) -> float:
    """The part of the sum of all positive influences that the largest ⌈share · n⌉ examples carry, n
    all examples.
    """
    if not 0 < share <= 1:
        raise InvalidConfig(
            f"top_share got share={share}.", why="it is a part of all.", fix="choose from (0, 1]."
        )
    largest = _positive(influence, len(influence), least=1)
    return float(largest[: int(np.ceil(share * len(influence)))].sum() / largest.sum())


def _positive(influence: Tensor, top: int, least: int = LEAST) -> np.ndarray:
    """The `top` largest positive values, largest first."""
    if not torch.isfinite(influence).all():
        raise InvalidData(
            f"{int((~torch.isfinite(influence)).sum())} of {len(influence)} influences are NaN or "
            "infinite.",
            why="they have no rank.",
            fix="look for the query or the example whose gradient overflows.",
        )
    found = influence[influence > 0].double().sort(descending=True).values[:top].cpu().numpy()
    if len(found) < least:
        raise InvalidData(
            f"{len(found)} of {len(influence)} influences are positive; the tail needs {least}.",
            why="a line through fewer points says nothing about a tail.",
            fix="score more examples, or raise `top`.",
        )
    return found


@dataclass(frozen=True)
class TailExponent:
    """Mean of `tail_exponent` over the queries of a table with `scores` [query, example]; `detail`
    has each query's.

    One query: its own interval.
    """

    top: int = 500

    def __call__(self, subject: Mapping[str, Tensor], lab: Lab) -> Reading:
        each = [tail_exponent(row, self.top) for row in subject["scores"]]
        if len(each) == 1:
            return each[0]
        values = [reading.value for reading in each]
        found = stats.mean(values)
        return Reading(
            found.value,
            found.low,
            found.high,
            found.n,
            detail=torch.tensor(values, dtype=torch.float64),
        )


def example() -> tuple[TailExponent, dict[str, Tensor]]:
    """Two queries whose influences fall as rank^−½."""
    falling = torch.arange(1, 201, dtype=torch.float64).pow(-0.5)
    return TailExponent(top=100), {"scores": torch.stack([falling, falling.flip(0) * 3])}
