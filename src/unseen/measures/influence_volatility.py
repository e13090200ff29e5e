"""How much influence a query draws from its strongest documents, per nat of its completion, and how
that varies.

Ruis et al. (2025), arXiv:2411.12580, section 4.1: for reasoning it is smaller and varies less
between queries.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unseen import stats
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.reading import Reading


def per_nat(
    scores: Float[Tensor, "query document"], nats: Float[Tensor, " n"]
) -> Float[Tensor, "query document"]:
    """Scores divided by the information of the query's completion, −log p(completion | prompt)."""
    if scores.shape[0] != len(nats):
        raise InvalidData(
            f"There are {scores.shape[0]} rows of scores and {len(nats)} completions.",
            why="every row belongs to one completion.",
            fix="give the nats in the order of the queries.",
        )
    bad = ~(torch.isfinite(nats) & (nats > 0))
    if bad.any():
        k = int(bad.nonzero()[0])
        raise InvalidData(
            f"The completion of query {k} has {float(nats[k]):g} nats ({int(bad.sum())} such of "
            f"{len(nats)}).",
            why="an empty or certain completion carries no information, and one of probability 0 "
            "infinitely much.",
            fix="leave the query out, or ask for the model's own completion.",
        )
    return scores / nats.to(scores)[:, None]


def tail_mass(
    scores: Float[Tensor, "query document"], share: float, *, negative: bool = False
) -> Float[Tensor, " query"]:
    """Sum of the positive scores among each query's ⌈share · n⌉ highest; with `negative` of
    −scores.
    """
    if not 0 < share <= 1:
        raise InvalidConfig(
            f"tail_mass got share={share}.", why="it is a part of all.", fix="choose from (0, 1]."
        )
    if not scores.numel() or not torch.isfinite(scores).all():
        raise InvalidData(
            f"Scores of shape {tuple(scores.shape)} are empty or not finite.",
            why="they have no sum.",
            fix="look for the query or the document whose gradient overflows.",
        )
    signed = -scores if negative else scores
    return signed.topk(ceil(share * scores.shape[1]), 1).values.clamp_min(0).sum(1)


def volatility(mass: Float[Tensor, " query"], rng: np.random.Generator) -> Reading:
    """Coefficient of variation over queries, standard deviation / mean; bootstrap over queries.
    `detail`: the masses.
    """
    values = mass.double().cpu().numpy()
    if len(values) < 2 or not values.mean() > 0:
        raise InvalidData(
            f"{len(values)} queries have a mean influence of "
            f"{values.mean() if len(values) else 0:g}.",
            why="the spread relative to the mean needs two queries and a positive mean.",
            fix="ask more queries; a mean of 0 says that none of them draws on any document.",
        )
    found = stats.bootstrap(variation, values, rng=rng)
    return Reading(
        found.value, min(found.low, found.value), max(found.high, found.value), found.n, "", mass
    )


def variation(values: np.ndarray) -> float:
    """Standard deviation (n − 1) over the mean."""
    return float(values.std(ddof=1) / values.mean())


@dataclass(frozen=True)
class InfluenceVolatility:
    """`volatility` of the `tail_mass` per nat, of a table with `scores` [query, document] and
    `nats` [query].
    """

    share: float = 0.01
    negative: bool = False

    def __call__(self, subject: Mapping[str, Tensor], lab: Lab) -> Reading:
        mass = tail_mass(
            per_nat(subject["scores"], subject["nats"]), self.share, negative=self.negative
        )
        return volatility(mass, lab.child("queries").numpy())


def example() -> tuple[InfluenceVolatility, dict[str, Tensor]]:
    """Six queries with completions of one to six nats."""
    scores = torch.randn(
        6, 40, generator=Lab().child("volatility").generator(), dtype=torch.float64
    )
    return InfluenceVolatility(share=0.1), {
        "scores": scores,
        "nats": torch.arange(1.0, 7.0, dtype=torch.float64),
    }
