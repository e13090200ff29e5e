"""Effects on a study's rows beyond means, rates and paired gaps: worst groups, counts over seeds, seeds × places."""

from collections.abc import Mapping, Sequence
from math import exp, sqrt
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from unseen import stats
from unseen.errors import InvalidData
from unseen.reading import Reading
from unseen.study import Effect, Rows, Value, column, gap, pick, rate


def distinct(rows: Rows, *names: str) -> list[tuple[Value, ...]]:
    """The combinations of these columns' values, in the order of their first row; rows without them are left out."""
    return list(dict.fromkeys(tuple(row[name] for name in names) for row in rows if all(n in row for n in names)))


def worst(effect: Effect, over: str, ideal: float, **where: Value) -> Effect:
    """The reading of the group (rows with one value of `over`) farthest from `ideal`: what it clears, every group's does."""

    def read(rows: Rows) -> Reading:
        rows = pick(rows, **where)
        groups = [pick(rows, **{over: value}) for (value,) in sorted(distinct(rows, over))]
        if not groups:
            raise InvalidData(f"No row has `{over}`.", why="nothing ran.", fix="run the missing cells.")
        return max((effect(group) for group in groups), key=lambda reading: abs(reading.value - ideal))

    return read


def ratio(name: str, of: Mapping[str, Value], against: Mapping[str, Value]) -> Effect:
    """e to the paired difference of a column of logarithms: the ratio of geometric means."""

    def read(rows: Rows) -> Reading:
        reading = gap(name, of, against)(rows)
        return Reading(exp(reading.value), exp(reading.low), exp(reading.high), reading.n, "ratio")

    return read


def share(successes: str, n: str, **where: Value) -> Effect:
    """Mean proportion over seeds within the wider of two intervals.

    Wilson's over all examples alone would take the examples of one seed for independent, Student's over seeds alone
    has no width where every seed is right everywhere.
    """

    def read(rows: Rows) -> Reading:
        counted = rate(successes, n, **where)(rows)
        pairs = zip(column(rows, successes, **where), column(rows, n, **where), strict=True)
        seeds = stats.mean([hit / of for hit, of in pairs if of], within=(0, 1))  # a seed may have none to count
        if seeds.n == 1:
            return counted
        low, high = min(counted.low, seeds.low), max(counted.high, seeds.high)
        return Reading(seeds.value, low, high, seeds.n, "fraction")

    return read


def grid(rows: Rows, name: str, down: str, across: str) -> NDArray[np.float64]:
    """A column as a table [down, across], both sorted; every pair must have exactly one row."""
    rows = [row for row in rows if name in row]
    (seeds, places) = ([value for (value,) in sorted(distinct(rows, axis))] for axis in (down, across))
    found = {(row[down], row[across]): float(row[name]) for row in rows}
    if not rows or len(found) != len(rows) or len(found) != len(seeds) * len(places):
        raise InvalidData(
            f"{len(rows)} rows of `{name}` do not fill {len(seeds)} × {len(places)} ({down} × {across}) once each.",
            why="both are samples, and every value of one must meet every value of the other.",
            fix="run the missing cells (`unseen run … --retry-failed`), or pick rows of one kind.",
        )
    return np.array([[found[seed, place] for place in places] for seed in seeds])


def crossed_gap(one: NDArray[np.float64], other: NDArray[np.float64], unit: str = "") -> Reading:
    """Mean of one − other over [seed, place] tables whose seeds and places are both samples."""
    if one.shape != other.shape or one.ndim != 2 or one.shape[1] < 2:
        raise InvalidData(
            f"Tables of shape {one.shape} and {other.shape} give no difference over places.",
            why="they are paired, and the places are a sample: at least two are needed.",
            fix="use more rows, or a larger scale.",
        )
    return stats.crossed(one - other, unit=unit)


def overlapping(values: Sequence[float], variances: Sequence[float], unit: str = "") -> Reading:
    """Mean over seeds that judge overlapping samples: the variance of one seed's sample, and the seeds' spread on top."""
    if not values:
        raise InvalidData("No seed has a value.", why="nothing to average.", fix="run the missing cells.")
    spread = float(np.var(values, ddof=1) / len(values)) if len(values) > 1 else 0.0
    half = 1.96 * sqrt(fmean(variances) + spread)
    return Reading(fmean(values), fmean(values) - half, fmean(values) + half, len(values), unit)
