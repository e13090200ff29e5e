"""What is recorded from some moment on only, or until one only: a new code, a new column."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import gammaln

from unseen.tasks.table.encoding import as_words
from unseen.tasks.table.splitting import Rows

MOST_LEVELS = 50
"""A column with more different values has no codes."""
LEAST_SHARE = 0.02
"""A value in fewer of the rows on its own side of the moment is rare, not newly recorded."""
BY_CHANCE = 1e-4
"""Probability that a value which was recorded all along would be missing from one side by chance,
over all values of all columns together (Bonferroni).
"""
ANY = "any value"


def recording_changes(
    tidied: pd.DataFrame,
    columns: Sequence[str],
    time: NDArray[np.float64],
    rows: Rows,
    cells: pd.Series,
) -> list[str]:
    """One sentence per column whose codes, or whose cells at all, occur on one side of a moment
    only, although chance would have spread them. `cells` are the moments as the user wrote them.
    """
    levels = {name: dict(_levels(tidied[name].iloc[rows])) for name in columns}
    tried = 2 * sum(len(of) for of in levels.values())
    said = []
    for name, of in levels.items():
        found = [
            (value, side)
            for value, occurs in of.items()
            if (side := _side(occurs, time[rows], BY_CHANCE / max(1, tried)))
        ]
        if any(value == ANY for value, _ in found):  # its values start with it
            found = [(value, side) for value, side in found if value == ANY]
        for value, side in found[:1]:
            more = f" (and {len(found) - 1} more of its values)" if len(found) > 1 else ""
            said.append(_sentence(name, value, side, more, cells.iloc[rows], time[rows]))
    return said


def _levels(column: pd.Series) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Where the column has any value, and where each of its values, if these are codes."""
    present = column.notna().to_numpy()
    yield ANY, present
    if column.nunique() <= MOST_LEVELS:
        words = as_words(column)
        codes = words.cat.codes.to_numpy()
        for code in np.unique(codes[codes >= 0]):
            yield str(words.cat.categories[code]), codes == code


def _side(
    occurs: NDArray[np.bool_], time: NDArray[np.float64], chance: float
) -> tuple[str, float, float, int] | None:
    """("from" or "until", the moment, the share of rows on that side, rows on the other one)."""
    if not occurs.any() or occurs.all():
        return None
    log_least = np.log(chance)
    for word, moment in (("from", time[occurs].min()), ("until", time[occurs].max())):
        inside = time >= moment if word == "from" else time <= moment
        share, outside = float(occurs[inside].mean()), int((~inside).sum())
        if (
            share >= LEAST_SHARE
            and _log_chance(int(occurs.sum()), outside, occurs.size) < log_least
        ):
            return word, float(moment), share, outside
    return None


def _log_chance(count: int, outside: int, n: int) -> float:
    """Log probability that none of `outside` rows is among `count` rows drawn from n."""
    if outside + count > n:
        return -np.inf
    inside = n - outside
    ways = gammaln([inside + 1, inside - count + 1, n - count + 1, n + 1])
    return float(ways[0] - ways[1] + ways[2] - ways[3])


def _sentence(
    name: str,
    value: str,
    side: tuple[str, float, float, int],
    more: str,
    cells: pd.Series,
    time: NDArray[np.float64],
) -> str:
    word, moment, share, outside = side
    written = cells.iloc[int(np.flatnonzero(time == moment)[0])]
    what = value if value == ANY else f"the value {value}"
    if word == "from":
        when, other = f"from {written} on only", "before"
    else:
        when, other = f"up to {written} only", "after"
    return (
        f"Column `{name}` has {what} {when}{more}: in {share:.1%} of the rows then, in none of "
        f"{outside} {other}. Find out whether the recording changed: a model learns nothing of it "
        f"from the other side. Leave the column out (--drop {name}), or merge what is new with "
        "what it was."
    )
