"""`unseen report NAME`: the report of stored results again, and their rows for analysis
elsewhere.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

from unseen.cli.run import (
    StudyRequest,
    as_json,
    decide_claims,
    default_report,
    exit_code,
    page_of,
    parse_request,
    print_help,
    print_results,
    verdicts_code,
    write_page,
)
from unseen.cli.study_options import report_parser
from unseen.errors import MissingFile
from unseen.report.terminal import show
from unseen.runs import index, ledger, runner
from unseen.runs.ledger import Files
from unseen.runs.seeds import restrict_seeds
from unseen.runs.store import Store, home
from unseen.study import Rows, Scale
from unseen.study.document import document


def main(argv: Sequence[str]) -> int:
    options, flags = report_parser().parse_known_args(argv)
    if options.all and not options.help:
        from unseen.cli.all_studies import report_all  # which imports this module

        return report_all(options, flags)
    if options.help or options.name is None:
        return print_help(report_parser(), options)
    what, store = parse_request(options, flags, "unseen report"), Store(home(options.home))
    if options.kept:
        return report_ledger(what, options)
    result = runner.load_result(what.study, what.config, store)
    if not result.runs:
        raise _no_result_error(what, store)
    verdicts = decide_claims(
        what, result, store, lambda part: runner.load_result(part.study, part.config, store)
    )
    path = options.report or default_report(what.study.name, what.scale)
    written = {"report": str(write_page(path, page_of(what, result, verdicts)))}
    if options.rows:
        index.export(store, what.study.name, [run.key for run in result.runs], options.rows)
        written["rows"] = str(options.rows)
    if options.json:
        print(
            json.dumps(
                as_json(what, result, verdicts) | {"files": written}, ensure_ascii=False, indent=1
            )
        )
    else:
        print_results(what, result, verdicts)
        for name, path in written.items():
            print(f"{name}: {path}")
    return exit_code(result, verdicts.judgements)


def report_ledger(what: StudyRequest, options: argparse.Namespace) -> int:
    """The report of a ledger, from the rows that it keeps."""
    name, files = what.study.name, Files(options.results, what.study.name)
    text = ledger.read(files.claims)
    if "rows" not in text:
        raise MissingFile(
            f"{files.claims} keeps no rows.",
            why="its report would be made from them.",
            fix=f"unseen run {name} --scale {text['scale']} --ledger",
        )
    judgements = ledger.decide_claims(what.study, files, text)
    rows = rows_of_ledger(files, text)
    known = {
        "command": f"unseen run {name} --scale {text['scale']}",
        "cells": str(text.get("cells", "")),
        "compute": f"{text['seconds']} CPU seconds",
        "commit": str(text.get("commit", "")),
        "processor": str(text.get("processor", "")),
        "versions": ", ".join(f"{n} {v}" for n, v in text.get("versions", {}).items()),
    }
    scale = Scale(text["scale"])
    page = document(what.study, scale, rows, judgements, {k: v for k, v in known.items() if v})
    path = options.report or default_report(name, scale)
    write_page(path, page)
    written = {"report": str(path)}
    if options.json:
        claims = ledger.lines(judgements, ledger.doublings(text))
        print(json.dumps({"claims": claims, "files": written}, ensure_ascii=False, indent=1))
    else:
        show(page)
        print(f"report: {path}")
    return verdicts_code(judgements)


def rows_of_ledger(files: Files, text: Mapping[str, Any]) -> Rows:
    """The rows that a ledger keeps, without seeds that were added for single claims: these have not
    all cells, so that no table or figure has them.
    """
    found = ledger.read_rows(files.rows, text["rows"])
    return restrict_seeds(found, text["seeds"]) if text.get("seeds") else found


def _no_result_error(what: StudyRequest, store: Store) -> MissingFile:
    name, others = what.study.name, len(store.keys(what.study.name))
    why = "nothing of this study is stored."
    if others:
        why = (
            f"{others} cells are stored, none for this scale, these flags and this version of "
            "the code."
        )
    return MissingFile(
        f"No result of {name} at {what.scale} scale is in {store.root}.",
        why=why,
        fix=f"unseen run {name} --scale {what.scale}",
    )
