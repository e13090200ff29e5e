"""One thread per test process, a home for everything that the suite stores, and the fake study for
runs and commands.
"""

import gc
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from properties import load_profile
from smoke_runs import SmokeRuns

# the shape checks of `--jaxtyping-packages` reach only what is imported after this file, so nothing
# of unseen is here
if TYPE_CHECKING:
    from unseen.runs.store import Store

gc.disable()  # until all is imported: a sixth of the collection's time was a search for garbage
torch.set_num_threads(1)
load_profile()
os.environ["UNSEEN_HOME"] = tempfile.mkdtemp(prefix="unseen-tests-")

FAKES = Path(__file__).parent / "fakes"


@pytest.fixture(autouse=True)
def _quiet_global_generators():
    """No test may depend on what another one drew."""
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - the global generator is what this is about


@pytest.fixture(scope="session", autouse=True)
def _no_clock_decides_how_models_are_trained():
    """Models whose stacked step agrees with the loop's are stacked, also where a probe finds that
    no faster.

    Both ways give the same numbers up to rounding, and tests that run a cell twice compare every
    digit.
    """
    from unseen.engine.vectorized import choose

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choose, "GAIN", 0.0)
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_stack_is_kept_for_accelerators_that_are_not_there():
    """Where there is none, torch keeps each seed for the day that there is one, with the stack of
    calls: four tenths of a millisecond, for every test and for every model that is initialised.
    """
    with pytest.MonkeyPatch.context() as patch:
        for kind in (torch.cuda, torch.xpu, torch.mtia):
            if not kind.is_available():
                patch.setattr(kind, "manual_seed_all", lambda seed: None)
        yield


def pytest_collection_finish():
    """What is imported by now stays, and no search for garbage goes through it again; it is
    searched less often, too: that took between a twentieth and a third of the time of a test file.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    gc.enable()


def pytest_collection_modifyitems(config, items):
    """Tests of one study go to one worker (`--dist loadgroup`), so that none waits for another's
    smoke run; so do tests of a file with a fixture of its own, which each worker would make anew.
    """
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        if item.path.parent.name == "studies":
            item.add_marker(pytest.mark.xdist_group(item.path.stem.removeprefix("test_")))
        elif item.originalname == "test_study":
            item.add_marker(pytest.mark.xdist_group(item.callspec.params["name"]))
        elif has_fixture_of_its_file(item):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.split("::")[0]))


def has_fixture_of_its_file(item: pytest.Item) -> bool:
    """Whether a fixture is made once for all tests of the file."""
    found = getattr(item, "_fixtureinfo", None)  # pytest has no public word for it
    fixtures = found.name2fixturedefs.values() if found is not None else ()
    return any(one.scope == "module" for several in fixtures for one in several)


@pytest.fixture(scope="session")
def smoke_runs(tmp_path_factory) -> SmokeRuns:
    """The rows of every study's smoke scale, computed once per session."""
    own = tmp_path_factory.getbasetemp()
    # workers of pytest-xdist have a folder each inside the session's
    return SmokeRuns((own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "smoke")


class Marks:
    """How often each seed of the fake study was computed, in whichever process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def counts(self) -> dict[int, int]:
        return {
            int(file.name): len(file.read_text().splitlines())
            for file in sorted(self.folder.iterdir())
        }


@pytest.fixture
def marks(tmp_path, monkeypatch) -> Marks:
    marks = Marks(tmp_path / "marks")
    monkeypatch.setenv("FAKE_MARKS", str(marks.folder))
    return marks


class Gates:
    """Where the cells of the fake study wait: before they use what they drew, and amid their
    rows.
    """

    STAGES = ("drawn", "rows")

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def open(self, seed: int) -> None:
        for stage in self.STAGES:
            self.open_stage(seed, stage)

    def open_stage(self, seed: int, stage: str) -> None:
        (self.folder / f"{seed}.{stage}.open").touch()

    def open_all(self) -> None:
        (self.folder / "all.open").touch()

    def forget_arrivals(self) -> None:
        for file in self.folder.glob("*.reached"):
            file.unlink()

    def is_reached(self, seed: int, stage: str) -> bool:
        return (self.folder / f"{seed}.{stage}.reached").exists()


@pytest.fixture
def gates(tmp_path, monkeypatch) -> Gates:
    gates = Gates(tmp_path / "gates")
    monkeypatch.setenv("FAKE_GATES", str(gates.folder))
    return gates


@pytest.fixture
def store(tmp_path, monkeypatch, marks) -> "Iterator[Store]":
    """An empty store that is also UNSEEN_HOME; the fake study can be found and the working folder
    is empty.
    """
    from unseen.runs.store import Store

    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path / "home"))
    monkeypatch.syspath_prepend(FAKES)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    yield Store(tmp_path / "home")
    for name in ("fake_counting", "fake_helper"):
        sys.modules.pop(name, None)


@pytest.fixture
def spawn(store):
    """`unseen …` in a process of its own that sees the fake study; killed at the end if it still
    runs.
    """
    started = []

    def spawned(*arguments: str, **environment: str) -> subprocess.Popen:
        path = os.pathsep.join([str(FAKES), *filter(None, [os.environ.get("PYTHONPATH")])])
        process = subprocess.Popen(
            [sys.executable, "-m", "unseen.cli.main", *arguments],
            env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # a suite that was started in the background ignores Ctrl-C, and so would its children
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        started.append(process)
        return process

    yield spawned
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
