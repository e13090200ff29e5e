"""Whatever a file holds, reading it gives a table or one of Unseen's errors and nothing else.

The suite draws 100 files, `make properties` 500 fresh ones.
"""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis.strategies import integers
from properties import PROFILE

from unseen.errors import UnseenError
from unseen.lab import Lab
from unseen.subjects.tables import largest_sites
from unseen.tasks.table import Table, parse_table, split_table

FILES = {"steady": 100, "fresh": 500}[PROFILE]
SEPARATORS = [",", ";", "\t", "|", " ", "  "]
ENCODINGS = ["utf-8-sig", "latin-1", "cp1252", "utf-16", "utf-16-le", "mac-roman"]
LINE_ENDS = ["\r\n", "\r"]
SUFFIXES = [".csv", ".tsv", ".txt", ".data", ".csv.gz"]
NAMES = ["x", "y", "ill", "site", "", " ", "Ä b", 'say "no"', "a,b", "2", "#n", "id", "é"]
CELLS = """
? NA - n/a unknown inf -inf nan 1e999 1e308 -1e308 1.7976931348623157e308 -999 999 1,5 ½ é ² 0.0
1.234,56 39,384 $1,234.50 91.3% 34~min 2~h <0.01 >200 0000-00-00 9999-12-31 2020-02-31 ٣ −5 0x10
31/12/2023 2020Q1 01-Jan-2020 2020-01-01T00:00:00+05:30 True FALSE yes Yes Zürich zürich “q” 00123
=1+1 1'000 a~"b"~c " a,b;c|d 1_000
"""
DIRT = [word.replace("~", " ") for word in CELLS.split()]
DIRT += ["", "line\nbreak", "tab\there", "\u202f", "x" * 300, "\x00", "1\u202f234"]


def cells(rng: np.random.Generator, n: int) -> list[str]:
    """A column of one kind: numbers, words, dates, constants, or anything."""
    forms = ["%Y-%m-%d", "%d/%m/%Y", "%m/%d/%Y %H:%M", "%d-%b-%Y", "%Y-%m-%dT%H:%M:%SZ", "%b %Y"]
    days = pd.Timestamp("2019-03-01") + pd.to_timedelta(rng.integers(0, 2_000, n), "D")
    size = 10.0 ** rng.integers(-320, 308) if rng.random() < 0.2 else 10.0 ** rng.integers(-3, 7)
    makers = [
        lambda: [f"{x:.6g}" for x in rng.normal(size=n) * size],
        lambda: [f"{x:,.2f}" for x in np.abs(rng.normal(size=n)) * 3_000],
        lambda: [f"{x:.2f}".replace(".", ",") for x in rng.normal(size=n)],
        lambda: [str(k) for k in rng.integers(0, int(rng.choice([2, 3, 20, 10**6])), n)],
        lambda: [str(word) for word in rng.choice(["a", "b", "C", "c", "Nord", "Süd"], n)],
        lambda: [day.strftime(str(rng.choice(forms))) for day in days],
        lambda: [day.strftime(forms[int(size) % len(forms)]) for day in days],
        lambda: [f"{k}{rng.choice(['%', ' min', '€', ' kg'])}" for k in rng.integers(0, 90, n)],
        lambda: [str(rng.choice(DIRT))] * n,
        lambda: [str(word) for word in rng.choice(DIRT, n)],
        lambda: [f"text {k}" for k in range(n)],
    ]
    made = makers[rng.integers(len(makers))]()
    for row in np.flatnonzero(rng.random(n) < rng.choice([0, 0, 0, 0.02, 0.3])):
        made[row] = str(rng.choice(DIRT))
    return made


def frame_of(rng: np.random.Generator) -> pd.DataFrame:
    """A table of any size, mostly with a site and a target that can be used."""
    n = int(rng.choice([0, 1, 2, *[30, 60, 80, 100] * 4]))
    width = int(rng.choice([1, 2, 3, 4, 12]))
    columns = [cells(rng, n) for _ in range(width)]
    names = [str(name) for name in rng.choice(NAMES, width)]
    if rng.random() < 0.9:
        ill = [str(k) for k in rng.integers(0, 2, n)]
        site = [str(word) for word in rng.choice(["A", "B", "C"], n)]
        if n and rng.random() < 0.3:
            [ill, site][int(rng.integers(2))][int(rng.integers(n))] = str(rng.choice(DIRT))
        names, columns = ["ill", "site", *names], [ill, site, *columns]
    if rng.random() < 0.95:  # most tables have every name once
        names = [name if names.index(name) == k else f"c{k}" for k, name in enumerate(names)]
    frame = pd.DataFrame({k: pd.Series(cells, dtype=object) for k, cells in enumerate(columns)})
    return frame.set_axis(names, axis=1)


def sometimes(rng: np.random.Generator, share: float) -> bool:
    return bool(rng.random() < share)


def content_of(rng: np.random.Generator, frame: pd.DataFrame, encoding: str) -> bytes:
    """The table as the bytes of a file: with other separators, titles, ends and damages."""
    separator = str(rng.choice(SEPARATORS)) if sometimes(rng, 0.5) else ","
    if len(separator) == 1 and sometimes(rng, 0.9):
        content = frame.to_csv(index=sometimes(rng, 0.1), sep=separator)
    else:  # written by hand, without a quote anywhere
        rows = [frame.columns, *frame.to_numpy()]
        content = "\n".join(separator.join(map(str, row)) for row in rows)
    lines = content.splitlines()
    if sometimes(rng, 0.2):
        lines = [str(rng.choice(["# made by hand", "Report 2024", ",,,", "", "a,b"])), *lines]
    if sometimes(rng, 0.1):
        lines = [f"{line}{separator}" for line in lines]
    if lines and sometimes(rng, 0.1):
        lines[int(rng.integers(len(lines)))] += str(rng.choice([",9", '"', "\t", ";;;", "\x00"]))
    end = str(rng.choice(LINE_ENDS)) if sometimes(rng, 0.3) else "\n"
    written = end.join(lines).encode(encoding, errors="replace")
    if written and sometimes(rng, 0.1):
        at = int(rng.integers(len(written)))
        written = written[:at] + rng.bytes(int(rng.integers(1, 5))) + written[at + 1 :]
    return written


def read_as_a_user_would(
    rng: np.random.Generator, data: Path | pd.DataFrame, names: list[str], encoding: str = "utf-8"
) -> None:
    """Reads, parses and splits, with roles that the table has or has not."""

    def any_name() -> str:
        return str(rng.choice([*names, "nothing"]))

    table = Table(
        data,
        target="ill" if sometimes(rng, 0.8) else any_name(),
        site="site" if sometimes(rng, 0.6) else None,
        time=any_name() if sometimes(rng, 0.1) else None,
        entity=any_name() if sometimes(rng, 0.1) else None,
        groups=(any_name() + str(rng.choice(["", ":decade", ":1,2", ":quartiles"])),)
        if sometimes(rng, 0.2)
        else (),
        encoding=encoding,
    )
    sheet = parse_table(table)
    for held_out in largest_sites(sheet)[0][:1]:
        made = split_table(sheet, held_out, Lab())
        for split in made.task.splits:
            x, y = made.as_numpy(split)
            assert np.isfinite(x).all()
            assert np.isfinite(y).all()


def outcome(call: Callable[[], None]) -> str:
    """ "table", or the text of a typed error; other exceptions pass."""
    try:
        call()
    except UnseenError as error:
        return str(error)
    return "table"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzzed")


@given(seed=integers(0, 2**32 - 1))
@settings(max_examples=FILES)
def test_a_file_gives_a_table_or_a_typed_error(folder, seed):
    found = outcome(lambda: read_file_of(folder, seed))
    assert found == "table" or len(found.splitlines()) == 3, found


def read_file_of(folder: Path, seed: int) -> None:
    """Writes the file of a seed and reads it, mostly in the encoding in which it was written."""
    rng = np.random.default_rng(seed)
    frame = frame_of(rng)
    encoding = str(rng.choice(ENCODINGS)) if sometimes(rng, 0.3) else "utf-8"
    content = content_of(rng, frame, encoding)
    path = folder / f"t{rng.choice(SUFFIXES)}"
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    encoding = encoding if sometimes(rng, 0.8) else "utf-8"
    read_as_a_user_would(rng, path, list(frame.columns), encoding)


@given(seed=integers(0, 2**32 - 1))
@settings(max_examples=FILES // 4)
def test_a_data_frame_gives_a_table_or_a_typed_error(seed):
    rng = np.random.default_rng(seed)
    frame = retyped(rng, frame_of(rng))
    found = outcome(lambda: read_as_a_user_would(rng, frame, list(map(str, frame.columns))))
    assert found == "table" or len(found.splitlines()) == 3, found


def retyped(rng: np.random.Generator, frame: pd.DataFrame) -> pd.DataFrame:
    """Some columns as numbers, categories or strings, and one of any objects."""
    for name in frame.columns if frame.columns.is_unique else ():
        if sometimes(rng, 0.3):
            frame[name] = pd.to_numeric(frame[name], errors="coerce")
        elif sometimes(rng, 0.3):
            frame[name] = frame[name].astype(str(rng.choice(["category", "string"])))
    if len(frame) and sometimes(rng, 0.3):
        objects = [None, pd.NA, pd.NaT, np.inf, 10**400, (1, 2), [3], {"a": 1}, b"x"]
        objects.append(pd.Timestamp("2020-01-01"))
        chosen = [objects[k] for k in rng.integers(0, len(objects), len(frame))]
        frame["objects"] = pd.Series(chosen, dtype=object)
    return frame
