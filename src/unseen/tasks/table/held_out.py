"""Rows per split of a parsed table: a site, the future or random rows are left out."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unseen.errors import InvalidData, UnknownName
from unseen.lab import Lab
from unseen.task import Axis
from unseen.tasks.table import target as targets
from unseen.tasks.table.parsing import ParsedTable
from unseen.tasks.table.splitting import (
    FUTURE,
    Rows,
    past,
    split_by_stratum,
    without,
)


@dataclass(frozen=True)
class SplitRows:
    axis: Axis
    rows: Mapping[str, Rows]
    at: Mapping[str, str | None]
    said: tuple[str, ...]


def split_rows(sheet: ParsedTable, held_out: str | None, lab: Lab) -> SplitRows:
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
    return SplitRows(axis, parts, at, tuple(said))


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


def refuse_empty(parts: SplitRows, sheet: ParsedTable) -> None:
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
