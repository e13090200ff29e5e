"""`unseen audit`: from what a person has (nothing, a table, a Python file) to findings, report and exit code."""

import argparse
import importlib.util
import json
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from unseen.audit import Audit, Findings, Subject
from unseen.audit.findings import LOWER_IS_BETTER
from unseen.audit.remedies import standard
from unseen.audit.subjects import of_estimator, of_hospitals, of_table
from unseen.document import Document
from unseen.errors import InvalidConfig, InvalidData, MissingFile, UnknownName, UnseenError
from unseen.lab import Lab
from unseen.shell.arguments import Arguments
from unseen.shell.artefacts import Kept
from unseen.shell.devices import device
from unseen.shell.progress import watcher
from unseen.shell.report.html import html
from unseen.shell.report.machine import plain
from unseen.shell.report.markdown import markdown
from unseen.shell.report.of_audit import document
from unseen.shell.report.terminal import show
from unseen.shell.store import home, write_atomic

TABLES = (".csv", ".tsv", ".parquet", ".pq")


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


def from_file(text: str) -> Subject:
    """The `Subject` at `path/to/file.py:name` (an instance, or a function without arguments that returns one)."""
    place, _, name = text.rpartition(":")
    path = Path(place or text)
    if path.suffix != ".py" or not place:
        raise InvalidConfig(
            f"`{text}` is neither a table nor a Python subject.",
            why=f"tables end in {', '.join(TABLES)}; a subject is written file.py:name.",
            fix="for example: unseen audit data.csv --target outcome, or unseen audit my_model.py:subject.",
        )
    if not path.is_file():
        raise MissingFile(f"There is no file `{path}`.", why="the subject is read from it.", fix="check the path.")
    found = loaded(path, name)
    if not isinstance(found, Subject):
        raise InvalidData(
            f"`{name}` in {path} is a {type(found).__name__}, not a Subject.",
            why="an audit needs a task and a way to make the model.",
            fix="return unseen.audit.Subject(task=…, model=…).",
        )
    return found


def loaded(path: Path, name: str) -> Any:
    """What a Python file calls `name`, or what the function of that name returns; errors say the file's line."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
        known = [key for key in vars(module) if not key.startswith("_")]
        if not hasattr(module, name):
            raise UnknownName.near(f"name in {path}", name, known)
        found = getattr(module, name)
        return found() if callable(found) and not isinstance(found, Subject) else found
    except UnseenError:
        raise
    except Exception as error:  # the user's own code: say where it failed
        frames = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if Path(frame.filename).resolve() == path.resolve()
        ]
        line = f", line {frames[-1].lineno}" if frames else ""
        raise InvalidData(
            f"{path}{line} raised {type(error).__name__}: {error}",
            why="the subject could not be made.",
            fix=f"run `python {path}` and mend it; nothing was written.",
        ) from error
    finally:
        sys.path.remove(str(path.resolve().parent))


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
    job = Audit(seeds=options.seeds, remedies={} if options.no_remedies else standard())
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
