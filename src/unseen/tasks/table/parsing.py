"""A table with its roles read: what cannot be trained or evaluated on is refused."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unseen.errors import UnknownName
from unseen.tasks.table import target as targets
from unseen.tasks.table.cells import Format
from unseen.tasks.table.encoding import tidy
from unseen.tasks.table.layout import is_number
from unseen.tasks.table.notes import conversions, doubts, formats_of_columns
from unseen.tasks.table.recording import recording_changes
from unseen.tasks.table.roles import (
    Evaluable,
    Sites,
    codes_of,
    evaluable_sites,
    sites_of,
    usable_rows,
)
from unseen.tasks.table.splitting import Rows, moments
from unseen.tasks.table.target import Target
from unseen.tasks.table.texts import with_lengths

if TYPE_CHECKING:  # a table builds its own task, so its description imports this file
    from unseen.tasks.table.description import Table


@dataclass(frozen=True, kw_only=True)
class ParsedTable:
    """A table with its roles read, before any row is fitted; shared by all sites that are left out
    in turn.
    """

    table: "Table"
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


def parse_table(table: "Table") -> ParsedTable:
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
    table: "Table",
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


def _no_features(table: "Table") -> set[str | None]:
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
