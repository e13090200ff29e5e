"""Figures and tables of a study, curried like its effects: say which columns, get a function of the
rows.

    curves("step", "accuracy", by="method", title="…", where={"part": "training"})(rows)

Seeds are put together by their mean, or by `middle`. `where` picks rows, as in an effect.
"""

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from statistics import fmean
from typing import TypeAlias

from unseen.errors import InvalidData
from unseen.figure import Bars, Curves, Grid, Points
from unseen.reading import Reading
from unseen.study import Effect, Row, Rows, Value, column, pick
from unseen.study.effects import distinct

Middle: TypeAlias = Callable[[Sequence[float]], float]
"""How seeds are put together: `statistics.fmean` or `statistics.median`."""
Where: TypeAlias = Mapping[str, Value]
Table: TypeAlias = Callable[[Rows], Sequence[Row]]
ANYWHERE: Where = {}


def curves(
    x: str,
    y: str | Mapping[str, str],
    *,
    by: str = "",
    title: str,
    x_label: str = "",
    y_label: str = "",
    log_x: bool = False,
    log_y: bool = False,
    offset: float = 0,
    middle: Middle = fmean,
    where: Where = ANYWHERE,
) -> Callable[[Rows], Curves]:
    """One line per value of `by`, or per named column of `y`, along the `x` that all lines share.

    `offset` is added to x, so that a logarithmic axis can show step 0.
    """

    def draw(rows: Rows) -> Curves:
        rows = pick(rows, **where)
        lines: dict[str, tuple[Rows, str]] = {}
        if isinstance(y, str):
            lines = {str(name): (pick(rows, **{by: name}), y) for (name,) in distinct(rows, by)}
        else:
            lines = {title: (rows, name) for title, name in y.items()}
        shared = [{float(row[x]) for row in line if name in row} for line, name in lines.values()]
        along = sorted(set.intersection(*shared)) if shared else []
        if not along:
            raise InvalidData(
                f"No `{x}` has every line.",
                why="lines share their axis.",
                fix="run the missing cells.",
            )
        values = {
            label: [middle(column(line, name, **{x: t})) for t in along]
            for label, (line, name) in lines.items()
        }
        return Curves(
            title=title,
            x=[t + offset for t in along],
            y=values,
            x_label=x_label,
            y_label=y_label,
            log_x=log_x,
            log_y=log_y,
        )

    return draw


def bars(
    effect: Effect | Mapping[str, Effect],
    *,
    by: str | Sequence[str] = "",
    title: str,
    label: str = "",
    where: Where = ANYWHERE,
) -> Callable[[Rows], Bars]:
    """One bar per named effect, or one effect for every value of `by`, in the order of the rows."""

    def draw(rows: Rows) -> Bars:
        rows = pick(rows, **where)
        if isinstance(effect, Mapping):
            return draw_bars({name: read(rows) for name, read in effect.items()}, title, label)
        names = (by,) if isinstance(by, str) else tuple(by)
        readings = {}
        for values in distinct(rows, *names):
            group = pick(rows, **dict(zip(names, values, strict=True)))
            readings[" ".join(map(str, values))] = effect(group)
        return draw_bars(readings, title, label)

    return draw


def draw_bars(readings: Mapping[str, Reading], title: str, label: str = "") -> Bars:
    """One bar per reading; one without an interval has none drawn."""
    intervals = {
        name: (reading.low, reading.high)
        for name, reading in readings.items()
        if isfinite(reading.low) and isfinite(reading.high)
    }
    values = {name: reading.value for name, reading in readings.items()}
    return Bars(title=title, values=values, intervals=intervals, label=label)


def points(
    x: str,
    y: str,
    *,
    by: str,
    over: str = "seed",
    title: str,
    x_label: str = "",
    y_label: str = "",
    middle: Middle = fmean,
    diagonal: bool = False,
    where: Where = ANYWHERE,
) -> Callable[[Rows], Points]:
    """One point per value of `over` in each group of `by`."""

    def point(rows: Rows) -> tuple[float, float]:
        return middle(column(rows, x)), middle(column(rows, y))

    def draw(rows: Rows) -> Points:
        rows = pick(rows, **where)
        groups = {}
        for (name,) in distinct(rows, by):
            group = pick(rows, **{by: name})
            values = sorted(distinct(group, over))
            groups[str(name)] = [point(pick(group, **{over: value})) for (value,) in values]
        return Points(
            title=title, groups=groups, x_label=x_label, y_label=y_label, diagonal=diagonal
        )

    return draw


def matrix(
    y: str | Mapping[str, str],
    *,
    down: str | Sequence[str],
    across: str = "",
    title: str,
    label: str = "",
    middle: Middle = fmean,
    where: Where = ANYWHERE,
) -> Callable[[Rows], Grid]:
    """A table of numbers: a line per combination of the columns `down`.

    Across stand the values of a column, for one column `y`; or several columns (title → column).
    """
    names = (down,) if isinstance(down, str) else tuple(down)

    def draw(rows: Rows) -> Grid:
        rows = pick(rows, **where)
        lines = {": ".join(map(str, values)): values for values in distinct(rows, *names)}
        cells: dict[str, tuple[str, Where]] = {}
        if isinstance(y, str):
            cells = {str(value): (y, {across: value}) for (value,) in distinct(rows, across)}
        else:
            cells = {title: (name, ANYWHERE) for title, name in y.items()}
        values = []
        for key in lines.values():
            line = pick(rows, **dict(zip(names, key, strict=True)))
            values.append([middle(column(line, name, **where)) for name, where in cells.values()])
        return Grid(title=title, rows=list(lines), columns=list(cells), values=values, label=label)

    return draw


def summary(
    by: str | Sequence[str],
    columns: Sequence[str] | Mapping[str, str],
    middle: Middle = fmean,
    where: Where = ANYWHERE,
) -> Table:
    """One row per combination of `by`, with the middle of each column that some of its rows have.

    Columns may be renamed: title → column.
    """
    names = (by,) if isinstance(by, str) else tuple(by)
    titles = columns if isinstance(columns, Mapping) else {name: name for name in columns}

    def table(rows: Rows) -> list[Row]:
        rows = pick(rows, **where)
        lines: list[Row] = []
        for values in distinct(rows, *names):
            line: dict[str, Value] = dict(zip(names, values, strict=True))
            group = pick(rows, **line)
            for title, name in titles.items():
                if known := [float(row[name]) for row in group if name in row]:
                    line[title] = middle(known)
            lines.append(line)
        return lines

    return table


def stack(*tables: Table) -> Table:
    """Tables below each other."""
    return lambda rows: [row for table in tables for row in table(rows)]
