"""The ledger: one JSON file per study with effects, intervals and verdicts, kept under version control."""

import hashlib
import json
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from unseen.errors import Corrupted
from unseen.runs.provenance import versions
from unseen.runs.runner import Result
from unseen.runs.store import write_atomic
from unseen.study import Judgement, Scale, Study

FIELDS = {"study", "scale", "claims"}


def write(folder: Path, study: Study[Any, Any], scale: Scale, result: Result, judgements: Sequence[Judgement]) -> Path:
    """Rewrites `<folder>/<study>.json` and returns its path."""
    commits = sorted({str(run.facts.get("commit", "")) for run in result.runs} - {""})
    text = {
        "system": study.system,
        "study": study.name,
        "scale": scale.value,
        "claims": [claim(judgement) for judgement in judgements],
        "seconds": round(result.seconds, 1),
        "wall_seconds": round(sum(float(run.facts.get("wall_seconds", 0)) for run in result.runs), 1),
        "cells": result.total,
        "code": digest(run.key for run in result.runs),
        "commit": ", ".join(commits),
        "versions": dict(result.runs[0].facts.get("versions", versions())) if result.runs else versions(),
    }
    path = folder / f"{study.name}.json"
    write_atomic(path, json.dumps(text, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return path


def claim(judgement: Judgement) -> dict[str, Any]:
    """One claim's line. Numbers that are not finite (no interval, no value) become null."""
    reading = judgement.reading
    return {
        "says": judgement.says,
        "value": number(reading.value) if reading else None,
        "low": number(reading.low) if reading else None,
        "high": number(reading.high) if reading else None,
        "n": reading.n if reading else 0,
        "verdict": judgement.verdict.value,
        "because": judgement.because,
    }


def number(x: float) -> float | None:
    """Six significant digits: the rest is rounding of this machine."""
    return float(f"{x:.6g}") if isfinite(x) else None


def digest(keys: Any) -> str:
    """One hash over the cells' keys, so over configuration and code: equal means that nothing has changed."""
    return hashlib.sha256("\n".join(sorted(keys)).encode()).hexdigest()[:16]


def read(path: Path) -> dict[str, Any]:
    """A ledger file, or `Corrupted`."""
    try:
        text = json.loads(path.read_bytes())
        if not isinstance(text, dict) or not set(text) >= FIELDS:
            raise ValueError(f"it lacks {', '.join(sorted(FIELDS - set(text)))}")
    except (OSError, ValueError) as error:
        raise Corrupted(
            f"{path} is no ledger: {error}.",
            why="its verdicts are compared with the study's claims.",
            fix=f"write it again: unseen run {path.stem} --scale laptop --ledger.",
        ) from error
    return text
