"""Runner: cells not yet in the store → executor → rows.

What is finished is skipped, what is missing is computed, what fails is remembered and listed while the rest goes on.
"""

import logging
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import dataclass, field, replace
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from unseen.errors import InvalidConfig, InvalidData, MissingFile, UnseenError
from unseen.lab import Lab, Silent, Sink
from unseen.shell import catalog
from unseen.shell.artefacts import Kept
from unseen.shell.executors import Here
from unseen.shell.facts import commit, versions
from unseen.shell.fingerprint import code_of, key, plain
from unseen.shell.store import Failure, Run, Store
from unseen.study import Row

log = logging.getLogger("unseen.runner")


class Changed(UnseenError, RuntimeError):
    """The source of a study was edited while it ran."""


@dataclass(frozen=True)
class Job:
    """A cell on its way to an executor: everything travels by name and value."""

    study: str
    cell: Any
    key: str
    root: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def place(self) -> tuple[str, str]:
        return self.study, self.key


Outcome = Run | Failure


@runtime_checkable
class Watcher(Protocol):
    """Hears what happens to the cells; `progress.py` has the one that draws."""

    sink: Sink

    def begin(self, study: str, total: int, stored: int, unit: str = "cells") -> None: ...
    def finished(self, outcome: Outcome) -> None: ...
    def end(self) -> None: ...


class Unwatched:
    """Shows nothing."""

    sink: Sink = Silent()

    def begin(self, study: str, total: int, stored: int, unit: str = "cells") -> None: ...
    def finished(self, outcome: Outcome) -> None: ...
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


def jobs_of(study: Any, config: Any, store: Store) -> list[Job]:
    """The study's cells under a configuration, with their keys. Equal cells count once."""
    module = catalog.place(study.name).module
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


def stored(study: Any, config: Any, store: Store) -> Result:
    """What the store has of a study's cells; computes nothing."""
    jobs = jobs_of(study, config, store)
    found = [store.get(*job.place) for job in jobs]
    failures = [failure for job in jobs if (failure := store.failure(*job.place))]
    runs = tuple(run for run in found if run is not None)
    return Result(study=study.name, total=len(jobs), runs=runs, failures=tuple(failures), stored=len(runs))


def run(
    study: Any,
    config: Any,
    store: Store,
    executor: Callable[[], Executor] = Here,
    choices: Choices = Choices(),
    watcher: Watcher = Unwatched(),
) -> Result:
    """Computes the missing cells and returns the rows of all. Finished cells survive whatever happens here."""
    store.probe()
    store.clean(study.name)
    jobs = jobs_of(study, config, store)
    if choices.fresh:
        for job in jobs:
            store.forget(*job.place)
    outcomes: dict[str, Outcome] = {job.key: found for job in jobs if (found := store.get(*job.place))}
    at_start = len(outcomes)
    if not choices.retry_failed:
        outcomes |= {j.key: f for j in jobs if j.key not in outcomes and (f := store.failure(*j.place)) and f.lasting}
    missing = [job for job in jobs if job.key not in outcomes]
    interrupted = False
    watcher.begin(study.name, len(jobs), len(jobs) - len(missing))
    try:
        for key_, outcome in _computed(missing, study, executor, choices, watcher):
            outcomes[key_] = outcome
            watcher.finished(outcome)
            if choices.fail_fast and isinstance(outcome, Failure):
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
    )


def _computed(
    jobs: list[Job], study: Any, executor: Callable[[], Executor], choices: Choices, watcher: Watcher
) -> Iterator[tuple[str, Outcome]]:
    """Key and outcome of each cell as it ends. Cells that went down with a worker are tried once more, each alone."""
    if not jobs:
        return
    module = catalog.place(study.name).module
    shared = {"versions": versions(), "device": str(Lab().device)}
    jobs = [replace(j, facts={**shared, "commit": commit(code_of(module, j.cell))}) for j in jobs]
    down: list[Job] = []
    for job, future in _submitted(jobs, executor, choices.jobs, watcher.sink):
        try:
            yield job.key, future.result()
        except BrokenExecutor:
            down.append(job)
    for job in down:
        for _, future in _submitted([job], executor, 1, watcher.sink):
            try:
                yield job.key, future.result()
            except BrokenExecutor:
                yield job.key, _killed(job)


def _submitted(
    jobs: list[Job], executor: Callable[[], Executor], at_once: int, sink: Sink
) -> Iterator[tuple[Job, Future[Outcome]]]:
    """Futures as they end, with few in flight, so that stopping early leaves nothing to take back."""
    place = executor()
    here = isinstance(place, Here)
    function: Callable[[Job], Outcome] = partial(work, sink=sink) if here else work
    limit, flying, waiting = 1 if here else at_once + 1, dict[Future[Outcome], Job](), list(reversed(jobs))
    clean = False
    try:
        while waiting or flying:
            while waiting and len(flying) < limit:
                job = waiting.pop()
                try:
                    flying[place.submit(function, job)] = job
                except BrokenExecutor as error:  # a pool that broke accepts nothing more
                    flying[_broken(error)] = job
            for future in wait(flying, return_when=FIRST_COMPLETED).done:
                yield flying.pop(future), future
        clean = True
    finally:
        if clean or not hasattr(place, "kill"):
            place.shutdown(wait=True, cancel_futures=True)
        else:
            place.kill()


def _broken(error: BrokenExecutor) -> Future[Outcome]:
    future: Future[Outcome] = Future()
    future.set_exception(error)
    return future


def work(job: Job, sink: Sink = Silent()) -> Outcome:
    """One cell, in whichever process: its rows into the store, or its failure beside."""
    store = Store(Path(job.root))
    done = store.get(*job.place)  # another process may have been faster
    if done is not None:
        return done
    study = catalog.load(job.study)
    _refuse_change(job)
    lab = Lab(seed=job.cell.seed, sink=sink, keeper=Kept(store.kept(*job.place))).child(job.study)
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        rows = checked(study.run(job.cell, lab), job.study)
    except Exception as error:
        failure = Failure(
            study=job.study,
            key=job.key,
            cell=plain(job.cell),
            kind=type(error).__name__,
            what=str(error),
            traceback=traceback.format_exc(),
            lasting=not isinstance(error, OSError | MemoryError | ImportError),
        )
        store.fail(failure)
        log.debug("%s", failure.traceback)
        return failure
    spent = {
        "seconds": round(time.process_time() - cpu, 3),
        "wall_seconds": round(time.perf_counter() - wall, 3),
        "threads": torch.get_num_threads(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    store.put(Run(study=job.study, key=job.key, cell=plain(job.cell), rows=rows, facts={**job.facts, **spent}))
    found = store.get(*job.place)
    if found is None:
        raise MissingFile(
            f"{store.place(*job.place)} was written and is gone.",
            why="something else removes or changes files there.",
            fix="choose another place with --home or UNSEEN_HOME.",
        )
    return found


def checked(rows: Iterable[Mapping[str, Any]] | None, study: str) -> list[dict[str, Any]]:
    """Rows as plain Python scalars; an error names the row and column that is none, or is not finite."""
    plain_rows = [
        {name: _scalar(value, name, n, study) for name, value in row.items()} for n, row in enumerate(rows or ())
    ]
    if not plain_rows:
        raise InvalidData(
            f"A cell of `{study}` returned no rows.", why="nothing could be judged.", fix="yield at least one row."
        )
    return plain_rows


def _scalar(value: Any, name: str, n: int, study: str) -> Any:
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # numpy and torch scalars
        value = value.item()
    if isinstance(value, float) and not isfinite(value):
        raise InvalidData(
            f"Row {n} of a cell of `{study}` has {name} = {value}.",
            why="it would end up in means and tables as if it were a result.",
            fix='leave the column out, or say it in words ("diverged").',
        )
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    raise InvalidData(
        f"Row {n} of a cell of `{study}` has {name} of type {type(value).__name__}.",
        why="rows are flat: numbers, truth values and strings.",
        fix="yield one row per value; keep tensors with `lab.keep`.",
    )


def _refuse_change(job: Job) -> None:
    """A worker imports the code later than the parent hashed it: an edit in between would be filed under the old."""
    if key(job.study, job.cell, code_of(catalog.place(job.study).module, job.cell)) != job.key:
        raise Changed(
            f"The code of `{job.study}` changed while it ran.",
            why="its rows would be filed under the code before the change.",
            fix="run it again; finished cells of unchanged code are kept.",
        )


def _killed(job: Job) -> Failure:
    return Failure(
        study=job.study,
        key=job.key,
        cell=plain(job.cell),
        kind="Killed",
        what="The process that computed this cell died without a word, twice.\n"
        "  why: most often the system ended it because memory ran out.\n  fix: fewer --jobs, or a smaller cell.",
        lasting=False,
    )
