"""`unseen report NAME`: the report of stored results again, and their rows for analysis elsewhere."""

import json
from collections.abc import Sequence
from pathlib import Path

from unseen.cli.run import Chosen, as_json, chosen, exit_code, helped, judged, save_report, told
from unseen.cli.study_options import report_parser
from unseen.errors import MissingFile
from unseen.runs import index, runner
from unseen.runs.store import Store, home


def main(argv: Sequence[str]) -> int:
    options, flags = report_parser().parse_known_args(argv)
    if options.help or options.name is None:
        return helped(report_parser(), options)
    what, store = chosen(options, flags, "unseen report"), Store(home(options.home))
    result = runner.stored(what.study, what.config, store)
    if not result.runs:
        raise _nothing(what, store)
    judgements = judged(what, result)
    path = options.report or Path("reports") / what.study.name / f"{what.scale}.html"
    written = {"report": str(save_report(path, what, result, judgements))}
    if options.rows:
        index.export(store, what.study.name, [run.key for run in result.runs], options.rows)
        written["rows"] = str(options.rows)
    if options.json:
        print(json.dumps(as_json(what, result, judgements) | {"files": written}, ensure_ascii=False, indent=1))
    else:
        told(what, result, judgements)
        for name, place in written.items():
            print(f"{name}: {place}")
    return exit_code(result, judgements)


def _nothing(what: Chosen, store: Store) -> MissingFile:
    name, others = what.study.name, len(store.keys(what.study.name))
    why = "nothing of this study is stored."
    if others:
        why = f"{others} cells are stored, none for this scale, these flags and this version of the code."
    return MissingFile(
        f"No result of {name} at {what.scale} scale is in {store.root}.",
        why=why,
        fix=f"unseen run {name} --scale {what.scale}",
    )
