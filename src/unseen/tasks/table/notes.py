"""What was done with the cells of a table, and what could have been meant otherwise: one sentence
per column, with how many cells and an example.
"""

import re
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unseen.tasks.table import dates as calendar
from unseen.tasks.table.cells import (
    Format,
    Kind,
    format_of,
    is_words,
    number_of,
    numbers,
    numbers_of,
    take_apart,
    words_of,
)
from unseen.tasks.table.encoding import identifies_rows, is_unique_whole, sentinels_of
from unseen.text import count_noun

MANY_DIFFERENT = 50
"""From so many rows on, whole numbers that never repeat may be identifiers."""
OUTLIER = 1e6
"""A number so many times the spread of the others, away from them was not measured as they were."""
NINES = (99.0, 999.0, 9999.0, 99999.0, 999.9, 9999.9)


def formats_of_columns(tidied: pd.DataFrame, columns: list[str]) -> dict[str, Format]:
    """How every column is read, by all its rows."""
    return {name: format_of(tidied[name]) for name in columns}


def conversions(tidied: pd.DataFrame, formats: Mapping[str, Format]) -> list[str]:
    """What was read as something else than it is written as."""
    return [text for name, form in formats.items() for text in _conversions_of(tidied[name], form)]


def doubts(tidied: pd.DataFrame, formats: Mapping[str, Format]) -> list[str]:
    """What may be meant otherwise than it was read."""
    said = [text for name, form in formats.items() for text in _doubts_of(tidied[name], form)]
    return [*said, *_points_beside_commas(tidied, formats)]


def _conversions_of(column: pd.Series, form: Format) -> Iterator[str]:
    if is_words(column):
        yield from _of_dates(column, form)
        yield from _of_numbers(column, form)
    if not form.is_measured:
        return
    written = numbers(column, form, stand_ins=True)
    x = numbers(column, form)
    if (lost := np.flatnonzero(np.isnan(x) & ~np.isnan(written))).size:
        meaning = "no end" if form.kind is Kind.DATE else "no value"
        yield (
            f"Column `{column.name}`: {_cells(lost.size)} {_example(column, int(lost[0]))} "
            f"stand{'s' * (lost.size == 1)} for {meaning} and count{'s' * (lost.size == 1)} as "
            "missing."
        )
    if form.is_numeric:
        for code in sentinels_of(x[~np.isnan(x)]):
            if count := int((x == code).sum()):
                yield (
                    f"Column `{column.name}` is {code:g} in {count} of {_cells(len(column))} (row "
                    f"{_first(column, x == code)}), far below all others: read as missing."
                )


def _of_dates(column: pd.Series, form: Format) -> Iterator[str]:
    if form.kind is Kind.DATE:
        form_names = " and ".join(form.dates)
        yield (
            f"Column `{column.name}` holds dates ({form_names}; {_example(column)}) and became "
            f"days{', in UTC' * (form.dates[0] == calendar.ISO)}."
        )


def _of_numbers(column: pd.Series, form: Format) -> Iterator[str]:
    if not form.is_numeric or form.is_plain:
        return
    counts = column.value_counts()
    parts = {word: take_apart(word) for word in words_of(column)}
    marked = [w for w, p in parts.items() if p and _is_marked(p.digits, form.kind)]
    if marked:
        yield _sentence(column, counts, marked, form, f"read as a {form.kind.value}")
    spaced = [w for w, p in parts.items() if p and p.is_spaced]
    if spaced:
        yield _sentence(column, counts, spaced, form, "read without the marks between thousands")
    units = [w for w, p in parts.items() if p and p.unit]
    if units:
        yield _sentence(column, counts, units, form, f"read without the unit “{form.unit}”")
    limits = [w for w, p in parts.items() if p and p.is_limit]
    if limits:
        yield _sentence(column, counts, limits, form, "limits and read as the limit itself")


def _sentence(
    column: pd.Series, counts: pd.Series, words: list[str], form: Format, how: str
) -> str:
    """ "Column `votes`: 3 of 240 cells are read …: “39,384” (row 7) is 39384"."""
    count = int(counts[words].sum())
    is_one_of_them = column.isin(words).to_numpy()
    row = _first(column, is_one_of_them)
    word = str(column.loc[row])
    verb = "are" if count > 1 else "is"
    return (
        f"Column `{column.name}`: {count} of {_cells(len(column))} {verb} {how}: “{word}” (row "
        f"{row}) is {number_of(word, form):.15g}."
    )


def _is_marked(digits: str, kind: Kind) -> bool:
    """Whether the digits are written in the way that names the kind."""
    if kind in (Kind.THOUSANDS, Kind.DECIMAL_COMMA):
        return "," in digits
    return kind is Kind.POINT_THOUSANDS and ("," in digits or "." in digits)


def _doubts_of(column: pd.Series, form: Format) -> Iterator[str]:
    if is_words(column):
        yield from _two_readings(column, form)
    if form.is_numeric:
        x = numbers(column, form)
        x = np.where(np.isin(x, sentinels_of(x[~np.isnan(x)])), np.nan, x)
        yield from _strange_numbers(column, x, form)


def _two_readings(column: pd.Series, form: Format) -> Iterator[str]:
    words = words_of(column)
    if form.is_numeric:
        is_read = ~np.isnan(numbers_of(words, form))
        words = [word for word, read in zip(words, is_read, strict=True) if read]
    if form.kind is Kind.DATE and (other := calendar.other_order(words, form.dates)):
        yield (
            f"Column `{column.name}`: {_example(column)} may be day and month, or month and day. "
            f"It was read as {' and '.join(form.dates)}, not {other}; write dates as 2024-03-31."
        )
    if not form.is_numeric:
        return
    if form.is_plain:
        yield from _leading_zeros(column, words)
        return
    parts = {word: part for word in words if (part := take_apart(word))}
    marked = [word for word, part in parts.items() if _is_marked(part.digits, form.kind)]
    if marked and not any(_is_certain(parts[word].digits, form.kind) for word in marked):
        count = int(column.isin(marked).sum())
        value = number_of(marked[0], form)
        yield (
            f"Column `{column.name}`: “{marked[0]}” was read as {value:.15g} ({_cells(count)} "
            f"like it). If its {_MARKS[form.kind]}, write the numbers without marks between "
            "thousands."
        )
    bare = [word for word, part in parts.items() if form.unit and not part.unit]
    if bare:
        count = int(column.isin(bare).sum())
        yield (
            f"Column `{column.name}`: {_cells(count)} without unit (“{bare[0]}”) stand beside "
            f"others with “{form.unit}” and were read as the same unit."
        )


def _leading_zeros(column: pd.Series, words: list[str]) -> Iterator[str]:
    padded = [word for word in words if len(word) > 1 and word[0] == "0" and word.isdigit()]
    if padded:
        yield (
            f"Column `{column.name}` holds {_cells(int(column.isin(padded).sum()))} with a leading "
            f"zero (“{padded[0]}”), as codes have it. It was read as a number; if it is a code, "
            f"leave it out (--drop {column.name}) or put a letter before it."
        )


_MARKS = {
    Kind.THOUSANDS: "comma is a decimal one",
    Kind.POINT_THOUSANDS: "point is a decimal one",
    Kind.DECIMAL_COMMA: "comma stands between thousands",
}


def _is_certain(digits: str, kind: Kind) -> bool:
    """Whether a number with commas or points can be read in one way only."""
    if kind is Kind.DECIMAL_COMMA:
        return True  # another reading was tried first, and some cell refuted it
    return ("," in digits and "." in digits) or digits.count(",") > 1 or digits.count(".") > 1


def _strange_numbers(column: pd.Series, x: NDArray[np.float64], form: Format) -> Iterator[str]:
    is_known = np.isfinite(x)
    known = x[is_known]
    if known.size < MANY_DIFFERENT:
        return
    name = str(column.name)
    if is_unique_whole(known, form) and not identifies_rows(name, known, form):
        yield (
            f"Column `{name}` holds a different whole number in each of its {known.size} cells "
            f"({_example(column)}). If they identify rows or persons, leave it out: --drop {name}"
        )
    for nines in NINES:
        others = known[known != nines]
        # at least two such cells, above the others by more than these are apart
        if 0 < others.size < known.size - 1 and nines > 2 * others.max() - others.min():
            yield (
                f"Column `{name}` is {nines:g} in {_cells(known.size - others.size)} (row "
                f"{_first(column, x == nines)}) and at most {others.max():g} elsewhere. It was "
                "read as a number; if it stands for “unknown”, empty these cells."
            )
            return
    yield from _outlier(column, x, known)


def _outlier(
    column: pd.Series, x: NDArray[np.float64], known: NDArray[np.float64]
) -> Iterator[str]:
    largest = np.abs(known).max()
    # in units of the largest, so that no difference leaves the range of float64
    scaled = known / (largest or 1.0)
    low, high = (
        np.quantile(scaled, 0.01, method="higher"),
        np.quantile(scaled, 0.99, method="lower"),
    )
    middle = np.median(scaled)
    distance = np.nan_to_num(np.abs(x / (largest or 1.0) - middle))
    row = int(np.argmax(distance))
    # of a column that is nearly constant, its size says how it was measured
    spread = max(high - low, 1e-3 * float(np.quantile(np.abs(scaled), 0.9)))
    if spread > 0 and distance[row] > OUTLIER * spread:
        yield (
            f"Column `{column.name}` is {x[row]:g} in row {column.index[row]}, and between "
            f"{low * largest:.6g} and {high * largest:.6g} in 98 % of all rows. Beside such a "
            "number all others look alike to a model: correct it, or empty the cell."
        )


def _points_beside_commas(tidied: pd.DataFrame, formats: Mapping[str, Format]) -> Iterator[str]:
    """In a table with decimal commas, 1.234 may be 1234."""
    if not any(
        form.kind in (Kind.DECIMAL_COMMA, Kind.POINT_THOUSANDS) for form in formats.values()
    ):
        return
    for name, form in formats.items():
        if not (form.is_plain and is_words(tidied[name])):
            continue
        pointed = [word for word in words_of(tidied[name]) if "." in word]
        if pointed and all(_THREE_BEHIND_POINT.fullmatch(word) for word in pointed):
            yield (
                f"Column `{name}`: “{pointed[0]}” was read as {float(pointed[0]):.15g}, although "
                "other columns have decimal commas. If its point stands between thousands, remove "
                "it."
            )


_THREE_BEHIND_POINT = re.compile(r"[+-]?[1-9]\d{0,2}\.\d{3}")


def _cells(count: int) -> str:
    return count_noun(count, "cell")


def _first(column: pd.Series, where: NDArray[np.bool_]) -> int:
    return int(column.index[int(np.flatnonzero(where)[0])])


def _example(column: pd.Series, position: int | None = None) -> str:
    """The cell at a position, or the first one that holds something."""
    cell = column.dropna().iloc[0] if position is None else column.iloc[position]
    text = f"{cell:.15g}" if isinstance(cell, float) else str(cell)
    return f"“{text}”" + ("" if position is None else f" (row {column.index[position]})")
