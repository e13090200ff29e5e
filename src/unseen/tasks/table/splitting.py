"""Which row of a table is fitted, which selects, and which evaluates."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unseen.errors import InvalidConfig, InvalidData
from unseen.tasks.table.cells import (
    Format,
    Kind,
    format_of,
    is_words,
    numbers,
    take_apart,
    unreadable,
    words_of,
)
from unseen.tasks.table.dates import formats_of, other_order, read_dates
from unseen.text import count_noun

Rows = NDArray[np.int64]


FUTURE = "future"
"""Where rows of a later time than the training rows are."""


@dataclass(frozen=True)
class Shares:
    """How the training sites' (or periods') rows are divided, and how much of the time line is the
    future.
    """

    select: float = 0.15
    seen: float = 0.2
    later: float = 0.3

    def __post_init__(self) -> None:
        if (
            min(self.select, self.seen, self.later) <= 0
            or self.select + self.seen >= 1
            or self.later >= 1
        ):
            raise InvalidConfig(
                f"The shares are select={self.select}, seen={self.seen}, later={self.later}.",
                why="each split needs rows, and some must be left to fit.",
                fix="use positive shares with select + seen < 1 and later < 1.",
            )


def moments(column: pd.Series) -> NDArray[np.float64]:
    """A tidy time column as numbers in order of time; NaN where missing. Words have no order:
    raises.
    """
    form = format_of(column)
    if not form.is_measured:
        raise _unsortable(column)
    values = numbers(column, form)
    if is_words(column):
        _refuse_doubtful(column, form)
    if np.unique(values[~np.isnan(values)]).size < 2:
        raise InvalidData(
            f"Time column `{column.name}` has one value only.",
            why="there is no past and future.",
            fix="leave out time, or choose another column.",
        )
    return values


def _unsortable(column: pd.Series) -> InvalidData:
    """Names the first cell that differs from the others, where most can be sorted."""
    words = words_of(column)
    forms = formats_of(words, mistakes=len(words) // 3)
    is_date = ~np.isnan(read_dates(words, forms)) if forms else np.zeros(len(words), bool)
    readable = [w for w, date in zip(words, is_date, strict=True) if date or take_apart(w)]
    odd = [word for word in words if word not in readable]
    where = f"it holds words ({', '.join(words[:3])})"
    if odd and len(readable) >= len(words) / 2:
        row = column.index[int(np.flatnonzero(column == odd[0])[0])]
        where = f"row {row} holds “{odd[0]}”, others for example “{readable[0]}”"
    return InvalidData(
        f"Time column `{column.name}` cannot be sorted: {where}.",
        why="the past is fitted and the future is for evaluation, so its cells must be numbers or "
        "dates, written in one way.",
        fix="write dates as 2024-03-01 (one format in all rows), or give the year as a number.",
    )


def _refuse_doubtful(column: pd.Series, form: Format) -> None:
    """Raises where a cell is no date, or where day and month may be the other way round."""
    bad = unreadable(column, form)
    if len(bad):
        raise InvalidData(
            f"Time column `{column.name}` holds “{bad.iloc[0]}” in row {bad.index[0]}, which is "
            f"not a {form.kind} as in the other rows ({count_noun(len(bad), 'such cell')}).",
            why="a row without a moment is neither past nor future.",
            fix="correct the cell, or empty it: rows without time are left out.",
        )
    words = words_of(column)
    if form.kind is Kind.DATE and (other := other_order(words, form.dates)):
        raise InvalidData(
            f"Time column `{column.name}`: “{words[0]}” may be {' and '.join(form.dates)}, or "
            f"{other}; no row decides.",
            why="the past is fitted and the future is for evaluation: with days taken for months "
            "they would be mixed.",
            fix="write dates as 2024-03-31, year first.",
        )


def past(time: NDArray[np.float64], later: float) -> tuple[NDArray[np.bool_], float]:
    """Which rows come first, and the last moment among them: max(time of past) < min(time of
    future).

    Rows of equal time stay together, on the side that comes closest to the wanted share.
    """
    moments, counts = np.unique(time, return_counts=True)
    behind = np.cumsum(counts)[:-1] / time.size
    cut = moments[int(np.argmin(np.abs(behind - (1 - later))))]
    return time <= cut, float(cut)


def split_by_stratum(
    rows: Rows,
    strata: NDArray[np.int64],
    entity: NDArray[np.int64] | None,
    shares: Mapping[str, float],
    rng: np.random.Generator,
) -> dict[str, Rows]:
    """Random parts of `rows`, sorted. Within a stratum (site × class) sizes follow `shares` as
    closely as whole numbers allow; the first name gets what remains. All rows of an entity go the
    same way.

    `strata` and `entity` are codes of all rows of the table.
    """
    units, first, member = np.unique(
        rows if entity is None else entity[rows], return_index=True, return_inverse=True
    )
    stratum = strata[rows][first]
    names = list(shares)
    side = np.zeros(units.size, np.int64)
    carry = np.zeros(len(names))
    for value in np.unique(stratum):
        inside = rng.permutation(np.flatnonzero(stratum == value))
        start = 0
        for k, name in enumerate(names[1:], 1):
            carry[k] += (
                shares[name] * inside.size
            )  # carried over, so that many tiny strata still fill every part
            take = min(round(carry[k]), inside.size - start)
            carry[k] -= take
            side[inside[start : start + take]] = k
            start += take
    return {name: np.sort(rows[side[member] == k]) for k, name in enumerate(names)}


def without(rows: Rows, entity: NDArray[np.int64] | None, elsewhere: Rows) -> Rows:
    """`rows` without those of an entity that also has a row `elsewhere`."""
    return rows if entity is None else rows[~np.isin(entity[rows], np.unique(entity[elsewhere]))]
