"""An SQLite index over the run directories, for questions across studies. Built by readers,
deletable at any time.

    runs(study, key, seed, seconds, finished, commit_id, cell)     rows(study, key, n, row)

`cell` and `row` are JSON: `select json_extract(row, '$.seed') from rows`. Workers never write it:
SQLite is unsafe on network file systems, so it is made beside as a whole and renamed.
"""

import contextlib
import json
import os
import sqlite3
import uuid
from pathlib import Path
from typing import Any

from unseen.errors import InvalidConfig, MissingExtra, MissingFile
from unseen.runs.store import Store, home, write_atomic

SCHEMA = """
create table runs (study text, key text, seed integer, seconds real, finished text,
                   commit_id text, cell text, primary key (study, key));
create table rows (study text, key text, n integer, row text, primary key (study, key, n));
"""


def index(store: Store) -> Path:
    """The path of an index that holds exactly the sound directories of the store."""
    path = store.root / "index.sqlite"
    present = {(study, key) for study in store.studies() for key in store.keys(study)}
    if _keys_in_index(path) != present:
        _build(store, path)
    return path


def summary(given: Path | None = None) -> list[dict[str, Any]]:
    """Per study: finished cells, rows, CPU seconds, and when the last one finished."""
    store = Store(home(given))
    if not store.studies():
        return []
    question = """select study, count(*) cells, sum(seconds) seconds, max(finished) finished,
                  (select count(*) from rows where rows.study = runs.study) rows
                  from runs group by study"""
    with contextlib.closing(sqlite3.connect(index(store))) as database:
        database.row_factory = sqlite3.Row
        return [dict(line) for line in database.execute(question)]


def export(store: Store, study: str, keys: list[str], path: Path) -> int:
    """Rows of the given cells as .parquet, .csv or .json with the cell's key beside; returns their
    number.
    """
    rows: list[dict[str, Any]] = []
    for key in keys:
        run = store.get(study, key)
        if run is not None:
            rows += [{"cell": key, **row} for row in run.rows]
    if path.suffix == ".json":
        write_atomic(path, json.dumps(rows, ensure_ascii=False, indent=1) + "\n")
        return len(rows)
    import pandas as pd  # 0.5 s that only an export needs

    table = pd.DataFrame(rows)
    if path.suffix == ".csv":
        write_atomic(path, table.to_csv(index=False))
        return len(rows)
    if path.suffix != ".parquet":
        raise InvalidConfig(
            f"Rows cannot be written as `{path.suffix}`.",
            why="the suffix names the format.",
            fix="give a path that ends in .parquet, .csv or .json.",
        )
    try:
        data = table.to_parquet(None, index=False)
    except ImportError as error:
        raise MissingExtra(
            "Parquet needs pyarrow, which is not installed.",
            why="it is an extra: most uses do not need it.",
            fix="pip install 'unseen[parquet]', or export as .csv.",
        ) from error
    write_atomic(path, data)
    return len(rows)


def _keys_in_index(path: Path) -> set[tuple[str, str]] | None:
    if not path.exists():
        return None
    try:
        with contextlib.closing(sqlite3.connect(path)) as database:
            return {(study, key) for study, key in database.execute("select study, key from runs")}
    except sqlite3.Error:
        return None


def _build(store: Store, path: Path) -> None:
    beside = path.with_name(f".tmp-{path.name}-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    try:
        with contextlib.closing(sqlite3.connect(beside)) as database:
            database.executescript(SCHEMA)
            for study in store.studies():
                for run in store.runs(study):
                    _insert(database, run)
            database.commit()
        os.replace(beside, path)
    except (OSError, sqlite3.Error) as error:
        raise MissingFile(
            f"{path} cannot be written: {error}.",
            why="the listing reads an index over the run directories.",
            fix="free some space or choose another place with --home; the results themselves are "
            "not touched.",
        ) from error
    finally:
        beside.unlink(missing_ok=True)


def _insert(database: sqlite3.Connection, run: Any) -> None:
    facts = run.facts
    line = (
        run.study,
        run.key,
        run.cell.get("seed"),
        facts.get("seconds"),
        facts.get("finished"),
        facts.get("commit"),
    )
    database.execute("insert into runs values (?, ?, ?, ?, ?, ?, ?)", (*line, json.dumps(run.cell)))
    rows = [(run.study, run.key, n, json.dumps(row)) for n, row in enumerate(run.rows)]
    database.executemany("insert into rows values (?, ?, ?, ?)", rows)
