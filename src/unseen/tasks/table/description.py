"""Which table, and what its columns mean."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pandas as pd

from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.task import Task
from unseen.tasks.table.parsing import parse_table
from unseen.tasks.table.reading import (
    TextTable,
    read_table,
    validate_frame,
    with_index_columns,
)
from unseen.tasks.table.splitting import Shares
from unseen.tasks.table.tabular import Tabular, split_table
from unseen.tasks.table.target import Predicts

Maker: TypeAlias = Callable[[], pd.DataFrame]


@dataclass(frozen=True, eq=False)
class InMemory:
    """A DataFrame in memory as a hashable source of rows, equal to itself only."""

    frame: pd.DataFrame

    def __call__(self) -> pd.DataFrame:
        return self.frame


@dataclass(frozen=True)
class Table:
    """Which table, and what its columns mean."""

    data: str | Path | Maker | pd.DataFrame
    """A file, a function that returns a DataFrame, or the DataFrame itself."""
    target: str
    site: str | None = None
    """Left out one by one: hospital, camera, country."""
    time: str | None = None
    """Numbers or dates: the past is fitted, the future is for evaluation."""
    entity: str | None = None
    """Person or device whose rows must stay on one side."""
    groups: tuple[str, ...] = ()
    """"sex", "age:decade", "age:quartiles", "age:40,60"."""
    drop: tuple[str, ...] = ()
    """Columns that the model must not see."""
    held_out: str | None = None
    """The site to evaluate on; without it the last one by name."""
    local: float = 0.0
    """Share of the site left out that may be fitted, as a split of its own; with `time`, any share
    is its past.
    """
    predicts: Predicts | None = None
    """Class or number; None: inferred."""
    shares: Shares = Shares()
    max_levels: int = 20
    min_count: int = 5
    """A level with fewer training rows is `other`."""
    encoding: str = "utf-8"
    """Of a text table: utf-8, latin-1, cp1252, utf-16, …"""
    new_rows: int = 0
    """So many of the last rows come from a new site without labels: split "new" (ADAPT)."""
    new_site: str = ""
    """What that site is called."""
    block: str | None = None
    """Rows with the same value hang together, and intervals draw whole blocks: a column, or
    "admitted:month". The column is no feature.
    """
    text: str | None = None
    """A column of texts: no feature, but the number of its words is one."""

    def __post_init__(self) -> None:
        if not 0 <= self.local < 1 or (self.local and not self.site):
            raise InvalidConfig(
                f"local={self.local} with site={self.site}.",
                why="it is the share of the site left out that may be fitted.",
                fix='use 0 ≤ local < 1 and name the site column: site="hospital".',
            )
        if isinstance(self.data, pd.DataFrame):
            object.__setattr__(self, "data", InMemory(self.data))

    def build(self, lab: Lab) -> Task:
        return self.prepare(lab).task

    def prepare(self, lab: Lab) -> Tabular:
        """The task with everything that was decided on the way."""
        return split_table(parse_table(self), self.held_out, lab)

    def frame(self) -> pd.DataFrame:
        """The user's rows as they are."""
        return self.read().frame

    def read(self) -> TextTable:
        """The user's rows as they are, and what was left out around them. A named index that has a
        role is a column.
        """
        specs = [*self.groups, *([self.block] if self.block else [])]
        groups = (spec for group in specs for spec in (group, group.rpartition(":")[0]))
        named = {*self.roles.values(), *self.drop, *groups}
        if isinstance(self.data, str | Path):
            found = read_table(self.data, self.encoding)
            return TextTable(with_index_columns(found.frame, named), found.notes)
        return TextTable(validate_frame(with_index_columns(self.data(), named)))

    @property
    def roles(self) -> dict[str, str | None]:
        """The columns that are no features."""
        return {
            "target": self.target,
            "site": self.site,
            "time": self.time,
            "entity": self.entity,
            "text": self.text,
        }
