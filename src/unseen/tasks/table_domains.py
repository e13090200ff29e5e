"""A table whose sites are domains: one split to fit per site, one site left out (see
`unseen.tasks.domains`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from unseen.engine.batches import Columns
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.task import Split, Task
from unseen.tasks.domains import ORACLE, UNSEEN
from unseen.tasks.hospitals import HeartDisease
from unseen.tasks.table import Table, Tabular, parse_table, split_table
from unseen.tasks.table.splitting import Rows, split_by_stratum


@dataclass(frozen=True)
class TableDomains:
    """`table` with a split to fit per site. Encoding and random parts are those of `Table`; its
    columns gain `domain`.

    `train`, `select` and `seen` of the table become `train:S`, `select:S` and `seen:S` for each
    site S that has rows there; `unseen` is divided into `unseen` and `oracle`. Other splits
    (`local`, `later`) stay whole.
    """

    table: Table
    held_out: str | None = None
    """The site to evaluate on; without it that of the table, else the last by name."""
    oracle: float = 0.2
    """Share of the site left out that is set apart for oracle selection."""

    def __post_init__(self) -> None:
        if not self.table.site:
            raise InvalidData(
                "A table has domains only where a column names them.",
                why="one site is left out and the others are fitted, each as a split of its own.",
                fix='name the column: Table(…, site="hospital").',
            )
        if not 0 <= self.oracle < 1:
            raise InvalidConfig(
                f"oracle={self.oracle} is out of range.",
                why="it is a share of the site left out.",
                fix="use 0 ≤ oracle < 1.",
            )

    def domains(self) -> tuple[str, ...]:
        return parse_table(self.table).sites

    def build(self, lab: Lab) -> Task:
        return self.prepare(lab).task

    def prepare(self, lab: Lab) -> Tabular:
        """The task with its encoder, the rows of each split, and everything that was decided on the
        way.
        """
        made = split_table(parse_table(self.table), self.held_out or self.table.held_out, lab)
        return by_site(made, self.oracle, lab)


def by_site(made: Tabular, oracle: float, lab: Lab) -> Tabular:
    """A prepared table with its fitted, selecting and seen rows divided by site."""
    rows: dict[str, Rows] = {}
    splits: dict[str, Split] = {}
    said: list[str] = []
    for name, split in made.task.splits.items():
        columns = split.data
        assert isinstance(columns, Columns)  # what a table is made of
        for label, (inside, at) in _subsplits(name, split, columns, made, oracle, lab).items():
            if inside.size:
                place = torch.from_numpy(inside)
                own = columns.subset(place)
                splits[label] = Split(
                    Columns(**own.columns, domain=own.columns["site"]), split.use, at
                )
                rows[label] = made.rows[name][inside]
            elif label.startswith("train:"):
                raise InvalidData(
                    f"Site `{at}` has no row to fit.",
                    why="its few rows all went to other splits.",
                    fix="merge it with another site, or leave its rows out.",
                )
            else:
                said.append(f"Site `{at}` has too few rows for `{label}`.")
    task = replace(made.task, splits=splits)
    return replace(made, task=task, rows=rows, decisions=(*made.decisions, *said))


def _subsplits(
    name: str, split: Split, columns: Columns, made: Tabular, oracle: float, lab: Lab
) -> Mapping[str, tuple[Rows, float | str | None]]:
    """Positions within one split of the table, by the name and place of the new splits."""
    site = columns.columns["site"].numpy()
    if name in ("train", "select", "seen"):
        fitted = [place for place in made.sites if place != made.held_out]
        return {
            f"{name}:{each}": (np.flatnonzero(site == made.sites.index(each)), each)
            for each in fitted
        }
    if name == "unseen" and oracle:
        y = columns.columns["y"]
        strata = np.zeros(len(y), np.int64) if y.is_floating_point() else y.numpy()
        shares = {UNSEEN: 1 - oracle, ORACLE: oracle}
        parts = split_by_stratum(
            np.arange(len(y)), strata, None, shares, lab.child("oracle", str(split.at)).numpy()
        )
        return {label: (inside, split.at) for label, inside in parts.items()}
    return {name: (np.arange(len(site)), split.at)}


def heart_sites(held_out: str | None = None) -> TableDomains:
    """The four hospitals of the UCI heart disease data, shipped with the package."""
    return TableDomains(HeartDisease().table(), held_out)


def example() -> TableDomains:
    return heart_sites("Switzerland")
