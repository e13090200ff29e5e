"""An executor in this process that is as far away as a cluster, and subjects that its workers can
read: what they compute must come back through it.
"""

import os
import pickle
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future
from pathlib import Path
from typing import Any
from unittest import mock

SUBJECTS = '''
import os
import signal
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from unseen import Budget, Lab
from unseen.models.mlp import mlp
from unseen.objectives import cross_entropy
from unseen.subjects.domains import of_domains
from unseen.tasks.domains import Domains, shifting_clusters

HERE = Path(__file__).parent


def subjects():
    """Two sites, each held out in turn."""
    found = of_domains(Domains(shifting_clusters), Lab(), "mine")[:2]
    return [replace(one, model=model, budget=Budget(steps=4, batch_size=8)) for one in found]


def model():
    return mlp([2, 6, 2])


def scaled():
    """The same with a loss that reads the environment: no key says how it comes out."""
    return [
        replace(one, task=replace(one.task, objective=replace(one.task.objective, loss=loss)))
        for one in subjects()
    ]


def loss(model, batch):
    return cross_entropy(model, batch) * float(os.environ.get("SCALE", "1"))


def marked():
    """The same; in a worker each notes its process, and the second kills that of its first
    training.
    """
    return [replace(one, model=Marked(k)) for k, one in enumerate(subjects())]


def waiting():
    """The same; a worker notes its process and never comes to an end by itself."""
    return [replace(one, model=Waiting(k)) for k, one in enumerate(subjects())]


class Marked:
    def __init__(self, number):
        self.path = HERE / f"{number}.pids"

    def note(self):
        """Whether this process is the first worker that was here."""
        known = self.path.read_text().split() if self.path.exists() else []
        if str(os.getpid()) not in known:
            self.path.write_text(" ".join([*known, str(os.getpid())]))
        return known in ([], [str(os.getpid())])

    def __call__(self):
        if not is_home() and self.note() and self.path.name.startswith("1"):
            os.kill(os.getpid(), signal.SIGKILL)
        return model()


class Waiting(Marked):
    def __call__(self):
        if not is_home():
            self.note()
            while HERE.exists():
                time.sleep(0.05)
        return model()


def is_home():
    """Whether this process is the one that read this file first."""
    with suppress(FileExistsError), (HERE / "home.pid").open("x") as file:
        file.write(str(os.getpid()))
    return (HERE / "home.pid").read_text() == str(os.getpid())


is_home()
'''
FILE = "subjects_here.py"


def write_subjects(folder: Path) -> None:
    """The file of subjects, for processes that are started from here."""
    (folder / FILE).write_text(SUBJECTS)


def workers_of(folder: Path, site: int) -> list[int]:
    """The processes that were at work on the marked site."""
    path = folder / f"{site}.pids"
    return [int(pid) for pid in path.read_text().split()] if path.exists() else []


def is_alive(pid: int) -> bool:
    """Whether there is such a process, and it is no ended one that nobody has waited for."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


class Elsewhere(Executor):
    """Computes at once; call and result travel as bytes, and the worker's home is its own."""

    def __init__(self, home: Path, broken: Sequence[int] = ()) -> None:
        self.home, self.broken = home, broken
        self.calls: list[int] = []
        """Numbers of the pieces."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """The piece's outcome; it goes down with its worker as often as it stands in `broken`."""
        future: Future[Any] = Future()
        self.calls.append(args[0])
        if self.calls.count(args[0]) <= list(self.broken).count(args[0]):
            future.set_exception(BrokenExecutor("The worker is gone."))
            return future
        call, given = pickle.loads(pickle.dumps((fn, args)))
        with mock.patch.dict(os.environ, UNSEEN_HOME=str(self.home)):
            future.set_result(pickle.loads(pickle.dumps(call(*given))))
        return future
