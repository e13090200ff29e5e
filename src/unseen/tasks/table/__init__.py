"""A table of one's own as a task: CSV, Parquet or DataFrame; a site left out, the future is for
evaluation, or random rows.

Splits: "train" (TRAIN), "select" (SELECT) and "seen" (EVALUATE) are random parts of the training
sites or of the past; "unseen" (EVALUATE) is the site left out or the future; "later" (EVALUATE),
with both site and time, is the training sites' future. With `local` > 0, "local" (TRAIN) is a part
of the site left out, for fine-tuning there (with time: its past), and "unseen" the rest of it.
Without site and time only random rows can be evaluated, and `decisions` says so. Batches hold `x`
(encoded features), `y`, `index` (the row in the user's table, from 0), `site` (index into
`Tabular.sites`), `block` where one is named, and one `group:<spec>` per group (index into
`Tabular.groups[spec]`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from unseen.engine.batches import Columns, whole
from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.lab import Lab
from unseen.task import Axis, Split, Task, Use
from unseen.tasks.table import target as targets
from unseen.tasks.table.cells import Format, Kind, finite, numbers
from unseen.tasks.table.encoding import Encoder, NumericColumn, as_words, fit_encoder, tidy
from unseen.tasks.table.grouping import Grouping, build_grouping
from unseen.tasks.table.inspection import numbers_among_words, type_mismatches
from unseen.tasks.table.layout import is_number
from unseen.tasks.table.notes import conversions, doubts, formats_of_columns
from unseen.tasks.table.reading import (
    TextTable,
    read_table,
    validate_frame,
    with_index_columns,
)
from unseen.tasks.table.recording import recording_changes
from unseen.tasks.table.roles import (
    Evaluable,
    Sites,
    codes_of,
    evaluable_sites,
    sites_of,
    usable_rows,
)
from unseen.tasks.table.splitting import (
    FUTURE,
    Rows,
    Shares,
    moments,
    past,
    split_by_stratum,
    without,
)
from unseen.tasks.table.target import Predicts, Target
from unseen.tasks.table.texts import with_lengths

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

    def prepare(self, lab: Lab) -> "Tabular":
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


@dataclass(frozen=True, kw_only=True)
class ParsedTable:
    """A table with its roles read, before any row is fitted; shared by all sites that are left out
    in turn.
    """

    table: Table
    frame: pd.DataFrame
    tidied: pd.DataFrame
    target: Target
    rows: Rows
    """Rows with a target, and a site and time where those are asked for."""
    site: NDArray[np.int64]
    sites: tuple[str, ...]
    time: NDArray[np.float64] | None
    entity: NDArray[np.int64] | None
    decisions: tuple[str, ...]
    conversions: tuple[str, ...]
    """What was read otherwise than it is written."""
    warnings: tuple[str, ...]
    formats: Mapping[str, Format]
    """How the cells of each feature are read, by all rows."""
    evaluable: tuple[str, ...]
    """The sites that have enough rows and classes to be held out."""

    @property
    def new_rows(self) -> Rows:
        """Rows of a new site that is known by its features only."""
        return np.arange(len(self.frame) - self.table.new_rows, len(self.frame))


def parse_table(table: Table) -> ParsedTable:
    """Reads the table and refuses what cannot be trained or evaluated on."""
    source = table.read()
    frame = source.frame
    for column in (*table.roles.values(), *table.drop):
        if column is not None and column not in frame:
            raise _unknown_column(column, frame)
    if table.text is not None:
        frame = with_lengths(frame, table.text)
    tidied = tidy(frame.reset_index(drop=True))
    time = moments(tidied[table.time]) if table.time else None
    known = len(frame) - table.new_rows
    moment = None if time is None else time[:known]
    said, usable = usable_rows(tidied.iloc[:known], frame.iloc[:known], table.roles, moment)
    rows = np.flatnonzero(usable)
    sites = Sites(np.zeros(len(frame), np.int64), ())
    if table.site:
        sites = sites_of(tidied[table.site], rows)
        rows = rows[sites.codes[rows] >= 0]
    target, sentence = targets.infer_target(tidied[table.target].iloc[rows], table.predicts)
    found = Evaluable((), (), ())
    if table.site:
        y = targets.values(target, tidied[table.target])
        found = evaluable_sites(sites, target, y, rows)
    features = [name for name in tidied.columns if name not in _no_features(table)]
    formats = formats_of_columns(tidied, features)
    of_time = formats_of_columns(tidied, [table.time] if table.time else [])
    return ParsedTable(
        table=table,
        frame=frame,
        tidied=tidied,
        target=target,
        rows=rows,
        site=sites.codes,
        sites=sites.names,
        time=time,
        entity=codes_of(tidied[table.entity])[0] if table.entity else None,
        decisions=(sentence,),
        conversions=(
            *source.notes,
            *said,
            *sites.notes,
            *found.notes,
            *conversions(tidied, of_time | formats),
        ),
        warnings=(
            *sites.warnings,
            *found.warnings,
            *doubts(tidied, formats),
            *_changes(table, frame, tidied, time, rows),
        ),
        formats=formats,
        evaluable=tuple(sites.names[k] for k in found.codes),
    )


def _changes(
    table: Table,
    frame: pd.DataFrame,
    tidied: pd.DataFrame,
    time: NDArray[np.float64] | None,
    rows: Rows,
) -> list[str]:
    """What is recorded from some moment on only, where the table has moments."""
    if table.time is None or time is None:
        return []
    features = [name for name in tidied.columns if name not in _no_features(table)]
    return recording_changes(tidied, features, time, rows, frame[table.time])


def _no_features(table: Table) -> set[str | None]:
    block = {table.block, table.block.rpartition(":")[0]} if table.block else set()
    return {*table.roles.values(), *table.drop, *block}


def _unknown_column(column: str, frame: pd.DataFrame) -> UnknownName:
    """The error that names near columns; a first line with numbers may be no header."""
    error = UnknownName.near("column", column, frame.columns)
    if any(is_number(name) for name in frame.columns):
        error.why += (
            " Some of these names are numbers: has the table no header, so that its first row was "
            "taken for one?"
        )
    return error


def leave_one_out(table: Table, lab: Lab) -> list[Tabular]:
    """One task per site: trained without the site, evaluated on it."""
    if not table.site:
        raise InvalidData(
            "Leaving one site out needs a site column.",
            why="without it, nothing says which rows belong together.",
            fix='name it: Table(…, site="hospital").',
        )
    sheet = parse_table(table)
    return [split_table(sheet, site, lab) for site in sheet.evaluable]


@dataclass(frozen=True)
class _Parts:
    axis: Axis
    rows: Mapping[str, Rows]
    at: Mapping[str, str | None]
    said: tuple[str, ...]


def split_table(sheet: ParsedTable, held_out: str | None, lab: Lab) -> Tabular:
    """The task of an opened table, with `held_out` left out where the table has sites."""
    table, tidied = sheet.table, sheet.tidied
    parts = _split_rows(sheet, held_out, lab)
    fit = parts.rows["train"]
    _refuse_empty(parts, sheet)
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


def _split_rows(sheet: ParsedTable, held_out: str | None, lab: Lab) -> _Parts:
    """Rows per split: first what is left out, then random parts of what remains."""
    table, rows, entity = sheet.table, sheet.rows, sheet.entity
    is_past, said = np.ones(len(sheet.frame), bool), []
    if sheet.time is not None:
        early, cut = past(sheet.time[rows], table.shares.later)
        is_past[rows] = early
        after = int((~early).sum())
        said.append(
            f"Rows up to `{table.time}` = {_moment(sheet, cut)} are the past; the {after} after "
            "are evaluated."
        )
    chosen = _held_out_index(sheet, held_out) if table.site else None
    inside = sheet.site[rows] != chosen if chosen is not None else np.ones(rows.size, bool)
    later = rows[inside & ~is_past[rows]]
    unseen = (
        rows[~inside & (~is_past[rows] | (sheet.time is None))] if chosen is not None else later
    )
    fitted_rows = rows[inside & is_past[rows]]
    if chosen is not None:
        fitted_rows = without(fitted_rows, entity, unseen)
    later = without(later, entity, fitted_rows)
    unseen = later if chosen is None else unseen
    strata = sheet.site * max(1, sheet.target.outputs)
    if sheet.target.classes:
        strata = strata + targets.values(sheet.target, sheet.tidied[table.target]).astype(np.int64)
    shares = {
        "train": 1 - table.shares.select - table.shares.seen,
        "select": table.shares.select,
        "seen": table.shares.seen,
    }
    name = sheet.sites[chosen] if chosen is not None else "table"
    parts = split_by_stratum(fitted_rows, strata, entity, shares, lab.child("split", name).numpy())
    here = f"all but {name}" if chosen is not None else ("past" if sheet.time is not None else None)
    at: dict[str, str | None] = dict.fromkeys(parts, here)
    if chosen is not None and table.local:
        own, unseen = _split_held_out_site(
            sheet, rows[~inside], is_past, strata, lab.child("local", name)
        )
        parts["local"], at["local"] = own, name
    if chosen is not None or sheet.time is not None:
        parts["unseen"], at["unseen"] = unseen, name if chosen is not None else FUTURE
    if chosen is not None and sheet.time is not None:
        parts["later"], at["later"] = later, FUTURE
    if chosen is not None:
        apart = f" and {parts['local'].size} of its own" if table.local else ""
        said.append(
            f"Site `{name}` was left out: {unseen.size} rows for evaluation, {fitted_rows.size} of "
            f"other sites{apart} fit."
        )
        axis = Axis.SITE
    elif sheet.time is not None:
        axis = Axis.TIME
    elif table.new_rows:
        said.append(
            f"`{table.new_site}` is without labels: random labelled rows are evaluated, and what "
            "to expect there is derived from them."
        )
        axis = Axis.IID
    else:
        said.append(
            "No site and no time: only random rows of the same table are evaluated. A new place "
            "may differ."
        )
        axis = Axis.IID
    lost = rows.size - sum(part.size for part in parts.values())
    if entity is not None:
        said.append(
            f"All rows of one `{table.entity}` stay on one side"
            + (f"; {lost} rows left out." if lost else ".")
        )
    return _Parts(axis, parts, at, tuple(said))


def _split_held_out_site(
    sheet: ParsedTable, site: Rows, is_past: NDArray[np.bool_], strata: NDArray[np.int64], lab: Lab
) -> tuple[Rows, Rows]:
    """The rows of the site left out that may be fitted, and those for evaluation."""
    if sheet.time is not None:
        own = site[is_past[site]]
        return own, without(site[~is_past[site]], sheet.entity, own)
    share = sheet.table.local
    parts = split_by_stratum(
        site, strata, sheet.entity, {"unseen": 1 - share, "local": share}, lab.numpy()
    )
    return parts["local"], parts["unseen"]


def _held_out_index(sheet: ParsedTable, held_out: str | None) -> int:
    if held_out is not None and held_out not in sheet.sites:
        raise UnknownName.near("site", held_out, sheet.sites)
    return sheet.sites.index(held_out) if held_out is not None else len(sheet.sites) - 1


def _moment(sheet: ParsedTable, cut: float) -> str:
    """The cell that holds the moment `cut`, as the user wrote it."""
    return str(sheet.frame[sheet.table.time].iloc[int(np.flatnonzero(sheet.time == cut)[0])])


def _refuse_empty(parts: _Parts, sheet: ParsedTable) -> None:
    for name, rows in parts.rows.items():
        if not rows.size:
            raise InvalidData(
                f"Split `{name}` has no rows (at {parts.at[name] or 'random'}; {sheet.rows.size} "
                "usable rows in all).",
                why="too few rows remain after the site, the future and the entity are set apart.",
                fix="give more rows, or leave out time or entity.",
            )
    if sheet.target.classes:
        y = targets.values(sheet.target, sheet.tidied[sheet.target.name])[parts.rows["train"]]
        if np.unique(y).size < 2:
            raise InvalidData(
                f"The target `{sheet.target.name}` is `{sheet.target.classes[int(y[0])]}` in all "
                f"{y.size} training rows.",
                why="the other classes occur only where it is evaluated "
                f"({parts.at.get('unseen') or 'random rows'}).",
                fix="hold out another site or period, or add training rows of the other class.",
            )


def clinics() -> pd.DataFrame:
    """Generated: 240 visits to three clinics; the illness follows blood pressure, and one clinic
    measures higher.
    """
    rng = np.random.default_rng(0)
    clinic = rng.choice(["east", "north", "west"], 240)
    pressure = rng.normal(120, 15, 240)
    ill = (pressure + rng.normal(0, 8, 240) > 125).astype(int)
    return pd.DataFrame(
        {
            "clinic": clinic,
            "age": rng.integers(20, 90, 240),
            "sex": rng.choice(["female", "male"], 240),
            "pressure": np.where(rng.random(240) < 0.1, np.nan, pressure + 10 * (clinic == "west")),
            "ill": ill,
        }
    )


def example() -> Table:
    return Table(clinics, target="ill", site="clinic", groups=("sex", "age:40,60"))
