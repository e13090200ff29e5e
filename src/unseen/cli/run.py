"""`unseen run NAME`: the study's missing cells, verdicts, report and ledger."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from textwrap import indent
from typing import Any

from unseen.cli.arguments import Arguments
from unseen.cli.executor_options import requested_resources
from unseen.cli.study_options import run_parser
from unseen.cli.subject_options import store_or_warn, track_if_asked
from unseen.document import Document
from unseen.errors import InvalidConfig, UnknownName
from unseen.questions.answer import WRITERS
from unseen.report.html import html
from unseen.report.json import plain
from unseen.report.terminal import show
from unseen.runs import catalog, ledger, progress, runner
from unseen.runs.clusters import executor
from unseen.runs.devices import device
from unseen.runs.field_flags import apply_flags, fields_help
from unseen.runs.provenance import versions
from unseen.runs.seeds import DOUBLINGS, Verdicts, decide_with_more_seeds, from_seed
from unseen.runs.store import Store, home, write_atomic
from unseen.study import Judgement, Scale, Study, Verdict
from unseen.study.document import document


@dataclass(frozen=True, kw_only=True)
class StudyRequest:
    """A study with the configuration that the command line asks for."""

    study: Study[Any, Any]
    scale: Scale
    config: Any
    is_changed: bool
    """Whether flags replaced fields of the scale's configuration, or another seed is the first."""
    first_seed: int = 0


def main(argv: Sequence[str]) -> int:
    options, flags = run_parser().parse_known_args(argv)
    if options.all and not options.help:
        from unseen.cli.all_studies import run_all  # which imports this module

        return run_all(options, flags)
    if options.help or options.name is None:
        return print_help(run_parser(), options)
    what = parse_request(options, flags, "unseen run")
    if options.ledger and what.is_changed:
        raise InvalidConfig(
            "--ledger was given together with flags that change the configuration.",
            why="results/ records each scale as the study's file defines it, so that anybody can "
            "repeat it.",
            fix="leave out the flags, or change the configuration in the study's file.",
        )
    store, started = Store(home(options.home)), time.perf_counter()
    result = compute(what, store, options)
    took = time.perf_counter() - started
    more = partial(compute, store=store, options=options)
    verdicts = decide_claims(what, result, store, more, options.doublings)
    judgements = verdicts.judgements
    if not options.json:
        print_results(
            what, result, verdicts, took
        )  # before writing: a full disk must not hide the result
        print("".join(f"{line}\n" for line in describe_more_seeds(verdicts)), end="")
    path = (
        None
        if options.no_report
        else options.report or default_report(what.study.name, options.scale)
    )
    written = write_outputs(what, result, verdicts, path, options)
    if options.json:
        print(json.dumps(as_json(what, result, verdicts) | written, ensure_ascii=False, indent=1))
    else:
        print("".join(f"{name}: {path}\n" for name, path in written.items()), end="")
    if options.ledger and "ledger" not in written:
        print(
            f"no ledger written: {result.total - len(result.runs)} cells are missing.",
            file=sys.stderr,
        )
    return exit_code(result, judgements)


def print_help(p: Arguments, options: argparse.Namespace) -> int:
    """The options, and for a named study its flags with their defaults at the asked scale."""
    text = p.format_help()
    if options.name:
        what = parse_request(options, [], p.prog)
        text += f"\nConfiguration of {options.name} at {what.scale} scale:\n"
        text += fields_help(what.config, f"{p.prog} {options.name}")
    print(json.dumps({"help": text}) if options.json else text)
    return 0 if options.help else 2


def parse_request(options: argparse.Namespace, flags: Sequence[str], command: str) -> StudyRequest:
    """The named study at the asked scale, its fields overlaid with the remaining flags."""
    study, scale = catalog.load(options.name), Scale(options.scale)
    if scale not in study.scales:
        raise UnknownName.near(f"scale of {study.name}", scale, study.scales)
    given = study.scales[scale]
    config = apply_flags(given, flags, f"{command} {study.name}")
    first = options.first_seed
    return StudyRequest(
        study=from_seed(study, first) if first else study,
        scale=scale,
        config=config,
        is_changed=config != given or first != 0,
        first_seed=first,
    )


def decide_claims(
    what: StudyRequest,
    result: runner.Result,
    store: Store,
    more: Callable[[StudyRequest], runner.Result],
    doublings: int = DOUBLINGS,
) -> Verdicts:
    """The claims; those near their margin with more seeds, where all cells are there."""
    judgements = judge_claims(what, result)
    if len(result.runs) < result.total:
        return Verdicts(judgements)
    cells = [job.cell for job in runner.jobs_of(what.study, what.config, store)]
    return decide_with_more_seeds(
        what.study,
        what.scale,
        cells,
        result,
        judgements,
        lambda study: more(replace(what, study=study)),
        what.first_seed,
        doublings,
    )


def describe_more_seeds(verdicts: Verdicts) -> list[str]:
    """What was computed for claims near their margin."""
    cells = sum(result.total for result in verdicts.extra)
    lines = [f"  seeds × {2**k}: {says}" for says, k in verdicts.doublings.items()]
    short = sum(result.total - len(result.runs) for result in verdicts.extra)
    if short:
        lines.append(f"  {short} cells of added seeds are missing: such claims stay undecided.")
    return [f"{cells} cells added for claims that end near their margin", *lines] if lines else []


def compute(
    what: StudyRequest,
    store: Store,
    options: argparse.Namespace,
    watcher: runner.Watcher | None = None,
) -> runner.Result:
    """The study's cells, computed here or elsewhere, with progress on the standard error where no
    watcher is given.
    """
    choices = runner.Choices(
        fresh=options.fresh,
        retry_failed=options.retry_failed,
        fail_fast=options.fail_fast,
        jobs=options.jobs,
        device=str(device(options.device)),
    )
    place = executor(options.executor, requested_resources(options))
    watcher = watcher or progress.watcher()
    return runner.run(what.study, what.config, store, place, choices, watcher)


def judge_claims(what: StudyRequest, result: runner.Result) -> list[Judgement]:
    """The verdict on each claim. Of an incomplete run, an effect may fail on what is missing:
    undecided, and why.
    """
    judgements = []
    for claim in what.study.claims:
        try:
            judgements.append(claim.judge(result.rows, what.scale))
        except Exception as error:
            if len(result.runs) == result.total:
                raise
            because = f"cells are missing, and the effect failed: {type(error).__name__}: {error}"
            judgements.append(Judgement(claim.says, Verdict.UNDECIDED, None, because))
    return judgements


def write_outputs(
    what: StudyRequest,
    result: runner.Result,
    verdicts: Verdicts,
    report: Path | None,
    options: argparse.Namespace,
) -> dict[str, str]:
    """The report, where one is asked for, and with --ledger what belongs in the folder of ledgers:
    name and path. The answer is also stored in the home.
    """
    written: dict[str, str] = {}
    if options.ledger and not result.interrupted and len(result.runs) == result.total:
        written["ledger"] = str(
            ledger.write(options.results, what.study, what.scale, result, verdicts)
        )
    if not result.runs:
        return written
    page = page_of(what, result, verdicts)
    if report is not None:
        written["report"] = str(write_page(report, page))
    machine = {"claims": ledger.lines(verdicts.judgements, verdicts.doublings)}
    store_or_warn("run", page, machine, root=options.home)
    track_if_asked(options, page, machine)
    return written


def default_report(name: str, scale: str) -> Path:
    """Where the report of a study lies if no other file is named."""
    return Path("reports") / name / f"{scale}.html"


def write_page(path: Path, page: Document) -> Path:
    """Writes Markdown or JSON if the name ends so, else HTML."""
    write_atomic(path, WRITERS.get(path.suffix.lower(), html)(page))
    return path


def page_of(what: StudyRequest, result: runner.Result, verdicts: Verdicts) -> Document:
    """The report. Of an incomplete run, a table or figure may fail on what is missing: then the
    verdicts alone.
    """
    known, judgements = facts(what, result, verdicts), verdicts.judgements
    try:
        return document(what.study, what.scale, result.rows, judgements, known)
    except Exception:
        if len(result.runs) == result.total:
            raise
        bare = replace(what.study, table=lambda rows: rows, figures=())
        return document(bare, what.scale, result.rows, judgements, known)


def facts(what: StudyRequest, result: runner.Result, verdicts: Verdicts) -> dict[str, str]:
    """What is printed small at the end of a report."""
    all_runs = [run for one in (result, *verdicts.extra) for run in one.runs]
    commits = sorted({str(run.facts.get("commit", "")) for run in all_runs} - {""})
    added = sum(one.total for one in verdicts.extra)
    command = f"unseen run {what.study.name} --scale {what.scale}" + (
        " (with flags)" if what.is_changed else ""
    )
    return {
        "command": command,
        "cells": f"{len(result.runs)} of {result.total} finished"
        + (f", {len(result.failures)} failed" if result.failures else "")
        + (f", {added} of added seeds" if added else ""),
        "compute": f"{seconds_of(result, verdicts):.1f} CPU seconds",
        "commit": ", ".join(commits) or "unknown",
        "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
    }


def seconds_of(result: runner.Result, verdicts: Verdicts) -> float:
    """CPU seconds of the study's cells and of seeds added to it."""
    return sum(one.seconds for one in (result, *verdicts.extra))


def print_results(
    what: StudyRequest,
    result: runner.Result,
    verdicts: Verdicts,
    took: float | None = None,
) -> None:
    """One screen: results, verdicts, and what failed."""
    page = page_of(what, result, verdicts)
    order = {"Results": 0, "Claims": 1}
    sections = sorted(
        (s for s in page.sections if s.title in order), key=lambda section: order[section.title]
    )
    from_store = f" ({result.stored} from store)" if result.stored else ""
    kicker = f"{what.scale} · {result.total} cells{from_store}" + (
        "" if took is None else f" · {took:.0f} s"
    )
    show(replace(page, title=what.study.name, kicker=kicker, lead="", sections=sections))
    for line in failures(result):
        print(line)


def failures(result: runner.Result) -> list[str]:
    """What did not finish, and how to go on."""
    lines = [
        f"✗ failed  {json.dumps(failure.cell, ensure_ascii=False)[:160]}\n"
        + indent(f"{failure.kind}: {failure.what}", "    ")
        for failure in result.failures
    ]
    if lines:
        lines.append(
            f"{len(lines)} of {result.total} cells failed; --retry-failed computes them again, "
            "the tracebacks lie beside the runs (*.failed.json)."
        )
    if result.interrupted:
        lines.append(
            f"interrupted: {len(result.runs)} of {result.total} cells are finished and kept; "
            "the same command goes on from there."
        )
    return lines


def as_json(what: StudyRequest, result: runner.Result, verdicts: Verdicts) -> dict[str, Any]:
    """Everything that the terminal shows, and the rows but those of added seeds."""
    return {
        "study": what.study.name,
        "system": what.study.system,
        "scale": what.scale.value,
        "claims": ledger.lines(verdicts.judgements, verdicts.doublings),
        "cells": {
            "total": result.total,
            "finished": len(result.runs),
            "from_store": result.stored,
            "of_added_seeds": sum(one.total for one in verdicts.extra),
        },
        "failures": [
            {"cell": f.cell, "kind": f.kind, "what": f.what, "traceback": f.traceback}
            for f in result.failures
        ],
        "interrupted": result.interrupted,
        "seconds": round(seconds_of(result, verdicts), 3),
        "rows": plain(result.rows),
    }


def exit_code(result: runner.Result, judgements: Sequence[Judgement]) -> int:
    """An incomplete run says so first; then refuted claims, then undecided ones."""
    if result.interrupted:
        return 130
    if len(result.runs) < result.total:
        return 2
    return verdicts_code(judgements)


def verdicts_code(judgements: Sequence[Judgement]) -> int:
    """Refuted claims, then undecided ones."""
    verdicts = {judgement.verdict for judgement in judgements}
    return 1 if Verdict.REFUTED in verdicts else 3 if Verdict.UNDECIDED in verdicts else 0
