"""The ledger: what a study's laptop run found, kept under version control.

    results/NAME.json            claims with effects, intervals and verdicts; seconds, commit,
    versions, processor results/rows/NAME.csv.gz     the rows from which they were judged
    results/smoke/NAME.csv.gz    the rows of the smoke scale under the same code
    results/code/NAME.json.gz    the definitions that the rows depend on, and which of them the
    smoke scale ran

The claims can be judged again from the rows. Where a definition has changed since, the smoke rows
may show that the numbers did not (`settle.py`).
"""

import gzip
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite, nan
from pathlib import Path
from typing import Any

from unseen.errors import CorruptFile
from unseen.reading import Reading
from unseen.runs import catalog, rows, runner
from unseen.runs.code_keys import code_of, definitions_of, plain
from unseen.runs.provenance import processor, versions
from unseen.runs.runner import Result
from unseen.runs.seeds import Verdicts, count_seeds, decide_kept
from unseen.runs.smoke import WitnessRun, executed_labels, smoke_run
from unseen.runs.store import Store, Value, canonical, write_atomic
from unseen.study import Groups, Judgement, Rows, Scale, Study, Unit, Verdict
from unseen.study.claim import after_holm

FIELDS = {"study", "scale", "claims"}


@dataclass(frozen=True)
class Stamp:
    """On which definitions the rows of a ledger depend."""

    code: str
    """One hash over the cells' keys: equal means that neither configuration nor code has
    changed.
    """
    cells: str
    """One hash over the cells' values."""
    definitions: Mapping[str, str]
    executed: frozenset[str] = frozenset()
    """Those that the smoke scale ran."""

    @staticmethod
    def of(study: Study[Any, Any], scale: Scale, smoke: WitnessRun | None = None) -> "Stamp":
        """Of today's code."""
        cells = list(study.cells(study.scales[scale]))
        module = catalog.locate(study.name).module
        definitions: dict[str, str] = {}
        for code in {code_of(module, cell) for cell in cells}:
            definitions |= code.definitions
        ran = executed_labels(definitions_of(module, cells), smoke.called) if smoke else set[str]()
        return Stamp(
            digest(job.key for job in runner.jobs_of(study, study.scales[scale], Store(Path()))),
            digest(canonical(_without_classes(plain(cell))) for cell in cells),
            dict(sorted(definitions.items())),
            frozenset(ran & set(definitions)),
        )

    def write(self, path: Path) -> None:
        modules: dict[str, dict[str, str]] = {}
        for label, value in self.definitions.items():
            module, _, name = label.partition(":")
            # a cross marks what the smoke scale ran
            modules.setdefault(module, {})[name] = value + ("×" if label in self.executed else "")
        text = {"code": self.code, "cells": self.cells, "definitions": modules}
        data = json.dumps(text, indent=1, ensure_ascii=False)
        write_atomic(path, gzip.compress(data.encode(), 9, mtime=0))

    @staticmethod
    def read(path: Path) -> "Stamp":
        try:
            text = json.loads(gzip.decompress(path.read_bytes()))
            marked = {
                f"{m}:{name}": value
                for m, names in text["definitions"].items()
                for name, value in names.items()
            }
            definitions = {label: value.removesuffix("×") for label, value in marked.items()}
            ran = frozenset(label for label, value in marked.items() if value.endswith("×"))
            return Stamp(text["code"], text["cells"], definitions, ran)
        except (OSError, EOFError, ValueError, KeyError, AttributeError) as error:
            raise CorruptFile(
                f"{path} does not hold the definitions of a ledger: {error}.",
                why="it says on which code the rows depend.",
                fix="restore it from version control, or write the ledger again: unseen run NAME "
                "--ledger.",
            ) from error


def _without_classes(value: Any) -> Any:
    """A plain cell without the names of its classes: these are definitions, which are compared
    apart.
    """
    if isinstance(value, dict):
        return {name: _without_classes(item) for name, item in value.items() if name != "class"}
    return [_without_classes(item) for item in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class Files:
    """Where the ledger of a study lies."""

    folder: Path
    study: str

    @property
    def claims(self) -> Path:
        return self.folder / f"{self.study}.json"

    @property
    def rows(self) -> Path:
        return self.folder / "rows" / f"{self.study}.csv.gz"

    @property
    def smoke(self) -> Path:
        return self.folder / "smoke" / f"{self.study}.csv.gz"

    @property
    def code(self) -> Path:
        return self.folder / "code" / f"{self.study}.json.gz"


def write(
    folder: Path,
    study: Study[Any, Any],
    scale: Scale,
    result: Result,
    verdicts: Verdicts,
) -> Path:
    """Rewrites the files of the study's ledger and returns the path of the claims.

    The smoke scale is computed for it, with a record of what it calls.
    """
    files = Files(folder, study.name)
    smoke = smoke_run(study) if Scale.SMOKE in study.scales and scale is not Scale.SMOKE else None
    stamp = Stamp.of(study, scale, smoke)
    facts = {"seeds": count_seeds(result.rows), "code": stamp.code, "compared": f"{scale} rows"}
    text = head(study, scale, (result, *verdicts.extra)) | facts
    rows = [*result.rows, *verdicts.rows]
    write_files(files, text, verdicts, rows, smoke.rows if smoke else result.rows)
    stamp.write(files.code)
    return files.claims


def head(study: Study[Any, Any], scale: Scale, results: Sequence[Result]) -> dict[str, Any]:
    """What the ledger says about the runs themselves: of the study, and of seeds added to it."""
    runs = [run for result in results for run in result.runs]

    def facts(name: str) -> list[str]:
        return sorted({str(run.facts[name]) for run in runs if run.facts.get(name)})

    return {
        "system": study.system,
        "study": study.name,
        "scale": scale.value,
        "seconds": round(sum(result.seconds for result in results), 1),
        "wall_seconds": round(sum(float(run.facts.get("wall_seconds", 0)) for run in runs), 1),
        "cells": sum(result.total for result in results),
        "commit": ", ".join(facts("commit")),
        "processor": ", ".join(facts("processor")) or processor(),
        "threads": ", ".join(facts("threads")),
        "versions": dict(runs[0].facts.get("versions", versions())) if runs else versions(),
    }


def write_files(
    files: Files,
    text: Mapping[str, Any],
    verdicts: Verdicts,
    laptop: Rows,
    smoke: Rows,
) -> None:
    """Writes claims, rows and smoke rows; the first name the others' digests, so that no file can
    be swapped.
    """
    rows.write(files.rows, laptop)
    rows.write(files.smoke, smoke)
    write_text(
        files,
        {
            **text,
            "claims": lines(verdicts.judgements, verdicts.doublings),
            "rows": digest_of_file(files.rows),
            "smoke": digest_of_file(files.smoke),
        },
    )


ORDER = ("system", "study", "scale", "claims")


def write_text(files: Files, text: Mapping[str, Any]) -> None:
    ordered = {
        name: text[name]
        for name in (*ORDER, *(name for name in text if name not in ORDER))
        if name in text
    }
    write_atomic(
        files.claims, json.dumps(ordered, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    )


def read_rows(path: Path, sha256: str) -> list[dict[str, Value]]:
    """The rows that belong to a ledger, or `CorruptFile`."""
    found = rows.read(path)
    if digest_of_file(path) != sha256:
        raise CorruptFile(
            f"{path} does not belong to its ledger.",
            why=f"its SHA-256 starts with {digest_of_file(path)}, and the ledger names {sha256}.",
            fix="restore both from version control, or write the ledger again: unseen run NAME "
            "--ledger.",
        )
    return found


def decide_claims(study: Study[Any, Any], files: Files, text: Mapping[str, Any]) -> list[Judgement]:
    """Today's verdicts on the rows of a ledger, each claim on as many seeds as it has there."""
    found = read_rows(files.rows, text["rows"])
    return decide_kept(study, Scale(text["scale"]), found, text.get("seeds", 0), doublings(text))


def doublings(text: Mapping[str, Any]) -> dict[str, int]:
    """How often the seeds of claims were doubled."""
    return {line["says"]: line["doublings"] for line in text["claims"] if "doublings" in line}


def digest_of_file(path: Path) -> str:
    """By which a ledger names a file that belongs to it."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def lines(
    judgements: Sequence[Judgement], doublings: Mapping[str, int] | None = None
) -> list[dict[str, Any]]:
    """A line for every claim; which verdicts hold after Holm's correction depends on all."""
    doubled = doublings or {}
    return [
        claim(judgement)
        | {"holm": holds}
        | ({"doublings": doubled[judgement.says]} if judgement.says in doubled else {})
        for judgement, holds in zip(judgements, after_holm(judgements), strict=True)
    ]


def claim(judgement: Judgement) -> dict[str, Any]:
    """One claim's line. Numbers that are not finite (no interval, no value) become null."""
    reading = judgement.reading
    groups = dict(reading.readings) if isinstance(reading, Groups) else {}
    return {
        "says": judgement.says,
        **(numbers(reading) if reading else dict.fromkeys(("value", "low", "high"), None)),
        "n": reading.n if reading else 0,
        "unit": judgement.unit.value,
        **(
            {"groups": {name: numbers(one, n=True) for name, one in groups.items()}}
            if groups
            else {}
        ),
        "verdict": judgement.verdict.value,
        "because": judgement.because,
        "p": number(judgement.p),
    }


def numbers(reading: Reading, n: bool = False) -> dict[str, Any]:
    """Value and interval, with the degrees of freedom where there are some."""
    found = {"value": reading.value, "low": reading.low, "high": reading.high}
    return {
        **{name: number(x) for name, x in found.items()},
        **({"freedom": number(reading.freedom)} if isfinite(reading.freedom) else {}),
        **({"n": reading.n} if n else {}),
    }


def recorded_judgement(study: Study[Any, Any], line: Mapping[str, Any]) -> Judgement:
    """The verdict of a claim's line. Lines of older rules have no p: that of the recorded interval
    under the margin of today.
    """
    reading, p = recorded_reading(line), line.get("p")
    claims = [claim for claim in study.claims if claim.says == line["says"]]
    if p is None and reading is not None and claims:
        p = claims[0].decide(reading).p
    return Judgement(
        line["says"],
        Verdict(line["verdict"]),
        reading,
        line["because"],
        Unit(line.get("unit", Unit.SEED)),
        p=1.0 if p is None else p,
        doublings=line.get("doublings", 0),
    )


def recorded_reading(line: Mapping[str, Any]) -> Reading | None:
    """The reading of a claim's line, with its groups."""
    if line["value"] is None:
        return None

    def read(numbers: Mapping[str, Any]) -> Reading:
        low, high = (
            nan if numbers[end] is None else float(numbers[end]) for end in ("low", "high")
        )
        freedom = float(numbers.get("freedom", inf))
        return Reading(float(numbers["value"]), low, high, int(numbers["n"]), freedom=freedom)

    whole = read(line)
    if "groups" not in line:
        return whole
    readings = {name: read(numbers) for name, numbers in line["groups"].items()}
    return Groups(
        whole.value, whole.low, whole.high, whole.n, freedom=whole.freedom, readings=readings
    )


def number(x: float) -> float | None:
    """Six significant digits: the rest is rounding of this machine."""
    return float(f"{x:.6g}") if isfinite(x) else None


def digest(keys: Iterable[str]) -> str:
    """One hash over texts in any order."""
    return hashlib.sha256("\n".join(sorted(keys)).encode()).hexdigest()[:16]


def read(path: Path) -> dict[str, Any]:
    """A ledger file, or `CorruptFile`."""
    try:
        text = json.loads(path.read_bytes())
        if not isinstance(text, dict) or not set(text) >= FIELDS:
            raise ValueError(f"it lacks {', '.join(sorted(FIELDS - set(text)))}")
    except (OSError, ValueError) as error:
        raise CorruptFile(
            f"{path} is no ledger: {error}.",
            why="its verdicts are compared with the study's claims.",
            fix=f"write it again: unseen run {path.stem} --scale laptop --ledger.",
        ) from error
    return text
