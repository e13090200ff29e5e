"""`unseen report NAME`: the report of stored results again, and their rows for analysis
elsewhere.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from unseen.cli.run import (
    StudyRequest,
    as_json,
    exit_code,
    judge_claims,
    parse_request,
    print_help,
    print_results,
    save_report,
)
from unseen.cli.study_options import report_parser
from unseen.errors import MissingFile
from unseen.runs import index, runner
from unseen.runs.store import Store, home


def main(argv: Sequence[str]) -> int:
    options, flags = report_parser().parse_known_args(argv)
    if options.help or options.name is None:
        return print_help(report_parser(), options)
    what, store = parse_request(options, flags, "unseen report"), Store(home(options.home))
    result = runner.load_result(what.study, what.config, store)
    if not result.runs:
        raise _no_result_error(what, store)
    judgements = judge_claims(what, result)
    path = options.report or Path("reports") / what.study.name / f"{what.scale}.html"
    written = {"report": str(save_report(path, what, result, judgements))}
    if options.rows:
        index.export(store, what.study.name, [run.key for run in result.runs], options.rows)
        written["rows"] = str(options.rows)
    if options.json:
        print(
            json.dumps(
                as_json(what, result, judgements) | {"files": written}, ensure_ascii=False, indent=1
            )
        )
    else:
        print_results(what, result, judgements)
        for name, path in written.items():
            print(f"{name}: {path}")
    return exit_code(result, judgements)


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
