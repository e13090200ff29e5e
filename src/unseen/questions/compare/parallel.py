"""A comparison computed by several processes or a cluster: each worker takes groups of runs, and
their scores come back with the keys that they would be kept under.
"""

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from unseen.errors import InvalidConfig
from unseen.identity import differing
from unseen.questions.compare.candidates import check_ranges
from unseen.questions.compare.inputs import Request
from unseen.questions.compare.job import Results
from unseen.questions.compare.run_groups import RunGroup, RunScores
from unseen.questions.compare.sweep import Sweep
from unseen.questions.parallel import (
    ExecutorChoice,
    LostWorker,
    Workers,
    compute_by,
    find_workers,
    pack,
    unpack,
)
from unseen.runs.locks import writing
from unseen.runs.runner import Watcher
from unseen.runs.store import home
from unseen.runs.tensors import TensorCache

log = logging.getLogger("unseen")
MANY = 12
"""Groups of runs from which on several processes share the work, unless the number of jobs is
given.
"""


@dataclass
class FetchedSweep(Sweep):
    """A sweep that has the scores of some groups already: workers computed them."""

    fetched: dict[RunGroup, RunScores] = field(default_factory=dict)

    def __call__(self, blocks: Sequence[RunGroup]) -> list[RunScores]:
        """The scores of the blocks; what nobody computed is computed here."""
        left = [block for block in blocks if block not in self.fetched]
        found = {**self.fetched, **dict(zip(left, super().__call__(left), strict=True))}
        return [found[block] for block in blocks]


@dataclass(frozen=True)
class GroupScores:
    """What a worker says of one block."""

    block: str
    key: str | None
    """None where it cannot be known: nothing is kept under it."""
    scores: Mapping[str, Tensor] | None
    """None where its training failed, which whoever asked finds out again."""


@lru_cache(maxsize=1)
def _workplace(packed: bytes) -> tuple[Sweep, list[list[RunGroup]]]:
    """In a worker: the data are read once."""
    torch.set_num_threads(1)
    request: Request = unpack(packed)
    subjects = request.subjects()
    sweep = request.sweep(subjects)
    return sweep, sweep.groups(request.job().blocks(subjects))


def compute_group(packed: bytes, k: int) -> list[GroupScores]:
    """In a worker: the scores of group k, block by block."""
    sweep, groups = _workplace(packed)
    group = groups[k]
    try:
        scores: list[RunScores | None] = [*sweep(group)]
    except Exception:  # as at home: find out which of them fails
        scores = [_scores_or_none(sweep, block) for block in group]
    return [
        GroupScores(block.says, _key_text(sweep, block), one)
        for block, one in zip(group, scores, strict=True)
    ]


def _scores_or_none(sweep: Sweep, block: RunGroup) -> RunScores | None:
    try:
        return sweep([block])[0]
    except Exception:  # whoever asked meets it again, and names it
        return None


def _key_text(sweep: Sweep, block: RunGroup) -> str | None:
    keeper = sweep.lab.keeper
    return keeper.text(sweep.key(block)) if isinstance(keeper, TensorCache) else None


def compute(
    request: Request, jobs: int | None, watch: Watcher, executor: ExecutorChoice = ""
) -> Results:
    """The comparison that the request asks for, by so many processes (None: all cores where it is
    worth while) or by an executor.
    """
    began = time.perf_counter()
    workers = find_workers(executor, jobs or 1)
    packed = b"" if workers is None or not executor else pack(request, workers)
    subjects, job = request.subjects(), request.job()
    check_ranges(job.entrants, subjects[0].budget, job.space)
    sweep = request.sweep(subjects, watch.sink)
    for text in job.domain_notices(subjects, sweep):
        log.warning(text)
    groups = sweep.groups(job.blocks(subjects))
    left = [
        k for k, group in enumerate(groups) if not all(_is_cached(sweep, block) for block in group)
    ]
    if not executor:
        if jobs is None and len(left) >= MANY and request.device == "cpu":
            workers = find_workers("", _cores())
        workers = workers if request.can_travel and len(left) > 1 else None
        packed = b"" if workers is None else pack(request, workers)
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
            if workers is not None and left:
                sweep = _spread(workers, packed, sweep, groups, left, report)
                report = _ignore  # it has heard of most
            found = job(subjects, sweep.lab, sweep, report)
    finally:
        watch.end()
    # the job's own clock starts when other processes have done their part
    return replace(found, seconds=time.perf_counter() - began)


def _ignore(finished: object) -> None:
    """Nobody listens."""


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _is_cached(sweep: Sweep, block: RunGroup) -> bool:
    keeper = sweep.lab.keeper
    return isinstance(keeper, TensorCache) and keeper.holds(sweep.key(block))


def _spread(
    workers: Workers,
    packed: bytes,
    sweep: Sweep,
    groups: Sequence[Sequence[RunGroup]],
    left: Sequence[int],
    report: Callable[[object], None],
) -> FetchedSweep:
    """The sweep with what the workers computed, which is kept here, too."""
    fetched: dict[RunGroup, RunScores] = {}
    try:
        for k, found in compute_by(workers, compute_group, packed, left):
            for block, one in zip(groups[k], found, strict=True):
                if one.scores is not None:
                    fetched[block] = _keep(sweep, block, one)
                report(None)
    except LostWorker as error:  # a worker was killed, for want of memory perhaps
        log.warning("%s A worker process ended; the rest is computed in this one.", error.what)
    finally:
        _workplace.cache_clear()
    return FetchedSweep(**vars(sweep), fetched=fetched)


def _keep(sweep: Sweep, block: RunGroup, found: GroupScores) -> RunScores:
    """The scores of a block, kept under its key, which the worker must have had, too."""
    key, scores = _key_text(sweep, block), dict(found.scores or {})
    if found.block != block.says or (key is not None and found.key != key):
        other = differing(key or "", found.key or "")
        raise InvalidConfig(
            f"A worker computed {found.block} from something else than this machine would have.",
            why=f"other there: {', '.join(other) or 'the groups of runs'}.",
            fix="the workers need the same data, the same versions of Unseen and its libraries, "
            "and sources that are not edited meanwhile.",
        )
    return sweep.lab.keep(sweep.key(block), lambda: scores)
