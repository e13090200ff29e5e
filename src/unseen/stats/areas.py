"""Areas under the ROC curve, over examples and seeds, and their paired differences."""

from math import isfinite, nan, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

from unseen.errors import InvalidData
from unseen.reading import Reading
from unseen.stats.quantiles import LEVEL, _finite, _satterthwaite, t_quantile, z_quantile

FEW = 10
"""Below so many examples of the rarer class an area under the ROC curve gets the wider of two
intervals with t.
"""


def _placements(scores: NDArray[np.float64], labels: NDArray[np.bool_]) -> tuple[NDArray, NDArray]:
    """For each positive the share of negatives below it, for each negative the share of positives
    above it.
    """
    positive, negative = scores[labels], scores[~labels]
    if not positive.size or not negative.size:
        raise InvalidData(
            f"The area under the ROC curve got {positive.size} positives and {negative.size} "
            "negatives.",
            why="it compares positives with negatives and needs both.",
            fix="merge this subgroup with another, or report its error rate instead.",
        )
    n_negative, n_positive = negative.size, positive.size
    ordered = np.sort(negative)
    above = (
        (np.searchsorted(ordered, positive, "left") + np.searchsorted(ordered, positive, "right"))
        / 2
        / n_negative
    )
    ordered = np.sort(positive)
    below = (
        1
        - (np.searchsorted(ordered, negative, "left") + np.searchsorted(ordered, negative, "right"))
        / 2
        / n_positive
    )
    return above, below


def _variance(x: NDArray[np.float64]) -> float:
    return float(x.var(ddof=1) / x.size) if x.size > 1 else nan


def auc(scores: ArrayLike, labels: ArrayLike, *, level: float = LEVEL) -> Reading:
    """Area under the ROC curve (ties count half), with the wider of two intervals.

    DeLong's on the logit scale with Student's t, which has no width where the classes are separated
    and is too short for few positives (74 to 90 % with three to five), and Newcombe's (2006, method
    5), which asks how far an area could lie from this one. Fewer than ten of the rarer class: t in
    both, so that two say next to nothing.
    """
    return crossed_auc([_finite("auc", scores, 2)], labels, level=level)


def _newcombe_limits(
    area: float, n_positive: int, n_negative: int, quantile: float
) -> tuple[float, float]:
    """θ with |θ − area| = quantile · √V(θ), V of Hanley & McNeil with both class sizes at their
    mean (Newcombe, 2006).
    """
    half_total = (n_positive + n_negative) / 2 - 1

    def excess(theta: float) -> float:
        shape = (1 - theta) / (2 - theta) + theta / (1 + theta)
        variance = theta * (1 - theta) * (1 + half_total * shape) / (n_positive * n_negative)
        return abs(theta - area) - quantile * sqrt(max(variance, 0.0))

    low = float(brentq(excess, 0.0, area)) if area > 0 and excess(0.0) > 0 > excess(area) else 0.0
    high = float(brentq(excess, area, 1.0)) if area < 1 and excess(1.0) > 0 > excess(area) else 1.0
    # at an area of 0 or 1 the variance is 0 there, and the root lies strictly inside
    if area >= 1:
        low = float(brentq(excess, 0.0, 1 - 1e-12))
    if area <= 0:
        high = float(brentq(excess, 1e-12, 1.0))
    return low, high


def auc_difference(a: ArrayLike, b: ArrayLike, labels: ArrayLike) -> Reading:
    """AUC(a) − AUC(b) on the same examples, DeLong's paired variance (1988) with Student's t."""
    x, y = _finite("auc_difference", a, 2), _finite("auc_difference", b, 2)
    return crossed_auc([x], labels, against=[y])


def crossed_auc(
    scores: ArrayLike, labels: ArrayLike, against: ArrayLike | None = None, *, level: float = LEVEL
) -> Reading:
    """Mean over seeds of AUC(scores[seed]), or of its paired difference to AUC(against[seed]).

    An AUC is a mean of placements, so the mean over seeds is the mean of seed-averaged placements:
    DeLong's variance of those, plus the variance between seeds over their number, with
    Satterthwaite's degrees of freedom: two seeds that differ leave about one. The interval of a
    single area is widened as `auc` says.
    """
    rows, y = (
        np.atleast_2d(np.asarray(scores, dtype=np.float64)),
        np.asarray(labels).ravel().astype(bool),
    )
    placed = [_placements(row, y) for row in rows]
    above, below = np.stack([p[0] for p in placed]), np.stack([p[1] for p in placed])
    if against is not None:
        other = [
            _placements(row, y) for row in np.atleast_2d(np.asarray(against, dtype=np.float64))
        ]
        above, below = (
            above - np.stack([p[0] for p in other]),
            below - np.stack([p[1] for p in other]),
        )
    areas, value = above.mean(1), float(above.mean())
    parts = [
        _variance(above.mean(0)),
        _variance(below.mean(0)),
        _variance(areas) if len(areas) > 1 else 0.0,
    ]
    sizes = [above.shape[1], below.shape[1], len(areas)]
    variance = sum(parts)
    if not isfinite(variance):  # a single example of a class has no spread
        return Reading(value, n=y.size, unit="AUC")
    freedom = _satterthwaite(parts, sizes)
    # each part with the quantile of its own degrees of freedom, as in `crossed_mean`
    half = sqrt(
        sum(
            t_quantile(size - 1, level) ** 2 * part
            for part, size in zip(parts, sizes, strict=True)
            if part > 0
        )
    )
    if against is not None:
        return Reading(value, value - half, value + half, y.size, "AUC", freedom=freedom)
    low, high = _logit_limits(value, half)
    rarer = min(sizes[:2])
    quantile = t_quantile(rarer - 1, level) if rarer < FEW else z_quantile(level)
    few_low, few_high = _newcombe_limits(value, sizes[0], sizes[1], quantile)
    by_seed = (
        t_quantile(sizes[2] - 1, level) * sqrt(parts[2]) if parts[2] > 0 else 0.0
    )  # the seeds' spread comes on top, in squares
    few_low = max(0.0, value - sqrt((value - few_low) ** 2 + by_seed**2))
    few_high = min(1.0, value + sqrt((few_high - value) ** 2 + by_seed**2))
    return Reading(value, min(low, few_low), max(high, few_high), y.size, "AUC", freedom=freedom)


def _logit_limits(area: float, half: float) -> tuple[float, float]:
    if half == 0 or not 0 < area < 1:  # the delta method degenerates
        return area, area
    logit, half = np.log(area / (1 - area)), half / (area * (1 - area))
    return float(1 / (1 + np.exp(half - logit))), float(1 / (1 + np.exp(-half - logit)))


def auc_shares(scores: NDArray[np.float64], labels: NDArray[np.bool_]) -> NDArray[np.float64]:
    """What every example contributes to the area: values [seed, example] whose mean is the area of
    each seed, and whose spread is DeLong's.
    """
    found = np.empty_like(scores)
    n, positives = labels.size, int(labels.sum())
    for row, score in zip(found, scores, strict=True):
        above, below = _placements(score, labels)
        area = above.mean()
        row[labels] = area + (above - area) * n / positives
        row[~labels] = area + (below - area) * n / (n - positives)
    return found
