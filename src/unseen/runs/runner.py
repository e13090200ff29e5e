"""Runner: cells not yet in the store → executor → rows.

What is finished is skipped, what is missing is computed, what fails is remembered and listed while
the rest goes on.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, runtime_checkable

from unseen.errors import InvalidConfig
from unseen.lab import Silent, Sink
from unseen.runs import catalog
from unseen.runs.code_keys import code_of, key, plain
from unseen.runs.executors import InProcess, compute_pieces
from unseen.runs.locks import writing
from unseen.runs.provenance import commit, versions
from unseen.runs.store import Failure, Run, Store
from unseen.runs.worker import Job, Outcome, work
from unseen.study import Row

KILLED = "Killed"
"""The kind of a failure without a word: it is not stored."""


@runtime_checkable
class Watcher(Protocol):
    """Hears what happens to the cells; `progress.py` has the one that draws."""

    sink: Sink

    def begin(self, study: str, total: int, stored: int, unit: str = "cells") -> None: ...
    def on_finish(self, outcome: object) -> None: ...
    def end(self) -> None: ...


class NoWatcher:
    """Shows nothing."""

    sink: Sink = Silent()

    def begin(self, study: str, total: int, stored: int, unit: str = "cells") -> None: ...
    def on_finish(self, outcome: object) -> None: ...
    def end(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Result:
    """What is known of a study's cells after a run, in the order of the cells."""

    study: str
    total: int
    runs: tuple[Run, ...]
    failures: tuple[Failure, ...] = ()
    stored: int = 0
    """Cells that were in the store already."""
    interrupted: bool = False
    keys: tuple[str, ...] = ()
    """Of all cells, finished or not."""

    @property
    def rows(self) -> list[Row]:
        return [row for run in self.runs for row in run.rows]

    @property
    def seconds(self) -> float:
        """CPU seconds of all finished cells, whenever they were computed."""
        return sum(float(run.facts.get("seconds", 0.0)) for run in self.runs)


@dataclass(frozen=True, kw_only=True)
class Choices:
    """How to run: independent of what the rows will be."""

    fresh: bool = False
    """Compute every cell again."""
    retry_failed: bool = False
    """Compute the cells again that failed earlier."""
    fail_fast: bool = False
    """Stop at the first failure."""
    jobs: int = 1
    """Cells computed at the same time."""
    until: float | None = None
    """No further cell is waited for from this reading of `time.monotonic` on."""
    device: str = "cpu"
    """Where the cells compute; stored rows count whatever device they come from."""


def jobs_of(study: Any, config: Any, store: Store) -> list[Job]:
    """The study's cells under a configuration, with their keys. Equal cells count once."""
    module = catalog.locate(study.name).module
    jobs: dict[str, Job] = {}
    for cell in study.cells(config):
        if not isinstance(getattr(cell, "seed", None), int):
            raise InvalidConfig(
                f"A cell of `{study.name}` has no integer `seed`: {cell!r}.",
                why="the lab of a cell draws its randomness from it.",
                fix="give the Cell dataclass a field `seed: int`.",
            )
        name = key(study.name, cell, code_of(module, cell))
        jobs[name] = Job(study.name, cell, name, str(store.root))
    return list(jobs.values())


def load_result(study: Any, config: Any, store: Store) -> Result:
    """What the store has of a study's cells; computes nothing."""
    jobs = jobs_of(study, config, store)
    found = [store.get(*job.store_key) for job in jobs]
    failures = [failure for job in jobs if (failure := store.failure(*job.store_key))]
    runs = tuple(run for run in found if run is not None)
    keys = tuple(job.key for job in jobs)
    return Result(
        study=study.name,
        total=len(jobs),
        runs=runs,
        failures=tuple(failures),
        stored=len(runs),
        keys=keys,
    )


def run(
    study: Any,
    config: Any,
    store: Store,
    executor: Callable[[], Executor] = InProcess,
    choices: Choices = Choices(),
    watcher: Watcher = NoWatcher(),
) -> Result:
    """Computes the missing cells and returns the rows of all. Finished cells survive whatever
    happens here.
    """
    store.probe()
    with writing(store.root, f"runs/{study.name}"):
        return _run(study, config, store, executor, choices, watcher)


def _run(
    study: Any,
    config: Any,
    store: Store,
    executor: Callable[[], Executor],
    choices: Choices,
    watcher: Watcher,
) -> Result:
    store.clean(study.name)
    jobs = jobs_of(study, config, store)
    if choices.fresh:
        for job in jobs:
            store.forget(*job.store_key)
    outcomes: dict[str, Outcome] = {
        job.key: found for job in jobs if (found := store.get(*job.store_key))
    }
    at_start = len(outcomes)
    if not choices.retry_failed:
        outcomes |= {
            j.key: f
            for j in jobs
            if j.key not in outcomes and (f := store.failure(*j.store_key)) and f.lasting
        }
    missing = [job for job in jobs if job.key not in outcomes]
    interrupted = False
    watcher.begin(study.name, len(jobs), len(jobs) - len(missing))
    try:
        for key_, outcome in _compute(missing, study, executor, choices, watcher):
            outcomes[key_] = outcome
            _store_from_elsewhere(store, outcome)
            watcher.on_finish(outcome)
            if choices.fail_fast and isinstance(outcome, Failure):
                break
            if choices.until is not None and time.monotonic() > choices.until:
                break
    except KeyboardInterrupt:
        interrupted = True
    finally:
        watcher.end()
    ordered = [outcomes[job.key] for job in jobs if job.key in outcomes]
    return Result(
        study=study.name,
        total=len(jobs),
        runs=tuple(o for o in ordered if isinstance(o, Run)),
        failures=tuple(o for o in ordered if isinstance(o, Failure)),
        stored=at_start,
        interrupted=interrupted,
        keys=tuple(job.key for job in jobs),
    )


def _store_from_elsewhere(store: Store, outcome: Outcome) -> None:
    """A worker whose disk is not ours has stored its cell there."""
    place = outcome.study, outcome.key
    if isinstance(outcome, Run):
        if store.get(*place) is None:
            store.put(outcome)
    elif outcome.kind != KILLED and store.failure(*place) is None:
        store.fail(outcome)


def _compute(
    jobs: list[Job],
    study: Any,
    executor: Callable[[], Executor],
    choices: Choices,
    watcher: Watcher,
) -> Iterator[tuple[str, Outcome]]:
    """Key and outcome of each cell as it ends. Cells that went down with a worker are tried once
    more, each alone.
    """
    if not jobs:
        return
    module = catalog.locate(study.name).module
    shared = {"versions": versions(), "device": choices.device}
    jobs = [replace(j, facts={**shared, "commit": commit(code_of(module, j.cell))}) for j in jobs]
    here = partial(work, sink=watcher.sink)
    for job, future in compute_pieces(jobs, work, executor, choices.jobs, here):
        try:
            yield job.key, future.result()
        except BrokenExecutor:
            yield job.key, _killed_failure(job)


def _killed_failure(job: Job) -> Failure:
    return Failure(
        study=job.study,
        key=job.key,
        cell=plain(job.cell),
        kind=KILLED,
        what="The process that computed this cell died without a word, twice.\n"
        "  why: most often the system ended it because memory ran out.\n  fix: fewer --jobs, or a "
        "smaller cell.",
        lasting=False,
    )
