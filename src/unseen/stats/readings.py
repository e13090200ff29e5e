"""Readings of readings: the lowest of several, differences, averages over sites, many statements at
once.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf, isfinite, sqrt

from scipy import stats as scipy_stats

from unseen.reading import Reading
from unseen.stats.quantiles import LEVEL, t_quantile


def lowest(intervals: Callable[[float], Sequence[Reading]]) -> Reading:
    """The smallest of several groups' values, with an interval for the smallest of the true ones.

    `intervals(level)` gives the groups' readings at a level. The smallest observed value is too
    small, since chance picks the unlucky group; so its own interval is not taken. The lower limit
    is the lowest of all groups' (true whichever group is the worst), the upper one the lowest of
    upper limits that hold for all groups together (Bonferroni). With twelve equal groups of 50 the
    worst group's own interval holds the truth in 0 %, this one in 95.
    """
    alone = intervals(LEVEL)
    return _lowest(alone, intervals(1 - (1 - LEVEL) / len(alone)))


def lowest_of(readings: Sequence[Reading]) -> Reading:
    """The same where only the 95 % intervals are known: the upper limits are widened."""
    return _lowest(readings, [widen(reading, len(readings)) for reading in readings])


def _lowest(alone: Sequence[Reading], together: Sequence[Reading]) -> Reading:
    worst = min(alone, key=lambda reading: reading.value)
    low, high = min(r.low for r in alone), min(r.high for r in together)
    if all(r.high <= 1 for r in alone):  # shares and areas; widening does not know their end
        high = min(high, 1.0)
    return replace(worst, low=low, high=max(high, worst.value), detail=None)


def independent_difference(a: Reading, b: Reading, unit: str = "") -> Reading:
    """a − b of two independent readings; square-and-add of their intervals (Zou & Donner, 2008).

    With Wilson intervals this is Newcombe's method 10 for two proportions.
    """
    gap = a.value - b.value
    low = gap - sqrt((a.value - a.low) ** 2 + (b.high - b.value) ** 2)
    high = gap + sqrt((a.high - a.value) ** 2 + (b.value - b.low) ** 2)
    return Reading(gap, low, high, a.n + b.n, unit or a.unit, freedom=_freedom_of_sum([a, b]))


def _freedom_of_sum(readings: Sequence[Reading]) -> float:
    """Satterthwaite's degrees of freedom of a sum of independent readings."""
    halves = [(r.high - r.low) / 2 for r in readings]
    variances = [
        (half / t_quantile(r.freedom)) ** 2 if isfinite(half) else 0.0
        for half, r in zip(halves, readings, strict=True)
    ]
    total = sum(v**2 / r.freedom for v, r in zip(variances, readings, strict=True))
    return sum(variances) ** 2 / total if total > 0 else inf


def average(readings: Sequence[Reading]) -> Reading:
    """Mean over sites, these sites being fixed: their intervals add in square. n counts
    examples.
    """
    k = len(readings)
    value = sum(r.value for r in readings) / k
    low = sqrt(sum((r.value - r.low) ** 2 for r in readings)) / k
    high = sqrt(sum((r.high - r.value) ** 2 for r in readings)) / k
    return Reading(
        value,
        value - low,
        value + high,
        sum(r.n for r in readings),
        readings[0].unit,
        freedom=_freedom_of_sum(readings),
    )


def widen(change: Reading, among: int) -> Reading:
    """The interval at the level that lets one of `among` such differences be picked (Bonferroni),
    with the quantiles of its own t distribution: of three seeds the factor for six remedies is 2.5,
    not 1.3."""
    level = 1 - (1 - LEVEL) / max(1, among)
    k = t_quantile(change.freedom, level) / t_quantile(change.freedom)
    low = change.value - k * (change.value - change.low)
    high = change.value + k * (change.high - change.value)
    return replace(change, low=low, high=high, detail=None)


def two_sided_p(t: float, freedom: float) -> float:
    """Probability of a Student's t at least so far from zero."""
    return float(2 * scipy_stats.t.sf(abs(t), freedom))


def holm(ps: Sequence[float], level: float = LEVEL) -> list[bool]:
    """Which of several hypotheses are rejected together (Holm, 1979): the smallest p against
    (1 − level) / m, the next against (1 − level) / (m − 1), until one is too large. NaN rejects
    nothing and counts among them.
    """
    ps = [p if isfinite(p) else 1.0 for p in ps]
    rejected = [False] * len(ps)
    for rank, k in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        if ps[k] > (1 - level) / (len(ps) - rank):
            break
        rejected[k] = True
    return rejected
