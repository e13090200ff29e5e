"""A new site's file beside the table that a model is trained on, with labels or without."""

from dataclasses import replace
from pathlib import Path

import pandas as pd

from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.subjects.tables import JoinedTables, TableColumns, is_text, table_name
from unseen.tasks.table import Table
from unseen.tasks.table.encoding import tidy
from unseen.text import join_words

SITE = "file"
"""The site column where the table has none."""


def join_new_site(
    data: str | Path | pd.DataFrame, against: str | Path | pd.DataFrame, columns: TableColumns
) -> tuple[JoinedTables, TableColumns]:
    """Both tables as one, whose rows of the new site are held out; without labels they are known by
    their features only.
    """
    if columns.holdout is not None:
        raise InvalidConfig(
            "A new site's file and --holdout were given.",
            why="either a file or a site of the table is evaluated.",
            fix="leave one of them out.",
        )
    table = columns.table(data)
    known, new = table.frame(), replace(table, data=against).frame()
    _refuse_missing(known, new, table, table_name(against))
    new = new[[name for name in new.columns if name in known.columns]]
    is_labelled = table.target in new and not tidy(new[[table.target]]).isna().all(axis=None)
    name = "new site" if isinstance(against, pd.DataFrame) else table_name(against)
    name = _site_name(known, new, columns, name)
    text = is_text(data) and is_text(against)
    if is_labelled:
        site = columns.site or _free_name(known)
        if columns.site is None:
            known = known.assign(**{site: table_name(data)})
        frame = pd.concat([known, new.assign(**{site: name})], ignore_index=True)
        joined = JoinedTables(frame, table_name(data), name, is_text=text)
        return joined, replace(columns, site=site, holdout=name)
    frame = pd.concat([known, new.drop(columns=table.target, errors="ignore")], ignore_index=True)
    # without a label nothing is held out: the site column only stays out of the inputs
    drop = columns.drop if columns.site is None else (*columns.drop, columns.site)
    joined = JoinedTables(frame, table_name(data), name, len(new), text)
    return joined, replace(columns, site=None, drop=drop)


def _site_name(known: pd.DataFrame, new: pd.DataFrame, columns: TableColumns, name: str) -> str:
    """The only value of the new file's site column, else the file's name."""
    if columns.site is None:
        return name
    values = (
        [str(one) for one in new[columns.site].dropna().unique()] if columns.site in new else []
    )
    name = values[0] if len(values) == 1 else name
    is_known = name in {str(one) for one in known[columns.site].unique()}
    return f"{name} (new)" if is_known else name


def _free_name(frame: pd.DataFrame) -> str:
    name = SITE
    while name in frame:
        name += "_"
    return name


def _refuse_missing(known: pd.DataFrame, new: pd.DataFrame, table: Table, name: str) -> None:
    """A feature that the new site has not recorded cannot be given to the model."""
    roles = {*table.roles.values(), *table.drop}
    missing = [one for one in known.columns if one not in roles and one not in new.columns]
    if not missing:
        return
    if len(missing) == len([one for one in known.columns if one not in roles]):
        raise InvalidData(
            f"`{name}` has none of the columns of the table.",
            why=f"its columns are {join_words([str(one) for one in new.columns[:8]])}.",
            fix="write both files with the same header.",
        )
    error = UnknownName.near("column", missing[0], new.columns)
    error.why += f" `{name}` must have every feature that the model is trained on."
    raise error
