"""One cell, in whichever process: its lab, its rows checked, its directory or its failure."""

import logging
import time
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

import torch

from unseen.errors import InvalidData, MissingFile, UnseenError
from unseen.lab import Lab, Silent, Sink
from unseen.runs import catalog
from unseen.runs.code_keys import code_of, key, plain
from unseen.runs.locks import writing
from unseen.runs.provenance import processor
from unseen.runs.store import Failure, Run, Store
from unseen.runs.tensors import TensorCache

log = logging.getLogger("unseen.work")


class SourceChanged(UnseenError, RuntimeError):
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
    def store_key(self) -> tuple[str, str]:
        return self.study, self.key


Outcome = Run | Failure


def work(job: Job, sink: Sink = Silent()) -> Outcome:
    """One cell, in whichever process: its rows into the store, or its failure beside."""
    with writing(Path(job.root), f"runs/{job.study}"):
        return _work(job, sink)


def _work(job: Job, sink: Sink) -> Outcome:
    store = Store(Path(job.root))
    done = store.get(*job.store_key)  # another process may have been faster
    if done is not None:
        return done
    study = catalog.load(job.study)
    _refuse_change(job)
    place = torch.device(job.facts.get("device", "cpu"))
    lab = Lab(
        seed=job.cell.seed,
        device=place,
        sink=sink,
        keeper=TensorCache(store.tensor_folder(*job.store_key)),
    ).child(job.study)
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        rows = validate_rows(study.run(job.cell, lab), job.study)
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
        "processor": processor(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    store.put(
        Run(
            study=job.study,
            key=job.key,
            cell=plain(job.cell),
            rows=rows,
            facts={**job.facts, **spent},
        )
    )
    found = store.get(*job.store_key)
    if found is None:
        raise MissingFile(
            f"{store.run_folder(*job.store_key)} was written and is gone.",
            why="something else removes or changes files there.",
            fix="choose another place with --home or UNSEEN_HOME.",
        )
    return found


def validate_rows(rows: Iterable[Mapping[str, Any]] | None, study: str) -> list[dict[str, Any]]:
    """Rows as plain Python scalars; an error names the row and column that is none, or is not
    finite.
    """
    plain_rows = [
        {name: _scalar(value, name, n, study) for name, value in row.items()}
        for n, row in enumerate(rows or ())
    ]
    if not plain_rows:
        raise InvalidData(
            f"A cell of `{study}` returned no rows.",
            why="nothing could be judged.",
            fix="yield at least one row.",
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
    """A worker imports the code later than the parent hashed it: an edit in between would be filed
    under the old.
    """
    if key(job.study, job.cell, code_of(catalog.locate(job.study).module, job.cell)) != job.key:
        raise SourceChanged(
            f"The code of `{job.study}` changed while it ran.",
            why="its rows would be filed under the code before the change.",
            fix="run it again; finished cells of unchanged code are kept.",
        )
