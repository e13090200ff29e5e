"""Supervision gap recovered: how much of what hard training data give do easy ones give, too?

Hase et al. (2024), arXiv:2401.06751: (Easy − Unsupervised) / (Hard − Unsupervised), each an
accuracy on the same hard items, after training on easy items, on hard items, and on nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from unseen import stats
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.reading import Reading

Hits = Float[Tensor, "_ _"]
"""[run, item]: 1 where a run answers an item rightly; a guess among k choices counts 1/k."""


@dataclass(frozen=True)
class SupervisionGap:
    """What easy and what hard training items are worth on the same hard items."""

    easy: Reading
    hard: Reading
    unsupervised: Reading
    easy_gain: Reading
    """Easy − Unsupervised."""
    hard_gain: Reading
    """Hard − Unsupervised, the gap."""
    difference: Reading
    """Easy − Hard."""
    recovered: Reading | None
    """Of the gap; None where `why` says that it is not defined."""
    why: str = ""


def gap_share(easy: Tensor, hard: Tensor, unsupervised: Tensor) -> Tensor:
    """(easy − unsupervised) / (hard − unsupervised): 1 where easy is as good as hard, 0 where it is
    as good as nothing.
    """
    return (easy - unsupervised) / (hard - unsupervised)


def accuracy(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of resampled answers, of which stretched weights may leave 0 to 1."""
    return np.clip(means, 0.0, 1.0)


def supervision_gap(
    easy: Hits, hard: Hits, unsupervised: Hits, lab: Lab, draws: int = 10_000
) -> SupervisionGap:
    """The accuracies with their differences and the share of the gap recovered.

    A ratio of means, not a mean of the runs' ratios, of which one small denominator decides. It is
    not defined where the interval of Hard − Unsupervised reaches 0: then it would be a ratio to
    noise.
    """
    tables = {
        name: table.double().cpu().numpy()
        for name, table in (("easy", easy), ("hard", hard), ("unsupervised", unsupervised))
    }
    if any(table.size and (table.min() < 0 or table.max() > 1) for table in tables.values()):
        raise InvalidData(
            "An answer counts less than 0 or more than 1.",
            why="accuracies are means of right and wrong answers.",
            fix="give 1 for right and 0 for wrong.",
        )

    def read(statistic: object, *names: str) -> Reading:
        rng = lab.child("grid").numpy()  # one stream: the same items in every draw
        return stats.grid_bootstrap(
            statistic,  # type: ignore[arg-type]
            *(tables[name] for name in names),
            rng=rng,
            draws=draws,
            unit="fraction",
        )

    gains = {name: read(np.subtract, name, "unsupervised") for name in ("easy", "hard")}
    recovered, why = None, ""
    if gains["hard"].low > 0:
        recovered = read(lambda e, h, u: np.divide(e - u, h - u), "easy", "hard", "unsupervised")
    else:
        why = (
            f"training on hard items gains {gains['hard'].value:+.3f} "
            f"[{gains['hard'].low:+.3f}, {gains['hard'].high:+.3f}] over no training, which is not "
            "clearly above 0"
        ).replace("-", "−")
    return SupervisionGap(
        easy=read(accuracy, "easy"),
        hard=read(accuracy, "hard"),
        unsupervised=read(accuracy, "unsupervised"),
        easy_gain=gains["easy"],
        hard_gain=gains["hard"],
        difference=read(np.subtract, "easy", "hard"),
        recovered=recovered,
        why=why,
    )


@dataclass(frozen=True)
class SupervisionGapRecovered:
    """`supervision_gap` of a mapping with `easy`, `hard` and `unsupervised` [run, item]; refused
    where it is not defined.
    """

    draws: int = 10_000

    def __call__(self, subject: Mapping[str, Tensor], lab: Lab) -> Reading:
        gap = supervision_gap(
            subject["easy"], subject["hard"], subject["unsupervised"], lab, self.draws
        )
        if gap.recovered is None:
            raise InvalidData(
                "The supervision gap recovered is not defined.",
                why=f"{gap.why}.",
                fix="evaluate on more items, train on more, or read the differences alone.",
            )
        return gap.recovered


def example() -> tuple[SupervisionGapRecovered, dict[str, Tensor]]:
    """The accuracies .6, .65 and .4 of 200 items: 0.8 of the gap are recovered."""
    item = torch.arange(200)[None]

    def hits(accuracy: float) -> Tensor:
        return (item % 20 < round(20 * accuracy)).double()

    return SupervisionGapRecovered(2_000), {
        "easy": hits(0.6),
        "hard": hits(0.65),
        "unsupervised": hits(0.4),
    }
