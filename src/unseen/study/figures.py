"""Figures and tables from a study's rows: which column, along which, by which; seeds are put together by their mean."""

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from statistics import fmean
from typing import TypeAlias

from unseen.errors import InvalidData
from unseen.figure import Bars, Curves, Points
from unseen.reading import Reading
from unseen.study import Row, Rows, Value, column, pick
from unseen.study.effects import distinct

Middle: TypeAlias = Callable[[Sequence[float]], float]
"""How seeds are put together: `statistics.fmean` or `statistics.median`."""


def curves(
    rows: Rows,
    *,
    x: str,
    y: str | Mapping[str, str],
    by: str = "",
    title: str,
    x_label: str = "",
    y_label: str = "",
    log_x: bool = False,
    log_y: bool = False,
    offset: float = 0,
    middle: Middle = fmean,
) -> Curves:
    """One line per value of `by`, or per named column of `y`, along the values of `x` that all lines share.

    `offset` is added to x, so that a logarithmic axis can show step 0.
    """
    sources: dict[str, tuple[Rows, str]] = {}
    if isinstance(y, str):
        sources = {str(name): (pick(rows, **{by: name}), y) for (name,) in distinct(rows, by)}
    else:
        sources = {name: (rows, each) for name, each in y.items()}
    shared = [{float(row[x]) for row in mine if each in row} for mine, each in sources.values()]
    at = sorted(set.intersection(*shared)) if shared else []
    if not at:
        raise InvalidData(f"No `{x}` has every line.", why="lines share their axis.", fix="run the missing cells.")
    lines = {name: [middle(column(mine, each, **{x: t})) for t in at] for name, (mine, each) in sources.items()}
    along = [t + offset for t in at]
    return Curves(title=title, x=along, y=lines, x_label=x_label, y_label=y_label, log_x=log_x, log_y=log_y)


def bars(readings: Mapping[str, Reading], *, title: str, label: str = "") -> Bars:
    """One bar per reading; one without an interval has none drawn."""
    known = {name: (r.low, r.high) for name, r in readings.items() if isfinite(r.low) and isfinite(r.high)}
    return Bars(title=title, values={name: r.value for name, r in readings.items()}, intervals=known, label=label)


def points(
    rows: Rows,
    *,
    x: str,
    y: str,
    by: str,
    over: str = "seed",
    title: str,
    x_label: str = "",
    y_label: str = "",
    middle: Middle = fmean,
) -> Points:
    """One point per value of `over` in each group of `by`."""

    def point(mine: Rows) -> tuple[float, float]:
        return middle(column(mine, x)), middle(column(mine, y))

    groups = {}
    for (name,) in distinct(rows, by):
        mine = pick(rows, **{by: name})
        groups[str(name)] = [point(pick(mine, **{over: value})) for (value,) in sorted(distinct(mine, over))]
    return Points(title=title, groups=groups, x_label=x_label, y_label=y_label)


def summary(
    rows: Rows, by: Sequence[str], columns: Sequence[str] | Mapping[str, str], middle: Middle = fmean
) -> list[Row]:
    """One row per combination of `by` with the middle of each column (title → column) that some of its rows have."""
    titles = columns if isinstance(columns, Mapping) else {name: name for name in columns}
    made: list[Row] = []
    for values in distinct(rows, *by):
        facts: dict[str, Value] = dict(zip(by, values, strict=True))
        mine = pick(rows, **facts)
        found = {title: [float(row[name]) for row in mine if name in row] for title, name in titles.items()}
        made.append({**facts, **{title: middle(seen) for title, seen in found.items() if seen}})
    return made
