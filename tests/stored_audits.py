"""Answers that tests store: audits made by hand, so that nothing is trained."""

from pathlib import Path

import numpy as np

from unseen.document import Document, Note, Section, Tone
from unseen.questions.audit.results import Findings, Score
from unseen.questions.storage import store_answer
from unseen.runs.answers import StoredAnswer
from unseen.subjects.predictions import SplitPredictions

SITES = ("Basel", "Chur")
DATA = "clinics.csv, SHA-256 e738e1adb6c68fbb"


def predictions(seed: int, skill: float, n: int = 60, models: int = 3) -> SplitPredictions:
    """Of `models` models on n examples; the labels are the same whatever the seed and skill."""
    y = np.tile([0.0, 1.0, 1.0], n)[:n]
    noise = np.random.default_rng(seed).normal(size=(models, n))
    margin = skill * (2 * y - 1) + noise
    loss = np.log1p(np.exp(-(2 * y - 1) * margin))
    return SplitPredictions(loss, ((margin > 0) == (y > 0)).astype(float), y, margin)


def findings(seed: int, skill: float, n: int = 60, models: int = 3) -> list[Findings]:
    found = []
    for k, site in enumerate(SITES):
        made = predictions(seed + 10 * k, skill, n, models)
        scores = [
            Score(model="network", split="unseen", metric=metric, reading=reading)
            for metric, reading in made.metrics().items()
        ]
        found.append(
            Findings(
                name="network",
                task=f"clinics: {site}",
                score_name="accuracy",
                seeds=models,
                sites={"unseen": site},
                unseen=("unseen",),
                scores=scores,
                predictions={"unseen": made},
            )
        )
    return found


def store_audit(
    home: Path,
    seed: int = 0,
    skill: float = 1.0,
    codes: tuple[str, ...] = ("U203",),
    title: str = "Network on clinics",
    data: str = DATA,
    **size: int,
) -> StoredAnswer:
    """An audit with a note per code; `size` has `n` and `models`."""
    made = findings(seed, skill, **size)
    notes = [
        Note(f"Something about {code} <b>.", Tone.CAUTION, "In detail.", code=code)
        for code in codes
    ]
    page = Document(
        title=title,
        kicker="audit",
        lead=f"It reaches {skill}.",
        sections=[Section("What to do next", notes)],
        facts={"command": f"unseen audit clinics.csv --seed {seed}", "data": data},
    )
    return store_answer(home, "audit", page, {"findings": made, "seconds": seed}, made)
