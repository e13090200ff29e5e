"""Rows as a table that people can open: gzipped CSV whose cells give back numbers, truth values,
strings and gaps.

An empty cell is a column that the row does not have. Numbers are written so that they read back bit
by bit, truth values as `true` and `false`; a string that looks like one of these, or that starts
with a quotation mark, is written as JSON.
"""

import csv
import gzip
import io
import json
import re
from collections.abc import Mapping, Sequence
from math import isclose
from pathlib import Path
from typing import Any

from unseen.errors import CorruptFile
from unseen.runs.store import Value, write_atomic

RELATIVE, ABSOLUTE = 1e-6, 1e-8
"""How far numbers of the same code may lie apart: another processor sums in another order."""

_INTEGER = re.compile(r"-?\d+")
_NUMBER = re.compile(r"-?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|-?inf|nan", re.IGNORECASE)


def write(path: Path, rows: Sequence[Mapping[str, Value]]) -> None:
    """Equal rows give equal bytes: the archive carries no time."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    table.writerows([_cell(row[name]) if name in row else "" for name in columns] for row in rows)
    write_atomic(path, gzip.compress(text.getvalue().encode(), 9, mtime=0))


def read(path: Path) -> list[dict[str, Value]]:
    """The rows as they were written, or `CorruptFile`."""
    try:
        text = gzip.decompress(path.read_bytes()).decode()
        columns, *lines = csv.reader(io.StringIO(text))
        return [
            {name: _value(cell) for name, cell in zip(columns, line, strict=True) if cell != ""}
            for line in lines
        ]
    except (OSError, EOFError, ValueError) as error:
        raise CorruptFile(
            f"{path} does not hold rows: {error}.",
            why="the claims of a study are judged from the rows that belong to its ledger.",
            fix="restore the file from version control, or write the ledger again: unseen run NAME "
            "--ledger.",
        ) from error


def difference(rows: Sequence[Mapping[str, Value]], others: Sequence[Mapping[str, Value]]) -> str:
    """The first place where rows differ by more than another processor explains; empty if there is
    none.
    """
    if len(rows) != len(others):
        return f"{len(others)} rows instead of {len(rows)}"
    for n, (row, other) in enumerate(zip(rows, others, strict=True)):
        if set(row) != set(other):
            return f"row {n}: its columns differ by {', '.join(sorted(set(row) ^ set(other)))}"
        for name, value in row.items():
            if not _equal(value, other[name]):
                return f"row {n}: {name} is {other[name]!r} instead of {value!r}"
    return ""


def _equal(a: Value, b: Value) -> bool:
    if type(a) is float and type(b) is float:
        return isclose(a, b, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    return type(a) is type(b) and a == b


def _cell(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return repr(value)
    is_plain = (
        value not in ("", "true", "false")
        and not value.startswith('"')
        and not _NUMBER.fullmatch(value)
    )
    return value if is_plain else json.dumps(value, ensure_ascii=False)


def _value(cell: str) -> Value:
    if cell in ("true", "false"):
        return cell == "true"
    if cell.startswith('"'):
        found: Any = json.loads(cell)
        return str(found)
    if _INTEGER.fullmatch(cell):
        return int(cell)
    return float(cell) if _NUMBER.fullmatch(cell) else cell
