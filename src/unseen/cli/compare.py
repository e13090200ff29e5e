"""`unseen compare`: which training method holds best at places it has not seen, on one's own data or on a task here."""

import argparse
import contextlib
import json
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from unseen.cli.arguments import Arguments
from unseen.errors import InvalidConfig, UnknownName
from unseen.questions.compare.candidates import check_ranges
from unseen.questions.compare.document import as_csv, as_json, as_latex, as_markdown, document
from unseen.questions.compare.inputs import PROTOCOLS, Request
from unseen.questions.compare.job import Results
from unseen.questions.compare.run_groups import RunGroup
from unseen.questions.compare.sweep import Sweep
from unseen.report.html import html
from unseen.report.json import plain
from unseen.report.markdown import markdown
from unseen.report.terminal import show
from unseen.runs.executors import Processes
from unseen.runs.progress import watcher
from unseen.runs.store import write_atomic
from unseen.runs.tensors import Kept

WRITERS: Mapping[str, Callable[[Results], str]] = {
    ".tex": as_latex,
    ".md": as_markdown,
    ".csv": as_csv,
    ".json": as_json,
}
"""How a table is exported, by the suffix of the file."""


log = logging.getLogger("unseen")
MANY = 12
"""Groups of runs from which on several processes share the work, unless --jobs says otherwise."""


@lru_cache(maxsize=1)
def _workplace(request: Request) -> tuple[Sweep, list[list[RunGroup]]]:
    """In a worker: the data are read once."""
    torch.set_num_threads(1)
    subjects = request.subjects()
    sweep = request.sweep(subjects)
    return sweep, sweep.groups(request.job().blocks(subjects))


def _computed(request: Request, k: int) -> int:
    """Computes group k in a worker; its scores are kept, where the parent finds them. It meets an error again itself."""
    sweep, groups = _workplace(request)
    with contextlib.suppress(Exception):
        sweep(groups[k])
    return k


def compare(request: Request, jobs: int | None = None, watch: Any = None) -> Results:
    """The comparison that the request asks for, by so many processes (default: all cores where it is worth while)."""
    subjects, job = request.subjects(), request.job()
    check_ranges(job.entrants, subjects[0].budget, job.space)
    sweep = request.sweep(subjects, *([watch.sink] if watch else []))
    groups = sweep.groups(job.blocks(subjects))
    left = [k for k, group in enumerate(groups) if not all(_is_kept(sweep, block) for block in group)]
    # what has no key cannot be kept, so a worker's scores of it would be lost
    shared = [k for k in left if all(sweep.key(block) is not None for block in groups[k])]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    jobs = jobs if jobs is not None else (cores if len(shared) >= MANY and request.device == "cpu" else 1)
    if watch:
        total = sum(map(len, groups))
        watch.begin(f"compare {subjects[0].data_name}", total, total - sum(len(groups[k]) for k in left), "blocks")
    told = watch.finished if watch else _silent
    try:
        with threadpool_limits(1):
            if jobs > 1 and len(shared) > 1:
                _spread(request, groups, shared, min(jobs, len(shared)), told)
                _workplace.cache_clear()
                told = _silent  # it has heard of most
            return job(subjects, sweep.lab, sweep, told)
    finally:
        if watch:
            watch.end()


def _silent(finished: object) -> None:
    """Nobody listens."""


def _is_kept(sweep: Sweep, block: RunGroup) -> bool:
    keeper = sweep.lab.keeper
    key = sweep.key(block) if isinstance(keeper, Kept) else None
    return key is not None and isinstance(keeper, Kept) and keeper.path(key).exists()


def _spread(
    request: Request,
    groups: Sequence[Sequence[RunGroup]],
    left: Sequence[int],
    jobs: int,
    told: Callable[[object], None],
) -> None:
    pool = Processes(jobs)
    try:
        for future in as_completed([pool.submit(_computed, request, k) for k in left]):
            for _ in groups[future.result()]:
                told(None)
    except BrokenProcessPool:  # a worker was killed, for want of memory perhaps: what is left is computed here
        log.warning("A worker process ended; the rest is computed in this one.")
    except BaseException:
        pool.kill()
        raise
    pool.shutdown()


def parser() -> argparse.ArgumentParser:
    p = Arguments(
        "unseen compare",
        "Which training method holds best at places that it has not seen?",
        "Every place is left out in turn; every method gets the same data, seeds, initial weights and search budget.\n"
        "Without a task: the embedded UCI heart-disease data of four hospitals. Fields of a task of this package follow\n"
        "as flags: unseen compare rotated_digits --n 2000.",
    )
    p.add_argument(
        "task", nargs="?", help="table (.csv, .parquet), Python file (file.py:name), `heart`, or a task's name"
    )
    p.add_argument("methods", nargs="*", metavar="METHOD", help="methods to compare (default: the standard ones)")
    p.add_argument("--method", action="append", default=[], help="one more method (repeatable): erm, sam, group_dro, …")
    p.add_argument("--target", help="column to predict (tables)")
    p.add_argument("--site", help="column whose values are left out in turn (hospital, camera, country)")
    p.add_argument("--time", help="column that orders the rows: trained on the past, judged on the future")
    p.add_argument("--entity", help="column that names a person or device: all its rows stay on one side")
    p.add_argument("--group", action="append", default=[], help="column of subgroups: sex, age:decade, age:40,60")
    p.add_argument("--drop", action="append", default=[], help="column to leave out of the inputs")
    p.add_argument("--seeds", type=int, default=3, help="runs per method and place (default 3)")
    p.add_argument("--draws", type=int, default=10, help="settings of the hyperparameters per run (default 10)")
    p.add_argument("--range", action="append", default=[], help="NAME=LOW:HIGH to search instead: --range lr=1e-4:1e-2")
    p.add_argument(
        "--protocol",
        action="append",
        default=[],
        choices=list(PROTOCOLS),
        help="how hyperparameters are selected (repeatable; default: all, the first one is quoted)",
    )
    p.add_argument("--steps", type=int, help="training steps (default: about fifteen passes over the data)")
    p.add_argument("--seed", type=int, default=0, help="seed of every random number (default 0)")
    p.add_argument("--device", default="cpu", help="where to compute: cpu, cuda, mps (default cpu)")
    p.add_argument("--jobs", type=int, help="processes that share the work (default: all cores if there is much)")
    p.add_argument("--report", default="unseen-comparison.html", help="file to write (.html or .md)")
    p.add_argument("--table", action="append", default=[], help="also write the tables: .tex, .md, .csv or .json")
    p.add_argument("--quiet", action="store_true", help="no progress, no summary")
    return p


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    options, rest = parser().parse_known_args(argv)
    methods, flags = parted(rest)
    options.methods += methods
    request = _request(options, flags)
    for path in options.table:
        if Path(path).suffix not in WRITERS:
            raise InvalidConfig(
                f"`--table {path}` has an unknown suffix.",
                why="it says how the table is written.",
                fix=f"use one of {', '.join(WRITERS)}.",
            )
    results = compare(request, options.jobs, None if options.quiet else watcher())
    page, path = document(results), Path(options.report)
    write_atomic(path, markdown(page) if path.suffix == ".md" else html(page))
    for table in options.table:
        write_atomic(Path(table), WRITERS[Path(table).suffix](results))
    if options.json:
        print(json.dumps(plain({"report": str(path), "results": results}), indent=1, ensure_ascii=False))
    elif not options.quiet:
        show(replace(page, sections=page.sections[:2]))  # one screen; the report has the rest
        print(
            "\n".join(f"{kind}: {place}" for kind, place in [("report", path), *(("table", t) for t in options.table)])
        )
    return 0


def parted(rest: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names of methods that come after an option, and flags of a task with their values."""
    methods: list[str] = []
    flags: list[str] = []
    for k, word in enumerate(rest):
        is_value = k > 0 and rest[k - 1].startswith("--") and "=" not in rest[k - 1]
        (flags if word.startswith("--") or is_value else methods).append(word)
    return methods, flags


def _request(options: argparse.Namespace, flags: Sequence[str]) -> Request:
    what = options.task
    if flags and (what is None or what == "heart" or "." in what):
        known = dict.fromkeys(re.findall(r"--[a-z]+", parser().format_help()))
        raise UnknownName.near("option", flags[0].split("=")[0], known)
    return Request(
        what=what,
        flags=tuple(flags),
        target=options.target,
        site=options.site,
        time=options.time,
        entity=options.entity,
        groups=tuple(options.group),
        drop=tuple(options.drop),
        methods=(*options.methods, *options.method),
        protocols=tuple(options.protocol),
        ranges=tuple(options.range),
        seeds=options.seeds,
        draws=options.draws,
        steps=options.steps,
        seed=options.seed,
        device=options.device,
    )
