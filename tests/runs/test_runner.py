"""Finished cells are skipped, missing ones computed, failing ones listed; rows do not depend on how
it went.
"""

import itertools
import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from waiting import PATIENCE, wait_until

from unseen.errors import InvalidConfig, InvalidData, MissingFile, UnknownName
from unseen.runs import catalog, runner
from unseen.runs.executors import InProcess, Processes
from unseen.runs.runner import Choices, NoWatcher, load_result, run
from unseen.runs.worker import SourceChanged, validate_rows, work
from unseen.study import Scale


@pytest.fixture
def study(store):
    return catalog.load("fake_counting")


def config(study, **changes):
    return replace(study.scales[Scale.SMOKE], **changes)


def test_cells_are_computed_once(study, store, marks):
    first = run(study, config(study), store)
    second = run(study, config(study, seeds=5), store)
    assert (first.stored, second.stored) == (0, 3)
    assert second.rows[: len(first.rows)] == first.rows
    assert marks.counts() == dict.fromkeys(range(5), 1)
    assert load_result(study, config(study, seeds=6), store).rows == second.rows
    assert run(study, config(study), store, choices=Choices(fresh=True)).rows == first.rows
    assert marks.counts()[0] == 2


def test_rows_are_those_of_the_cells_lab(study, store):
    from unseen.lab import Lab

    cell = next(iter(study.cells(config(study))))
    expected = list(study.run(cell, Lab(seed=0).child("fake_counting")))
    assert run(study, config(study, seeds=1), store).rows == expected


def test_equal_cells_count_once(study, store, marks):
    twice = replace(study, cells=lambda c: [*study.cells(c), *study.cells(c)])
    assert run(twice, config(study), store).total == 3
    assert marks.counts() == dict.fromkeys(range(3), 1)


def test_any_executor_gives_the_same_rows(study, store, tmp_path, marks):
    here = run(study, config(study), store)
    for number, make in enumerate((partial(ThreadPoolExecutor, 2), partial(Processes, 2))):
        elsewhere = type(store)(tmp_path / f"home-{number}")
        result = run(study, config(study), elsewhere, make, Choices(jobs=2))
        assert result.rows == here.rows
        assert not result.failures
        assert elsewhere.keys(study.name) == store.keys(study.name)


def test_a_failing_cell_does_not_stop_the_others(study, store, marks):
    result = run(study, config(study, trouble="diverged"), store)
    assert [run_.cell["seed"] for run_ in result.runs] == [0, 2]
    (failure,) = result.failures
    assert failure.kind == "Divergence"
    assert "lower it" in failure.what
    assert "in give" in failure.traceback
    assert failure.cell["seed"] == 1


def test_a_failure_is_remembered_until_asked_again(study, store, marks, monkeypatch):
    changed = config(study, trouble="diverged")
    for _ in range(2):
        assert len(run(study, changed, store).failures) == 1
    assert marks.counts() == {0: 1, 1: 1, 2: 1}
    monkeypatch.setenv("FAKE_HEALED", "1")
    result = run(study, changed, store, choices=Choices(retry_failed=True))
    assert (len(result.runs), result.failures) == (3, ())
    assert load_result(study, changed, store).failures == ()


def test_what_was_missing_outside_is_tried_again_unasked(study, store, marks, monkeypatch):
    changed = config(study, trouble="missing")
    assert run(study, changed, store).failures[0].kind == "MissingFile"
    monkeypatch.setenv("FAKE_HEALED", "1")
    assert not run(study, changed, store).failures


def test_fail_fast_stops_at_the_first(study, store, marks):
    result = run(study, config(study, trouble="diverged"), store, choices=Choices(fail_fast=True))
    assert (len(result.runs), len(result.failures)) == (1, 1)
    assert set(marks.counts()) == {0, 1}


def test_an_interruption_keeps_what_is_finished(study, store, marks, monkeypatch):
    changed = config(study, trouble="interrupted")
    result = run(study, changed, store)
    assert result.interrupted
    assert [run_.cell["seed"] for run_ in result.runs] == [0]
    assert not result.failures
    monkeypatch.setenv("FAKE_HEALED", "1")
    assert len(run(study, changed, store).runs) == 3
    assert marks.counts() == {0: 1, 1: 2, 2: 1}


def test_a_cell_that_kills_its_process_takes_no_other_along(study, store, marks):
    result = run(
        study,
        config(study, trouble="killed", seeds=4),
        store,
        partial(Processes, 2),
        Choices(jobs=2),
    )
    assert [run_.cell["seed"] for run_ in result.runs] == [0, 2, 3]
    assert [failure.kind for failure in result.failures] == ["Killed"]


def test_a_full_disk_ends_the_run_and_keeps_what_is_finished(study, store, marks, monkeypatch):
    put, done = type(store).put, []

    def filling(self, run_):
        if done:
            raise MissingFile("No space.", why="the disk is full.", fix="free some.")
        done.append(run_.key)
        put(self, run_)

    with monkeypatch.context() as patch:
        patch.setattr(type(store), "put", filling)
        with pytest.raises(MissingFile, match="No space"):
            run(study, config(study), store)
    assert store.keys(study.name) == done
    assert len(run(study, config(study), store).runs) == 3
    assert marks.counts()[0] == 1


def test_a_damaged_cell_is_computed_again(study, store, marks, caplog):
    rows = run(study, config(study), store).rows
    path = store.run_folder(study.name, store.keys(study.name)[0]) / "run.json"
    path.write_text("{")
    assert run(study, config(study), store).rows == rows
    assert sum(marks.counts().values()) == 4
    assert str(path) in caplog.text


def test_code_that_changes_under_a_run_is_noticed(study, store):
    (job,) = runner.jobs_of(study, config(study, seeds=1), store)
    with pytest.raises(SourceChanged, match="changed while it ran"):
        work(replace(job, key="0" * 32))
    assert store.keys(study.name) == []


def test_facts_say_how_the_rows_came_about(study, store, monkeypatch):
    # clocks of the test: a cell is 2 s on the machine, of which it computes 0.5 s
    wall, cpu = itertools.count(0.0, 2.0), itertools.count(0.0, 0.5)
    clocks = SimpleNamespace(
        perf_counter=lambda: next(wall),
        process_time=lambda: next(cpu),
        strftime=time.strftime,
        gmtime=time.gmtime,
    )
    monkeypatch.setattr("unseen.runs.worker.time", clocks)
    facts = run(study, config(study, seeds=1), store).runs[0].facts
    assert (facts["wall_seconds"], facts["seconds"]) == (2, 0.5)
    assert (
        facts["versions"]["torch"] == torch.__version__.split("+")[0]
        or "+" in facts["versions"]["torch"]
    )
    assert {"commit", "finished", "device", "threads"} <= set(facts)


def test_cells_need_a_seed(study, store):
    @dataclass(frozen=True)
    class Seedless:
        x: int = 0

    with pytest.raises(InvalidConfig, match="seed"):
        run(replace(study, cells=lambda _: [Seedless()]), config(study), store)


@pytest.mark.parametrize("value", [float("nan"), np.float32("inf"), torch.tensor(float("nan"))])
def test_rows_that_are_not_finite_are_named(value):
    with pytest.raises(InvalidData, match=r"Row 1 .* has loss"):
        validate_rows([{"loss": 1.0}, {"loss": value}], "s")


@pytest.mark.parametrize("value", [None, [1], {"a": 1}, torch.ones(2), np.ones(1)])
def test_rows_that_are_not_flat_are_named(value):
    with pytest.raises(InvalidData, match="has curve of type"):
        validate_rows([{"curve": value}], "s")


def test_scalars_of_libraries_become_plain():
    row = {
        "a": np.float64(0.5),
        "b": np.int64(2),
        "c": torch.tensor(3),
        "d": np.bool_(True),
        "e": Scale.SMOKE,
    }
    (plain,) = validate_rows([row], "s")
    assert plain == {"a": 0.5, "b": 2, "c": 3, "d": True, "e": "smoke"}
    assert [type(value) for value in plain.values()] == [float, int, int, bool, str]


@pytest.mark.parametrize("rows", [[], None, iter(())])
def test_a_cell_without_rows_is_a_mistake(rows):
    with pytest.raises(InvalidData, match="no rows"):
        validate_rows(rows, "s")


def test_processes_need_at_least_one():
    with pytest.raises(InvalidConfig):
        Processes(0)


def test_here_reports_errors_through_the_future_and_lets_interruptions_pass():
    def fail(error):
        raise error

    assert isinstance(InProcess().submit(fail, ValueError("x")).exception(), ValueError)
    with pytest.raises(KeyboardInterrupt):
        InProcess().submit(fail, KeyboardInterrupt())


def test_unknown_and_misnamed_studies(store):
    with pytest.raises(UnknownName, match="fake_countin") as caught:
        catalog.load("fake_countin")
    assert "fake_counting" in caught.value.fix
    with pytest.raises(InvalidConfig, match="a study named `fake_counting`"):
        catalog.load("fake_misnamed")


class Heard(NoWatcher):
    def __init__(self):
        self.calls = []

    def begin(self, study, total, stored, unit="cells"):
        self.calls.append((study, total, stored))

    def on_finish(self, outcome):
        self.calls.append(outcome.key)

    def end(self):
        self.calls.append("end")


def test_the_watcher_hears_of_every_computed_cell(study, store):
    run(study, config(study, seeds=2), store)
    heard = Heard()
    result = run(study, config(study), store, watcher=heard)
    assert heard.calls == [("fake_counting", 3, 2), result.runs[2].key, "end"]


# ---- the same with real processes and real kills


def finished(store) -> dict[str, bytes]:
    """The rows of every finished cell as the bytes on disk."""
    rows = {}
    for key in store.keys("fake_counting"):
        text = (store.run_folder("fake_counting", key) / "run.json").read_bytes()
        rows[key] = text[text.index(b' "rows"') : text.index(b' "facts"')]
    return rows


def end_of(process) -> tuple[str, str]:
    return process.communicate(timeout=PATIENCE)


@pytest.mark.parametrize(("jobs", "kills"), [(1, 3), (2, 1)])
def test_killed_at_drawn_points_and_run_again_gives_the_same_bytes(
    jobs, kills, store, marks, gates, spawn, study
):
    """Killed while the first cells are finished and the next `jobs` ones wait amid their work, for
    certain.
    """
    seeds, rng = 8, np.random.default_rng(jobs)
    command = ["run", "fake_counting", "--scale", "smoke", "--no-report", "--seeds", str(seeds)]
    for n in np.sort(rng.choice(np.arange(2, 7), kills, replace=False)):
        stage, at_work = str(rng.choice(gates.STAGES)), range(n, n + jobs)
        for seed in range(n):
            gates.open(seed)
        if stage == "rows":
            for seed in at_work:
                gates.open_stage(seed, "drawn")
        gates.forget_arrivals()
        process = spawn(*command, "--jobs", str(jobs))
        wait_until(
            lambda process=process, n=n, stage=stage, at_work=at_work: (
                process.poll() is not None
                or (
                    len(finished(store)) == n
                    and all(gates.is_reached(seed, stage) for seed in at_work)
                )
            ),
            f"{n} cells are finished and {jobs} at work",
        )
        assert process.poll() is None, end_of(process)
        process.kill()
        process.wait()
        wait_until(lambda: not any(map(is_running, workers(marks))), "the workers have ended, too")
    kept = finished(store)
    lost = sum(marks.counts().values()) - len(kept)
    assert 0 < len(kept) < seeds
    assert lost == kills * jobs
    gates.open_all()
    process = spawn(*command, "--jobs", str(jobs), "--json")
    out, err = end_of(process)
    assert process.returncode == 0, err
    assert {key: finished(store)[key] for key in kept} == kept
    assert sum(marks.counts().values()) == seeds + lost  # what was finished was not computed again
    undisturbed = type(store)(store.root.parent / "undisturbed")
    changed = config(study, seeds=seeds)
    run(study, changed, undisturbed)
    assert finished(store) == finished(undisturbed)
    assert json.loads(out)["rows"] == load_result(study, changed, undisturbed).rows
    assert not [*store.root.rglob(".tmp-*"), *store.root.rglob(".kept-*")]


def workers(marks) -> set[int]:
    return {int(pid) for file in marks.folder.iterdir() for pid in file.read_text().split()}


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:  # a zombie has ended
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_two_processes_at_once_end_with_the_same_rows(store, marks, gates, spawn):
    command = ["run", "fake_counting", "--scale", "smoke", "--no-report", "--seeds", "6", "--json"]
    both = [spawn(*command) for _ in range(2)]
    wait_until(
        lambda: marks.counts().get(0) == 2 or any(process.poll() is not None for process in both),
        "both are at the first cell",
    )
    gates.open_all()
    answers = [json.loads(end_of(process)[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0], answers
    assert answers[0]["rows"] == answers[1]["rows"]
    assert len(answers[0]["rows"]) == 6 * 5
    assert marks.counts()[0] == 2  # they were at it at the same time
    assert len(store.keys("fake_counting")) == 6
    assert not list(store.root.rglob(".tmp-*"))


@pytest.mark.parametrize("jobs", [1, 2])
def test_control_c_ends_cleanly(jobs, store, marks, gates, spawn):
    gates.open(0)
    process = spawn("run", "fake_counting", "--scale", "laptop", "--jobs", str(jobs), "--no-report")
    wait_until(
        lambda: (
            process.poll() is not None
            or (
                len(finished(store)) == 1
                and all(gates.is_reached(seed, "drawn") for seed in range(1, 1 + jobs))
            )
        ),
        f"one cell is finished and {jobs} at work",
    )
    process.send_signal(signal.SIGINT)
    out, err = end_of(process)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "interrupted" in out
    assert len(store.keys("fake_counting")) == 1
