"""Means, proportions, differences, slopes, correlations and areas, always as a Reading with a 95 % interval.

The interval suits the quantity: Student's t over seeds, Wilson or Clopper–Pearson for proportions, DeLong on the logit
scale for areas under the ROC curve, the bootstrap for anything without a formula.
"""

from collections.abc import Callable, Sequence
from math import atanh, nan, sqrt, tanh
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats as scipy_stats

from unseen.errors import InvalidData
from unseen.reading import Reading

LEVEL = 0.95
_Z = float(scipy_stats.norm.ppf(0.5 + LEVEL / 2))


def _finite(name: str, values: ArrayLike, least: int = 1) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64).ravel()
    if array.size < least:
        raise InvalidData(
            f"{name} needs at least {least} value{'s' * (least > 1)}, got {array.size}.",
            why="a statistic of too few values does not exist.",
            fix="give more seeds or examples, or leave this quantity out.",
        )
    if not np.isfinite(array).all():
        raise InvalidData(
            f"{name} got {int((~np.isfinite(array)).sum())} of {array.size} values that are NaN or infinite.",
            why="one of them would make the result meaningless.",
            fix="look at the cells that produced them; a diverged run is a result of its own.",
        )
    return array


def mean(values: ArrayLike, *, within: tuple[float, float] = (-np.inf, np.inf), unit: str = "") -> Reading:
    """Mean with Student's t interval, cut to `within`; a single value has no interval."""
    x = _finite("mean", values)
    if x.size == 1:
        return Reading(float(x[0]), n=1, unit=unit)
    half = scipy_stats.t.ppf(0.5 + LEVEL / 2, x.size - 1) * x.std(ddof=1) / sqrt(x.size)
    low, high = np.clip([x.mean() - half, x.mean() + half], *within)
    return Reading(float(x.mean()), float(low), float(high), x.size, unit)


def median(values: ArrayLike, unit: str = "") -> Reading:
    """Median with the exact interval of order statistics (infinite limits where n < 6 cannot reach 95 %)."""
    x = np.sort(_finite("median", values))
    k = int(scipy_stats.binom.ppf(0.5 - LEVEL / 2, x.size, 0.5))
    if scipy_stats.binom.cdf(k, x.size, 0.5) > 0.5 - LEVEL / 2:
        k -= 1
    low, high = (x[k], x[-k - 1]) if k >= 0 else (-np.inf, np.inf)
    return Reading(float(np.median(x)), float(low), float(high), x.size, unit)


def proportion(successes: float, n: int, *, exact: bool = False) -> Reading:
    """successes / n with the Wilson (or exact Clopper–Pearson) interval."""
    if n < 1 or not 0 <= successes <= n:
        raise InvalidData(
            f"proportion got {successes} successes of {n}.",
            why="0/0 and counts outside 0…n have no proportion.",
            fix="check that the split or subgroup is not empty.",
        )
    test = scipy_stats.binomtest(round(successes), n)
    ci = test.proportion_ci(LEVEL, method="exact" if exact else "wilson")
    return Reading(successes / n, float(ci.low), float(ci.high), n, "fraction")


def difference(a: ArrayLike, b: ArrayLike, unit: str = "") -> Reading:
    """Mean of the paired differences a − b with Student's t interval. Pairs are seeds, sites or examples."""
    x, y = np.asarray(a, dtype=np.float64).ravel(), np.asarray(b, dtype=np.float64).ravel()
    if x.size != y.size:
        raise InvalidData(
            f"difference got {x.size} and {y.size} values.",
            why="the difference is paired: value k of one belongs to value k of the other.",
            fix="select the same seeds on both sides.",
        )
    return mean(x - y, unit=unit)


def crossed_mean(values: ArrayLike, unit: str = "") -> Reading:
    """Mean of a [seed, example] table whose seeds and examples are both samples.

    The variance is the random-effects one of a two-way layout, var(seed means)/S + var(example means)/n − σ²/(S n)
    (Searle, Casella & McCulloch, 1992, ch. 4), with Satterthwaite's degrees of freedom. One seed: examples only.
    """
    x = np.asarray(values, dtype=np.float64)
    _finite("crossed", x, 2)
    if x.ndim != 2 or x.shape[1] < 2:
        raise InvalidData(
            f"crossed got a table of shape {x.shape}.",
            why="it needs one row per seed and at least two examples.",
            fix="stack the per-example values of every seed as rows.",
        )
    s, n = x.shape
    by_example = float(x.mean(0).var(ddof=1) / n)
    if s == 1:
        return mean(x[0], unit=unit)
    by_seed = float(x.mean(1).var(ddof=1) / s)
    residual = x - x.mean(0) - x.mean(1, keepdims=True) + x.mean()
    noise = float((residual**2).sum() / ((s - 1) * (n - 1)) / (s * n))
    variance = max(by_seed + by_example - noise, by_seed, by_example)
    if variance == 0:
        return Reading(float(x.mean()), float(x.mean()), float(x.mean()), n, unit)
    freedom = variance**2 / (by_seed**2 / (s - 1) + by_example**2 / (n - 1))
    half = scipy_stats.t.ppf(0.5 + LEVEL / 2, freedom) * sqrt(variance)
    return Reading(float(x.mean()), float(x.mean() - half), float(x.mean() + half), n, unit)


def welch(a: ArrayLike, b: ArrayLike, unit: str = "") -> Reading:
    """Difference of two independent means with Welch's interval."""
    x, y = _finite("welch", a, 2), _finite("welch", b, 2)
    gap = float(x.mean() - y.mean())
    if np.ptp(x) == 0 and np.ptp(y) == 0:  # scipy warns of cancellation
        return Reading(gap, gap, gap, x.size + y.size, unit)
    ci = scipy_stats.ttest_ind(x, y, equal_var=False).confidence_interval(LEVEL)
    return Reading(gap, float(ci.low), float(ci.high), x.size + y.size, unit)


def bootstrap(
    statistic: Callable[..., float],
    *samples: ArrayLike,
    rng: np.random.Generator,
    draws: int = 1_000,
    unit: str = "",
) -> Reading:
    """`statistic(*samples)` with the percentile interval of resampled rows (the samples are paired by row).

    Resamples on which the statistic does not exist (it raises `InvalidData` or is NaN) are drawn again.
    """
    arrays = [np.asarray(sample) for sample in samples]
    n = len(arrays[0])
    if n < 2 or any(len(array) != n for array in arrays):
        raise InvalidData(
            f"bootstrap got samples of length {[len(array) for array in arrays]}.",
            why="rows are resampled together, and one row has no spread.",
            fix="give paired samples of at least two rows.",
        )
    value, tries = statistic(*arrays), 0
    values: list[float] = []
    while len(values) < draws and tries < 3 * draws:
        tries += 1
        rows = rng.integers(n, size=n)
        try:
            drawn = statistic(*(array[rows] for array in arrays))
        except InvalidData:
            continue
        if np.isfinite(drawn):
            values.append(drawn)
    if len(values) < draws // 2:
        return Reading(float(value), n=n, unit=unit)  # no honest interval exists
    low, high = np.quantile(values, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return Reading(float(value), float(low), float(high), n, unit)


def slope(x: ArrayLike, y: ArrayLike, unit: str = "") -> Reading:
    """Least-squares slope of y on x with its t interval."""
    a, b = _finite("slope", x, 3), _finite("slope", y, 3)
    if np.ptp(a) == 0:
        raise InvalidData("slope got one x value only.", why="a vertical line has no slope.", fix="vary x.")
    fit: Any = scipy_stats.linregress(a, b)
    half = scipy_stats.t.ppf(0.5 + LEVEL / 2, a.size - 2) * fit.stderr
    return Reading(float(fit.slope), float(fit.slope - half), float(fit.slope + half), a.size, unit)


def rank_correlation(x: ArrayLike, y: ArrayLike) -> Reading:
    """Spearman's ρ with Fisher's z interval (variance of Bonett & Wright, 2000)."""
    a, b = _finite("rank_correlation", x, 4), _finite("rank_correlation", y, 4)
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        raise InvalidData(
            "rank_correlation got a constant variable.", why="its ranks are all tied.", fix="leave this pair out."
        )
    rho = float(scipy_stats.spearmanr(a, b).statistic)
    if abs(rho) >= 1:
        return Reading(rho, rho, rho, a.size)
    half = _Z * sqrt((1 + rho**2 / 2) / (a.size - 3))
    return Reading(rho, tanh(atanh(rho) - half), tanh(atanh(rho) + half), a.size)


def _placements(scores: NDArray[np.float64], labels: NDArray[np.bool_]) -> tuple[NDArray, NDArray]:
    """For each positive the share of negatives below it, for each negative the share of positives above it."""
    positive, negative = scores[labels], scores[~labels]
    if not positive.size or not negative.size:
        raise InvalidData(
            f"The area under the ROC curve got {positive.size} positives and {negative.size} negatives.",
            why="it compares positives with negatives and needs both.",
            fix="merge this subgroup with another, or report its error rate instead.",
        )
    n_negative, n_positive = negative.size, positive.size
    ordered = np.sort(negative)
    above = (np.searchsorted(ordered, positive, "left") + np.searchsorted(ordered, positive, "right")) / 2 / n_negative
    ordered = np.sort(positive)
    below = (
        1 - (np.searchsorted(ordered, negative, "left") + np.searchsorted(ordered, negative, "right")) / 2 / n_positive
    )
    return above, below


def _variance(x: NDArray[np.float64]) -> float:
    return float(x.var(ddof=1) / x.size) if x.size > 1 else nan


def auc(scores: ArrayLike, labels: ArrayLike) -> Reading:
    """Area under the ROC curve (ties count half) with DeLong's interval on the logit scale."""
    s, y = _finite("auc", scores, 2), np.asarray(labels).ravel().astype(bool)
    above, below = _placements(s, y)
    area, n = float(above.mean()), s.size
    variance = _variance(above) + _variance(below)
    if not np.isfinite(variance):
        return Reading(area, n=n, unit="AUC")
    if area in (0.0, 1.0) or variance == 0:  # the delta method degenerates: rule-of-three style exact bound
        worst = proportion(round(area * min(above.size, below.size)), min(above.size, below.size), exact=True)
        return Reading(area, worst.low, worst.high, n, "AUC")
    logit, half = np.log(area / (1 - area)), _Z * sqrt(variance) / (area * (1 - area))
    low, high = 1 / (1 + np.exp(-(logit - half))), 1 / (1 + np.exp(-(logit + half)))
    return Reading(area, float(low), float(high), n, "AUC")


def auc_difference(a: ArrayLike, b: ArrayLike, labels: ArrayLike) -> Reading:
    """AUC(a) − AUC(b) on the same examples, DeLong's paired interval (1988)."""
    x, y = _finite("auc_difference", a, 2), _finite("auc_difference", b, 2)
    positive = np.asarray(labels).ravel().astype(bool)
    above_a, below_a = _placements(x, positive)
    above_b, below_b = _placements(y, positive)
    gap = float(above_a.mean() - above_b.mean())
    variance = _variance(above_a - above_b) + _variance(below_a - below_b)
    if not np.isfinite(variance):
        return Reading(gap, n=x.size, unit="AUC")
    half = _Z * sqrt(variance)
    return Reading(gap, gap - half, gap + half, x.size, "AUC")


def crossed_auc(scores: ArrayLike, labels: ArrayLike, against: ArrayLike | None = None) -> Reading:
    """Mean over seeds of AUC(scores[seed]), or of its paired difference to AUC(against[seed]).

    An AUC is a mean of placements, so the mean over seeds is the mean of seed-averaged placements: DeLong's variance
    of those, plus the variance between seeds over their number.
    """
    rows, y = np.atleast_2d(np.asarray(scores, dtype=np.float64)), np.asarray(labels).ravel().astype(bool)
    if against is None and len(rows) == 1:
        return auc(rows[0], y)
    placed = [_placements(row, y) for row in rows]
    above, below = np.stack([p[0] for p in placed]), np.stack([p[1] for p in placed])
    if against is not None:
        other = [_placements(row, y) for row in np.atleast_2d(np.asarray(against, dtype=np.float64))]
        above, below = above - np.stack([p[0] for p in other]), below - np.stack([p[1] for p in other])
    each, value = above.mean(1), float(above.mean())
    variance = _variance(above.mean(0)) + _variance(below.mean(0)) + (_variance(each) if len(each) > 1 else 0.0)
    if not np.isfinite(variance):
        return Reading(value, n=y.size, unit="AUC")
    if variance == 0 and against is None:  # all seeds separate perfectly: as little is known as from one of them
        return auc(rows[0], y)
    half = _Z * sqrt(variance)
    low, high = value - half, value + half
    if against is None:
        low, high = max(low, 0.0), min(high, 1.0)
    return Reading(value, low, high, y.size, "AUC")


def independent_difference(a: Reading, b: Reading, unit: str = "") -> Reading:
    """a − b of two independent readings; square-and-add of their intervals (Zou & Donner, 2008).

    With Wilson intervals this is Newcombe's method 10 for two proportions.
    """
    gap = a.value - b.value
    low = gap - sqrt((a.value - a.low) ** 2 + (b.high - b.value) ** 2)
    high = gap + sqrt((a.high - a.value) ** 2 + (b.value - b.low) ** 2)
    return Reading(gap, low, high, a.n + b.n, unit or a.unit)


def of_scores(values: ArrayLike) -> Reading:
    """The mean of per-example scores: a Wilson interval if all are 0 or 1, Student's t otherwise."""
    x = _finite("of_scores", values)
    if np.isin(x, (0.0, 1.0)).all():
        return proportion(float(x.sum()), x.size)
    return mean(x)


def average_readings(readings: Sequence[Reading]) -> Reading:
    """Mean of the readings' values, as independent repetitions (seeds)."""
    return mean([reading.value for reading in readings], unit=readings[0].unit if readings else "")


def mean_score(scores: NDArray[np.float64], unit: str = "") -> Reading:
    """Mean of scores [seed, example], seeds and examples both being samples; n counts examples.

    Of zeros and ones: never narrower than Wilson's interval for as many examples, which holds near 0 and 1, too.
    """
    if scores.shape[1] < 2:
        raise InvalidData(
            f"{scores.shape[1]} example is evaluated.",
            why="one example has no spread, so no interval exists.",
            fix="merge this group with another one, or evaluate on more examples.",
        )
    if len(scores) == 1:
        found = of_scores(scores[0])
        return Reading(found.value, found.low, found.high, found.n, unit or found.unit)
    found = crossed_mean(scores, unit=unit)
    if not np.isin(scores, (0.0, 1.0)).all():
        return found
    wilson = proportion(float(scores.mean(0).sum().round()), scores.shape[1])
    low, high = min(found.low, wilson.low), max(found.high, wilson.high)
    return Reading(found.value, max(0.0, low), min(1.0, high), found.n, "fraction")


def average(readings: Sequence[Reading]) -> Reading:
    """Mean over sites, these sites being fixed: their intervals add in square. n counts examples."""
    k = len(readings)
    value = sum(r.value for r in readings) / k
    low = sqrt(sum((r.value - r.low) ** 2 for r in readings)) / k
    high = sqrt(sum((r.high - r.value) ** 2 for r in readings)) / k
    return Reading(value, value - low, value + high, sum(r.n for r in readings), readings[0].unit)


def widen(change: Reading, among: int) -> Reading:
    """The interval at the level that lets one of `among` such differences be picked (Bonferroni)."""
    k = float(scipy_stats.norm.ppf(1 - (1 - LEVEL) / 2 / max(1, among))) / _Z
    low = change.value - k * (change.value - change.low)
    high = change.value + k * (change.high - change.value)
    return Reading(change.value, low, high, change.n, change.unit)
