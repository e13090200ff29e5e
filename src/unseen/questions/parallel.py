"""The held-out sites of a question by several processes: each reads the subjects and answers for
some of them, from the same streams of randomness, so that the numbers do not depend on how many
there are.
"""

import pickle
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.runs.devices import device as named_device
from unseen.runs.executors import Processes
from unseen.runs.tensors import home_cache
from unseen.subjects.subject import Subject

Job = Callable[[Subject, Lab], Any]


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


def refuse_own_objects(jobs: int, **objects: object) -> None:
    """Refuses what another process would not know of."""
    given = [name for name, value in objects.items() if value is not None]
    if given:
        raise InvalidConfig(
            f"jobs={jobs} was given with {', '.join(given)}.",
            why="other processes read the subjects themselves and answer with the standard parts.",
            fix="leave one of the two out.",
        )


def answer_sites(
    request: SiteRequest, sites: int, jobs: int, on_finish: Callable[[object], None]
) -> list[Any]:
    """What the job returns for every site, in the order of the subjects."""
    packed = _pack(request, jobs)
    pool = Processes(min(jobs, sites))
    try:
        futures = {pool.submit(_answer_site, packed, k): k for k in range(sites)}
        found: dict[int, Any] = {}
        for future in as_completed(futures):
            found[futures[future]] = future.result()
            on_finish(None)
    except BaseException:
        pool.kill()
        raise
    pool.shutdown()
    return [found[k] for k in range(sites)]


def _pack(request: SiteRequest, jobs: int) -> bytes:
    try:
        return pickle.dumps(request)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InvalidConfig(
            f"jobs={jobs} was given with something that cannot be sent to another process.",
            why=f"{error}.",
            fix="leave jobs out, or give a table, its path or file.py:name instead of objects made "
            "in this process.",
        ) from error


@lru_cache(maxsize=1)
def _read(packed: bytes) -> tuple[SiteRequest, Sequence[Subject]]:
    """In a worker: the data are read once."""
    torch.set_num_threads(1)
    request = pickle.loads(packed)
    return request, request.read(request.lab())


def _answer_site(packed: bytes, k: int) -> Any:
    request, subjects = _read(packed)
    one = subjects[k]
    with threadpool_limits(1):
        return request.job()(one, request.lab().child(one.task.name))
