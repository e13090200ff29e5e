"""`unseen run --all` and `unseen report --all`: every study in turn, and one page about them."""

import argparse
import json
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from unseen.cli.executor_options import requested_resources
from unseen.cli.report import rows_of_ledger
from unseen.cli.run import (
    StudyRequest,
    compute,
    decide_claims,
    default_report,
    parse_request,
    verdicts_code,
    write_outputs,
    write_page,
)
from unseen.cli.subject_options import store_or_warn
from unseen.errors import InvalidConfig, UnseenError
from unseen.questions.answer import check_report_path
from unseen.report.terminal import show
from unseen.runs import catalog, ledger, progress, runner
from unseen.runs.clusters import executor
from unseen.runs.devices import device
from unseen.runs.ledger import Files
from unseen.runs.provenance import facts
from unseen.runs.schedule import AllStudies, describe_plans, plan_studies, recorded_seconds
from unseen.runs.seeds import Verdicts
from unseen.runs.store import Store, home
from unseen.study import Scale
from unseen.study.summary import PROBLEMS, TABLE, StudyOutcome, summary

ALL = "all"


def run_all(options: argparse.Namespace, flags: Sequence[str]) -> int:
    """Computes what is missing of every study; one that fails does not stop the others."""
    page = prepare(options, flags)
    require_executor(options)
    store, outcomes = Store(home(options.home)), list[StudyOutcome]()
    requests, broken = read_requests(options)
    scale = Scale(options.scale)
    cells = {what.study.name: count_cells(what, store) for what in requests}
    plans = plan_studies(cells, recorded_seconds(options.results, scale), scale)
    print(describe_plans(plans, options.jobs), file=sys.stderr, flush=True)
    watcher = AllStudies(progress.view(), plans, options.jobs)
    is_interrupted = False
    try:
        for number, what in enumerate(requests, 1):
            watcher.start_study(number)
            outcome, is_interrupted = run_one(what, store, options, watcher)
            outcomes.append(outcome)
            if is_interrupted:
                break
    except KeyboardInterrupt:  # between cells
        is_interrupted = True
    finally:
        watcher.close()
    rest = [outcome_of_store(what, store) for what in requests[len(outcomes) :]]
    code = present_all([*outcomes, *rest, *broken], options, page)
    if is_interrupted:
        print("interrupted: finished cells are kept, the same command goes on.", file=sys.stderr)
    return 130 if is_interrupted else code


def report_all(options: argparse.Namespace, flags: Sequence[str]) -> int:
    """The page about all studies, from the store or from the ledgers; computes nothing."""
    page = prepare(options, flags)
    store = Store(home(options.home))
    requests, broken = read_requests(options)
    if options.kept:
        outcomes = [outcome_of_results(what, options.results) for what in requests]
    else:
        outcomes = [outcome_of_store(what, store) for what in requests]
    return present_all([*outcomes, *broken], options, page, is_run=not options.kept)


def prepare(options: argparse.Namespace, flags: Sequence[str]) -> Path | None:
    """The path of the page, after what does not go together is refused."""
    if options.name is not None or flags:
        raise InvalidConfig(
            f"--all was given together with {options.name or flags[0]}.",
            why="all studies run as their files define them.",
            fix="leave out --all, or the name and the study's own flags.",
        )
    if getattr(options, "no_report", False):
        return None
    return check_report_path(options.report or default_report(ALL, options.scale))


def require_executor(options: argparse.Namespace) -> None:
    """Raises where no cell can be computed: each study would say the same."""
    device(options.device)
    # a cluster is started once, or its scheduler asked, and left again
    executor(options.executor, requested_resources(options))().shutdown()


def read_requests(options: argparse.Namespace) -> tuple[list[StudyRequest], list[StudyOutcome]]:
    """All studies by system, and outcomes of those that cannot be read."""
    requests, broken = [], []
    for entry in catalog.entries("studies"):
        named = argparse.Namespace(**(vars(options) | {"name": entry.name}))
        try:
            requests.append(parse_request(named, [], "unseen run"))
        except Exception as error:
            problem = describe(error)
            broken.append(StudyOutcome(name=entry.name, system=entry.system, problem=problem))
    return requests, broken


def load(what: StudyRequest, store: Store) -> runner.Result:
    return runner.load_result(what.study, what.config, store)


def count_cells(what: StudyRequest, store: Store) -> tuple[int, int]:
    """How many cells it has, and how many of them are missing; none where that cannot be known."""
    try:
        found = load(what, store)
    except Exception:  # the run meets it again, and says it
        return 0, 0
    return found.total, found.total - len(found.runs)


def run_one(
    what: StudyRequest, store: Store, options: argparse.Namespace, watcher: AllStudies
) -> tuple[StudyOutcome, bool]:
    """The outcome of one study, and whether it was interrupted. Whatever goes wrong in it is its
    outcome.
    """
    more = partial(compute, store=store, options=options, watcher=watcher)
    report = None if options.no_report else default_report(what.study.name, options.scale)
    try:
        result = more(what)
        verdicts = decide_claims(what, result, store, more, options.doublings)
        write_outputs(what, result, verdicts, report, options)
    except Exception as error:
        return failure_of(what, error), False
    interrupted = result.interrupted or any(extra.interrupted for extra in verdicts.extra)
    return outcome_of(what, result, verdicts), interrupted


def outcome_of(what: StudyRequest, result: runner.Result, verdicts: Verdicts) -> StudyOutcome:
    return StudyOutcome(
        name=what.study.name,
        system=what.study.system,
        study=what.study,
        judgements=verdicts.judgements if result.runs else (),
        rows=result.rows,
        seconds=result.seconds + sum(one.seconds for one in verdicts.extra),
        problem=describe_missing_cells(result),
    )


def describe_missing_cells(result: runner.Result) -> str:
    """How many there are and why, each reason once; empty if there are none."""
    if len(result.runs) == result.total:
        return ""
    reasons = dict.fromkeys(f"{one.kind}: {one.what.splitlines()[0]}" for one in result.failures)
    failed = f", {len(result.failures)} failed" if result.failures else ""
    counts = f"{len(result.runs)} of {result.total} cells are finished{failed}."
    return " ".join([counts, *reasons])


def failure_of(what: StudyRequest, error: Exception) -> StudyOutcome:
    """Of a study that could not be run or judged."""
    study = what.study
    return StudyOutcome(name=study.name, system=study.system, study=study, problem=describe(error))


def outcome_of_store(what: StudyRequest, store: Store) -> StudyOutcome:
    """What is stored of a study; nothing is computed."""

    def more(part: StudyRequest) -> runner.Result:
        return load(part, store)

    try:
        result = more(what)
        return outcome_of(what, result, decide_claims(what, result, store, more))
    except Exception as error:
        return failure_of(what, error)


def outcome_of_results(what: StudyRequest, folder: Path) -> StudyOutcome:
    """A study as its ledger recorded it, or that it has none of this scale."""
    files = Files(folder, what.study.name)
    text = ledger.read(files.claims) if files.claims.exists() else {"scale": ""}
    if text["scale"] == what.scale.value:
        return outcome_of_ledger(what, files, text)
    command = f"unseen run {what.study.name} --scale {what.scale} --ledger"
    problem = f"There is no ledger of this scale yet: {command}"
    return StudyOutcome(
        name=what.study.name, system=what.study.system, study=what.study, problem=problem
    )


def outcome_of_ledger(what: StudyRequest, files: Files, text: Mapping[str, Any]) -> StudyOutcome:
    """A study as its ledger recorded it."""
    has_rows = "rows" in text
    return StudyOutcome(
        name=what.study.name,
        system=what.study.system,
        study=what.study,
        judgements=[ledger.recorded_judgement(what.study, line) for line in text["claims"]],
        rows=rows_of_ledger(files, text) if has_rows else (),
        seconds=float(text["seconds"]),
        problem="" if has_rows else "The ledger keeps no rows: its verdicts are of older rules.",
    )


def present_all(
    outcomes: Sequence[StudyOutcome],
    options: argparse.Namespace,
    page: Path | None,
    is_run: bool = True,
) -> int:
    """Writes the page, prints its beginning, and returns the exit code: of a run, that something is
    missing comes first.
    """
    document = summary(outcomes, Scale(options.scale), facts(None))
    studies = [as_json(one) for one in outcomes]
    written = {} if page is None else {"report": str(write_page(page, document))}
    if options.json:
        print(json.dumps({"studies": studies} | written, ensure_ascii=False, indent=1))
    else:
        brief = [section for section in document.sections if section.title in (PROBLEMS, TABLE)]
        show(replace(document, sections=brief[::-1]))
        print("".join(f"{name}: {path}\n" for name, path in written.items()), end="")
    store_or_warn(
        "run", document, {"studies": [as_json(one) for one in outcomes]}, root=options.home
    )
    if is_run and any(one.problem for one in outcomes):
        return 2
    return verdicts_code([judgement for one in outcomes for judgement in one.judgements])


def as_json(one: StudyOutcome) -> dict[str, Any]:
    """One study for machines, as its ledger would have it."""
    return {
        "study": one.name,
        "system": one.system,
        "claims": ledger.lines(one.judgements),
        "seconds": round(one.seconds, 1),
        "problem": one.problem,
    }


def describe(error: Exception) -> str:
    """What went wrong, in one line, and where to look."""
    if isinstance(error, UnseenError):
        return " ".join(part for part in (error.what, error.why, error.fix) if part)
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno})"
