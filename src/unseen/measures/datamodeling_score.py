"""Linear datamodeling score: does the sum of the credits of a subset foretell what a model trained
on it does?

Park et al. (2023), arXiv:2303.14186, section 2, after Ilyas et al. (2022), arXiv:2202.00622.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from scipy import stats as scipy_stats
from torch import Tensor

from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.reading import Reading
from unseen.stats import LEVEL


def random_subsets(
    n: int, subsets: int, lab: Lab, share: float = 0.5
) -> Bool[Tensor, "subset example"]:
    """Subsets of round(share · n) examples each, drawn independently of each other."""
    size = round(share * n)
    if subsets < 1 or not 1 <= size < n:
        raise InvalidConfig(
            f"random_subsets(n={n}, subsets={subsets}, share={share}) keeps {size} examples.",
            why="a subset keeps at least one example and leaves at least one out.",
            fix="choose 0 < share < 1 and more examples.",
        )
    generator = lab.generator()
    kept = torch.zeros(subsets, n, dtype=torch.bool)
    for row in kept:
        row[torch.randperm(n, generator=generator)[:size]] = True
    return kept


def rank_correlations(
    a: Float[Tensor, "query subset"], b: Float[Tensor, "query subset"]
) -> NDArray[np.float64]:
    """Spearman's ρ of each row of a with that of b; ties share their mean rank."""
    x, y = (scipy_stats.rankdata(t.double().cpu().numpy(), axis=1) for t in (a, b))
    x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    scale = np.sqrt((x**2).sum(1) * (y**2).sum(1))
    if not scale.all():
        raise InvalidData(
            f"{int((scale == 0).sum())} of {len(scale)} queries have the same value in every "
            "subset.",
            why="its ranks are all tied, and 0/0 is no correlation.",
            fix="leave these queries out, or retrain on more different subsets.",
        )
    return (x * y).sum(1) / scale


def datamodeling_score(
    scores: Float[Tensor, "query example"],
    kept: Bool[Tensor, "subset example"],
    outputs: Float[Tensor, "subset query"],
) -> Reading:
    """Mean over queries of ρ(Σ_{i in S} score_i, output of the model trained on S), over subsets S.

    1: the credits order all subsets rightly; 0: they say nothing. Queries and subsets are both
    samples: the variance is that over queries plus the jackknife's over subsets, which all queries
    share (their noise is counted twice: the interval is rather wide than narrow). `detail` has ρ of
    each query.
    """
    _refuse(scores, kept, outputs)
    predicted, actual = scores.double() @ kept.T.double(), outputs.double().T
    each = rank_correlations(predicted, actual)
    s = len(kept)
    without = ~torch.eye(s, dtype=torch.bool)
    left = np.array(
        [rank_correlations(predicted[:, rows], actual[:, rows]).mean() for rows in without]
    )
    variance = each.var(ddof=1) / len(each) + (s - 1) / s * ((left - left.mean()) ** 2).sum()
    half = float(scipy_stats.norm.ppf(0.5 + LEVEL / 2)) * sqrt(variance)
    value = float(each.mean())
    return Reading(
        value,
        max(-1.0, value - half),
        min(1.0, value + half),
        len(each),
        "ρ",
        torch.from_numpy(each),
    )


def _refuse(scores: Tensor, kept: Tensor, outputs: Tensor) -> None:
    queries, n = scores.shape
    if queries < 2 or len(kept) < 5 or kept.shape[1] != n or outputs.shape != (len(kept), queries):
        raise InvalidData(
            f"The datamodeling score got scores {tuple(scores.shape)}, subsets {tuple(kept.shape)} "
            "and outputs "
            f"{tuple(outputs.shape)}.",
            why="it needs [query, example], [subset, example] and [subset, query], two queries and "
            "five subsets.",
            fix="average repeats first, and take scores and outputs of the same queries.",
        )
    if not (torch.isfinite(scores).all() and torch.isfinite(outputs).all()):
        raise InvalidData(
            "Some scores or outputs are NaN or infinite.",
            why="they have no rank.",
            fix="look for a diverged model among the retrained ones.",
        )


@dataclass(frozen=True)
class DatamodelingScore:
    """`datamodeling_score` of a table with `scores` [query, example], `kept` [subset, example],
    `outputs` [subset, query].
    """

    def __call__(self, subject: Mapping[str, Tensor], lab: Lab) -> Reading:
        _refuse(subject["scores"], subject["kept"], subject["outputs"])
        return datamodeling_score(subject["scores"], subject["kept"], subject["outputs"])


def example() -> tuple[DatamodelingScore, dict[str, Tensor]]:
    """Three queries whose output is the sum of their credits, with a little noise."""
    generator = Lab().child("datamodeling").generator()
    scores = torch.randn(3, 20, generator=generator, dtype=torch.float64)
    kept = random_subsets(20, 30, Lab())
    outputs = kept.double() @ scores.T + torch.randn(
        30, 3, generator=generator, dtype=torch.float64
    )
    return DatamodelingScore(), {"scores": scores, "kept": kept, "outputs": outputs}
