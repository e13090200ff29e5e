"""`unseen explain`: what a model looks at, by the explanation that is most faithful to it, example by example."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unseen.attributions.explanation import eight
from unseen.attributions.explanation.guide import Question
from unseen.cli.arguments import Arguments
from unseen.document import Document
from unseen.errors import InvalidConfig, UnknownName
from unseen.lab import Lab
from unseen.questions.explain.document import document
from unseen.questions.explain.job import explain
from unseen.questions.explain.request import ExplainRequest
from unseen.questions.explain.results import ExplanationReport
from unseen.report.html import html
from unseen.report.json import plain
from unseen.report.markdown import markdown
from unseen.report.terminal import show
from unseen.runs.devices import device
from unseen.runs.progress import watcher
from unseen.runs.store import home, write_atomic
from unseen.runs.tensors import Kept
from unseen.subjects.python_files import TABLES, from_file
from unseen.subjects.subject import Subject
from unseen.subjects.tables import of_estimator, of_hospitals, of_table

NAMES = {"".join(c for c in name.lower() if c.isalpha()): name for name in eight()}
"""What may be typed for each method: lime, clime, kernelshap, occlusion, vanillagradients, …"""


@dataclass(frozen=True)
class Report:
    """The explained examples with their document; a notebook shows it."""

    found: ExplanationReport
    document: Document

    def _repr_html_(self) -> str:
        return html(self.document)

    def save(self, path: str | Path) -> Path:
        """Writes HTML, or Markdown if the name ends in .md, in one step."""
        path = Path(path)
        write_atomic(path, markdown(self.document) if path.suffix == ".md" else html(self.document))
        return path


def explained(subject: Subject, ask: ExplainRequest = ExplainRequest(), lab: Lab | None = None) -> Report:
    """The same as the command, from Python. The subject's model is trained first if it is not given trained."""
    found = explain(subject, ask, lab)
    return Report(found, document(found))


def parser() -> Arguments:
    p = Arguments(
        "unseen explain",
        "What does a model look at? Eight explanation methods, judged by how faithful they are to the model, and the "
        "best of them example by example.",
        "Without a subject: the embedded UCI heart-disease data. A table needs --target; a model is trained on it.\n"
        "An interrupted run goes on where it stopped. Exit codes: 0 fine, 2 usage or input error.",
    )
    p.add_argument("subject", nargs="?", help="table (.csv, .parquet) or Python subject (file.py:name)")
    p.add_argument("--target", help="column to predict (tables)")
    p.add_argument("--site", help="column of places; the model is trained without the last one (tables)")
    p.add_argument("--drop", action="append", default=[], help="column to leave out of the inputs (tables)")
    p.add_argument(
        "--rows", help="which examples: rows of the table, or positions in the split, as 3,17 (default: drawn)"
    )
    p.add_argument("--examples", type=int, default=8, help="how many are drawn (default 8)")
    p.add_argument("--split", default="", help="where they are drawn (default: the judged split that matters most)")
    p.add_argument("--method", default="auto", help=f"auto (default), {', '.join(NAMES)}")
    p.add_argument("--question", choices=[q.value for q in Question], default="remove",
                   help="what the explanation is for: features removed (default), or inputs changed a little")  # fmt: skip
    p.add_argument("--class", dest="target_class", help="class to explain (default: the predicted one of each example)")
    p.add_argument(
        "--baseline", type=float, help="value (token number) of a removed feature (default: the fitted mean)"
    )
    p.add_argument(
        "--sigma", type=float, default=0.25, help="noise for --question change, in deviations (default 0.25)"
    )
    p.add_argument("--sample", type=int, default=64, help="inputs on which methods are compared (default 64)")
    p.add_argument("--draws", type=int, default=1_000, help="perturbations per input (default 1000)")
    p.add_argument("--estimator", help="explain a scikit-learn estimator instead: sklearn.svm:SVC")
    p.add_argument("--steps", type=int, help="training steps (default: the subject's budget)")
    p.add_argument("--seed", type=int, default=0, help="seed of every random number (default 0)")
    p.add_argument("--device", default="cpu", help="where to compute: cpu, cuda, mps (default cpu)")
    p.add_argument("--report", default="unseen-explanation.html", help="file to write (.html or .md)")
    p.add_argument("--quiet", action="store_true", help="no progress, no summary")
    return p


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    options = parser().parse_args(argv)
    watch = watcher()
    lab = Lab(seed=options.seed, device=device(options.device), sink=watch.sink, keeper=Kept(home() / "explanations"))
    subject = _subject(options, lab)
    ask = _ask(options, subject)
    watch.begin("explain", 1, 0, "subjects")
    try:
        report = explained(subject, ask, lab)
        watch.finished(report)
    finally:
        watch.end()
    path = report.save(options.report)
    if options.json:
        print(json.dumps(as_json(report.found, path), indent=1, ensure_ascii=False))
    elif not options.quiet:
        show(_short(report.document))
        print(f"report: {path}")
    return 0


def _subject(options: Any, lab: Lab) -> Subject:
    if options.subject is None:
        subject = of_hospitals(lab)[0]
    elif str(options.subject).lower().endswith(TABLES):
        drop = tuple(options.drop)
        subject = of_table(options.subject, lab, target=options.target, site=options.site, drop=drop)[-1]
    else:
        subject = from_file(options.subject)
    if options.estimator:
        subject = of_estimator(subject, options.estimator)
    return replace(subject, budget=replace(subject.budget, steps=options.steps)) if options.steps else subject


def _ask(options: Any, subject: Subject) -> ExplainRequest:
    typed = "".join(c for c in options.method.lower() if c.isalpha())
    if typed not in (*NAMES, "auto"):
        raise UnknownName.near("method", options.method, [*NAMES, "auto"])
    for name in ("examples", "sample", "draws"):
        if getattr(options, name) < 1:
            raise InvalidConfig(f"--{name} {getattr(options, name)}.", "nothing would be explained.", "give 1 or more.")
    if not options.sigma > 0:
        raise InvalidConfig(f"--sigma {options.sigma}.", "no noise changes nothing.", "give a positive number.")
    return ExplainRequest(
        split=options.split,
        rows=_rows(options.rows),
        examples=options.examples,
        method=NAMES.get(typed, ""),
        question=Question(options.question),
        sample=options.sample,
        draws=options.draws,
        sigma=options.sigma,
        target=_class(options.target_class, subject),
        baseline=options.baseline,
    )


def _rows(text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    try:
        return tuple(int(word) for word in text.replace(" ", "").split(",") if word)
    except ValueError as error:
        raise InvalidConfig(
            f"--rows {text} is no list of row numbers.", "rows count from 0.", "for example --rows 3,17."
        ) from error


def _class(text: str | None, subject: Subject) -> int | None:
    if text is None:
        return None
    names = [str(name) for name in subject.classes]
    if text in names:
        return names.index(text)
    if text.isdigit():
        return int(text)
    raise UnknownName.near("class", text, names)


def as_json(found: ExplanationReport, path: Path) -> Mapping[str, Any]:
    """What the report shows, for machines."""
    choice = found.choice
    return plain(
        {
            "report": str(path),
            "explained": found.behaviour,
            "unit": found.unit,
            "baseline": found.removed,
            "question": found.question,
            "method": found.used,
            "chosen": choice.name,
            "runner_up": choice.runner_up,
            "why": choice.why,
            "faithfulness": choice.readings,
            "lead": choice.lead,
            "left_out": choice.left_out,
            "examples": [
                {
                    "split": told.example.split,
                    "index": told.example.index,
                    "row": told.example.row,
                    "label": told.example.label,
                    "predicted": told.example.predicted,
                    "output": told.output,
                    "at_baseline": told.base,
                    "unexplained": told.unexplained,
                    "credits": told.credits,
                }
                for told in found.examples
            ],
            "warnings": found.warnings,
        }
    )


def _short(page: Document) -> Document:
    """For the terminal: the choice, and one line per example; the report has the pictures."""
    return replace(page, sections=[*page.sections[:1], *page.sections[1:-1][:8]])
