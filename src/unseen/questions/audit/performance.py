"""How well it holds: scores per split and subgroup, gaps, calibration, and what other models reach."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from unseen import stats
from unseen.errors import InvalidData, UnseenError
from unseen.measures.calibration import CalibrationError, CalibrationInTheLarge, CalibrationSlope
from unseen.methods.fit_estimator import FitEstimator
from unseen.questions.audit.requirements import needs_columns
from unseen.questions.audit.results import LOWER_IS_BETTER, Gap, Outcome, Score
from unseen.reading import Reading
from unseen.subjects.predictions import Judged, codes, judged
from unseen.subjects.session import Scene, reason
from unseen.task import Use

SMALL = 20
"""Subgroups below this size are reported with a warning."""


def performance(scene: Scene) -> dict[str, Any]:
    """Score, AUC and loss per split and subgroup, and the gap from seen to unseen."""
    name = scene.subject.name
    scores: list[Score] = []
    warnings: list[str] = []
    for split in dict.fromkeys([*scene.task.of(Use.FIT), *scene.judged]):
        result = scene.attempt(f"split `{split}`", partial(scene.at, split))
        if result is None:
            continue
        scores += scores_of(name, split, result)
        for group in scene.subject.groups if split in scene.judged else ():
            by_level = partial(_by_level, scene, split, group, result)
            found, said = scene.attempt(f"group {group} on `{split}`", by_level) or ([], [])
            scores, warnings = scores + found, warnings + said
    return {"scores": scores, "gaps": _gaps(scene), "warnings": warnings}


def scores_of(
    model: str, split: str, result: Judged, rows: Any = None, group: str = "", level: str = ""
) -> list[Score]:
    metrics = result.metrics(rows)
    return [
        Score(model=model, split=split, metric=metric, reading=reading, group=group, level=level)
        for metric, reading in metrics.items()
    ]


def _by_level(scene: Scene, split: str, group: str, result: Judged) -> tuple[list[Score], list[str]]:
    level_of = codes(scene.task.splits[split], scene.subject.groups[group], scene.lab)
    found, said, names = [], [], scene.subject.levels.get(group, ())
    for code in np.unique(level_of[level_of >= 0]):
        rows, level = level_of == code, str(names[code]) if code < len(names) else str(code)
        if rows.sum() < 2:
            said.append(f"{group} = {level} has one example only in `{split}`: not reported.")
            continue
        found += scores_of(scene.subject.name, split, result, rows, group, level)
        if rows.sum() < SMALL:
            said.append(
                f"{group} = {level} has only {rows.sum()} examples in `{split}`: read its interval, not its value."
            )
    return found, said


def _gaps(scene: Scene) -> list[Gap]:
    """From held-out examples of known positions (or the fitted ones) to every other judged split."""
    reference, is_fit_scored = scene.seen or scene.fitted, f"split `{scene.fitted}`" not in scene.skipped
    if not scene.seen and not is_fit_scored:
        return []
    metrics = (scene.at(reference).score_name, "AUC")
    gaps = [_gap(scene, metric, reference, split) for split in scene.judged if split != reference for metric in metrics]
    if scene.seen and is_fit_scored:
        gaps.append(_gap(scene, metrics[0], scene.fitted, scene.seen))
    return [gap for gap in gaps if gap is not None]


def _gap(scene: Scene, metric: str, reference: str, split: str) -> Gap | None:
    here, there = scene.at(reference).metrics().get(metric), scene.at(split).metrics().get(metric)
    if here is None or there is None:
        return None
    worse = stats.apart(there, here) if metric in LOWER_IS_BETTER else stats.apart(here, there)
    return Gap(metric=metric, reference=reference, split=split, worse=worse)


def calibration(scene: Scene) -> dict[str, Any]:
    """Expected calibration error, slope and reliability curve on every judged split."""
    if not scene.classifies:
        raise InvalidData(
            "The target is not a class.",
            why="calibration compares the probabilities of classes with outcomes.",
            fix="nothing to do.",
        )
    needs_columns(scene, scene.hardest, "x", "y")
    readings: dict[str, Reading] = {}
    curves: dict[str, list[tuple[float, float]]] = {}
    for split in scene.judged:
        error = CalibrationError(split)(scene.first, scene.lab)
        readings[f"calibration error: {split}"] = replace(error, detail=None)
        if error.detail is not None:
            curves[split] = [(float(p), float(o)) for p, o, n in error.detail if n > 0]
        for name, measure in (("slope", CalibrationSlope(split)), ("in the large", CalibrationInTheLarge(split))):
            try:
                readings[f"calibration {name}: {split}"] = measure(scene.first, scene.lab)
            except UnseenError as error:  # one class only, or perfectly separated: the curve still stands
                scene.skipped[f"calibration {name} on `{split}`"] = reason(error)
    return {"readings": readings, "curves": curves}


def references(scene: Scene) -> dict[str, Any]:
    """The comparison models, fitted on the same examples, judged on the same splits and paired with the audited model."""
    scores: list[Score] = []
    comparisons: list[Outcome] = []
    for name, make in scene.subject.references.items():
        run = FitEstimator().fit(make(), scene.task, scene.lab.child("reference", name))
        for split in scene.judged:
            found = judged([run.model], scene.task, scene.task.splits[split], scene.lab, scene.subject.unit)
            scores += scores_of(name, split, found)
            changes = found.changes(scene.at(split))
            comparisons += [Outcome(remedy=name, split=split, metric=m, change=c) for m, c in changes.items()]
    return {"scores": scores, "comparisons": comparisons}
