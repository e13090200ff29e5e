"""Where one author takes over from another: the change point of a series of scores (Page, 1954,
doi:10.1093/biomet/41.1-2.100)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unseen.errors import InvalidData

LEAST = 4
"""Scores of a series below which no change is sought."""


@dataclass(frozen=True)
class ChangePoint:
    """The first score of the second part, and how clearly the two parts differ."""

    index: int
    statistic: float
    """n₁n₂/n · (mean₂ − mean₁)²: the log-likelihood ratio of two means against one, times 2σ²."""
    p: float
    """Share of orders of the scores, drawn at random, with a change as clear: above 0.05 the place
    says nothing."""


def change_statistics(scores: ArrayLike, weights: ArrayLike | None = None) -> NDArray[np.float64]:
    """Of every cut k = 1 … n − 1 the weighted n₁n₂/n · (mean₂ − mean₁)² where the mean rises, else
    0."""
    x = np.asarray(scores, dtype=np.float64)
    w = np.ones(len(x)) if weights is None else np.asarray(weights, dtype=np.float64)
    return _statistics(x[None], w[None])[0]


def _statistics(x: NDArray[np.float64], w: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of every row of scores."""
    before, total = w.cumsum(1)[:, :-1], w.sum(1, keepdims=True)
    sums, whole = (w * x).cumsum(1)[:, :-1], (w * x).sum(1, keepdims=True)
    rise = (whole - sums) / (total - before) - sums / before
    return before * (total - before) / total * np.clip(rise, 0, None) ** 2


def change_point(
    scores: Sequence[float] | NDArray[np.float64],
    weights: Sequence[float] | NDArray[np.float64] | None = None,
    *,
    orders: int = 499,
    generator: np.random.Generator | None = None,
) -> ChangePoint:
    """The cut with the largest statistic, of a series whose mean rises there (a machine's text
    scores higher than a person's); `weights` are the lengths of the pieces that were scored.

    p by `orders` random orders of the pieces: exact where they are exchangeable.
    """
    x = np.asarray(scores, dtype=np.float64)
    w = np.ones(len(x)) if weights is None else np.asarray(weights, dtype=np.float64)
    if len(x) < LEAST or len(w) != len(x) or not np.isfinite(x).all() or not (w > 0).all():
        raise InvalidData(
            f"A change point was asked of {len(x)} scores with {len(w)} weights.",
            why=f"below {LEAST} pieces, or with weights that are not positive, there are no two "
            "parts to compare.",
            fix="give a longer text.",
        )
    found = change_statistics(x, w)
    index, best = int(found.argmax()) + 1, float(found.max())
    generator = np.random.default_rng(0) if generator is None else generator
    order = generator.permuted(np.tile(np.arange(len(x)), (orders, 1)), axis=1)
    by_chance = _statistics(x[order], w[order]).max(1)
    p = (1 + int((by_chance >= best - 1e-12).sum())) / (orders + 1)
    return ChangePoint(index, best, p)
