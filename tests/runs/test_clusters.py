"""Cells, audits and comparisons by a real Dask cluster, a real Ray and submitit on this machine:
rows and bytes of home, also where a worker is killed amid its cell or site. Each is skipped where
its library is missing.
"""

import importlib.util
import json
import os
import signal
import socket
from concurrent.futures import BrokenExecutor
from pathlib import Path

import pytest
from elsewhere import FILE, is_alive, workers_of, write_subjects
from waiting import PATIENCE, wait_until

from unseen.errors import Divergence, InvalidConfig, MissingExtra, UnknownName
from unseen.runs import catalog, clusters
from unseen.runs.clusters import Resources, executor
from unseen.runs.executors import compute_pieces
from unseen.runs.runner import Choices, run
from unseen.study import Scale

LIBRARIES = {"dask": "distributed", "ray": "ray", "slurm": "submitit"}
PLACES = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            importlib.util.find_spec(library) is None, reason=f"{library} is not installed"
        ),
    )
    for name, library in LIBRARIES.items()
]
ONE_MEASURE = ["--seeds", "1", "--measure", "distance"]
QUESTIONS = {
    "audit": ["--seeds", "1", "--no-remedies"],
    "compare": ["erm", "sam", "--seeds", "1", "--draws", "1"],
    "measure": ONE_MEASURE,
}
COMMAND = ["run", "fake_counting", "--scale", "smoke", "--no-report", "--json"]


def options(name: str) -> list[str]:
    small = ["--memory-gb", "0.2"]
    return ["--executor", name, *small, *(["--address", "local"] if name == "slurm" else [])]


def timeless(text: str) -> str:
    """The answer of a command but how long it took."""

    def without_seconds(value):
        if isinstance(value, dict):
            return {k: without_seconds(v) for k, v in value.items() if k != "seconds"}
        return [without_seconds(v) for v in value] if isinstance(value, list) else value

    return json.dumps(without_seconds(json.loads(text)))


def stored_rows(store) -> dict[str, bytes]:
    rows = {}
    for key in store.keys("fake_counting"):
        text = (store.run_folder("fake_counting", key) / "run.json").read_bytes()
        rows[key] = text[text.index(b' "rows"') : text.index(b' "facts"')]
    return rows


def rows_at_home(store) -> dict[str, bytes]:
    study, home = catalog.load("fake_counting"), type(store)(store.root.parent / "here")
    run(study, study.scales[Scale.SMOKE], home)
    return stored_rows(home)


@pytest.mark.parametrize("name", PLACES)
def test_rows_are_those_of_home(name, store, spawn):
    process = spawn(*COMMAND, "--jobs", "2", *options(name))
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert len(json.loads(out)["rows"]) == 15
    assert stored_rows(store) == rows_at_home(store)


@pytest.mark.parametrize("name", PLACES)
def test_a_killed_worker_repeats_its_cell_only(name, store, spawn, marks, gates):
    gates.open(0)
    process = spawn(*COMMAND, *options(name))
    wait_until(
        lambda: process.poll() is not None or gates.is_reached(1, "drawn"), "the second is at work"
    )
    assert process.poll() is None, process.communicate()
    worker = int((marks.folder / "1").read_text().split()[0])
    os.kill(worker, signal.SIGKILL)
    gates.open_all()
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert len(json.loads(out)["rows"]) == 15
    assert marks.counts() == {0: 1, 1: 2, 2: 1}
    assert stored_rows(store) == rows_at_home(store)


@pytest.mark.parametrize("name", PLACES)
def test_a_cell_that_fails_is_listed_and_the_rest_goes_on(name, store, spawn):
    process = spawn(*COMMAND, *options(name), "--trouble", "diverged")
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert "Divergence" in out + err
    assert len(store.keys("fake_counting")) == 2


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("name", PLACES)
def test_answers_are_those_of_home(name, question, tmp_path, spawn):
    write_subjects(Path.cwd())
    answers = []
    for home, asked in (("one", ["--jobs", "1"]), ("two", ["--jobs", "2", *options(name)])):
        command = [question, f"{FILE}:subjects", *QUESTIONS[question], *asked]
        process = spawn(*command, "--json", UNSEEN_HOME=str(tmp_path / home))
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err
        answers.append(timeless(out))
    assert answers[0] == answers[1]


@pytest.mark.parametrize("name", PLACES)
def test_a_killed_worker_repeats_its_site_only(name, spawn):
    folder = Path.cwd()
    write_subjects(folder)
    # an address of the environment is another cluster's than the one that is started here
    command = ["measure", f"{FILE}:marked", *ONE_MEASURE, "--json", *options(name)]
    process = spawn(*command, RAY_ADDRESS="127.0.0.1:9")
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert {one["held_out"] for one in json.loads(out)["measures"]} == {"middle", "west"}
    assert [len(workers_of(folder, site)) for site in (0, 1)] == [1, 2]


@pytest.mark.parametrize("name", PLACES)
def test_control_c_ends_the_workers_of_an_audit(name, spawn):
    folder = Path.cwd()
    write_subjects(folder)
    process = spawn("audit", f"{FILE}:waiting", "--json", *options(name))
    wait_until(
        lambda: process.poll() is not None or workers_of(folder, 0), "a worker is at the first site"
    )
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 130, err
    wait_until(lambda: not is_alive(workers_of(folder, 0)[0]), "its worker is gone")


@pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="Dask is missing")
def test_a_scheduler_that_is_not_there_is_named(spawn):
    write_subjects(Path.cwd())
    asked = ["--executor", "dask", "--address", "tcp://127.0.0.1:9"]
    process = spawn("measure", f"{FILE}:subjects", *ONE_MEASURE, *asked)
    err = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 2
    assert "No scheduler answers at tcp://127.0.0.1:9" in err


def test_a_result_from_another_disk_is_stored_here(store):
    """A worker that shares no disk with us answers with rows, and they are kept."""
    study = catalog.load("fake_counting")

    class Elsewhere(clusters.InProcess):
        def submit(self, fn, /, job, **kwargs):
            far = job.__class__(**vars(job) | {"root": str(store.root.parent / "far")})
            return super().submit(fn, far, **kwargs)

    found = run(study, study.scales[Scale.SMOKE], store, Elsewhere, Choices())
    assert len(store.keys("fake_counting")) == len(found.runs) == 3
    assert stored_rows(store) == rows_at_home(store)


def test_an_executor_that_is_not_installed_says_how_to_install_it(monkeypatch):
    def absent(module: str) -> None:
        raise ImportError(f"No module named {module!r}")

    monkeypatch.setattr(clusters.importlib, "import_module", absent)
    for name in LIBRARIES:
        with pytest.raises(MissingExtra, match="unseen\\[") as caught:
            executor(name, Resources())()
        assert name in caught.value.fix


def test_refusals():
    with pytest.raises(UnknownName, match="slurm"):
        executor("slrum", Resources())
    with pytest.raises(InvalidConfig, match="jobs"):
        Resources(jobs=0)
    with pytest.raises(InvalidConfig, match="minutes"):
        Resources(minutes=0)
    with pytest.raises(InvalidConfig, match="only clusters have an address"):
        executor("", Resources(jobs=2, address="tcp://host:8786"))
    with pytest.raises(InvalidConfig, match="Slurm has no address"):
        executor("slurm", Resources(address="tcp://host:8786"))


def test_an_address_at_which_nobody_listens_is_named_at_once():
    with socket.socket() as bound:  # taken, and accepts nothing
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(clusters.LostCluster, match=f"No scheduler answers at {address}"):
            clusters.refuse_silence(address)
        bound.listen()
        clusters.refuse_silence(f"ray://{address}")
    for word in ("", "auto", "local"):  # these are looked for by Ray
        clusters.refuse_silence(word)


needs_submitit = pytest.mark.skipif(
    importlib.util.find_spec("submitit") is None, reason="submitit is missing"
)


@needs_submitit
def test_slurm_has_no_more_jobs_at_once_than_asked(monkeypatch, tmp_path):
    """Nor does an error lose its type on the way."""
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path))
    room = tmp_path / "occupied"

    def occupy(piece: int) -> int:
        from unseen.errors import Divergence

        room.touch(exist_ok=False)
        room.unlink()
        if piece == 2:
            raise Divergence("The loss is not finite.", why="the rate is high.", fix="lower it.")
        return piece

    place = executor("slurm", Resources(jobs=1, memory_gb=0.1, address="local"))
    found = {
        piece: future.exception() or future.result()
        for piece, future in compute_pieces(range(3), occupy, place)
    }
    assert [found[0], found[1]] == [0, 1]
    assert isinstance(found[2], Divergence)
    assert found[2].fix == "lower it."


@pytest.fixture
def sbatch(monkeypatch, tmp_path):
    """A folder of commands that stand for Slurm's; `sbatch` is what the test writes there."""
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    def write(name: str, script: str) -> None:
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)

    for name in ("srun", "sacct", "scancel"):
        write(name, "")
    return lambda script: write("sbatch", script)


@needs_submitit
def test_slurm_is_asked_for_partition_memory_and_time(sbatch, tmp_path):
    """The job that was queued, and its end where the run is cancelled."""
    sbatch(f'cp "$1" {tmp_path}/job && mv {tmp_path}/job {tmp_path}/queued\necho "batch job 7"')
    asked = Resources(jobs=1, partition="cpu", memory_gb=2.5, minutes=90)
    place = executor("slurm", asked)()
    waiting = [place.submit(abs, -1), place.submit(abs, -2)]
    wait_until(lambda: (tmp_path / "queued").exists(), "a job is queued")
    place.kill()
    lines = (tmp_path / "queued").read_text().splitlines()
    for line in ("partition=cpu", "mem=2560MB", "time=90", "cpus-per-task=1", "job-name=unseen"):
        assert f"#SBATCH --{line}" in lines
    assert isinstance(waiting[0].exception(), BrokenExecutor)
    assert waiting[1].cancelled()


@needs_submitit
def test_what_slurm_refuses_is_said(sbatch):
    sbatch('echo "sbatch: error: invalid partition specified: fast" >&2; exit 1')
    place = executor("slurm", Resources(partition="fast"))()
    with pytest.raises(InvalidConfig, match="invalid partition specified: fast"):
        place.submit(abs, -1).result()
    place.shutdown()


@needs_submitit
def test_slurm_without_a_queue_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InvalidConfig, match="--address local"):
        executor("slurm", Resources())()
