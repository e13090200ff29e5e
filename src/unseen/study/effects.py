"""Effects on a study's rows beyond means, rates and paired gaps, and what makes one effect of
another.

`restrict` and `derive` work on effects, figures and tables alike: all are functions of the rows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import exp, sqrt
from statistics import fmean
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from unseen import stats
from unseen.errors import InvalidData
from unseen.reading import Reading
from unseen.study import Effect, Groups, Row, Rows, Value, column, gap, pick

T = TypeVar("T")


def distinct(rows: Rows, *names: str) -> list[tuple[Value, ...]]:
    """The combinations of these columns' values, in the order of their first row; rows without them
    are left out.
    """
    return list(
        dict.fromkeys(
            tuple(row[name] for name in names) for row in rows if all(n in row for n in names)
        )
    )


def restrict(
    read: Callable[[Rows], T], when: Callable[[Row], bool] | None = None, /, **where: Value
) -> Callable[[Rows], T]:
    """The effect, figure or table on the rows with these values for which `when` holds."""

    def effect(rows: Rows) -> T:
        rows = pick(rows, **where)
        return read(rows if when is None else [row for row in rows if when(row)])

    return effect


def derive(read: Callable[[Rows], T], /, **columns: Callable[[Row], Value]) -> Callable[[Rows], T]:
    """The effect, figure or table on rows with further columns, each a function of its row."""

    def effect(rows: Rows) -> T:
        return read([{**row, **{name: of(row) for name, of in columns.items()}} for row in rows])

    return effect


def lowest(*effects: Effect, over: str = "") -> Effect:
    """These readings, or those of one effect for every value of `over`, shown by the lowest: a
    claim on them is one on every one.
    """
    return lambda rows: Groups.of(_readings(effects, over, rows), lambda one: -one.value)


def highest(*effects: Effect, over: str = "") -> Effect:
    """The same, shown by the highest."""
    return lambda rows: Groups.of(_readings(effects, over, rows), lambda one: one.value)


def lowest_of(effects: Mapping[str, Effect]) -> Effect:
    """The readings of several effects by the names that a verdict says, shown by the lowest."""
    return lambda rows: Groups.of(_with_name(effects, rows), lambda one: -one.value)


def highest_of(effects: Mapping[str, Effect]) -> Effect:
    """The same, shown by the highest."""
    return lambda rows: Groups.of(_with_name(effects, rows), lambda one: one.value)


def _with_name(effects: Mapping[str, Effect], rows: Rows) -> dict[str, Reading]:
    return {name: effect(rows) for name, effect in effects.items()}


def worst(effect: Effect, over: str, ideal: float, **where: Value) -> Effect:
    """The readings of all groups (rows with one value of `over`), shown by the one farthest from
    `ideal`: a claim on them is one on every group.
    """
    return lambda rows: Groups.of(
        _readings([effect], over, pick(rows, **where)), lambda one: abs(one.value - ideal)
    )


def minimum(*effects: Effect) -> Effect:
    """The smallest of these effects with an interval for the smallest of the true ones.

    The lower limit is the lowest of all; the upper one the lowest of limits that hold together
    (Bonferroni), since the smallest value seen is too small by chance.
    """

    def read(rows: Rows) -> Reading:
        readings = list(_readings(effects, "", rows).values())
        least = min(readings, key=lambda one: one.value)
        high = min(stats.widen(one, len(readings)).high for one in readings)
        low = min(one.low for one in readings)
        return replace(least, low=low, high=max(high, least.value), detail=None)

    return read


def _readings(effects: Sequence[Effect], over: str, rows: Rows) -> dict[str, Reading]:
    values = [value for (value,) in sorted(distinct(rows, over))] if over else []
    groups: dict[str, Rows] = {f"{over} {value}": pick(rows, **{over: value}) for value in values}
    if over and not values:
        raise InvalidData(f"No row has `{over}`.", why="nothing ran.", fix="run the missing cells.")
    many = len(effects) > 1
    return {
        f"{n}. {name}".strip() if many else name: effect(group)
        for n, effect in enumerate(effects, 1)
        for name, group in (groups or {"": rows}).items()
    }


def exponential(effect: Effect) -> Effect:
    """e to the effect on a column of logarithms: a ratio of geometric means."""

    def power(reading: Reading) -> Reading:
        value, low, high = map(exp, (reading.value, reading.low, reading.high))
        if not isinstance(reading, Groups):
            return replace(reading, value=value, low=low, high=high, unit="ratio")
        readings = {name: power(one) for name, one in reading.readings.items()}
        return replace(reading, value=value, low=low, high=high, unit="ratio", readings=readings)

    return lambda rows: power(effect(rows))


def ratio(name: str, of: Mapping[str, Value], against: Mapping[str, Value]) -> Effect:
    """e to the paired difference of a column of logarithms: the ratio of geometric means."""
    return exponential(gap(name, of, against))


def limit(effect: Effect, low: float, high: float) -> Effect:
    """The effect with an interval that ends where its values must: a difference of shares lies in
    [−1, 1], whatever t says of three seeds.
    """

    def read(rows: Rows) -> Reading:
        found = effect(rows)
        return replace(found, low=max(low, found.low), high=min(high, found.high))

    return read


def share(successes: str, n: str, where: Mapping[str, Value] = {}, /, **more: Value) -> Effect:
    """Mean over seeds of each seed's proportion, seeds counting once (`stats.mean_proportion`)."""
    chosen = {**where, **more}

    def read(rows: Rows) -> Reading:
        right, total = (column(rows, name, **chosen) for name in (successes, n))
        found = stats.mean_proportion(right, total)
        return replace(found, freedom=max(1, found.n - 1))

    return read


def grid(rows: Rows, name: str, down: str, across: str) -> NDArray[np.float64]:
    """A column as a table [down, across], both sorted; every pair must have exactly one row."""
    rows = [row for row in rows if name in row]
    (seeds, sites) = (
        [value for (value,) in sorted(distinct(rows, axis))] for axis in (down, across)
    )
    found = {(row[down], row[across]): float(row[name]) for row in rows}
    if not rows or len(found) != len(rows) or len(found) != len(seeds) * len(sites):
        raise InvalidData(
            f"{len(rows)} rows of `{name}` do not fill {len(seeds)} × {len(sites)} ({down} × "
            f"{across}) once each.",
            why="both are samples, and every value of one must meet every value of the other.",
            fix="run the missing cells (`unseen run … --retry-failed`), or pick rows of one kind.",
        )
    return np.array([[found[seed, site] for site in sites] for seed in seeds])


def crossed_gap(one: NDArray[np.float64], other: NDArray[np.float64], unit: str = "") -> Reading:
    """Mean of one − other over [seed, site] tables whose seeds and sites are both samples."""
    if one.shape != other.shape or one.ndim != 2 or one.shape[1] < 2:
        raise InvalidData(
            f"Tables of shape {one.shape} and {other.shape} give no difference over sites.",
            why="they are paired, and the sites are a sample: at least two are needed.",
            fix="use more rows, or a larger scale.",
        )
    return stats.crossed_mean(one - other, unit=unit)


def overlapping(values: Sequence[float], variances: Sequence[float], unit: str = "") -> Reading:
    """Mean over seeds that judge overlapping samples: the variance of one seed's sample, and the
    seeds' spread on top.
    """
    if not values:
        raise InvalidData(
            "No seed has a value.", why="nothing to average.", fix="run the missing cells."
        )
    spread = float(np.var(values, ddof=1) / len(values)) if len(values) > 1 else 0.0
    # the sample's variance is known from many examples, the seeds' is estimated from few: t for
    # that part
    of_seeds = stats.t_quantile(len(values) - 1) ** 2 * spread if spread else 0.0
    half = sqrt(stats.z_quantile() ** 2 * fmean(variances) + of_seeds)
    return Reading(fmean(values), fmean(values) - half, fmean(values) + half, len(values), unit)
