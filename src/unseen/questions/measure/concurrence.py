"""Do benchmarks agree? A table of scores, one row per model, split and seed: how alike the splits
order the models, whether that is more than chance, and what each split can tell apart at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from unseen.errors import InvalidData
from unseen.questions.measure.tables import read_table
from unseen.stats.concurrence import (
    Pair,
    Scores,
    SourceEffect,
    SplitQuality,
    concurrences,
    source_effect,
    split_quality,
)
from unseen.text import join_words

MODEL, SPLIT, SEED, SCORE = "model", "split", "seed", "score"
SOURCE, STRATEGY = "source", "strategy"
EXAMPLE = "model,split,seed,score"
LEAST = 2


@dataclass(frozen=True, kw_only=True)
class ConcurrenceReport:
    """Every pair of splits and every split."""

    source: str
    scores: Scores
    pairs: Sequence[Pair]
    splits: Sequence[SplitQuality]
    taus: Sequence[Sequence[float]]
    """[split, split], the diagonal is the reliability."""
    draws: int
    labels: SourceEffect | None = None
    """Same source against same strategy, where the table has both columns."""
    labels_reason: str = ""
    missing: Sequence[str] = field(default_factory=tuple)
    """Models without any score on a split."""
    left_out: int = 0
    """Rows without a score."""


def evaluate_concurrence(
    source: str | Path | pd.DataFrame, *, draws: int = 999, seed: int = 0
) -> ConcurrenceReport:
    table = source if isinstance(source, pd.DataFrame) else read_table(Path(source), EXAMPLE)
    rows = _check(table)
    scores = score_cube(rows)
    quality = [split_quality(scores, k) for k in range(len(scores.splits))]
    taus = scores.order.against(scores.order)
    np.fill_diagonal(taus, [one.reliability for one in quality])
    labels, reason = _labels(rows, scores, taus, seed)
    return ConcurrenceReport(
        source="a DataFrame" if isinstance(source, pd.DataFrame) else str(source),
        scores=scores,
        pairs=concurrences(scores, draws=draws, seed=seed),
        splits=quality,
        taus=taus.tolist(),
        draws=draws,
        labels=labels,
        labels_reason=reason,
        missing=[
            f"{model} on {split}"
            for k, split in enumerate(scores.splits)
            for i, model in enumerate(scores.models)
            if not np.isfinite(scores.values[k, i]).any()
        ],
        left_out=len(table) - len(rows),
    )


def score_cube(rows: pd.DataFrame) -> Scores:
    """Splits and models in the order of the table."""
    splits, models, seeds = (
        list(dict.fromkeys(map(str, rows[name]))) for name in (SPLIT, MODEL, SEED)
    )
    values = np.full((len(splits), len(models), len(seeds)), np.nan)
    at = tuple(
        [names.index(str(value)) for value in rows[column]]
        for names, column in ((splits, SPLIT), (models, MODEL), (seeds, SEED))
    )
    values[at] = rows[SCORE].astype(float)
    return Scores(tuple(splits), tuple(models), values)


def _check(table: pd.DataFrame) -> pd.DataFrame:
    """The rows with a score, with a column of seeds."""
    if lacking := [name for name in (MODEL, SPLIT, SCORE) if name not in table]:
        raise InvalidData(
            f"There is no column {join_words([f'`{name}`' for name in lacking])} "
            f"({', '.join(map(str, table.columns[:12]))}).",
            why="concurrence is that of splits over models.",
            fix=f"give a table with the columns {EXAMPLE}, one row per training.",
        )
    score = pd.to_numeric(table[SCORE], errors="coerce")
    words = table[SCORE].notna() & score.isna()
    if words.any():
        raise InvalidData(
            f"The score in row {int(np.flatnonzero(words)[0]) + 2} is "
            f"`{table[SCORE][words].iloc[0]}`.",
            why="models are ordered by their scores.",
            fix="give numbers, and an empty cell where there is none.",
        )
    table = table.assign(**{SCORE: score}, **({} if SEED in table else {SEED: 0}))
    for name in (MODEL, SPLIT, SEED):
        if table[name].isna().any():
            raise InvalidData(
                f"The column `{name}` is empty in row "
                f"{int(np.flatnonzero(table[name].isna())[0]) + 2}.",
                why="a score belongs to a model, a split and a seed.",
                fix="fill the cell or leave the row out.",
            )
    rows = table[np.isfinite(score)]
    keys = rows[[MODEL, SPLIT, SEED]].astype(str)
    if keys.duplicated().any():
        model, split, seed = keys[keys.duplicated()].iloc[0]
        raise InvalidData(
            f"Model {model}, split {split}, seed {seed} occurs more than once.",
            why="a training has one score on a split.",
            fix="give every training a seed of its own, in the column `seed`.",
        )
    for name in (MODEL, SPLIT):
        if rows[name].nunique() < LEAST:
            raise InvalidData(
                f"The scores are of {rows[name].nunique()} {name}.",
                why="the order of models is compared between splits.",
                fix="give at least two splits and two models, better six models.",
            )
    return rows.reset_index(drop=True)


def _labels(
    rows: pd.DataFrame, scores: Scores, taus: np.ndarray, seed: int
) -> tuple[SourceEffect | None, str]:
    if SOURCE not in rows or STRATEGY not in rows:
        return None, ""
    found: dict[str, list[str]] = {}
    for name in (SOURCE, STRATEGY):
        values = rows.groupby(rows[SPLIT].astype(str), sort=False)[name]
        if rows[name].isna().any():
            split = rows[SPLIT][rows[name].isna()].iloc[0]
            raise InvalidData(
                f"The column `{name}` is empty for the split {split}.",
                why="splits without one would count as of one and the same.",
                fix="fill the cells, or leave the column out.",
            )
        if (values.nunique(dropna=False) > 1).any():
            raise InvalidData(
                f"A split has more than one {name}.",
                why="source and strategy belong to a split, not to a row.",
                fix=f"give all rows of a split the same {name}.",
            )
        first = values.first()
        found[name] = [str(first[split]) for split in scores.splits]
    try:
        return source_effect(taus, found[SOURCE], found[STRATEGY], seed=seed), ""
    except InvalidData as error:
        return None, str(error.args[0])
