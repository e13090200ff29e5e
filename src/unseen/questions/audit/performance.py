"""How well it holds: scores per split and subgroup, gaps, calibration, and what other models
reach.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from unseen import stats
from unseen.engine.batches import Columns
from unseen.engine.stratified_sample import sample_columns
from unseen.errors import InvalidData, UnseenError, reason
from unseen.measures.calibration import (
    CalibrationError,
    CalibrationInTheLarge,
    Numbers,
    by_chance,
    forecasts,
    miscalibration,
    recalibrate,
)
from unseen.methods.fit_estimator import FitEstimator
from unseen.questions.audit.constant import CONSTANT, constant_model
from unseen.questions.audit.results import (
    Calibration,
    Comparisons,
    Gap,
    Outcome,
    Performance,
    Resolution,
    Score,
    gain,
)
from unseen.reading import Reading
from unseen.subjects.predictions import SplitPredictions, group_codes, predict
from unseen.subjects.session import Session
from unseen.task import Task, Use

MOST_FITTED = 100_000
"""Training examples that comparison models are fitted on."""
MOST_TESTED = 50_000
"""Examples whose calibration is tested by outcomes drawn two thousand times."""


def performance(session: Session) -> Performance:
    """Score, AUC and loss per split and subgroup, and the gap from seen to unseen."""
    name = session.subject.name
    scores: list[Score] = []
    warnings: list[str] = []
    for split in dict.fromkeys([*session.task.of(Use.TRAIN), *session.evaluation_splits]):
        result = session.attempt(f"split `{split}`", partial(session.predictions, split))
        if result is None:
            continue
        scores += scores_of(name, split, result)
        for group in session.subject.groups if split in session.evaluation_splits else ():
            by_level = partial(_by_level, session, split, group, result)
            found, said = session.attempt(f"group {group} on `{split}`", by_level) or ([], [])
            scores, warnings = scores + found, warnings + said
    return Performance(scores=scores, gaps=_gaps(session), warnings=warnings)


def scores_of(
    model: str,
    split: str,
    result: SplitPredictions,
    rows: Any = None,
    group: str = "",
    level: str = "",
) -> list[Score]:
    metrics = result.metrics(rows)
    return [
        Score(model=model, split=split, metric=metric, reading=reading, group=group, level=level)
        for metric, reading in metrics.items()
    ]


def _by_level(
    session: Session, split: str, group: str, result: SplitPredictions
) -> tuple[list[Score], list[str]]:
    level_of = group_codes(session.task.splits[split], session.subject.groups[group], session.lab)
    found, said, names = [], [], session.subject.levels.get(group, ())
    for code in np.unique(level_of[level_of >= 0]):
        rows, level = level_of == code, str(names[code]) if code < len(names) else str(code)
        if rows.sum() < 2:
            at = session.task.splits[split].at if split in session.task.unseen else "known sites"
            said.append(f"{group} {level} at {at or split}")
            continue
        found += scores_of(session.subject.name, split, result, rows, group, level)
    return found, said


def _gaps(session: Session) -> list[Gap]:
    """From held-out examples of known positions (or the training ones) to every other evaluation
    split.
    """
    reference, is_fit_scored = (
        session.reference_split or session.training_split,
        f"split `{session.training_split}`" not in session.skipped,
    )
    if not session.reference_split and not is_fit_scored:
        return []
    metrics = (session.predictions(reference).score_name, "AUC")
    gaps = [
        _gap(session, metric, reference, split)
        for split in session.evaluation_splits
        if split != reference
        for metric in metrics
    ]
    if session.reference_split and is_fit_scored:
        gaps.append(_gap(session, metrics[0], session.training_split, session.reference_split))
    return [gap for gap in gaps if gap is not None]


def _gap(session: Session, metric: str, reference: str, split: str) -> Gap | None:
    here, there = (
        session.predictions(reference).metrics().get(metric),
        session.predictions(split).metrics().get(metric),
    )
    if here is None or there is None:
        return None
    worse = gain(metric, stats.independent_difference(here, there))
    found = resolution(here, session.predictions(split), metric)
    return Gap(metric=metric, reference=reference, split=split, worse=worse, resolution=found)


def resolution(here: Reading, there: SplitPredictions, metric: str) -> Resolution | None:
    """From the intervals that 4 and 8 times as many examples like those of the site would give; of
    large sites from 2,000 of them. None where these hold one class only.
    """
    n = there.score.shape[1]
    rows = np.arange(0, n, max(1, n // 2_000))
    half2 = []
    for times in (4, 8):
        reading = there.repeat(rows, times).metrics().get(metric)
        if reading is None:
            return None
        gap = gain(metric, stats.independent_difference(here, reading))
        half2.append((gap.high - gap.value) ** 2)
    per_label = 8 * rows.size * max(0.0, half2[0] - half2[1])
    fixed = max(0.0, half2[0] - per_label / (4 * rows.size))
    return Resolution(fixed=fixed, per_label=per_label)


def calibration(session: Session) -> Calibration:
    """Recalibration, calibration error beside its value by chance, and reliability curve on every
    evaluation split.
    """
    if not session.classifies:
        raise InvalidData(
            "The target is not a class.",
            why="calibration compares the probabilities of classes with outcomes.",
            fix="nothing to do.",
        )
    session.require_probabilities()
    session.require_columns(session.main_split, "x", "y")
    readings: dict[str, Reading] = {}
    curves: dict[str, list[tuple[float, float]]] = {}
    p_values: dict[str, float] = {}
    bins = CalibrationError().bins
    for split in session.evaluation_splits:
        p, outcome = forecasts(session.first, split, session.lab)
        readings |= _recalibration(session, split, p, outcome)
        rng = session.lab.child("calibration", split).numpy()
        error = CalibrationError(split)(session.first, session.lab.child("calibration", split))
        readings[f"calibration error: {split}"] = replace(error, detail=None)
        readings[f"calibration error by chance: {split}"] = by_chance(p, bins, rng)
        if p.size > MOST_TESTED:
            session.note_cap(
                f"Whether `{split}` is miscalibrated is tested on {MOST_TESTED:,} of its "
                f"{p.size:,} examples, drawn at random; the calibration error is that of all."
            )
            drawn = np.sort(rng.choice(p.size, MOST_TESTED, replace=False))
            p, outcome = p[drawn], outcome[drawn]
        p_values[split] = miscalibration(p, outcome, bins, rng)
        if error.detail is not None:
            curves[split] = [(float(p), float(o)) for p, o, n in error.detail if n > 0]
    return Calibration(readings=readings, curves=curves, p_values=p_values)


def _recalibration(
    session: Session, split: str, p: Numbers, outcome: Numbers
) -> dict[str, Reading]:
    """Intercept and slope of the logistic recalibration, and the intercept alone; a reason instead
    where there is one class only, or perfect separation.
    """
    try:
        fit = recalibrate(p, outcome)
        large = CalibrationInTheLarge(split)(session.first, session.lab)
    except UnseenError as error:
        session.skipped[f"recalibration on `{split}`"] = reason(error)
        return {}
    return {
        f"calibration intercept: {split}": fit.intercept,
        f"calibration slope: {split}": fit.slope,
        f"calibration in the large: {split}": large,
    }


def references(session: Session) -> Comparisons:
    """The constant answer and the comparison models, fitted on the same examples, evaluated on the
    same splits and paired with the audited model.
    """
    scores: list[Score] = []
    comparisons: list[Outcome] = []
    models = {name: make() for name, make in session.subject.references.items()}
    if (constant := constant_model(session)) is not None:
        models = {CONSTANT: constant, **models}
    sampled = _rival_task(session) if session.subject.references else session.task
    for name, model in models.items():
        task = session.task if name == CONSTANT else sampled
        run = FitEstimator().fit(model, task, session.lab.child("reference", name))
        for split in session.evaluation_splits:
            found = predict(
                [run.model],
                session.task,
                session.task.splits[split],
                session.lab,
                session.subject.unit,
            )
            scores += scores_of(name, split, found)
            changes = found.changes(session.predictions(split))
            comparisons += [
                Outcome(remedy=name, split=split, metric=m, change=c) for m, c in changes.items()
            ]
    return Comparisons(scores=scores, changes=comparisons)


def _rival_task(session: Session) -> Task:
    """The task with what comparison models are fitted on: of very many examples a part."""
    splits = dict(session.task.splits)
    for name, split in session.task.of(Use.TRAIN).items():
        if isinstance(split.data, Columns) and (n := len(split.data)) > MOST_FITTED:
            rng = session.lab.child("rival sample", name).numpy()
            splits[name] = replace(split, data=sample_columns(split.data, MOST_FITTED, rng))
            session.note_cap(
                f"Comparison models are fitted on {MOST_FITTED:,} of the {n:,} examples of "
                f"`{name}`, drawn at random within site and class."
            )
    return replace(session.task, splits=splits)
