"""Columns of a table as numbers for a network, with everything learned from the training rows
only.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unseen.errors import InvalidData

MISSING = frozenset(
    {"", "?", "NA", "N/A", "n/a", "NaN", "nan", "NAN", "null", "NULL", "<NA>", "#N/A", "NaT"}
)
"""Cells that hold no value."""
NO_NUMBER = frozenset({"None", "none", "NONE", "-", "--", ".", "missing", "unknown", "Unknown"})
"""A level of its own among words ("None" may be a drug plan), but no value among numbers."""
_TRUTH = (
    {"false": 0.0, "true": 1.0},
    {"no": 0.0, "yes": 1.0},
    {"f": 0.0, "t": 1.0},
    {"n": 0.0, "y": 1.0},
)
_DATES = ("ISO8601", "%Y/%m/%d", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%Y%m%d%H%M%S")
_ID = re.compile(
    r"(^|[_\W])(id|ids|uuid|guid|nbr|key|index|rowid|row|unnamed \d+)$|^(id|unnamed)|[a-z]I[dD]$",
    re.I,
)


class Kind(StrEnum):
    """How the cells of a column are read."""

    NUMBER = "number"
    DECIMAL_COMMA = "number with a decimal comma"
    THOUSANDS = "number with commas between thousands"
    TRUTH = "yes or no"
    DATE = "date"
    CATEGORY = "category"


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


def words_of(column: pd.Series) -> list[str]:
    """The words that occur in a tidy category column."""
    codes = np.unique(column.cat.codes)
    return [str(column.cat.categories[code]) for code in codes if code >= 0]


def kind_of(column: pd.Series) -> tuple[Kind, str]:
    """How a tidy column is best read, and the date format where it holds dates."""
    if pd.api.types.is_datetime64_any_dtype(column):
        return Kind.DATE, ""
    if not isinstance(column.dtype, pd.CategoricalDtype):
        return Kind.NUMBER, ""
    words = words_of(column)
    values = [word for word in words if word not in NO_NUMBER]
    for kind in (Kind.NUMBER, Kind.THOUSANDS, Kind.DECIMAL_COMMA) if values else ():
        if not any(np.isnan(_number(word, kind)) for word in values):
            return kind, ""
    if len(words) == 2 and any({word.lower() for word in words} <= set(truth) for truth in _TRUTH):
        return Kind.TRUTH, ""
    return next(
        ((Kind.DATE, form) for form in _DATES if values and _is_dated(values, form)),
        (Kind.CATEGORY, ""),
    )


def _is_dated(words: Sequence[str], form: str) -> bool:
    looks = all(re.search(r"\d[-/.]\d|\d{8}", word) for word in words)
    return looks and bool(
        pd.to_datetime(pd.Series(words), format=form, errors="coerce").notna().all()
    )


def _number(word: str, kind: Kind) -> float:
    if kind is Kind.THOUSANDS:
        word = (
            word.replace(",", "")
            if re.fullmatch(r"[+-]?[1-9]\d{0,2}(,\d{3})*(\.\d*)?", word)
            else "no"
        )
    elif kind is Kind.DECIMAL_COMMA:
        word = word.replace(",", ".")
    try:
        return float(word) if "_" not in word else np.nan  # float("1_0") is 10 in Python only
    except ValueError:
        return np.nan


def numbers(column: pd.Series, kind: Kind, form: str = "") -> NDArray[np.float64]:
    """A tidy column as float64 (dates in days since 1970); NaN where the cell is missing or reads
    otherwise.
    """
    if pd.api.types.is_datetime64_any_dtype(column):
        return ((column - pd.Timestamp(0)) / np.timedelta64(1, "D")).to_numpy(float)
    if not isinstance(column.dtype, pd.CategoricalDtype):
        return column.to_numpy(float)
    words = [str(word) for word in column.cat.categories]
    if kind is Kind.DATE:
        read = pd.to_datetime(
            pd.Series(words, dtype=object), format=form or "ISO8601", errors="coerce"
        )
        values = ((read - pd.Timestamp(0)) / np.timedelta64(1, "D")).tolist()
    elif kind is Kind.TRUTH:
        truth = {word: value for pairs in _TRUTH for word, value in pairs.items()}
        values = [truth.get(word.lower(), np.nan) for word in words]
    else:
        values = [_number(word, kind) for word in words]
    return np.array([*values, np.nan])[column.cat.codes.to_numpy()]


@dataclass(frozen=True)
class NumericColumn:
    """(x − centre) / scale with missing cells filled by the median; then 1 where the cell was
    missing.
    """

    name: str
    kind: Kind
    fill: float
    centre: float
    scale: float
    """0: the value is constant, only whether it is missing differs."""
    flag: bool
    """Whether a training row misses it. Without one, a missing cell is the median and nothing
    else.
    """
    form: str = ""

    @property
    def names(self) -> list[str]:
        return [self.name] * (self.scale > 0) + [f"{self.name} is missing"] * self.flag

    def encode(self, column: pd.Series) -> NDArray[np.float64]:
        x = finite(column, numbers(column, self.kind, self.form))
        gone = np.isnan(x)
        parts = (
            [(np.where(gone, self.fill, x) - self.centre) / self.scale] if self.scale > 0 else []
        )
        return np.stack([*parts, *([gone.astype(float)] if self.flag else [])], 1)


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
    if isinstance(column.dtype, pd.CategoricalDtype):
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

    @property
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
        return np.concatenate(parts, 1).astype(np.float32)


def fit_encoder(
    tidied: pd.DataFrame, columns: Sequence[str], max_levels: int = 20, min_count: int = 5
) -> Encoder:
    """An encoder learned from these rows (the fitted ones) and these columns."""
    codes: list[Code] = []
    said: list[str] = []
    for name in columns:
        code, why = _code(tidied[name], max_levels, min_count)
        codes += [code] if code else []
        said += [why] if why else []
    if not codes:
        raise InvalidData(
            f"None of the {len(columns)} feature columns can be used.",
            why=" ".join(said) or "the table has no column besides target, site, time and entity.",
            fix="give at least one column that varies between rows and repeats itself.",
        )
    return Encoder(tuple(codes), tuple(said))


def _code(column: pd.Series, max_levels: int, min_count: int) -> tuple[Code | None, str]:
    name, present = str(column.name), column.dropna()
    if present.empty:
        return None, f"Column `{name}` was dropped: no training row has a value."
    kind, form = kind_of(column)
    gone = 1 - len(present) / len(column)
    if kind is Kind.CATEGORY:
        code, why = _one_hot(column, max_levels, min_count)
    else:
        code, why = _numeric_code(column, kind, form)
    if code is not None and code.flag:
        how = (
            "filled with the median, with an input that marks it"
            if isinstance(code, NumericColumn)
            else "a level of its own"
        )
        why = f"Column `{name}`: {gone:.1%} missing, {how}. {why}".strip()
    return code, why


def _numeric_code(column: pd.Series, kind: Kind, form: str) -> tuple[Code | None, str]:
    name, x = str(column.name), finite(column, numbers(column, kind, form))
    gone = np.isnan(x)
    known = x[~gone]
    if not known.size:
        return None, f"Column `{name}` was dropped: no training row has a number."
    whole = bool((known == np.round(known)).all()) and kind is Kind.NUMBER
    if (
        whole
        and known.size > 2
        and np.unique(known).size == known.size
        and (_ID.search(name) or _counts(known))
    ):
        return (
            None,
            f"Column `{name}` was dropped: a different whole number in every row identifies rows.",
        )
    constant = np.ptp(known) == 0
    if constant and not gone.any():
        return None, f"Column `{name}` was dropped: it is {column.iloc[0]} in every training row."
    fill = float(np.median(known))
    filled = np.where(gone, fill, x)
    said = ""
    if kind is Kind.DATE:
        said = f"Column `{name}` was read as dates ({form or 'datetime'}) and became days."
    elif kind in (Kind.DECIMAL_COMMA, Kind.THOUSANDS):
        said = f"Column `{name}` was read as a {kind.value}."
    code = NumericColumn(
        name,
        kind,
        fill,
        float(filled.mean()),
        0.0 if constant else float(filled.std()),
        bool(gone.any()),
        form,
    )
    return code, said


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
