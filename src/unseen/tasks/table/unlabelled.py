"""Rows of a table whose target is empty, as unlabelled data for methods that learn from inputs."""

from dataclasses import replace

import numpy as np
import torch

from unseen.engine.batches import Columns
from unseen.task import Split, Use
from unseen.tasks.table import ParsedTable, Tabular
from unseen.tasks.table.splitting import Rows, without
from unseen.text import count_noun

UNLABELLED = "unlabelled"
FEWEST = 20
"""Fewer rows without a target are gaps in the table, no unlabelled data."""


def with_unlabelled_rows(made: Tabular, sheet: ParsedTable) -> Tabular:
    """The task with a split `unlabelled` (ADAPT) of the rows without target, at every site, also
    one that has no label at all.

    Left out are rows of the future (with time), and of entities whose other rows are evaluated.
    """
    rows = _unlabelled_rows(made, sheet)
    if len(rows) < FEWEST:
        return made
    columns = {
        "x": torch.from_numpy(made.encoder.transform(sheet.tidied.iloc[rows])),
        "index": torch.from_numpy(rows),
        "site": torch.from_numpy(sheet.site[rows]),
    }
    if sheet.entity is not None:
        columns["entity"] = torch.from_numpy(sheet.entity[rows])
    task = replace(
        made.task,
        splits={**made.task.splits, UNLABELLED: Split(Columns(**columns), Use.ADAPT)},
    )
    return replace(
        made,
        task=task,
        rows={**made.rows, UNLABELLED: rows},
        decisions=(*made.decisions, _sentence(made, sheet, rows)),
    )


def _unlabelled_rows(made: Tabular, sheet: ParsedTable) -> Rows:
    table, tidied = sheet.table, sheet.tidied
    is_free = tidied[table.target].isna().to_numpy(copy=True)
    is_free[len(is_free) - table.new_rows :] = False
    if table.site:
        is_free &= tidied[table.site].notna().to_numpy()
    if sheet.time is not None:
        with np.errstate(invalid="ignore"):  # a row without time is not of the past
            is_free &= sheet.time <= sheet.time[made.rows["train"]].max()
    rows = np.flatnonzero(is_free)
    for name, split in made.task.splits.items():
        if split.use is Use.EVALUATE:
            rows = without(rows, sheet.entity, made.rows[name])
    return rows


def _sentence(made: Tabular, sheet: ParsedTable, rows: Rows) -> str:
    text = (
        f"{count_noun(len(rows), 'row')} without a target are unlabelled data (split "
        f"`{UNLABELLED}`): methods that learn from inputs may read them"
    )
    if made.held_out is None:
        return f"{text}."
    inside = int((sheet.site[rows] == sheet.sites.index(made.held_out)).sum())
    return f"{text}; {inside} of them are of the held-out site `{made.held_out}`."
