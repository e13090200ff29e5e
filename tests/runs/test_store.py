"""A finished cell is there whole or not at all, whatever happens while it is written."""

import errno
import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from properties import examples

from unseen import runs
from unseen.errors import InvalidConfig, MissingExtra, MissingFile, UnseenError
from unseen.runs.index import export, index, summary
from unseen.runs.store import Failure, Run, Store, home, write_atomic
from unseen.runs.tensors import TensorCache

ROWS = ({"seed": 0, "value": 0.1 + 0.2, "name": "é <b>", "right": True},)


def a_run(key: str = "abc", rows=ROWS, **facts) -> Run:
    return Run(study="s", key=key, cell={"seed": 0}, rows=rows, facts={"seconds": 1.0, **facts})


def files(store: Store) -> set[str]:
    return {str(path.relative_to(store.root)) for path in store.root.rglob("*") if path.is_file()}


VALUES = some.one_of(
    some.integers(),
    some.floats(allow_nan=False, allow_infinity=False),
    some.text(),
    some.booleans(),
)


@examples(30)
@given(
    rows=some.lists(
        some.dictionaries(some.text(min_size=1), VALUES, min_size=1), min_size=1, max_size=4
    )
)
def test_rows_come_back_equal_in_value_and_type(rows, tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("home"))
    store.put(a_run(rows=rows))
    back = store.get("s", "abc").rows
    assert [[(k, type(v), repr(v)) for k, v in row.items()] for row in back] == [
        [(k, type(v), repr(v)) for k, v in row.items()] for row in rows
    ]


def test_the_first_of_two_writers_wins_and_nothing_else_stays(tmp_path):
    store = Store(tmp_path)
    store.put(a_run(who="first"))
    store.put(a_run(who="second"))
    assert store.get("s", "abc").facts["who"] == "first"
    assert files(store) == {"runs/s/abc/run.json"}


def test_kept_tensors_move_beside_the_rows(tmp_path):
    store, made = Store(tmp_path), []

    def make():
        made.append(1)
        return {"w": torch.arange(3.0)}

    for _ in range(2):
        kept = TensorCache(store.tensor_folder("s", "abc"))("factors of layer 1", make)
    store.put(a_run())
    assert made == [1]
    assert torch.equal(kept["w"], torch.arange(3.0))
    assert {path.name.split("-")[0] for path in store.run_folder("s", "abc").iterdir()} == {
        "run.json",
        "factors",
    }
    assert not store.tensor_folder("s", "abc").exists()


def test_tensors_that_another_process_takes_along_meanwhile_stop_nobody(tmp_path, monkeypatch):
    store, link = Store(tmp_path), runs.store._link
    TensorCache(store.tensor_folder("s", "abc"))("w", lambda: {"w": torch.arange(3.0)})

    def finish_elsewhere_first(file, to):
        monkeypatch.setattr(runs.store, "_link", link)
        store.put(a_run(who="first"))
        link(file, to)

    monkeypatch.setattr(runs.store, "_link", finish_elsewhere_first)
    store.put(a_run(who="second"))
    assert store.get("s", "abc").facts["who"] == "first"
    assert {path.split("/")[-1].split("-")[0] for path in files(store)} == {"run.json", "w"}


def test_a_folder_that_another_process_removes_meanwhile_is_made_again(tmp_path, monkeypatch):
    path, write = tmp_path / "kept" / "w.json", runs.store._write

    def write_too_late(beside, content):
        monkeypatch.setattr(runs.store, "_write", write)
        beside.parent.rmdir()
        write(beside, content)

    monkeypatch.setattr(runs.store, "_write", write_too_late)
    write_atomic(path, "1")
    assert path.read_text() == "1"
    assert [*path.parent.iterdir()] == [path]


DAMAGES = {
    "empty": lambda text: "",
    "cut off": lambda text: text[: len(text) // 2],
    "another value": lambda text: text.replace("0.30000000000000004", "0.31"),
    "another kind": lambda text: "[1, 2]",
    "a column less": lambda text: text.replace('"rows"', '"lines"'),
    "not text": lambda text: "\0\1\2",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_counts_as_missing_is_named_and_replaced(damage, tmp_path, caplog):
    store = Store(tmp_path)
    store.put(a_run())
    path = store.run_folder("s", "abc") / "run.json"
    path.write_text(DAMAGES[damage](path.read_text()))
    assert store.get("s", "abc") is None
    assert str(path) in caplog.text
    store.put(a_run(who="again"))
    assert store.get("s", "abc").facts["who"] == "again"
    assert files(store) == {"runs/s/abc/run.json"}


@pytest.mark.parametrize("call", ["fsync", "rename", "open"])
def test_a_full_disk_is_explained_and_loses_nothing(call, tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.put(a_run("done"))
    TensorCache(store.tensor_folder("s", "abc"))("w", lambda: {"w": torch.ones(2)})
    before = files(store)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open" if call == "open" else f"os.{call}", full)
        with pytest.raises(MissingFile) as caught:
            store.put(a_run())
    assert "full" in caught.value.why
    assert caught.value.fix
    assert files(store) == before
    assert store.get("s", "done") is not None
    store.put(a_run())
    assert len(list(store.run_folder("s", "abc").glob("*.safetensors"))) == 1


@pytest.mark.parametrize("place", ["/proc/unseen", "a-file/home"])
def test_a_place_that_cannot_be_written_is_refused_before_computing(place, tmp_path):
    (tmp_path / "a-file").write_text("")
    with pytest.raises(MissingFile, match="cannot be written") as caught:
        Store(tmp_path / place).probe()
    assert "--home" in caught.value.fix


STAGES = {
    "open": 0,
    "fsync": 0,
    "rename": 0,
    "fsync of the directory": 1,
    "fsync after the rename": 2,
}


@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_any_stage_of_writing_a_cell_is_whole_or_absent(stage, tmp_path):
    code = """
import builtins, os, signal, sys
from unseen.runs.store import Run, Store
name, skip = sys.argv[2].split()[0], int(sys.argv[3])
place = builtins if name == "open" else os
real, calls = getattr(place, name), []
def deadly(*args, **kwargs):
    calls.append(1)
    if len(calls) > skip:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **kwargs)
setattr(place, name, deadly)
Store(sys.argv[1]).put(Run(study="s", key="abc", cell={"seed": 0}, rows=[{"seed": 0}]))
"""
    command = [sys.executable, "-c", code, str(tmp_path), stage, str(STAGES[stage])]
    assert subprocess.run(command).returncode == -9
    store = Store(tmp_path)
    assert (store.get("s", "abc") is None) == (stage != "fsync after the rename")
    store.clean("s")
    store.put(a_run(rows=[{"seed": 0}]))
    assert store.get("s", "abc").rows == [{"seed": 0}]
    assert files(store) == {"runs/s/abc/run.json"}


def test_temporary_directories_go_once_their_process_is_gone(tmp_path):
    store, host = Store(tmp_path), socket.gethostname()
    gone, alive, elsewhere, old = (
        store.folder("s") / f".tmp-abc-{where}-{pid}-01234567"
        for where, pid in (
            (host, 2**22 + 1),
            (host, os.getpid()),
            ("else-where", 1),
            ("long-ago", 1),
        )
    )
    for path in (gone, alive, elsewhere, old):
        path.mkdir(parents=True)
    os.utime(old, (time.time() - 7200,) * 2)
    assert set(store.clean("s")) == {gone, old}
    assert alive.exists()
    assert elsewhere.exists()
    assert store.keys("s") == []


def test_write_atomic_keeps_the_old_content_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    write_atomic(path, "old")
    with monkeypatch.context() as patch:
        patch.setattr(
            os,
            "replace",
            lambda *_: (_ for _ in ()).throw(OSError(errno.EROFS, "Read-only file system")),
        )
        with pytest.raises(MissingFile, match="Read-only"):
            write_atomic(path, "new")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert path.read_text() == "old"


def test_failures_are_kept_beside_and_forgotten_with_success(tmp_path):
    store = Store(tmp_path)
    failure = Failure(
        study="s", key="abc", cell={"seed": 1}, kind="Divergence", what="at step 3", traceback="…"
    )
    store.fail(failure)
    assert store.failure("s", "abc") == failure
    assert store.keys("s") == []
    store.put(a_run())
    assert store.failure("s", "abc") is None


def test_the_index_follows_the_directories(tmp_path):
    store = Store(tmp_path)
    store.put(a_run("one"))
    path = index(store)
    store.put(a_run("two"))
    for _ in range(2):
        with sqlite3.connect(index(store)) as database:
            assert database.execute(
                "select key, json_extract(row, '$.seed') from rows order by key"
            ).fetchall() == [
                ("one", 0),
                ("two", 0),
            ]
        database.close()
        path.write_bytes(b"this is no database" * 100)  # may be damaged or deleted at any time
    path.unlink()
    assert summary(tmp_path)[0]["cells"] == 2


def test_a_damaged_run_does_not_make_the_index_forget_the_others(tmp_path):
    store = Store(tmp_path)
    store.put(a_run("one"))
    store.put(a_run("two"))
    (store.run_folder("s", "two") / "run.json").write_text("{")
    assert summary(tmp_path)[0]["cells"] == 1


@pytest.mark.parametrize("suffix", ["csv", "json", "parquet"])
def test_rows_are_exported(suffix, tmp_path):
    import pandas as pd

    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    store, path = Store(tmp_path), tmp_path / f"rows.{suffix}"
    store.put(a_run())
    assert export(store, "s", ["abc"], path) == 1
    read = {"csv": pd.read_csv, "json": pd.read_json, "parquet": pd.read_parquet}[suffix](path)
    assert read.to_dict("records") == [{"cell": "abc", **ROWS[0]}]


def test_export_refuses_other_formats_and_names_the_extra(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.put(a_run())
    with pytest.raises(InvalidConfig, match="xlsx"):
        export(store, "s", ["abc"], tmp_path / "rows.xlsx")

    def missing(*_, **__):
        raise ImportError("pyarrow")

    monkeypatch.setattr("pandas.DataFrame.to_parquet", missing)
    with pytest.raises(MissingExtra, match="pyarrow"):
        export(store, "s", ["abc"], tmp_path / "rows.parquet")


def test_home_is_the_given_place_then_the_environment_then_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path))
    assert home("x") == Path("x")
    assert home() == tmp_path
    monkeypatch.delenv("UNSEEN_HOME")
    assert home().name == "unseen"


def test_run_json_is_made_for_people_too(tmp_path):
    store = Store(tmp_path)
    store.put(a_run())
    text = (store.run_folder("s", "abc") / "run.json").read_text()
    assert set(json.loads(text)) == {"schema", "study", "key", "cell", "sha256", "rows", "facts"}
    assert "é" in text


def test_errors_are_typed(tmp_path):
    with pytest.raises(UnseenError):
        write_atomic("/proc/nowhere/file", "x")
