"""The target of a table: classes or a number, inferred and said."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unseen.errors import InvalidData
from unseen.objectives import classify, regress
from unseen.task import Objective
from unseen.tasks.table.encoding import Kind, as_words, finite, kind_of, numbers, words_of

MANY = 10
"""A target of whole numbers with more distinct values is a regression."""


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

    @property
    def outputs(self) -> int:
        """How many outputs a model needs."""
        return len(self.classes) or 1

    @property
    def objective(self) -> Objective:
        return classify if self.classes else regress


def infer_target(column: pd.Series, predicts: Predicts | None = None) -> tuple[Target, str]:
    """What a tidy target column without missing cells holds, and the sentence that says so."""
    kind, _ = kind_of(column)
    if kind is Kind.DATE:
        raise InvalidData(
            f"The target `{column.name}` holds dates.",
            why="neither classes nor a number with a zero can be read from it.",
            fix="give the days until the event, or whether it happened.",
        )
    if predicts is None:
        predicts = Predicts.NUMBER if _is_measured(column, kind) else Predicts.CLASS
    if predicts is Predicts.NUMBER:
        return _number(column, kind)
    words = as_words(column)
    names = words_of(words)
    if kind is not Kind.CATEGORY and kind is not Kind.TRUTH:
        names = sorted(names, key=float)
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
    counts = words.value_counts()
    shares = ", ".join(f"`{name}` {counts[name] / len(column):.1%}" for name in names[:12])
    said = f"The target `{column.name}` has {len(names)} classes (logits in this order): {shares}."
    return Target(str(column.name), Predicts.CLASS, tuple(names)), said


def _is_measured(column: pd.Series, kind: Kind) -> bool:
    """Numbers with fractions, or with more than `MANY` values, are measured; few whole ones name
    classes.
    """
    if kind in (Kind.CATEGORY, Kind.TRUTH):
        return False
    values = np.unique(numbers(column, kind))
    return values.size > MANY or (values.size > 2 and bool((values != np.round(values)).any()))


def _number(column: pd.Series, kind: Kind) -> tuple[Target, str]:
    if kind is Kind.CATEGORY:
        raise InvalidData(
            f"The target `{column.name}` has words ({', '.join(words_of(column)[:3])}).",
            why="a regression needs numbers.",
            fix="leave the kind of target to be inferred, or clean the column.",
        )
    x = finite(column, numbers(column, kind))
    if np.ptp(x) == 0:
        raise InvalidData(
            f"The target `{column.name}` is {x[0]:g} in all {x.size} rows.",
            why="a constant needs no model.",
            fix="choose another target.",
        )
    said = f"The target `{column.name}` is a number ({x.min():g} to {x.max():g}): a regression."
    return Target(str(column.name), Predicts.NUMBER), said


def fit_target(target: Target, column: pd.Series, rows: NDArray[np.int64]) -> Target:
    """The target with centre and scale of the training rows (classes: unchanged)."""
    if target.classes:
        return target
    x = numbers(column.iloc[rows], kind_of(column)[0])
    if np.ptp(x) == 0:
        raise InvalidData(
            f"The target `{target.name}` is {x[0]:g} in every training row.",
            why="it varies only where it is evaluated.",
            fix="hold out another site or period.",
        )
    return Target(target.name, target.predicts, (), float(x.mean()), float(x.std()))


def values(target: Target, column: pd.Series) -> NDArray[np.float64] | NDArray[np.int64]:
    """Class indices, or (y − centre) / scale."""
    if target.classes:
        words = as_words(column)
        return np.array(
            level_indices([str(word) for word in words.cat.categories], target.classes)
        )[words.cat.codes.to_numpy()]
    return (numbers(column, kind_of(column)[0]) - target.centre) / target.scale


def level_indices(words: Sequence[str], order: Sequence[str]) -> list[int]:
    """The position of each word in `order`; −1 where it is not there."""
    place = {word: k for k, word in enumerate(order)}
    return [place.get(word, -1) for word in words]
