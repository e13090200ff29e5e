"""The target of a table: classes or a number, inferred and said."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unseen.errors import InvalidData
from unseen.objectives import classify, regress
from unseen.task import Objective
from unseen.tasks.table.cells import (
    TRUTH,
    Format,
    Kind,
    finite,
    format_of,
    is_words,
    number_of,
    numbers,
    take_apart,
    words_of,
)
from unseen.tasks.table.encoding import SENTINELS, as_words, mean_and_deviation, sentinels_of
from unseen.tasks.table.spelling import refuse_spellings
from unseen.text import count_noun, join_words

MANY = 10
"""A target of whole numbers with more distinct values is a regression."""
FEW_ROWS, FEW_SHARE = 5, 0.02
"""Fewer rows of other classes, and so small a share, beside 0 and 1 are mistakes."""
MOSTLY = 0.8
"""From this share on, other cells among numbers are named instead of taken for classes."""
PAIRS = ({"0", "1"}, {"-1", "1"}, *({*pair} for pair in TRUTH))
"""Two classes that leave no third one."""
NO_LABEL = {-100.0, 99.0, 999.0, 9999.0, *SENTINELS}
"""Beside two classes these stand for a missing label (−100: what PyTorch's losses leave out)."""
TRUE, FALSE = (
    {word for pair in TRUTH for word, value in pair.items() if value == x} for x in (1, 0)
)


class Predicts(StrEnum):
    """What a model of the table returns."""

    CLASS = "class"
    NUMBER = "number"


@dataclass(frozen=True)
class Target:
    """Class names in the order of the logits; or centre and scale of a number (its fitted mean and
    deviation).
    """

    name: str
    predicts: Predicts
    classes: tuple[str, ...] = ()
    centre: float = 0.0
    scale: float = 1.0
    format: Format = Format(Kind.NUMBER)
    """How the cells of a number are read."""

    @property
    def outputs(self) -> int:
        """How many outputs a model needs."""
        return len(self.classes) or 1

    @property
    def objective(self) -> Objective:
        return classify if self.classes else regress


def infer_target(column: pd.Series, predicts: Predicts | None = None) -> tuple[Target, str]:
    """What a tidy target column without missing cells holds, and the sentence that says so."""
    form = format_of(column)
    if form.kind is Kind.DATE:
        raise InvalidData(
            f"The target `{column.name}` holds dates.",
            why="neither classes nor a number with a zero can be read from it.",
            fix="give the days until the event, or whether it happened.",
        )
    if predicts is None:
        predicts = Predicts.NUMBER if _is_measured(column, form) else Predicts.CLASS
    if predicts is Predicts.NUMBER:
        return _number(column, form)
    words = as_words(column)
    names = words_of(words)
    counts = words.value_counts()
    _refuse_mistakes(words, {name: int(counts[name]) for name in names})
    if form.is_numeric:
        names.sort(key=lambda word: (np.isnan(x := number_of(word, form)), x))
    if len(names) < 2:
        raise InvalidData(
            f"The target `{column.name}` is `{names[0]}` in all {len(column)} rows.",
            why="with one class there is nothing to tell apart.",
            fix="add rows of the other class, or choose another target.",
        )
    if len(names) > max(50, len(column) / 10) or len(names) > len(column) / 2:
        raise InvalidData(
            f"The target `{column.name}` has {len(names)} classes in {len(column)} rows "
            f"({', '.join(names[:3])}, …).",
            why="most classes would have no example to learn from or to evaluate by.",
            fix="merge classes, or choose another target; is it an identifier or a free text?",
        )
    shares = ", ".join(f"`{name}` {counts[name] / len(column):.1%}" for name in names[:12])
    said = f"The target `{column.name}` has {len(names)} classes (logits in this order): {shares}."
    return Target(str(column.name), Predicts.CLASS, tuple(names)), said


def _refuse_mistakes(words: pd.Series, counts: Mapping[str, int]) -> None:
    """Raises where classes are written in two ways, or where single cells stand beside 0 and 1 or
    beside numbers: what they mean is asked, not guessed.
    """
    what = f"The target `{words.name}`"
    plain = {name: name.lower().removesuffix(".0") for name in counts}
    known = TRUE | FALSE | {"0", "1"}
    if len(counts) > 2 and {*plain.values()} <= known:
        true = [name for name in counts if plain[name] in TRUE | {"1"}]
        ways = ", ".join(f"`{name}` ({count})" for name, count in counts.items())
        raise InvalidData(
            f"{what} writes yes and no in several ways: {ways}; row "
            f"{_row_of(words, min(counts, key=lambda name: counts[name]))} is the first of its "
            "kind.",
            why="every way would be a class of its own.",
            fix=f"write 1 for yes and 0 for no in all rows; yes seems to be {', '.join(true)}.",
        )
    refuse_spellings(what, counts)
    _refuse_no_label(words, counts)
    pair = sorted(counts, key=lambda name: -counts[name])[:2]
    odd = [name for name in counts if name not in pair]
    rows = sum(counts[name] for name in odd)
    is_pair = {plain[name] for name in pair} in PAIRS
    if odd and is_pair and rows < FEW_ROWS and rows <= FEW_SHARE * len(words):
        raise InvalidData(
            f"{what} is `{pair[0]}` or `{pair[1]}`, but “{odd[0]}” in row "
            f"{_row_of(words, odd[0])} ({count_noun(rows, 'such cell')}).",
            why="a class of so few rows can be neither learned nor evaluated.",
            fix="correct the cell, or empty it: rows without target are left out.",
        )
    texts = [name for name in counts if take_apart(name) is None]
    share = sum(counts[name] for name in texts) / len(words)
    if texts and share <= 1 - MOSTLY and len(counts) - len(texts) > MANY:
        raise InvalidData(
            f"{what} holds numbers, but “{texts[0]}” in row {_row_of(words, texts[0])} "
            f"({count_noun(sum(counts[name] for name in texts), 'such cell')}).",
            why="neither a number nor one of a few classes can be read from it.",
            fix="correct the cell, or empty it: rows without target are left out.",
        )


def _refuse_no_label(words: pd.Series, counts: Mapping[str, int]) -> None:
    """Raises where beside two classes a number stands that means a missing label: as a class of
    its own it would be learned.
    """
    codes = [name for name in counts if _number_in(name) in NO_LABEL]
    classes = {name.lower().removesuffix(".0") for name in counts if name not in codes}
    if codes and classes in PAIRS:
        raise InvalidData(
            f"The target `{words.name}` is {join_words([f'`{c}`' for c in sorted(classes)])}, but "
            f"“{codes[0]}” in {count_noun(counts[codes[0]], 'row')}, first in row "
            f"{_row_of(words, codes[0])}.",
            why="it probably stands for a missing label, and would become a third class.",
            fix="empty these cells (rows without target are left out), or write a word if it is a "
            "class.",
        )


def _number_in(name: str) -> float | None:
    try:
        return float(name)
    except ValueError:
        return None


def _row_of(words: pd.Series, name: str) -> int:
    return int(words.index[int(np.flatnonzero((words == name).to_numpy())[0])])


def _is_measured(column: pd.Series, form: Format) -> bool:
    """Numbers with fractions, or with more than `MANY` values, are measured; few whole ones name
    classes.
    """
    if not form.is_numeric:
        return False
    values = np.unique(numbers(column, form))
    return values.size > MANY or (values.size > 2 and bool((values != np.round(values)).any()))


def _number(column: pd.Series, form: Format) -> tuple[Target, str]:
    if not form.is_numeric:
        raise InvalidData(
            f"The target `{column.name}` has words ({', '.join(as_words(column).unique()[:3])}).",
            why="a regression needs numbers.",
            fix="leave the kind of target to be inferred, or clean the column.",
        )
    x = finite(column, numbers(column, form))
    _refuse_unmeasured(column, x, form)
    if np.ptp(x) == 0:
        raise InvalidData(
            f"The target `{column.name}` is {x[0]:g} in all {x.size} rows.",
            why="a constant needs no model.",
            fix="choose another target.",
        )
    said = f"The target `{column.name}` is a number ({x.min():g} to {x.max():g}): a regression."
    how = f" Its cells are read as a {form.kind.value}" + f" in “{form.unit}”" * bool(form.unit)
    return Target(str(column.name), Predicts.NUMBER, format=form), said + (
        "" if form.is_plain else f"{how} (“{column.iloc[0]}” is {x[0]:g})."
    )


def _refuse_unmeasured(column: pd.Series, x: NDArray[np.float64], form: Format) -> None:
    """Raises where a cell stands for a missing value, or for a limit instead of a value."""
    is_limit = np.zeros(x.size, bool)
    if is_words(column) and form.limits:
        limits = [word for word in words_of(column) if (p := take_apart(word)) and p.is_limit]
        is_limit = column.isin(limits).to_numpy()
    is_sentinel = np.isin(x, sentinels_of(x[~np.isnan(x)]))
    for bad, meaning in (
        (np.isnan(x), "no number as in the other rows"),
        (is_sentinel, "far from all others and probably stands for a missing value"),
        (is_limit, "a limit, not a value"),
    ):
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise InvalidData(
                f"The target `{column.name}` holds “{_text(column.iloc[row])}” in row "
                f"{column.index[row]}, which is {meaning} "
                f"({count_noun(int(bad.sum()), 'such cell')}).",
                why="a model would be trained and evaluated on a number that was not measured.",
                fix="correct these cells, or empty them: rows without target are left out.",
            )


def _text(cell: object) -> str:
    return f"{cell:g}" if isinstance(cell, float) else str(cell)


def fit_target(target: Target, column: pd.Series, rows: NDArray[np.int64]) -> Target:
    """The target with centre and scale of the training rows (classes: unchanged)."""
    if target.classes:
        return target
    x = numbers(column.iloc[rows], target.format)
    centre, scale = mean_and_deviation(x)
    if scale == 0:
        raise InvalidData(
            f"The target `{target.name}` is {x[0]:g} in every training row.",
            why="it varies only where it is evaluated.",
            fix="hold out another site or period.",
        )
    return replace(target, centre=centre, scale=scale)


def values(target: Target, column: pd.Series) -> NDArray[np.float64] | NDArray[np.int64]:
    """Class indices, or (y − centre) / scale."""
    if target.classes:
        words = as_words(column)
        indices = level_indices([str(word) for word in words.cat.categories], target.classes)
        return np.array([*indices, -1])[words.cat.codes.to_numpy()]
    y = numbers(column, target.format)
    with np.errstate(over="ignore"):
        scaled = (y - target.centre) / target.scale
    beyond = np.abs(scaled) > np.finfo(np.float32).max  # NaN: no target, the row is left out
    if beyond.any():
        raise InvalidData(
            f"The target `{target.name}` is {y[beyond][0]:g}, where the training rows have the "
            f"mean {target.centre:g} and the standard deviation {target.scale:g}.",
            why="so far away a prediction has no error that could be computed.",
            fix="correct these cells, or empty them: rows without target are left out.",
        )
    return scaled


def level_indices(words: Sequence[str], order: Sequence[str]) -> list[int]:
    """The position of each word in `order`; −1 where it is not there."""
    place = {word: k for k, word in enumerate(order)}
    return [place.get(word, -1) for word in words]
