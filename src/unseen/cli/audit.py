"""`unseen audit`: from what a person has (nothing, a table, a Python file) to findings, report and exit code."""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from unseen.cli.arguments import Arguments
from unseen.document import Document
from unseen.lab import Lab
from unseen.questions.audit.document import document
from unseen.questions.audit.job import Audit, Findings, Subject
from unseen.questions.audit.remedy_methods import standard_remedies
from unseen.questions.audit.results import LOWER_IS_BETTER
from unseen.report.html import html
from unseen.report.json import plain
from unseen.report.markdown import markdown
from unseen.report.terminal import show
from unseen.runs.devices import device
from unseen.runs.progress import watcher
from unseen.runs.store import home, write_atomic
from unseen.runs.tensors import Kept
from unseen.subjects.python_files import TABLES, from_file
from unseen.subjects.tables import of_estimator, of_hospitals, of_table


@dataclass(frozen=True)
class Report:
    """Findings (one per held-out place, or one) with their document; a notebook shows it."""

    findings: Sequence[Findings]
    document: Document

    def _repr_html_(self) -> str:
        return html(self.document)

    def save(self, path: str | Path) -> Path:
        """Writes HTML, or Markdown if the name ends in .md, in one step."""
        path = Path(path)
        write_atomic(path, markdown(self.document) if path.suffix == ".md" else html(self.document))
        return path


def audit(
    subject: str | Path | Subject | Sequence[Subject] | None = None,
    *,
    lab: Lab | None = None,
    job: Audit | None = None,
    **table: Any,
) -> Report:
    """The same as the command, from Python: a path (with `target=…, site=…` for a table), a `Subject`, or nothing."""
    lab, job = lab or Lab(), job or Audit()
    subjects = [subject] if isinstance(subject, Subject) else subject
    if subjects is None:
        subjects = of_hospitals(lab)
    elif isinstance(subjects, str | Path):
        text = str(subjects)
        subjects = of_table(text, lab, **table) if text.lower().endswith(TABLES) else [from_file(text)]
    # small models on many threads wait for each other longer than they compute
    with threadpool_limits(1):
        findings = [job(one, lab.child(one.task.name)) for one in subjects]
    return Report(findings, document(findings))


def parser() -> argparse.ArgumentParser:
    p = Arguments(
        "unseen audit",
        "How well does a model hold on data it has not seen, why, and what helps?",
        "Without a subject: the embedded UCI heart-disease data, four hospitals, each held out in turn.",
    )
    p.add_argument("subject", nargs="?", help="table (.csv, .parquet) or Python subject (file.py:name)")
    p.add_argument("--target", help="column to predict (tables)")
    p.add_argument("--site", help="column whose values are held out in turn (hospital, camera, country)")
    p.add_argument("--time", help="column that orders the rows: trained on the past, judged on the future")
    p.add_argument("--entity", help="column that names a person or device: all its rows stay on one side")
    p.add_argument(
        "--group", action="append", default=[], help="subgroup column; bins: age:decade, age:60, dose:quartiles"
    )
    p.add_argument("--drop", action="append", default=[], help="column to leave out of the inputs")
    p.add_argument("--estimator", help="audit a scikit-learn estimator instead: sklearn.svm:SVC")
    p.add_argument("--seeds", type=int, default=3, help="models trained per place (default 3)")
    p.add_argument("--steps", type=int, help="training steps (default: the subject's budget)")
    p.add_argument("--seed", type=int, default=0, help="seed of every random number (default 0)")
    p.add_argument("--device", default="cpu", help="where to compute: cpu, cuda, mps (default cpu)")
    p.add_argument("--no-remedies", action="store_true", help="skip the training of remedies")
    p.add_argument("--bar", type=float, help="exit 1 if the score at unseen places is worse than this value")
    p.add_argument("--report", default="unseen-report.html", help="file to write (.html or .md)")
    p.add_argument("--quiet", action="store_true", help="no progress, no summary")
    return p


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns the exit code (0 fine, 1 bar missed, 3 bar undecided)."""
    options = parser().parse_args(argv)
    watch = watcher()
    lab = Lab(seed=options.seed, device=device(options.device), sink=watch.sink, keeper=Kept(home() / "audits"))
    job = Audit(seeds=options.seeds, remedies={} if options.no_remedies else standard_remedies())
    subjects = _subjects(options, lab)
    findings: list[Findings] = []
    watch.begin("audit", len(subjects), 0, "places")
    try:
        for one in subjects:
            findings += audit(one, lab=lab, job=job).findings
            watch.finished(one)
    finally:
        watch.end()
    report = Report(findings, document(findings))
    path = report.save(options.report)
    if options.json:
        print(json.dumps(plain({"report": str(path), "findings": findings}), indent=1, ensure_ascii=False))
    elif not options.quiet:
        show(report.document)
        print(f"report: {path}")
    return 0 if options.bar is None else _bar(findings, options.bar)


def _subjects(options: argparse.Namespace, lab: Lab) -> Sequence[Subject]:
    table: Mapping[str, Any] = {
        "target": options.target,
        "site": options.site,
        "time": options.time,
        "entity": options.entity,
        "groups": tuple(options.group),
        "drop": tuple(options.drop),
    }
    if options.subject is None:
        subjects: Sequence[Subject] = of_hospitals(lab)
    elif str(options.subject).lower().endswith(TABLES):
        subjects = of_table(options.subject, lab, **table)
    else:
        subjects = [from_file(options.subject)]
    if options.estimator:
        subjects = [of_estimator(one, options.estimator) for one in subjects]
    if options.steps:
        subjects = [replace(one, budget=replace(one.budget, steps=options.steps)) for one in subjects]
    return subjects


def _bar(findings: Sequence[Findings], bar: float) -> int:
    readings = [
        (one.score_name, reading)
        for one in findings
        for split in one.unseen or list(one.sizes)[-1:]
        if (reading := one.score(split, one.score_name)) is not None
    ]
    # a bar for an error is an upper one
    sides = [
        (reading.high < bar, reading.low >= bar)
        if name not in LOWER_IS_BETTER
        else (reading.low > bar, reading.high <= bar)
        for name, reading in readings
    ]
    if any(missed for missed, _ in sides):
        return 1
    return 0 if sides and all(met for _, met in sides) else 3
