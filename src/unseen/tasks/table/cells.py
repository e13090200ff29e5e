"""What the cells of a column say: numbers in the ways that people write them, dates, yes and no.

A `Format` is how a column's cells are read. It is found once per column (`format_of`) and then
applied cell by cell (`numbers`), so that no row decides how another one is read afterwards.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unseen.errors import InvalidData
from unseen.tasks.table import dates as calendar

MISSING = frozenset(
    {"", "?", "NA", "N/A", "n/a", "NaN", "nan", "NAN", "null", "NULL", "<NA>", "#N/A", "NaT"}
    | {"n.a.", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#NULL!"}
    | {"0000-00-00", "0000-00-00 00:00:00"}
)
"""Cells that hold no value; the last ones are the errors of spreadsheets and MySQL's empty date."""
NO_NUMBER = frozenset({"None", "none", "NONE", "-", "--", ".", "missing", "unknown", "Unknown"})
"""A level of its own among words ("None" may be a drug plan), but no value among numbers."""
TRUTH = (
    {"false": 0.0, "true": 1.0},
    {"no": 0.0, "yes": 1.0},
    {"f": 0.0, "t": 1.0},
    {"n": 0.0, "y": 1.0},
    {"nein": 0.0, "ja": 1.0},
)
FEW_WORDS, FEW_CELLS = 3, 0.01
"""Among numbers or dates, so many other words in so large a share of cells are single mistakes."""
NUMBERS_AT_LEAST = 20
"""From so many different numbers on, a mistake among them does not make them names of classes."""
LONGEST = 40
"""A longer text is no number or date."""
LARGEST_FLOATS = (float(np.finfo(np.float64).max), float(np.finfo(np.float32).max))
"""Programs write their largest number where they have none."""


class Kind(StrEnum):
    """How the cells of a column are read."""

    NUMBER = "number"
    DECIMAL_COMMA = "number with a decimal comma"
    THOUSANDS = "number with commas between thousands"
    POINT_THOUSANDS = "number with points between thousands and a decimal comma"
    TRUTH = "yes or no"
    DATE = "date"
    CATEGORY = "category"


NUMERIC = (Kind.NUMBER, Kind.THOUSANDS, Kind.POINT_THOUSANDS, Kind.DECIMAL_COMMA)
_PLAIN = r"[+-]?\d+(?:\.\d*)?"
_THOUSANDS = re.compile(rf"[+-]?[1-9]\d{{0,2}}(?:,\d{{3}})+(?:\.\d*)?|{_PLAIN}")
_POINT_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(?:\.\d{3})+(?:,\d+)?|[+-]?\d+(?:,\d+)?")
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?")
_GROUPED = re.compile(r"[+-]?\d{1,3}(?:([ '’\u00a0\u202f])\d{3})(?:\1\d{3})*(?:[.,]\d+)?")
_SPACES = re.compile(r"[ '’\u00a0\u202f]")
_GLUED_UNITS = (
    r"[%‰]|°[CF]?|[$€£¥]|mg/dl|mmol/l|mg|kg|g|µg|ug|ng|ml|dl|l|mm|cm|km|m|ms|min|sec|s|h|hrs?|d|"
    r"days?|weeks?|months?|years?|yrs?|y|mmHg|bpm|IU|kcal|kJ|kWh|mV|Hz"
)
_WRITTEN = re.compile(
    r"(?P<limit>[<>≤≥]=?)?\s*(?P<sign>[+−-]?)\s*"
    r"(?P<currency>[$€£¥]|(?:CHF|USD|EUR|GBP|Fr\.)(?=[\s\d]))?\s*"
    r"(?P<digits>[+−-]?(?:\d(?:[\d.,'’ \u00a0\u202f]*\d)?\.?|[.,]\d+)(?:[eE][+-]?\d+)?)"
    # a word behind a blank, or a unit that is known: "3a" names something, "3 min" measures it
    rf"(?P<unit>\s*(?:{_GLUED_UNITS})|\s+[^\W\d_][^\s\d_]{{0,11}})?"
)


@dataclass(frozen=True)
class Format:
    """How the cells of a column are read."""

    kind: Kind
    unit: str = ""
    """Stands before or behind the numbers: "%", "$", "min"."""
    limits: bool = False
    """Whether cells such as "<0.01" are read as the limit."""
    spaced: bool = False
    """Whether blanks or apostrophes stand between thousands."""
    dates: tuple[str, ...] = ()
    """The formats of dates, tried in this order."""

    @property
    def is_numeric(self) -> bool:
        return self.kind in NUMERIC

    @property
    def is_measured(self) -> bool:
        """Whether its cells have an order: numbers and dates."""
        return self.is_numeric or self.kind is Kind.DATE

    @property
    def is_plain(self) -> bool:
        """Numbers as every program writes them."""
        return self == Format(Kind.NUMBER)


@dataclass(frozen=True)
class NumberParts:
    """The parts of a cell such as "<$1,234.50" or "34 min"."""

    digits: str
    """Without blanks and apostrophes."""
    unit: str
    is_limit: bool
    is_spaced: bool


def words_of(column: pd.Series) -> list[str]:
    """The words that occur in a tidy category column."""
    categories = column.cat.categories
    # code −1, a missing cell, is counted first and left out
    occurs = np.bincount(column.cat.codes.to_numpy() + 1, minlength=len(categories) + 1)[1:] > 0
    return list(map(str, np.asarray(categories, object)[occurs]))


def is_words(column: pd.Series) -> bool:
    """Whether a tidy column holds words, which may be written numbers."""
    return isinstance(column.dtype, pd.CategoricalDtype)


def format_of(column: pd.Series) -> Format:
    """How a tidy column is best read."""
    if pd.api.types.is_datetime64_any_dtype(column):
        return Format(Kind.DATE)
    if not is_words(column):
        return Format(Kind.NUMBER)
    words = words_of(column)
    values = [word for word in words if word not in NO_NUMBER]
    exact = _exact_format(values)
    if exact is not None:
        return exact
    if any({word.lower() for word in words} == set(truth) for truth in TRUTH):
        return Format(Kind.TRUTH)
    return _format_but_for_mistakes(column, values) or Format(Kind.CATEGORY)


def _exact_format(values: Sequence[str]) -> Format | None:
    """The format that reads every word, if there is one."""
    if not values:
        return None
    if not np.isnan(plain_numbers(values)).any():
        return Format(Kind.NUMBER)
    if found := calendar.formats_of(values):
        return Format(Kind.DATE, dates=found)
    return _written_format(values)


def _written_format(values: Sequence[str]) -> Format | None:
    parts: list[NumberParts] = []
    for word in values:
        part = take_apart(word)
        if part is None:
            return None
        parts.append(part)
    kind = _kind_of_digits([part.digits for part in parts])
    units = {part.unit for part in parts} - {""}
    limits = sum(part.is_limit for part in parts)
    # "<30" and ">30" alone are two classes; beside measured values they are limits of the device
    if kind is None or len(units) > 1 or limits > len(parts) - limits:
        return None
    spaced = any(part.is_spaced for part in parts)
    return Format(kind, unit=next(iter(units), ""), limits=limits > 0, spaced=spaced)


def _format_but_for_mistakes(column: pd.Series, values: Sequence[str]) -> Format | None:
    """The format that reads all but a few cells."""
    if len(values) < NUMBERS_AT_LEAST:
        return None
    kept = [word for word in values if take_apart(word)]
    found = _written_format(kept) if len(kept) >= len(values) - FEW_WORDS else None
    if found is None and (forms := calendar.formats_of(values, mistakes=FEW_WORDS)):
        found = Format(Kind.DATE, dates=forms)
    most = max(1, FEW_CELLS * column.notna().sum())
    if found is None or len(unreadable(column, found)) > most:
        return None
    return found


def take_apart(word: str) -> NumberParts | None:
    """Digits, unit and limit of a written number; None for other words."""
    found = _WRITTEN.fullmatch(word) if len(word) <= LONGEST else None
    if found is None:
        return None
    currency, unit = (found["currency"] or "").strip(), (found["unit"] or "").strip()
    digits = (found["sign"] + found["digits"]).replace("−", "-")
    if (currency and unit) or digits[1:2] in ("+", "-"):
        return None
    joined = _SPACES.sub("", digits)
    is_spaced = joined != digits
    if is_spaced and not _GROUPED.fullmatch(digits):
        return None
    return NumberParts(joined, (currency or unit).lower(), bool(found["limit"]), is_spaced)


def _kind_of_digits(digits: Sequence[str]) -> Kind | None:
    """How all of these write their decimals and thousands. Between "1,500" as 1500 and as 1.5 the
    first is taken, unless another cell shows that the comma is a decimal one.
    """
    for kind in NUMERIC:
        # without a point there is nothing that says thousands: "1,5" beside "2"
        if kind is Kind.POINT_THOUSANDS and not any("." in word for word in digits):
            continue
        if not any(np.isnan(_of_digits(word, kind)) for word in digits):
            return kind
    return None


def _of_digits(word: str, kind: Kind) -> float:
    if kind is Kind.THOUSANDS and _THOUSANDS.fullmatch(word):
        return float(word.replace(",", ""))
    if kind is Kind.POINT_THOUSANDS and _POINT_THOUSANDS.fullmatch(word):
        return float(word.replace(".", "").replace(",", "."))
    if kind is Kind.DECIMAL_COMMA and _DECIMAL_COMMA.fullmatch(word):
        return float(word.replace(",", "."))
    return _float(word) if kind in (Kind.NUMBER, Kind.DECIMAL_COMMA) else np.nan


def _float(word: str) -> float:
    try:
        # float("1_0") is 10 in Python only; spreadsheets write the sign of Unicode
        return float(word.replace("−", "-")) if "_" not in word else np.nan
    except ValueError:
        return np.nan


def plain_numbers(words: Sequence[str]) -> NDArray[np.float64]:
    """`_float` of every word, quickly where all are numbers as every program writes them."""
    joined = "".join(words)
    if "_" not in joined and "−" not in joined:
        try:
            return np.array(list(map(float, words)), float)
        except ValueError:  # some word is no number
            pass
    return np.array([_float(word) for word in words], float)


def numbers_of(words: Sequence[str], form: Format) -> NDArray[np.float64]:
    """`number_of` every word."""
    if form.kind in (Kind.NUMBER, Kind.DECIMAL_COMMA):
        plain = plain_numbers(words)
        if form.is_plain or not np.isnan(plain).any():
            return plain
    return np.array([number_of(word, form) for word in words], float)


def number_of(word: str, form: Format) -> float:
    """One written number; NaN where it is written otherwise."""
    if form.is_plain or form.kind in (Kind.NUMBER, Kind.DECIMAL_COMMA):
        plain = _float(word)
        if not np.isnan(plain) or form.is_plain:
            return plain
    part = take_apart(word)
    if part is None or part.unit not in ("", form.unit) or (part.is_limit and not form.limits):
        return np.nan
    return _of_digits(part.digits, form.kind)


def numbers(column: pd.Series, form: Format, *, stand_ins: bool = False) -> NDArray[np.float64]:
    """A tidy column as float64 (dates in days since 1970); NaN where the cell is missing or reads
    otherwise.

    A number that only says that there is none (the largest one of its type), and a date in the year
    9999, which stands for no end, are missing, too, unless `stand_ins` are kept.
    """
    x = _numbers(column, form)
    if stand_ins:
        return x
    return calendar.without_no_end(x) if form.kind is Kind.DATE else without_largest(x)


def _numbers(column: pd.Series, form: Format) -> NDArray[np.float64]:
    if pd.api.types.is_datetime64_any_dtype(column):
        return calendar.days(column)
    if not is_words(column):
        return column.to_numpy(float)
    words = list(map(str, np.asarray(column.cat.categories, object)))
    if form.kind is Kind.DATE:
        values = calendar.read_dates(words, form.dates)
    elif form.kind is Kind.TRUTH:
        truth = {word: value for pairs in TRUTH for word, value in pairs.items()}
        values = np.array([truth.get(word.lower(), np.nan) for word in words], float)
    elif form.kind is Kind.CATEGORY:
        values = plain_numbers(words)
    else:
        values = numbers_of(words, form)
    return np.append(values, np.nan)[column.cat.codes.to_numpy()]


def unreadable(column: pd.Series, form: Format) -> pd.Series:
    """The cells of a tidy column of words that hold something, but not what the format reads."""
    is_bad = np.isnan(numbers(column, form, stand_ins=True)) & column.notna().to_numpy()
    if not is_bad.any():
        return column[:0]
    bad = column[is_bad]
    return bad[~bad.isin(NO_NUMBER)]


def without_largest(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """NaN instead of the largest number of float64 and float32 (to the five digits that programs
    write).
    """
    size = np.abs(x)
    is_largest = np.zeros(x.shape, bool)
    for largest in LARGEST_FLOATS:
        is_largest |= np.isfinite(x) & (size > largest * (1 - 1e-5)) & (size <= largest)
    return np.where(is_largest, np.nan, x)


def finite(column: pd.Series, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """`x`, or `InvalidData` naming the column and the rows that are infinite."""
    bad = np.flatnonzero(np.isinf(x))
    if bad.size:
        rows = ", ".join(str(column.index[k]) for k in bad[:5])
        raise InvalidData(
            f"Column `{column.name}` is infinite in {bad.size} row{'s' * (bad.size > 1)} (row "
            f"{rows}).",
            why="an infinite feature makes every prediction infinite or undefined.",
            fix="replace it by an empty cell if it means “unknown”, or by the largest possible "
            "value.",
        )
    return x
