"""Subgroups of rows: the levels of a column, bands of a numeric one ("age:decade"), or spans of
time ("admitted:month").
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unseen.errors import InvalidConfig, UnknownName
from unseen.tasks.table.cells import Format, Kind, format_of, number_of, numbers, words_of
from unseen.tasks.table.encoding import as_words

MISSING = "missing"
SPANS = {"day": "D", "week": "W", "month": "M", "year": "Y"}
"""Of dates, and numpy's units for them; a week begins on a Thursday, as the year 1970 did."""
MOST_BANDS = 100
"""Decades of an age; not of an income."""


@dataclass(frozen=True)
class Grouping:
    """A partition of the rows: `names[codes[row]]`. Rows without a value form the group
    "missing".
    """

    name: str
    names: tuple[str, ...]
    codes: NDArray[np.int64]


def build_grouping(
    tidied: pd.DataFrame, spec: str, fit: NDArray[np.int64], few: int = 12
) -> tuple[Grouping, str]:
    """The groups of "column", "column:decade", "column:quartiles" or "column:40,60" and a sentence
    on their edges.

    Quartiles come from the training rows. A numeric column with more than `few` values and no bands
    gets quartiles.
    """
    column, _, bands = (
        spec.rpartition(":") if ":" in spec and spec not in tidied else (spec, "", "")
    )
    if column not in tidied:
        raise UnknownName.near("column", column, tidied.columns)
    values = tidied[column]
    form = format_of(values)
    if bands and not form.is_measured:
        raise InvalidConfig(
            f"Group `{spec}` asks for bands of `{column}`, which holds words "
            f"({', '.join(words_of(values)[:3])}).",
            why="only numbers have bands.",
            fix=f'use groups="{column}".',
        )
    x = numbers(values, form)
    if bands in SPANS and form.kind is Kind.DATE:
        return _spans(x, spec, SPANS[bands]), ""
    if not bands and (not form.is_measured or len(np.unique(x[~np.isnan(x)])) <= few):
        return _levels(as_words(values), spec, form)
    if np.isnan(x).all():
        return _grouping_with_missing(spec, [], np.zeros(len(x))), ""
    edges = _edges(x, bands or "quartiles", spec, fit)
    names = band_names(edges)
    codes = np.where(np.isnan(x), len(names), np.searchsorted(edges, x, side="right"))
    said = f"Group `{spec}`: {', '.join(names)}."
    return _grouping_with_missing(spec, names, codes), said


def _spans(days: NDArray[np.float64], spec: str, unit: str) -> Grouping:
    """The months, say, in which dates lie."""
    is_known = ~np.isnan(days)
    dates = np.floor(days[is_known]).astype("datetime64[D]").astype(f"datetime64[{unit}]")
    found, number = np.unique(dates, return_inverse=True)
    codes = np.full(days.size, len(found))
    codes[is_known] = number
    return _grouping_with_missing(spec, [str(span) for span in found], codes)


def _levels(words: pd.Series, spec: str, form: Format) -> tuple[Grouping, str]:
    names = words_of(words)
    if form.is_numeric:  # words that are no number come last
        names.sort(key=lambda word: (np.isnan(x := number_of(word, form)), x))
    place = {name: k for k, name in enumerate(names)}
    slots = np.array([place.get(str(word), -1) for word in words.cat.categories] + [len(names)])
    return _grouping_with_missing(spec, names, slots[words.cat.codes.to_numpy()]), ""


def _grouping_with_missing(spec: str, names: list[str], codes: NDArray) -> Grouping:
    codes = codes.astype(np.int64)
    return Grouping(spec, (*names, MISSING) if (codes == len(names)).any() else tuple(names), codes)


def _edges(
    x: NDArray[np.float64], bands: str, spec: str, fit: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Inner edges; a value on an edge belongs to the band above."""
    column = spec.rpartition(":")[0]
    known = x[~np.isnan(x)]
    if bands == "decade":
        if known.max() / 10 - known.min() / 10 > MOST_BANDS:
            raise InvalidConfig(
                f"Group `{spec}` asks for decades from {known.min():g} to {known.max():g}.",
                why=f"these are more than {MOST_BANDS} bands.",
                fix=f'use groups="{column}:quartiles", or name the edges.',
            )
        return np.arange(np.floor(known.min() / 10) + 1, np.floor(known.max() / 10) + 1) * 10
    if bands in ("quartiles", "quintiles", "tertiles"):
        parts = {"quartiles": 4, "quintiles": 5, "tertiles": 3}[bands]
        inside = x[fit][~np.isnan(x[fit])]
        return np.unique(np.quantile(inside, np.arange(1, parts) / parts))
    try:
        edges = np.array([float(edge) for edge in bands.split(",")])
    except ValueError:
        edges = np.array([np.nan])
    if np.isnan(edges).any() or (np.diff(edges) <= 0).any():
        raise InvalidConfig(
            f"Group `{spec}` has unknown bands `{bands}`.",
            why="bands are decade, tertiles, quartiles, quintiles, or rising edges; of dates also "
            f"{', '.join(SPANS)}.",
            fix=f'for example groups="{column}:decade" or groups="{column}:40,60".',
        )
    return edges


def band_names(edges: NDArray[np.float64]) -> list[str]:
    """What the bands between rising edges are called."""
    texts = [f"{edge:.6g}" for edge in edges]
    if not texts:
        return ["all"]
    return [f"< {texts[0]}", *(f"{a} to < {b}" for a, b in pairwise(texts)), f"≥ {texts[-1]}"]
