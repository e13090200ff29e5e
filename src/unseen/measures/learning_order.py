"""In which order examples are learned, how often they are forgotten, and whether other seeds agree.

Agreement of the order between networks: Hacohen, Choshen & Weinshall (2020, arXiv:1905.10854);
forgetting events: Toneva et al. (2019, arXiv:1812.05159).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from unseen import stats
from unseen.engine.evaluate import per_example
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.reading import Reading
from unseen.task import PerExample, Split

Hits = Bool[Tensor, "evaluation example"]
"""Whether each example was right at each evaluation, in the order of time."""


@dataclass(eq=False)
class HitRecorder:
    """A watch for `train`: returns the mean score on `split` and keeps whether each example scored
    above ½.

    Mutable on purpose: it is the memory of one run.
    """

    split: Split
    score: PerExample
    lab: Lab
    seen: list[Tensor] = field(default_factory=list)

    def __call__(self, model: nn.Module) -> float:
        values = per_example(model, self.split.data, self.score, self.lab)
        self.seen.append(values > 0.5)
        return float(values.mean())

    @property
    def hits(self) -> Hits:
        return _require_hits(
            torch.stack(self.seen) if self.seen else torch.zeros(0, 0, dtype=torch.bool)
        )

    def means(self, of: Bool[Tensor, " example"]) -> list[float]:
        """The share of hits among the marked examples, at each evaluation."""
        return self.hits[:, of].double().mean(1).tolist()


def first_learning_time(hits: Hits) -> Int[Tensor, " example"]:
    """t_i: the first evaluation at which example i is right; the number of evaluations if it never
    is.
    """
    hits = _require_hits(hits)
    return torch.where(hits.any(0), hits.to(torch.uint8).argmax(0), len(hits))


def final_learning_time(hits: Hits) -> Int[Tensor, " example"]:
    """The evaluation from which on example i stays right; the number of evaluations if it is wrong
    at the end.
    """
    hits = _require_hits(hits)
    return hits.long().flip(0).cumprod(0).sum(0).mul(-1).add(len(hits))


def forgetting_events(hits: Hits) -> Int[Tensor, " example"]:
    """How often example i went from right to wrong."""
    hits = _require_hits(hits)
    return (hits[:-1] & ~hits[1:]).sum(0)


@dataclass(frozen=True)
class LearningOrder:
    """Mean over pairs of runs of Spearman's ρ between the times at which they learned the same
    examples.

    1: every run learns the examples in the same order; 0: the orders have nothing in common. Ties
    (examples learned at the same evaluation) have mean ranks. `detail` holds each example's time of
    learning, averaged over runs.

    The interval is for new examples with these runs: the mean over pairs of Fisher's limits, which
    is cautious, since pairs share runs and average out part of the error.
    """

    stays: bool = False
    """Time from which the example stays right, instead of the first time."""

    def __call__(self, subject: Sequence[Tensor], lab: Lab) -> Reading:
        tables = [_require_hits(hits) for hits in subject]
        if len(tables) < 2 or len({hits.shape[1] for hits in tables}) != 1:
            raise InvalidData(
                f"Agreement got runs with {[hits.shape[1] for hits in tables]} examples.",
                why="it compares two or more runs on the same examples.",
                fix="record the same split, in the same order, with at least two seeds.",
            )
        time = final_learning_time if self.stays else first_learning_time
        times = [time(hits).double() for hits in tables]
        pairs = [stats.rank_correlation(a.numpy(), b.numpy()) for a, b in combinations(times, 2)]
        value, low, high = np.mean(
            [(pair.value, pair.low, pair.high) for pair in pairs], 0
        ).tolist()
        return Reading(
            value, low, high, len(times[0]), "rank correlation", torch.stack(times).mean(0)
        )


def _require_hits(hits: Tensor) -> Tensor:
    if hits.dtype != torch.bool or hits.dim() != 2 or 0 in hits.shape:
        raise InvalidData(
            f"A table of hits has shape {tuple(hits.shape)} and type {hits.dtype}.",
            why="it holds True or False for at least one evaluation (rows) of at least one example "
            "(columns).",
            fix="record with HitRecorder at one evaluation or more.",
        )
    return hits


def example() -> tuple[LearningOrder, tuple[Hits, Hits]]:
    """Two runs over four examples: rows are evaluations."""
    one = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]], dtype=torch.bool)
    other = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 1]], dtype=torch.bool)
    return LearningOrder(), (one, other)
