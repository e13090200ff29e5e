"""Columns of a table as numbers for a network, with everything learned from the training rows
only.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unseen.errors import InvalidData
from unseen.tasks.table.cells import MISSING, Format, Kind, finite, format_of, is_words, numbers

_ID = re.compile(
    r"(^|[_\W])(id|ids|uuid|guid|nbr|key|index|rowid|row|unnamed \d+)$|^(id|unnamed)|[a-z]I[dD]$",
    re.I,
)
SENTINELS = (-99.0, -999.0, -9999.0, -99999.0)
"""Numbers that are written where there is none."""
LEAST_KNOWN = 0.05
"""Of a column that fewer training rows have, the values are no input: their deviation among filled
cells is near 0, so that at a site where the column is recorded every value lies far outside.
"""
TOO_FAR = 1e15
"""An input so many standard deviations from the training rows overflows in a network."""


def tidy(frame: pd.DataFrame) -> pd.DataFrame:
    """Every column as float64, datetime64 or category of stripped words; cells without a value are
    missing.

    Cell by cell, so no row influences another.
    """
    return pd.DataFrame(
        {name: _tidy_column(frame[name]) for name in frame.columns}, index=frame.index
    )


def _tidy_column(column: pd.Series) -> pd.Series:
    if pd.api.types.is_datetime64_any_dtype(column):
        return (
            column.dt.tz_convert("UTC").dt.tz_localize(None) if column.dt.tz is not None else column
        )
    if pd.api.types.is_timedelta64_dtype(column):
        return column / np.timedelta64(1, "D")
    if pd.api.types.is_complex_dtype(column):
        raise InvalidData(
            f"Column `{column.name}` holds complex numbers.",
            why="no encoding is defined.",
            fix="give two columns.",
        )
    if pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        return column.astype("Float64").astype(float) if column.hasnans else column.astype(float)
    cells = column.astype(object)
    try:
        codes, words = pd.factorize(cells, use_na_sentinel=True)
    except TypeError:  # lists and arrays of a Parquet column cannot be hashed
        codes, words = pd.factorize(cells.map(str), use_na_sentinel=True)
    texts = [str(word).strip() for word in words]
    known = sorted({text for text in texts if text not in MISSING})
    place = {text: k for k, text in enumerate(known)}
    lookup = np.array(
        [place.get(text, -1) for text in texts] + [-1]
    )  # the last entry answers code −1
    return pd.Series(
        pd.Categorical.from_codes(lookup[codes], known), index=column.index, name=column.name
    )


@dataclass(frozen=True)
class NumericColumn:
    """(x − centre) / scale with missing cells filled by the median; then 1 where the cell was
    missing.
    """

    name: str
    format: Format
    fill: float
    centre: float
    scale: float
    """0: the value is constant, only whether it is missing differs."""
    flag: bool
    """Whether a training row misses it. Without one, a missing cell is the median and nothing
    else.
    """
    sentinels: tuple[float, ...] = ()
    """Numbers that stand for a missing value."""

    @property
    def names(self) -> list[str]:
        return [self.name] * (self.scale > 0) + [f"{self.name} is missing"] * self.flag

    def encode(self, column: pd.Series) -> NDArray[np.float64]:
        x = self.values(column)
        gone = np.isnan(x)
        parts = [self._standardize(column, np.where(gone, self.fill, x))] if self.scale > 0 else []
        return np.stack([*parts, *([gone.astype(float)] if self.flag else [])], 1)

    def values(self, column: pd.Series) -> NDArray[np.float64]:
        """The numbers of a tidy column; NaN where there is none."""
        x = finite(column, numbers(column, self.format))
        return np.where(np.isin(x, self.sentinels), np.nan, x)

    def _standardize(self, column: pd.Series, x: NDArray[np.float64]) -> NDArray[np.float64]:
        with np.errstate(over="ignore"):
            z = (x - self.centre) / self.scale
        far = np.flatnonzero(~(np.abs(z) < TOO_FAR))
        if far.size:
            raise InvalidData(
                f"Column `{column.name}` is {x[far[0]]:g} in row {column.index[far[0]]}, beyond "
                f"every scale of its training rows (mean {self.centre:.3g}, deviation "
                f"{self.scale:.3g}).",
                why="such an input makes every prediction undefined.",
                fix="correct the cell, empty it if it stands for “unknown”, or leave the column "
                f'out: drop="{column.name}"',
            )
        return z


@dataclass(frozen=True)
class OneHot:
    """1 in the column of the cell's level. A level that no training row has counts as `other`, if
    there are others.

    Else it is all zeros: an input that was never on has an untrained weight (scikit-learn:
    "infrequent_if_exist").
    """

    name: str
    levels: tuple[str, ...]
    other: bool
    flag: bool

    @property
    def names(self) -> list[str]:
        ends = ["other"] * self.other
        return [f"{self.name} = {level}" for level in [*self.levels, *ends]] + [
            f"{self.name} is missing"
        ] * self.flag

    def encode(self, column: pd.Series) -> NDArray[np.float64]:
        column = as_words(column)
        width, k = len(self.names), len(self.levels)
        place = {level: i for i, level in enumerate(self.levels)}
        slots = [place.get(str(word), k if self.other else width) for word in column.cat.categories]
        slots.append(width - 1 if self.flag else width)  # code −1: missing
        table = np.concatenate([np.eye(width), np.zeros((1, width))])
        return table[np.array(slots)[column.cat.codes.to_numpy()]]


Code: TypeAlias = NumericColumn | OneHot


def as_words(column: pd.Series) -> pd.Series:
    """A tidy column as categories, numbers written as short as they read ("3", not "3.0")."""
    if is_words(column):
        return column
    if pd.api.types.is_datetime64_any_dtype(column):
        return _tidy_column(column.dt.strftime("%Y-%m-%d"))
    return _tidy_column(
        column.map(lambda x: f"{x:.15g}" if not np.isnan(x) else None).astype(object)
    )


@dataclass(frozen=True)
class Encoder:
    """Which input columns come from which column of the table; what was learned about each, and
    what was left out.
    """

    codes: tuple[Code, ...]
    decisions: tuple[str, ...] = field(default=(), repr=False)

    @property
    def names(self) -> list[str]:
        """One name per input: "age", "age is missing", "sex = female"."""
        return [name for code in self.codes for name in code.names]

    @property
    def origin(self) -> list[str]:
        """For each input the table's column it comes from: permute those together."""
        return [code.name for code in self.codes for _ in code.names]

    @cached_property
    def blocks(self) -> dict[str, slice]:
        """The inputs of each column of the table."""
        stops = np.cumsum([len(code.names) for code in self.codes])
        return {
            code.name: slice(int(b) - len(code.names), int(b))
            for code, b in zip(self.codes, stops, strict=True)
        }

    def transform(self, tidied: pd.DataFrame) -> NDArray[np.float32]:
        """[row, input] in float32."""
        parts = [code.encode(tidied[code.name]) for code in self.codes]
        parts = parts or [np.zeros((len(tidied), 0))]
        return np.concatenate(parts, 1).astype(np.float32)


def fit_encoder(
    tidied: pd.DataFrame,
    columns: Sequence[str],
    max_levels: int = 20,
    min_count: int = 5,
    formats: Mapping[str, Format] | None = None,
    may_be_empty: bool = False,
) -> Encoder:
    """An encoder learned from these rows (the fitted ones) and these columns.

    `formats` are those of all rows: one is taken where it reads the training cells as these alone
    would be read, so that a way of writing that only an evaluated site has is understood, too.
    `may_be_empty` is for a table whose model reads something else, a text.
    """
    codes: list[Code] = []
    said: list[str] = []
    for name in columns:
        form = _format_for(tidied[name], (formats or {}).get(name))
        code, why = _code(tidied[name], form, max_levels, min_count)
        codes += [code] if code else []
        said += [why] if why else []
    if not codes and not may_be_empty:
        raise InvalidData(
            f"None of the {len(columns)} feature columns can be used.",
            why=" ".join(said) or "the table has no column besides target, site, time and entity.",
            fix="give at least one column that varies between rows and repeats itself.",
        )
    return Encoder(tuple(codes), tuple(said))


def _format_for(column: pd.Series, of_all_rows: Format | None) -> Format:
    if of_all_rows is not None and of_all_rows.is_plain and not is_words(column):
        return of_all_rows
    form = format_of(column)
    if of_all_rows is None or form == of_all_rows or not of_all_rows.is_measured:
        return form
    same = np.array_equal(numbers(column, form), numbers(column, of_all_rows), equal_nan=True)
    return of_all_rows if form.is_measured and same else form


def _code(
    column: pd.Series, form: Format, max_levels: int, min_count: int
) -> tuple[Code | None, str]:
    name, present = str(column.name), column.dropna()
    if present.empty:
        return None, f"Column `{name}` was dropped: no training row has a value."
    code: Code | None
    if form.kind is Kind.CATEGORY:
        code, why = _one_hot(column, max_levels, min_count)
        gone = 1 - len(present) / len(column)
    else:
        code, gone, why = _numeric_code(column, form)
    if code is not None and code.flag:
        how = (
            "filled with the median, with an input that marks it"
            if isinstance(code, NumericColumn)
            else "a level of its own"
        )
        why = f"Column `{name}`: {gone:.1%} missing, {how}. {why}".strip()
    return code, why


def _numeric_code(column: pd.Series, form: Format) -> tuple[NumericColumn | None, float, str]:
    """The code, the share of missing cells, and what was left out."""
    name, x = str(column.name), finite(column, numbers(column, form))
    absent = sentinels_of(x[~np.isnan(x)]) if form.is_numeric else ()
    gone = np.isnan(x) | np.isin(x, absent)
    known = x[~gone]
    share = float(gone.mean())
    if not known.size:
        return None, share, f"Column `{name}` was dropped: no training row has a number."
    if identifies_rows(name, known, form):
        why = f"Column `{name}` was dropped: a different whole number in every row identifies rows."
        return None, share, why
    fill = median(known)
    if known.size < LEAST_KNOWN * x.size:
        why = "So few values say nothing about others: only whether there is one is used."
        return NumericColumn(name, form, fill, fill, 0.0, True, absent), share, why
    centre, scale = mean_and_deviation(np.where(gone, fill, x))
    if scale == 0 and not gone.any():
        why = f"Column `{name}` was dropped: it is {column.iloc[0]} in every training row."
        return None, share, why
    return NumericColumn(name, form, fill, centre, scale, bool(gone.any()), absent), share, ""


def identifies_rows(name: str, known: NDArray[np.float64], form: Format) -> bool:
    """Whether numbers are those of rows or persons, by the column's name or because they run up."""
    return is_unique_whole(known, form) and (bool(_ID.search(name)) or _counts(known))


def is_unique_whole(known: NDArray[np.float64], form: Format) -> bool:
    """Whether there is a different whole number in every row."""
    return (
        form.is_plain
        and known.size > 2
        and bool((known == np.round(known)).all())
        and np.unique(known).size == known.size
    )


def median(x: NDArray[np.float64]) -> float:
    """The median, also of numbers whose sum leaves the range of float64."""
    with np.errstate(over="ignore"):
        found = float(np.median(x))
    return found if np.isfinite(found) else 2 * float(np.median(x / 2))


def mean_and_deviation(x: NDArray[np.float64]) -> tuple[float, float]:
    """Mean and standard deviation, also of numbers whose squares leave the range of float64; 0 for
    a constant.
    """
    low, high = float(x.min()), float(x.max())
    if low == high:
        return low, 0.0
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):  # ∞ − ∞ is looked at below
        mean, deviation = float(x.mean()), float(x.std())
        if np.isfinite(mean) and np.isfinite(deviation) and deviation > 0:
            return mean, deviation
        largest = max(abs(low), abs(high))
        return float((x / largest).mean() * largest), float((x / largest).std() * largest)


def sentinels_of(known: NDArray[np.float64]) -> tuple[float, ...]:
    """Which of -99, -999, … stand for a missing value beside these numbers: where all others are
    not negative, or farther above it than they are apart.
    """
    others = known[~np.isin(known, SENTINELS)]
    if others.size < 20:
        return ()
    low, high = float(others.min()), float(others.max())
    return tuple(code for code in SENTINELS if low >= 0 or code < low - (high - low))


def _counts(known: NDArray[np.float64]) -> bool:
    """Whether the numbers run up row by row like a row number."""
    return known.size >= 20 and bool(
        (np.diff(known) > 0).all() and np.ptp(known) <= 10 * known.size
    )


def _one_hot(column: pd.Series, max_levels: int, min_count: int) -> tuple[Code | None, str]:
    name = str(column.name)
    codes = column.cat.codes.to_numpy()
    counts = np.bincount(codes[codes >= 0], minlength=len(column.cat.categories))
    order = [k for k in np.argsort(-counts, kind="stable") if counts[k]]
    gone = bool((codes < 0).any())
    if len(order) == 1 and not gone:
        return (
            None,
            f"Column `{name}` was dropped: it is `{column.cat.categories[order[0]]}` in every "
            "training row.",
        )
    if len(order) > 2 and counts.max() == 1:
        return None, f"Column `{name}` was dropped: a different text in every row identifies rows."
    kept = [k for k in order if counts[k] >= min_count]
    if len(kept) > max_levels or (len(kept) == max_levels and len(kept) < len(order)):
        kept = kept[: max_levels - 1]
    if not kept:
        return (
            None,
            f"Column `{name}` was dropped: none of its {len(order)} texts occurs {min_count} "
            "times.",
        )
    other = len(kept) < len(order)
    levels = tuple(str(column.cat.categories[k]) for k in sorted(kept))
    said = (
        f"Column `{name}` has {len(order)} levels: {len(kept)} kept, the rare ones are `other`."
        if other
        else ""
    )
    return OneHot(name, levels, other, gone), said
