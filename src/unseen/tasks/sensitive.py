"""A table in which one column is sensitive: sex, race, age. Batches hold it as `a`, whether the
model sees it or not.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from unseen.engine.batches import Columns
from unseen.errors import InvalidData, UnknownName
from unseen.lab import Lab
from unseen.task import Split, Task, Use
from unseen.tasks.table import Table, Tabular, clinics, parse_table
from unseen.tasks.table.encoding import tidy
from unseen.tasks.table.grouping import MISSING, build_grouping
from unseen.tasks.table_domains import TableDomains


@dataclass(frozen=True)
class Sensitive:
    """`table`, with `a` = 1 where `column` is at `level` and 0 elsewhere, and `group` = 2 y + a
    (classes only).

    With a site column the sites are domains (`unseen.tasks.domains`); without one, the splits are
    those of the table and `domains()` is empty. Dropping the column does not make a model fair:
    others tell it.
    """

    table: Table
    column: str
    """As a group of a table: "sex", "race", "age:25"."""
    level: str
    """"Female", "≥ 25"."""
    held_out: str | None = None
    visible: bool = True
    """Whether the column is among the features."""

    def domains(self) -> tuple[str, ...]:
        return parse_table(self.table).sites if self.table.site else ()

    def build(self, lab: Lab) -> Task:
        return self.prepare(lab).task

    def prepare(self, lab: Lab) -> Tabular:
        """The task with its encoder and everything that was decided on the way."""
        name = (
            self.column.partition(":")[0] if self.column not in self.table.frame() else self.column
        )
        seen = self.table if self.visible else replace(self.table, drop=(*self.table.drop, name))
        made = (TableDomains(seen, self.held_out) if seen.site else seen).prepare(lab)
        return add_sensitive_attribute(made, self.column, self.level)


def add_sensitive_attribute(made: Tabular, column: str, level: str) -> Tabular:
    """A prepared table whose batches also hold `a` and, for classes, `group`."""
    tidied = tidy(made.frame.reset_index(drop=True))
    groups, _ = build_grouping(tidied, column, np.arange(len(tidied)))
    if level not in groups.names:
        raise UnknownName.near(f"level of `{column}`", level, groups.names)
    lost = (
        int((groups.codes == groups.names.index(MISSING)).sum()) if MISSING in groups.names else 0
    )
    if lost:
        raise InvalidData(
            f"The sensitive column `{column}` has no value in {lost} of {len(tidied)} rows.",
            why="a person of no known group can be compared with none.",
            fix="leave these rows out, or fill them with a level of their own: "
            f"df[{column.partition(':')[0]!r}].fillna(…).",
        )
    a = torch.from_numpy((groups.codes == groups.names.index(level)).astype(np.int64))
    splits = {name: _with(split, a) for name, split in made.task.splits.items()}
    _refuse_single_level(splits, column, level)
    said = (
        f"`a` is 1 where `{column}` is `{level}` ({a.double().mean():.1%} of all rows) and 0 "
        "elsewhere."
    )
    return replace(
        made,
        task=replace(made.task, splits=splits),
        decisions=(*made.decisions, said),
        warnings=(*made.warnings, *_single_group_notes(splits, column, level)),
    )


def _with(split: Split, a: Int[Tensor, " row"]) -> Split:
    assert isinstance(split.data, Columns)  # what a table is made of
    columns = dict(split.data.columns)
    columns["a"] = a[columns["index"]]
    if not columns["y"].is_floating_point():
        columns["group"] = 2 * columns["y"] + columns["a"]
    return replace(split, data=Columns(**columns))


def _refuse_single_level(splits: dict[str, Split], column: str, level: str) -> None:
    fitted = torch.cat([split.data[:]["a"] for split in splits.values() if split.use is Use.TRAIN])
    if len(fitted.unique()) < 2:
        raise InvalidData(
            f"All {len(fitted)} training rows have the same `{column}` (`{level}`: "
            f"{bool(fitted[0])}).",
            why="nothing can be learned or said about a difference between groups.",
            fix="choose another sensitive column or level, or hold out another domain.",
        )


def _single_group_notes(splits: dict[str, Split], column: str, level: str) -> list[str]:
    said = []
    for name, split in splits.items():
        a = split.data[:]["a"]
        if len(a.unique()) < 2:
            who = "everybody" if a[0] else "nobody"
            said.append(
                f"In split `{name}` {who} has `{column}` = `{level}`: groups cannot be compared "
                "there."
            )
    return said


def example() -> Sensitive:
    """Two sexes at three generated clinics."""
    return Sensitive(Table(clinics, target="ill", site="clinic"), "sex", "female", held_out="west")
