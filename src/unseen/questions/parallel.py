"""The pieces of a question by several processes or a cluster: held-out sites of an audit or of
measures, groups of runs of a comparison. Each worker reads the subjects itself and computes from
the same streams of randomness, so that the numbers do not depend on how many there are, or where.
"""

import contextlib
import os
import pickle
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
from threadpoolctl import threadpool_limits

from unseen.errors import InvalidConfig, UnseenError
from unseen.lab import Lab
from unseen.runs.clusters import Resources, executor
from unseen.runs.devices import device as named_device
from unseen.runs.executors import compute_pieces
from unseen.runs.provenance import versions
from unseen.runs.tensors import home_cache
from unseen.subjects.subject import Subject

Job = Callable[[Subject, Lab], Any]
ExecutorChoice: TypeAlias = str | Callable[[], Executor]
"""A name, or what makes an executor (`unseen.runs.clusters.executor`, or any of
`concurrent.futures`).
"""


class LostWorker(UnseenError, RuntimeError):
    """A piece went down with its worker twice."""


@dataclass(frozen=True, eq=False)
class SiteRequest:
    """What a process needs to answer for a site: how the subjects are read, and what makes the
    job.
    """

    read: Callable[[Lab], list[Subject]]
    seed: int
    device: str
    job: Callable[[], Job]

    def lab(self) -> Lab:
        keeper = home_cache("audits")
        return Lab(seed=self.seed, device=named_device(self.device), keeper=keeper)


@dataclass(frozen=True)
class Workers:
    """Who computes the pieces of a question."""

    make: Callable[[], Executor]
    jobs: int = 1
    """Pieces at the same time."""
    says: str = ""
    """What was asked for, in the words of a call."""


def find_workers(choice: ExecutorChoice, jobs: int) -> Workers | None:
    """The named executor, or processes for more than one job; None: this process, one piece after
    the other.
    """
    if callable(choice):
        return Workers(choice, jobs, "executor=…")
    if choice == "here" or (not choice and jobs <= 1):
        return None
    says = f'executor="{choice}"' if choice else f"jobs={jobs}"
    return Workers(executor(choice, Resources(jobs=jobs)), jobs, says)


def refuse_own_objects(workers: Workers, **objects: object) -> None:
    """Refuses what another process would not know of."""
    given = [name for name, value in objects.items() if value is not None]
    if given:
        raise InvalidConfig(
            f"{workers.says} was given with {', '.join(given)}.",
            why="other processes read the subjects themselves and answer with the standard parts.",
            fix="leave one of the two out.",
        )


def answer_sites(
    request: SiteRequest, sites: int, workers: Workers, on_finish: Callable[[object], None]
) -> list[Any]:
    """What the job returns for every site, in the order of the subjects."""
    packed = pack(request, workers)
    found: dict[int, Any] = {}
    try:
        for k, answer in compute_by(workers, answer_site, packed, range(sites)):
            found[k] = answer
            on_finish(None)
    finally:
        _read.cache_clear()
    return [found[k] for k in range(sites)]


def pack(request: Any, workers: Workers) -> bytes:
    """The request as it travels. Refuses, before the work, what another process cannot be told."""
    try:
        return pickle.dumps(request)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InvalidConfig(
            f"{workers.says} was given with something that cannot be sent to another process.",
            why=f"{error}.",
            fix="leave it out, or give a table, its path or file.py:name instead of objects made "
            "in this process.",
        ) from error


def compute_by(
    workers: Workers, function: Callable[[bytes, int], Any], packed: bytes, pieces: Sequence[int]
) -> Iterator[tuple[int, Any]]:
    """Number and outcome of each piece as it ends. An error of a worker is raised here; the others
    are ended then.
    """
    call = partial(_attempt, function, packed, os.getcwd(), versions()["unseen"])
    futures = compute_pieces(pieces, call, workers.make, workers.jobs)
    with contextlib.closing(futures):
        for k, future in futures:
            try:
                outcome = future.result()
            except BrokenExecutor as error:
                raise LostWorker(
                    f"The worker of piece {pieces.index(k) + 1} of {len(pieces)} ended without a "
                    "word, twice.",
                    why=f"{error} Most often the system ended it because memory ran out.",
                    fix="fewer jobs, or more memory for each; what is stored is not computed "
                    "again.",
                ) from None
            if isinstance(outcome, _WorkerError):
                raise outcome.error from _WorkerTraceback(outcome.trace)
            yield k, outcome


class _WorkerTraceback(Exception):
    """Where an error was raised in a worker, for `--debug`."""


@dataclass(frozen=True)
class _WorkerError:
    """The error of a worker as a value: some executors lose its type, or take it for the worker's
    death.
    """

    error: Exception
    trace: str


def _attempt(
    function: Callable[[bytes, int], Any], packed: bytes, folder: str, version: str, k: int
) -> Any:
    """In a worker: what the function makes of the piece, or its error."""
    try:
        mine = versions()["unseen"]
        if mine != version:
            raise InvalidConfig(
                f"A worker runs Unseen {mine}, this machine {version}.",
                why="other code may give other numbers.",
                fix=f'on the workers: pip install "unseen=={version}"',
            )
        with _in_folder(folder), threadpool_limits(1):
            return function(packed, k)
    except Exception as error:
        return _WorkerError(_as_portable(error), traceback.format_exc())


@contextlib.contextmanager
def _in_folder(folder: str) -> Iterator[None]:
    """In the folder of who asks, where it is on this disk too: names of files count from it."""
    if folder == os.getcwd() or not Path(folder).is_dir():
        yield
        return
    with contextlib.chdir(folder):
        yield


def _as_portable(error: Exception) -> Exception:
    """The error, or its text where it would not survive the way."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


@lru_cache(maxsize=1)
def _read(packed: bytes) -> tuple[SiteRequest, Sequence[Subject]]:
    """In a worker: the data are read once."""
    torch.set_num_threads(1)
    request = unpack(packed)
    return request, request.read(request.lab())


def unpack(packed: bytes) -> Any:
    """In a worker: what was asked."""
    try:
        return pickle.loads(packed)
    except (ImportError, AttributeError) as error:
        raise InvalidConfig(
            "A worker does not know what it was sent.",
            why=f"{error}.",
            fix="install there what is installed here, or give a table, its path or file.py:name "
            "instead of objects made in this process.",
        ) from error


def answer_site(packed: bytes, k: int) -> Any:
    """In a worker: what the job says of site k."""
    request, subjects = _read(packed)
    one = subjects[k]
    return request.job()(one, request.lab().child(one.task.name))
