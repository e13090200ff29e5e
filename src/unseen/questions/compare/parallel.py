"""A comparison computed by several processes: each takes groups of runs, and their cached scores
are read at the end.
"""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import lru_cache

import torch
from threadpoolctl import threadpool_limits

from unseen.questions.compare.candidates import check_ranges
from unseen.questions.compare.inputs import Request
from unseen.questions.compare.job import Results
from unseen.questions.compare.run_groups import RunGroup
from unseen.questions.compare.sweep import Sweep
from unseen.runs.executors import Processes
from unseen.runs.locks import writing
from unseen.runs.runner import Watcher
from unseen.runs.store import home
from unseen.runs.tensors import TensorCache

log = logging.getLogger("unseen")
MANY = 12
"""Groups of runs from which on several processes share the work, unless the number of jobs is
given.
"""


@lru_cache(maxsize=1)
def _workplace(request: Request) -> tuple[Sweep, list[list[RunGroup]]]:
    """In a worker: the data are read once."""
    torch.set_num_threads(1)
    subjects = request.subjects()
    sweep = request.sweep(subjects)
    return sweep, sweep.groups(request.job().blocks(subjects))


def _compute_group(request: Request, k: int) -> int:
    """Computes group k in a worker; its scores are cached, where the parent finds them.

    The parent meets an error again itself.
    """
    sweep, groups = _workplace(request)
    with contextlib.suppress(Exception):
        sweep(groups[k])
    return k


def compute(request: Request, jobs: int | None, watch: Watcher) -> Results:
    """The comparison that the request asks for, by so many processes (None: all cores where it is
    worth while).
    """
    began = time.perf_counter()
    subjects, job = request.subjects(), request.job()
    check_ranges(job.entrants, subjects[0].budget, job.space)
    sweep = request.sweep(subjects, watch.sink)
    for text in job.domain_notices(subjects, sweep):
        log.warning(text)
    groups = sweep.groups(job.blocks(subjects))
    left = [
        k for k, group in enumerate(groups) if not all(_is_cached(sweep, block) for block in group)
    ]
    # what has no key cannot be cached, so a worker's scores of it would be lost
    shared = [
        k
        for k in left
        if request.can_travel and not any(sweep.key(block).unknown for block in groups[k])
    ]
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    jobs = (
        jobs
        if jobs is not None
        else (cores if len(shared) >= MANY and request.device == "cpu" else 1)
    )
    total = sum(map(len, groups))
    watch.begin(
        f"compare {subjects[0].data_name}",
        total,
        total - sum(len(groups[k]) for k in left),
        "blocks",
    )
    report: Callable[[object], None] = watch.on_finish
    try:
        with threadpool_limits(1), writing(home(), "comparisons"):
            if jobs > 1 and len(shared) > 1:
                _spread(request, groups, shared, min(jobs, len(shared)), report)
                _workplace.cache_clear()
                report = _ignore  # it has heard of most
            found = job(subjects, sweep.lab, sweep, report)
    finally:
        watch.end()
    # the job's own clock starts when other processes have done their part
    return replace(found, seconds=time.perf_counter() - began)


def _ignore(finished: object) -> None:
    """Nobody listens."""


def _is_cached(sweep: Sweep, block: RunGroup) -> bool:
    keeper = sweep.lab.keeper
    return isinstance(keeper, TensorCache) and keeper.holds(sweep.key(block))


def _spread(
    request: Request,
    groups: Sequence[Sequence[RunGroup]],
    left: Sequence[int],
    jobs: int,
    report: Callable[[object], None],
) -> None:
    pool = Processes(jobs)
    try:
        for future in as_completed([pool.submit(_compute_group, request, k) for k in left]):
            for _ in groups[future.result()]:
                report(None)
    except (
        BrokenProcessPool
    ):  # a worker was killed, for want of memory perhaps: what is left is computed here
        log.warning("A worker process ended; the rest is computed in this one.")
    except BaseException:
        pool.kill()
        raise
    pool.shutdown()
