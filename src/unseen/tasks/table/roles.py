"""The columns of a table that have a role: which rows have all of target, site, time and entity,
which sites can be evaluated, and what is written in two ways.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unseen.errors import InvalidData
from unseen.tasks.table import target as targets
from unseen.tasks.table.cells import words_of
from unseen.tasks.table.encoding import as_words
from unseen.tasks.table.spelling import refuse_spellings, spellings
from unseen.tasks.table.splitting import Rows
from unseen.tasks.table.target import Target
from unseen.tasks.table.texts import rows_without
from unseen.text import count_noun, join_words

LEAST_ROWS, LEAST_OF_CLASS = 5, 2
"""A site is evaluated from so many rows on, with so many of at least two classes."""
FEW_OF_CLASS = 20
"""Below so many rows of its rarest class the interval of a site is wide."""


@dataclass(frozen=True)
class Sites:
    """The site of every row (−1: none, or left out) and the names of the sites."""

    codes: NDArray[np.int64]
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def usable_rows(
    tidied: pd.DataFrame,
    frame: pd.DataFrame,
    roles: Mapping[str, str | None],
    time: NDArray[np.float64] | None,
) -> tuple[list[str], NDArray[np.bool_]]:
    """Which rows have every role, and sentences on those that have not. Features may be missing,
    roles may not.
    """
    usable, said = np.ones(len(tidied), bool), []
    for role, column in roles.items():
        if column is None:
            continue
        gone = tidied[column].isna().to_numpy()
        if role == "time" and time is not None:
            gone = np.isnan(time)
        if gone.all():
            raise InvalidData(
                f"The {role} column `{column}` is empty in all {len(tidied)} rows.",
                why="rows without it cannot be used.",
                fix="choose another column, or fill it.",
            )
        if gone.any():
            # what has no target may still be unlabelled data (`tasks/table/unlabelled.py`)
            where = " of training and evaluation" if role == "target" else ""
            where += rows_without(gone) if role == "text" else ""
            said.append(
                f"{int(gone.sum())} of {len(tidied)} rows have no {role} (`{column}`) and were "
                f"left out{where}{_first_cell(frame[column], gone)}."
            )
        usable &= ~gone
    if usable.sum() < 2:
        raise InvalidData(
            f"{int(usable.sum())} of {len(tidied)} rows have all of target, site, time and entity.",
            why="training and evaluation need different rows.",
            fix="fill these columns, or leave one of them out.",
        )
    return said, usable


def _first_cell(column: pd.Series, gone: NDArray[np.bool_]) -> str:
    """Where cells hold something that counts as nothing: the first of them."""
    for row in np.flatnonzero(gone)[:1_000]:
        cell = column.iloc[row]
        text = "" if cell is None or cell is pd.NA or cell != cell else str(cell).strip()
        if text:
            return f" (row {row}: “{text}”)"
    return ""


def codes_of(column: pd.Series) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """A code per row into the column's words (−1: missing)."""
    words = as_words(column)
    names = words_of(words)
    # the last entry is for code −1, a missing cell
    place = np.array([*targets.level_indices([str(w) for w in words.cat.categories], names), -1])
    return place[words.cat.codes.to_numpy()].astype(np.int64), tuple(names)


def sites_of(column: pd.Series, rows: Rows) -> Sites:
    """The sites of a tidy column. One with a single usable row is left out and named: there is
    nothing to evaluate and nothing to learn from.
    """
    codes, names = codes_of(column)
    counts = np.bincount(codes[rows], minlength=len(names))
    refuse_spellings(
        f"The site column `{column.name}`", dict(zip(names, counts.tolist(), strict=True)), 2
    )
    kept = np.flatnonzero(counts > 1)
    alone = [f"`{names[k]}`" for k in np.flatnonzero(counts == 1)]
    if len(kept) < 2:
        others = f" beside {count_noun(len(alone), 'site')} of one row" if alone else ""
        what = f"one site only: `{names[kept[0]]}`" if len(kept) else "no site with two rows"
        raise InvalidData(
            f"Site column `{column.name}` has {what}{others}.",
            why="one site is left out and another must remain to learn from.",
            fix="leave out the site, or name a time column.",
        )
    place = np.full(len(names) + 1, -1)
    place[kept] = np.arange(len(kept))
    verb = "was" if len(alone) == 1 else "were"
    single = count_noun(len(alone), "site")
    note = f"{single} with one usable row {verb} left out: {_list_some(alone)}."
    one_letter = spellings(names)
    return Sites(
        place[codes],
        tuple(names[k] for k in kept),
        (note,) if alone else (),
        tuple(
            f"Sites {join_words([f'`{name}`' for name in same])} differ in capital letters only "
            "and were taken for different sites."
            for same in one_letter
        ),
    )


def _list_some(names: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


@dataclass(frozen=True)
class Evaluable:
    """The sites that can be held out and evaluated."""

    codes: tuple[int, ...]
    warnings: Sequence[str]
    """On the others."""
    notes: Sequence[str]
    """On those with few rows of a class: their intervals are honest, and wide."""


def evaluable_sites(sites: Sites, target: Target, y: NDArray, rows: Rows) -> Evaluable:
    """All sites, where none could be evaluated."""
    small, single, rare, chosen = [], [], [], []
    for k, name in enumerate(sites.names):
        inside = rows[sites.codes[rows] == k]
        counts = np.bincount(y[inside].astype(int)) if target.classes else np.array([])
        if len(inside) < LEAST_ROWS:
            small.append(f"`{name}` ({count_noun(len(inside), 'row')})")
        elif target.classes and (counts >= LEAST_OF_CLASS).sum() < 2:
            only = target.classes[int(counts.argmax())]
            single.append(f"`{name}` ({counts.max()} of {len(inside)} rows are `{only}`)")
        else:
            chosen.append(k)
            if target.classes and (least := counts[counts > 0].min()) < FEW_OF_CLASS:
                rare.append(f"`{name}` ({least})")
    said = [
        _about_sites(small, "too few rows to evaluate", "not held out, but trained on"),
        _about_sites(single, "one class, or hardly another", "not held out, but trained on"),
    ]
    few = _about_sites(rare, "few rows of the rarest class", "read the interval, not the value")
    return Evaluable(
        tuple(chosen or range(len(sites.names))),
        warnings=[text for text in said if text],
        notes=[few] if few else [],
    )


def _about_sites(names: Sequence[str], what: str, then: str) -> str:
    """ "2 sites have too few rows to evaluate: `a` (1 row), `b` (2 rows). They are …"."""
    if not names:
        return ""
    verb = "has" if len(names) == 1 else "have"
    return f"{count_noun(len(names), 'site')} {verb} {what}: {_list_some(names)}; {then}."
