"""The task of a parsed table, and the way back from it to the user's rows and columns."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from unseen.engine.batches import Columns, whole
from unseen.lab import Lab
from unseen.task import Split, Task, Use
from unseen.tasks.table import target as targets
from unseen.tasks.table.cells import Format, Kind, finite, numbers
from unseen.tasks.table.encoding import Encoder, NumericColumn, as_words, fit_encoder
from unseen.tasks.table.grouping import Grouping, build_grouping
from unseen.tasks.table.held_out import refuse_empty, split_rows
from unseen.tasks.table.inspection import numbers_among_words, type_mismatches
from unseen.tasks.table.parsing import ParsedTable
from unseen.tasks.table.splitting import (
    Rows,
)
from unseen.tasks.table.target import Target


@dataclass(frozen=True, kw_only=True)
class Tabular:
    """A task made from a table, the way back to the user's rows and columns, and what was
    decided.
    """

    task: Task
    frame: pd.DataFrame
    """The user's rows: `frame.iloc[batch["index"]]`."""
    encoder: Encoder
    target: Target
    rows: Mapping[str, Rows]
    """The rows of each split."""
    sites: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]]
    decisions: tuple[str, ...]
    """Plain sentences for the report."""
    warnings: tuple[str, ...]
    held_out: str | None
    conversions: tuple[str, ...] = ()
    """Those of the decisions that say what was read otherwise than it is written."""
    tidied: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False)
    formats: Mapping[str, Format] = field(default_factory=dict)
    """How the cells of each column without a role are read."""

    @property
    def name(self) -> str:
        return self.task.name

    def cells(self, split: str) -> dict[str, NDArray[Any]]:
        """The columns without a role as written, for the rows of a split: numbers with NaN, or
        words with "", where a cell is missing.
        """
        rows, codes = self.rows[split], {code.name: code for code in self.encoder.codes}
        found = dict[str, NDArray[Any]]()
        for name, form in self.formats.items():
            column, code = self.tidied[name].iloc[rows], codes.get(name)
            if isinstance(code, NumericColumn) or (code is None and form.is_measured):
                read = numbers(column, form) if code is None else code.values(column)
                found[f"{name} (days since 1970)" if form.kind is Kind.DATE else name] = read
            else:
                found[name] = np.array(["" if pd.isna(w) else str(w) for w in as_words(column)])
        return found

    def as_numpy(self, split: str) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """(x, y) of a split for scikit-learn: the same encoded features and rows."""
        batch = whole(self.task.split(split).data, Lab())
        return batch["x"].numpy(), batch["y"].numpy()

    def numbers(self, split: str) -> dict[str, NDArray[np.float64]]:
        """The columns as they stand in the table, codes for "unknown" included: numbers, 0 for any
        word or date, NaN where a cell is empty.
        """
        rows, found = self.rows[split], dict[str, NDArray[np.float64]]()
        for code in self.encoder.codes:
            column = self.tidied[code.name].iloc[rows]
            if isinstance(code, NumericColumn) and code.format.is_numeric:
                found[code.name] = finite(column, numbers(column, code.format))
            else:
                found[code.name] = np.where(column.isna(), np.nan, 0.0)
        return found


def split_table(sheet: ParsedTable, held_out: str | None, lab: Lab) -> Tabular:
    """The task of an opened table, with `held_out` left out where the table has sites."""
    table, tidied = sheet.table, sheet.tidied
    parts = split_rows(sheet, held_out, lab)
    fit = parts.rows["train"]
    refuse_empty(parts, sheet)
    # centre, scale, levels and medians come from the training rows: the others must not leak in
    target = targets.fit_target(sheet.target, tidied[table.target], fit)
    encoder = fit_encoder(
        tidied.iloc[fit],
        list(sheet.formats),
        table.max_levels,
        table.min_count,
        sheet.formats,
        may_be_empty=table.text is not None,
    )
    groups, said = [], []
    for spec in table.groups:
        group, sentence = build_grouping(tidied, spec, fit)
        groups.append(group)
        said += [sentence] if sentence else []
    block = build_grouping(tidied, table.block, fit)[0] if table.block else None
    columns = _columns(sheet, target, encoder, groups, block)
    uses = {"train": Use.TRAIN, "local": Use.TRAIN, "select": Use.SELECT}
    splits = {
        name: Split(
            columns.subset(torch.as_tensor(rows)), uses.get(name, Use.EVALUATE), parts.at[name]
        )
        for name, rows in parts.rows.items()
    }
    rows = dict(parts.rows)
    if table.new_rows:
        rows["new"] = sheet.new_rows
        without = {key: t for key, t in columns[torch.as_tensor(rows["new"])].items() if key != "y"}
        splits["new"] = Split(Columns(**without), Use.ADAPT, table.new_site)
    held = parts.at["unseen"] if table.site else None
    task = Task(name=held or "table", axis=parts.axis, splits=splits, objective=target.objective)
    warnings = (
        *sheet.warnings,
        *numbers_among_words(tidied.iloc[fit], encoder),
        *type_mismatches(tidied, encoder),
    )
    scaled = (
        ()
        if target.classes
        else (f"One unit of the target is its fitted standard deviation, {target.scale:.4g}.",)
    )
    return Tabular(
        task=task,
        frame=sheet.frame,
        encoder=encoder,
        target=target,
        rows=rows,
        sites=sheet.sites,
        groups={group.name: group.names for group in groups},
        decisions=(
            *sheet.conversions,
            *sheet.decisions,
            *scaled,
            *parts.said,
            *encoder.decisions,
            *said,
            *([] if block is None else [_about_blocks(block)]),
        ),
        conversions=sheet.conversions,
        warnings=warnings,
        held_out=held,
        tidied=tidied,
        formats=sheet.formats,
    )


def _about_blocks(block: Grouping) -> str:
    return (
        f"Rows with the same `{block.name}` hang together: intervals of scores, gaps, reliance, "
        f"remedies and comparison models draw the {len(block.names)} blocks anew, and are never "
        "narrower than for rows by themselves. Those of calibration, labels, coherence and "
        "curvature count rows."
    )


def _columns(
    sheet: ParsedTable,
    target: Target,
    encoder: Encoder,
    groups: list[Grouping],
    block: Grouping | None = None,
) -> Columns:
    # rows without a target keep 0; no split holds them
    y = np.zeros(len(sheet.frame), np.int64 if target.classes else np.float32)
    y[sheet.rows] = targets.values(target, sheet.tidied[target.name])[sheet.rows]
    return Columns(
        x=torch.from_numpy(encoder.transform(sheet.tidied)),
        y=torch.from_numpy(y),
        index=torch.arange(len(y)),
        site=torch.from_numpy(sheet.site),
        **{f"group:{group.name}": torch.from_numpy(group.codes) for group in groups},
        **({} if block is None else {"block": torch.from_numpy(block.codes)}),
        **({} if sheet.entity is None else {"entity": torch.from_numpy(sheet.entity)}),
    )
