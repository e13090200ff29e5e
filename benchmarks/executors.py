"""Wall seconds of 16 equal cells by every executor that is installed, with 1 and 2 workers.

`python benchmarks/executors.py --json` runs 16 seeds of one setting of `xor_grokking` (about 2 CPU
seconds each), every time from an empty home and in a new process, and prints

* `missing`: executors whose library is not installed;
* `cores`, `rows_equal`: whether all stored the same rows, byte for byte (exit code 1 where not);
* `measured`, one entry per executor and number of workers: `startup` (wall seconds until every
  worker has imported the study and answered), `wall` (the cells after that), `cpu` (of the cells,
  as the rows' facts have it), `caller_cpu` (of the process that asks, while the cells are
  computed), `speedup` (wall of one worker over this one's), `load_before` and `load_after`.

Slurm's executor is submitit's local one: no queue, but a new process per cell, whose imports are
part of `wall`. Wall seconds of a busy machine say little, so the load of the last minute stands
beside them. `--executors NAME …`, `--workers N …` and `--cells N` make it shorter.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from typing import Any

from unseen.errors import MissingExtra
from unseen.runs import catalog, runner
from unseen.runs.clusters import EXECUTORS, Resources, executor
from unseen.runs.store import Store
from unseen.study import Scale

STUDY, SETTING = "xor_grokking", 2
MEMORY_GB = 0.5


def arrive(folder: str, number: int, workers: int) -> None:
    """In a worker: imports what a cell needs, and waits for the other workers."""
    catalog.load(STUDY)
    (Path(folder) / str(number)).touch()
    while len(list(Path(folder).iterdir())) < workers:
        time.sleep(0.01)


def start(name: str, workers: int) -> Executor:
    """The executor, once each of its workers has answered."""
    resources = Resources(
        jobs=workers, memory_gb=MEMORY_GB, address="local" if name == "slurm" else ""
    )
    place = executor(name, resources)()
    with tempfile.TemporaryDirectory() as folder:
        futures = [place.submit(arrive, folder, k, workers) for k in range(workers)]
        for future in futures:
            future.result()
    return place


def measure(name: str, workers: int, cells: int) -> dict[str, Any]:
    """One entry, and the hash of the rows; the home is that of the environment, and empty."""
    load_before, began = os.getloadavg()[0], time.perf_counter()
    place = start(name, workers)
    startup = time.perf_counter() - began
    study = catalog.load(STUDY)
    laptop = study.scales[Scale.LAPTOP]
    config = replace(laptop, settings=laptop.settings[SETTING : SETTING + 1], seeds=cells)
    store = Store(Path(os.environ["UNSEEN_HOME"]))
    ready, cpu = time.perf_counter(), time.process_time()
    found = runner.run(study, config, store, lambda: place, runner.Choices(jobs=workers))
    # the executor ends its workers within the run
    wall = time.perf_counter() - ready
    if len(found.runs) != cells:
        raise RuntimeError(f"{name}: {[failure.what for failure in found.failures]}")
    spent = sum(float(run.facts["seconds"]) for run in found.runs)
    here = time.process_time() - cpu
    return {
        "executor": name,
        "workers": workers,
        "startup": round(startup, 2),
        "wall": round(wall, 2),
        "cpu": round(spent, 2),
        "caller_cpu": round(here - (spent if name == "here" else 0.0), 2),
        "load_before": round(load_before, 2),
        "load_after": round(os.getloadavg()[0], 2),
        "rows": rows_hash(store),
    }


def rows_hash(store: Store) -> str:
    """Of the rows as they are stored: keys and bytes."""
    found = hashlib.sha256()
    for key in sorted(store.keys(STUDY)):
        text = (store.run_folder(STUDY, key) / "run.json").read_bytes()
        found.update(key.encode())
        found.update(text[text.index(b' "rows"') : text.index(b' "facts"')])
    return found.hexdigest()


def measure_alone(name: str, workers: int, cells: int) -> dict[str, Any] | None:
    """The same in a new process with an empty home; None where the library is missing."""
    with tempfile.TemporaryDirectory(prefix="unseen-executors-") as home:
        command = [sys.executable, __file__, "--alone", name, str(workers), "--cells", str(cells)]
        environment = os.environ | {"UNSEEN_HOME": home, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] | None = json.loads(done.stdout)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--executors", nargs="+", default=[*EXECUTORS], choices=[*EXECUTORS])
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--cells", type=int, default=16)
    parser.add_argument("--alone", nargs=2, metavar=("NAME", "WORKERS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        name, workers = options.alone
        try:
            print(json.dumps(measure(name, int(workers), options.cells)))
        except MissingExtra:
            print("null")
        return 0
    missing: list[str] = []
    measured: list[dict[str, Any]] = []
    for name in options.executors:
        first = len(measured)
        for workers in options.workers if name != "here" else [1]:
            one = measure_alone(name, workers, options.cells)
            if one is None:
                missing.append(name)
                break
            measured.append(one)
            one["speedup"] = round(measured[first]["wall"] / one["wall"], 2)
            # as it comes: all of them take minutes
            print(describe(one), file=sys.stderr if options.json else sys.stdout, flush=True)
    hashes = {one.pop("rows") for one in measured}
    found = {
        "study": STUDY,
        "cells": options.cells,
        "cores": os.cpu_count(),
        "missing": missing,
        "rows_equal": len(hashes) == 1,
        "measured": measured,
    }
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        print(f"not installed: {', '.join(missing) or 'none'}")
        print(f"rows equal: {found['rows_equal']}")
    return int(len(hashes) > 1)


def describe(one: dict[str, Any]) -> str:
    return (
        f"{one['executor']:10} {one['workers']} workers  start {one['startup']:6.2f} s  "
        f"cells {one['wall']:6.2f} s  {one['cpu']:6.2f} CPU s  × {one['speedup']:.2f}  "
        f"load {one['load_before']:.1f}–{one['load_after']:.1f}"
    )


if __name__ == "__main__":
    sys.exit(main())
