"""Audits, measures and comparisons by an executor: the numbers of home, whether the stores are
shared or not; a worker that is lost, and what cannot travel.
"""

import signal
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from elsewhere import FILE, Elsewhere, is_alive, workers_of, write_subjects
from waiting import PATIENCE, wait_until

import unseen
from unseen.errors import InvalidConfig, InvalidData, MissingExtra, UnknownName
from unseen.lab import Lab
from unseen.models.mlp import mlp
from unseen.questions import parallel
from unseen.questions.parallel import LostWorker, Workers, compute_by
from unseen.report.json import plain
from unseen.subjects.sources import read_subjects
from unseen.tasks.table import clinics

SUBJECT, SCALED, MARKED = (f"{FILE}:{name}" for name in ("subjects", "scaled", "marked"))
FEW = {"seeds": 1, "progress": False}
RUNS = {**FEW, "draws": 1, "jobs": 1}
METHODS = ["erm", "sam"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    write_subjects(tmp_path)
    return tmp_path


def timeless(results):
    """All that a result says, but how long it took."""
    if isinstance(results, list | tuple):
        return [timeless(one) for one in results]
    return plain(replace(results, seconds=type(results.seconds)()))


def test_an_audit_elsewhere_has_the_findings_of_home(folder):
    at_home = unseen.audit(SUBJECT, **FEW, remedies={})
    far = Elsewhere(folder / "far")
    found = unseen.audit(SUBJECT, **FEW, remedies={}, executor=lambda: far)
    assert far.calls == [0, 1]
    assert timeless(found.results) == timeless(at_home.results)


def test_a_comparison_elsewhere_has_the_results_of_home_and_keeps_them_there(folder, monkeypatch):
    at_home = unseen.compare(SUBJECT, METHODS, **RUNS)
    monkeypatch.setenv("UNSEEN_HOME", str(folder / "other"))
    far = Elsewhere(folder / "far")
    found = unseen.compare(SUBJECT, METHODS, **RUNS, executor=lambda: far)
    assert far.calls == [0, 1]
    assert timeless(found.results) == timeless(at_home.results)
    kept = [
        {path.name: path.read_bytes() for path in Path(home).rglob("*.safetensors")}
        for home in ("home", "other", "far")
    ]
    assert len(kept[0]) == 4
    assert kept[0].keys() == kept[1].keys() == kept[2].keys()
    again = unseen.compare(SUBJECT, METHODS, **RUNS, executor=Elsewhere)  # needs no worker
    assert timeless(again.results) == timeless(at_home.results)


def test_what_cannot_be_kept_comes_back_all_the_same(folder):
    at_home = unseen.compare(SCALED, ["erm"], **RUNS)
    far = Elsewhere(folder / "far")
    found = unseen.compare(SCALED, ["erm"], **RUNS, executor=lambda: far)
    assert far.calls == [0]
    assert timeless(found.results) == timeless(at_home.results)
    assert not list(folder.rglob("*.safetensors"))


def test_a_method_that_fails_is_named_as_at_home(folder):
    clinics().to_csv("table.csv", index=False)
    ask = partial(unseen.compare, "table.csv", ["erm", "coral"], target="ill", steps=4, **RUNS)
    at_home = ask()
    far = Elsewhere(folder / "far")
    found = ask(executor=lambda: far)
    assert timeless(found.results) == timeless(at_home.results)
    assert found.results.missing


def test_other_data_of_a_worker_are_refused(folder):
    class Changed(Elsewhere):
        def submit(self, fn, /, *args):
            clinics().sample(frac=0.9, random_state=0).to_csv("table.csv", index=False)
            return super().submit(fn, *args)

    clinics().to_csv("table.csv", index=False)
    columns = {"target": "ill", "site": "clinic", "steps": 4}
    with pytest.raises(InvalidConfig, match="something else than this machine") as caught:
        unseen.compare(
            "table.csv", ["erm"], **columns, **RUNS, executor=lambda: Changed(folder / "far")
        )
    assert "task" in caught.value.why


def test_a_lost_worker_repeats_its_piece_only(folder):
    workers = Elsewhere(folder / "far", broken=[1])
    outcomes = dict(compute_by(Workers(lambda: workers, 2), repeat, b"ab", range(4)))
    assert outcomes == {k: f"ab{k}" for k in range(4)}
    assert sorted(workers.calls) == [0, 1, 1, 2, 3]


def test_a_piece_lost_twice_ends_measures_and_is_computed_at_home_in_a_comparison(folder, caplog):
    lost = Elsewhere(folder / "far", broken=[1, 1])
    with pytest.raises(LostWorker, match="piece 2 of 2"):
        unseen.measure(SUBJECT, **FEW, measures=["distance"], executor=lambda: lost)
    lost = Elsewhere(folder / "far", broken=[1, 1])
    found = unseen.compare(SUBJECT, METHODS, **RUNS, executor=lambda: lost)
    assert lost.calls == [0, 1, 1]
    assert "computed in this one" in caplog.text
    assert all(cell.reading for cell in found.results.cells)


def test_the_error_of_a_worker_keeps_its_type(folder):
    workers = Workers(lambda: Elsewhere(folder / "far"))
    with pytest.raises(InvalidData, match="one class") as caught:
        list(compute_by(workers, refuse, b"", range(2)))
    assert "in refuse" in str(caught.value.__cause__)
    with pytest.raises(RuntimeError, match="Untransportable: gone"):
        list(compute_by(workers, fail_untransportably, b"", range(2)))
    with pytest.raises(InvalidConfig, match="does not know") as caught:
        list(compute_by(workers, unpack, b"cno_such_module\nname\n.", range(1)))
    assert "no_such_module" in caught.value.why


def test_a_worker_with_another_version_is_refused(folder, monkeypatch):
    class Older(Elsewhere):
        def submit(self, fn, /, *args):
            with monkeypatch.context() as there:
                there.setattr(parallel, "versions", lambda: {"unseen": "0.0.1"})
                return super().submit(fn, *args)

    with pytest.raises(InvalidConfig, match=r"A worker runs Unseen 0\.0\.1"):
        list(compute_by(Workers(lambda: Older(folder / "far")), repeat, b"", range(1)))


def test_a_worker_in_another_folder_reads_the_same_files(folder, monkeypatch):
    class Apart(Elsewhere):
        def submit(self, fn, /, *args):
            with monkeypatch.context() as there:
                there.chdir("/")
                return super().submit(fn, *args)

    outcomes = dict(compute_by(Workers(lambda: Apart(folder)), read, FILE.encode(), range(1)))
    assert outcomes == {0: (folder / FILE).read_text()}


def test_what_cannot_travel_is_refused_before_the_work(folder):
    far = Elsewhere(folder / "far")
    closed = [replace(one, model=lambda: mlp([2, 6, 2])) for one in read_subjects(SUBJECT, Lab())]
    for ask in (
        partial(unseen.audit, closed, **FEW),
        partial(unseen.measure, closed, **FEW),
        partial(unseen.compare, closed, METHODS, **RUNS),
    ):
        with pytest.raises(InvalidConfig, match="cannot be sent to another process") as caught:
            ask(executor=lambda: far)
        assert "file.py:name" in caught.value.fix
        assert "lambda" in caught.value.why
    assert not far.calls
    with pytest.raises(InvalidConfig, match="executor=… was given"):
        unseen.measure(SUBJECT, **FEW, lab=Lab(), executor=lambda: far)


def test_an_executor_that_is_unknown_or_not_installed_is_named_before_the_work(monkeypatch):
    with pytest.raises(UnknownName, match="slurm"):
        unseen.audit("absent.csv", target="y", executor="slrum")

    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingExtra, match="distributed"):
        unseen.measure(executor="dask", **FEW)


def test_here_takes_what_only_this_process_has(folder):
    closed = [replace(one, model=lambda: mlp([2, 6, 2])) for one in read_subjects(SUBJECT, Lab())]
    found = unseen.compare(closed, ["erm"], **RUNS, executor="here")
    assert all(cell.reading for cell in found.results.cells)


def test_a_killed_process_repeats_its_site_only(folder):
    found = unseen.measure(MARKED, **FEW, measures=["distance"], executor="processes")
    assert [len(workers_of(folder, site)) for site in (0, 1)] == [1, 2]
    assert [one.held_out for one in found.results] == [
        one.held_out for one in read_subjects(SUBJECT, Lab())
    ]


@pytest.mark.parametrize("question", ["audit", "compare"])
def test_control_c_ends_the_workers(question, store, spawn):
    folder = Path.cwd()
    write_subjects(folder)
    process = spawn(question, f"{FILE}:waiting", "--executor", "processes", "--json")
    wait_until(
        lambda: process.poll() is not None or workers_of(folder, 0), "a worker is at the first site"
    )
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 130, err
    wait_until(lambda: not is_alive(workers_of(folder, 0)[0]), "its worker is gone")


def repeat(packed: bytes, k: int) -> str:
    return f"{packed.decode()}{k}"


def refuse(packed: bytes, k: int) -> str:
    raise InvalidData("There is one class.", why="two are needed.", fix="add one.")


class Untransportable(Exception):
    def __init__(self, what: str, more: str) -> None:
        super().__init__(what)


def fail_untransportably(packed: bytes, k: int) -> str:
    raise Untransportable("gone", "more")


def read(packed: bytes, k: int) -> str:
    return Path(packed.decode()).read_text()


def unpack(packed: bytes, k: int) -> object:
    return parallel.unpack(packed)
