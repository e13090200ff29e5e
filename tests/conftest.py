"""One thread per test process, a home for everything that the suite stores, and the fake study for runs and commands."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
import torch

# the shape checks of `--jaxtyping-packages` reach only what is imported after this file, so nothing of unseen is here
if TYPE_CHECKING:
    from unseen.runs.store import Store

torch.set_num_threads(1)
# a busy machine is no bug, and the suite draws the same examples each time
hypothesis.settings.register_profile("steady", deadline=None, derandomize=True)
hypothesis.settings.load_profile("steady")
os.environ["UNSEEN_HOME"] = tempfile.mkdtemp(prefix="unseen-tests-")

FAKES = Path(__file__).parent / "fakes"


@pytest.fixture(autouse=True)
def _quiet_global_generator():
    """No test may depend on what another one drew."""
    torch.manual_seed(0)


class Marks:
    """How often each seed of the fake study was computed, in whichever process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def counts(self) -> dict[int, int]:
        return {int(file.name): len(file.read_text().splitlines()) for file in sorted(self.folder.iterdir())}


@pytest.fixture
def marks(tmp_path, monkeypatch) -> Marks:
    marks = Marks(tmp_path / "marks")
    monkeypatch.setenv("FAKE_MARKS", str(marks.folder))
    return marks


@pytest.fixture
def store(tmp_path, monkeypatch, marks) -> "Iterator[Store]":
    """An empty store that is also UNSEEN_HOME; the fake study can be found and the working folder is empty."""
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
    """`unseen …` in a process of its own that sees the fake study; killed at the end if it still runs."""
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
