"""The parts of an audit. Each takes the scene and returns entries of `Findings`; each may fail alone."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from unseen import stats
from unseen.attribution import Attribution
from unseen.audit.findings import Feature, Outcome, Overlap, Score, WorstError
from unseen.audit.judged import Judged, codes, judged
from unseen.audit.remedies import Remedy
from unseen.audit.scene import Scene
from unseen.engine.batches import Columns, gather, place, whole
from unseen.engine.loop import Budget
from unseen.errors import InvalidData, UnseenError, UnsupportedLayer
from unseen.lab import Lab
from unseen.measure import Measure, Reading
from unseen.measures.calibration import CalibrationError, CalibrationInTheLarge, CalibrationSlope
from unseen.measures.coherence import agreement as agreements
from unseen.measures.coherence import coherence as measured_coherence
from unseen.measures.feature_reliance import reliances, shifts
from unseen.measures.overlap import exact_pairs, near_pairs
from unseen.measures.suspects import suspicion
from unseen.method import Trained
from unseen.methods.fit_estimator import FitEstimator
from unseen.methods.site_finetune import LocalFinetune
from unseen.models.estimator import Estimator
from unseen.task import Split, Use

SMALL = 20
"""Subgroups below this size are reported with a warning."""


def performance(scene: Scene) -> dict[str, Any]:
    """Score, AUC and loss per split and subgroup, and the gap from seen to unseen."""
    name = scene.subject.name
    scores: list[Score] = []
    warnings: list[str] = []
    for split in dict.fromkeys([*scene.task.of(Use.FIT), *scene.judged]):
        result = scene.at(split)
        scores += _scores(name, split, result)
        if split not in scene.judged:
            continue
        for group, of in scene.subject.groups.items():
            found, said = _by_level(scene, split, group, codes(scene.task.splits[split], of, scene.lab), result)
            scores, warnings = scores + found, warnings + said
    return {"scores": scores, "gaps": _gaps(scene), "warnings": warnings}


def _scores(model: str, split: str, result: Judged, rows: Any = None, group: str = "", level: str = "") -> list[Score]:
    metrics = result.metrics(rows)
    return [
        Score(model=model, split=split, metric=metric, reading=reading, group=group, level=level)
        for metric, reading in metrics.items()
    ]


def _by_level(
    scene: Scene, split: str, group: str, level_of: np.ndarray, result: Judged
) -> tuple[list[Score], list[str]]:
    found, said, names = [], [], scene.subject.levels.get(group, ())
    for code in np.unique(level_of[level_of >= 0]):
        rows, level = level_of == code, str(names[code]) if code < len(names) else str(code)
        if rows.sum() < 2:
            said.append(f"{group} = {level} has {rows.sum()} example in `{split}`: not reported.")
            continue
        found += _scores(scene.subject.name, split, result, rows, group, level)
        if rows.sum() < SMALL:
            said.append(
                f"{group} = {level} has only {rows.sum()} examples in `{split}`: read its interval, not its value."
            )
    return found, said


def _gaps(scene: Scene) -> dict[str, Reading]:
    """Seen minus unseen (or fitted minus judged) score, by judged split."""
    seen = scene.seen or next(iter(scene.task.of(Use.FIT)))
    name = scene.at(seen).score_name
    here = scene.at(seen).metrics()
    gaps = {}
    for split in [s for s in scene.judged if s != seen]:
        there = scene.at(split).metrics()
        for metric in (name, "AUC"):
            if metric in here and metric in there:
                gaps[f"{metric}: {seen} − {split}"] = stats.apart(here[metric], there[metric])
    if not gaps or scene.seen:
        fit = next(iter(scene.task.of(Use.FIT)))
        gaps[f"{name}: {fit} − {seen}"] = stats.apart(scene.at(fit).metrics()[name], here[name])
    return gaps


def worst_errors(scene: Scene, attribution: Attribution, count: int) -> dict[str, Any]:
    """The judged examples with the largest loss, and the training examples that pushed it down and up."""
    _needs_gradients(scene, "gradient similarity")
    split = scene.hardest
    losses = scene.at(split).loss.mean(0)
    top = np.argsort(-losses, kind="stable")[:count]
    queries = place(gather(scene.task.splits[split].data, torch.as_tensor(top.copy())), scene.lab)
    loss = scene.task.objective.loss
    credits = attribution.prepare(scene.first, scene.lab)(queries, lambda model, batch: -loss(model, batch))
    fit, sizes = list(scene.task.of(Use.FIT)), []
    for name in fit:
        sizes.append(len(scene.task.splits[name].data))  # type: ignore[arg-type]
    starts = np.cumsum([0, *sizes])

    def trained_on(position: int, value: float) -> Any:
        which = int(np.searchsorted(starts, position, side="right")) - 1
        return scene.example(fit[which], int(position - starts[which]), value)

    worst = []
    for k, index in enumerate(top):
        row = credits.scores[k]
        high, low = row.topk(3), (-row).topk(3)
        worst.append(
            WorstError(
                query=scene.example(split, int(index), float(losses[index])),
                helpful=[trained_on(int(i), float(row[i])) for i in high.indices],
                harmful=[trained_on(int(i), float(row[i])) for i in low.indices],
            )
        )
    return {"worst": worst}


def references(scene: Scene) -> dict[str, Any]:
    """The comparison models, fitted on the same examples and judged on the same splits."""
    scores: list[Score] = []
    for name, make in scene.subject.references.items():
        run = FitEstimator().fit(make(), scene.task, scene.lab.child("reference", name))
        for split in scene.judged:
            scores += _scores(name, split, judged([run.model], scene.task, scene.task.splits[split], scene.lab))
    return {"scores": scores}


def _needs_gradients(scene: Scene, part: str) -> None:
    model = scene.first.model
    if isinstance(model, Estimator):
        name = type(model.estimator).__name__
        raise UnsupportedLayer(
            f"{part} needs gradients, which {name} does not have.",
            why="it is computed from, or trained by, gradients of the loss.",
            fix="audit a network (leave out --estimator) to see this part.",
        )


def remedy(scene: Scene, name: str, make: Remedy) -> dict[str, Any]:
    """Paired change of every metric on every judged split, same seeds and budget."""
    _needs_gradients(scene, "a remedy")
    method = make(scene.subject.budget)
    runs = [scene.runs(method, seed) for seed in range(len(scene.retrained))]
    outcomes = []
    for split in scene.judged:
        changed = judged([run.model for run in runs], scene.task, scene.task.splits[split], scene.lab)
        for metric, change in changed.changes(scene.base(split)).items():
            outcomes.append(Outcome(remedy=name, split=split, metric=metric, change=change, note=repr(method)))
    return {"outcomes": outcomes}


def measured(scene: Scene, name: str, measure: Measure[Trained]) -> dict[str, Any]:
    """A plug's reading of the audited model."""
    _needs_gradients(scene, name)
    return {"readings": {name: replace(measure(scene.first, scene.lab), detail=None)}}


def local_finetuning(scene: Scene) -> dict[str, Any]:
    """What labelled examples of the unseen place would buy: half of them fitted, the other half judged."""
    _needs_gradients(scene, "site-wise fine-tuning")
    outcomes = []
    for name, split in scene.task.unseen.items():
        rows = Columns(**whole(split.data, Lab()))
        order = torch.randperm(len(rows), generator=scene.lab.child("local half").generator())
        local, rest = rows.subset(order[: len(rows) // 2]), rows.subset(order[len(rows) // 2 :])
        judge = Split(rest, Use.JUDGE, split.at)
        task = replace(scene.task, splits={**scene.task.of(Use.FIT), "local": Split(local, Use.FIT, split.at)})
        method = LocalFinetune(Budget(steps=100, batch_size=scene.subject.budget.batch_size, lr=5e-4))
        runs = [
            method.fit(deepcopy(run.model), task, scene.lab.child("local", seed)).model
            for seed, run in enumerate(scene.retrained)
        ]
        base = judged([run.model for run in scene.retrained], scene.task, judge, scene.lab)
        note = f"{method!r}; fitted on {len(local)} labelled examples from there, judged on the other {len(rest)}"
        for metric, change in judged(runs, scene.task, judge, scene.lab).changes(base).items():
            outcomes.append(
                Outcome(remedy="site-wise fine-tuning", split=name, metric=metric, change=change, note=note)
            )
    return {"outcomes": outcomes}


def calibration(scene: Scene) -> dict[str, Any]:
    """Expected calibration error, slope and reliability curve on every judged split."""
    if not scene.at(scene.hardest).is_accuracy:
        raise InvalidData(
            "The target is a number.", why="calibration compares probabilities with outcomes.", fix="nothing to do."
        )
    readings: dict[str, Reading] = {}
    curves, warnings = {}, []
    for split in scene.judged:
        error = CalibrationError(split)(scene.first, scene.lab)
        readings[f"calibration error: {split}"] = replace(error, detail=None)
        if error.detail is not None:
            curves[split] = [(float(p), float(o)) for p, o, n in error.detail if n > 0]
        for name, measure in (("slope", CalibrationSlope(split)), ("in the large", CalibrationInTheLarge(split))):
            try:
                readings[f"calibration {name}: {split}"] = measure(scene.first, scene.lab)
            except UnseenError as error:  # one class only, or perfectly separated: the curve still stands
                warnings.append(f"No calibration {name} on `{split}`: {error.what}")
    return {"readings": readings, "curves": curves, "warnings": warnings}


def coherence(scene: Scene, top: int) -> dict[str, Any]:
    """Coherence of the fitted examples, total and per class, and the examples most in conflict with the rest."""
    _needs_gradients(scene, "coherence")
    fit, split = next(iter(scene.task.of(Use.FIT).items()))
    classes = scene.subject.classes
    loss = scene.task.objective.loss
    by = "y" if scene.at(fit).is_accuracy else None
    found = measured_coherence(scene.first.model, loss, split.data, scene.lab, by=by)
    readings = {
        "coherence α": Reading(found.alpha, found.low, found.high, found.n, "fraction"),
        "coherence α without bias": Reading(found.debiased, n=found.n),
        "coherence m·α": Reading(found.m_alpha, n=found.n, unit="examples"),
    }
    for label, part in found.by_class.items():
        name = classes[label] if label < len(classes) else str(label)
        readings[f"coherence α of {name}"] = Reading(part.alpha, n=part.n)
    agreement = agreements(scene.first.model, loss, split.data, scene.lab, found.total)
    order = agreement.argsort()[:top].tolist()
    conflicting = [scene.example(fit, index, float(agreement[index])) for index in order]
    return {"readings": readings, "conflicting": conflicting}


def overlaps(scene: Scene) -> dict[str, Any]:
    """Examples of judged splits that also stand, exactly or nearly, in a fitted split."""
    found = []
    for fit, fitted in scene.task.of(Use.FIT).items():
        a = whole(fitted.data, scene.lab)["x"]
        for name, split in scene.task.of(Use.JUDGE).items():
            b = whole(split.data, scene.lab)["x"]
            exact, near = exact_pairs(a, b), near_pairs(a, b)
            same = set(exact.b.tolist())
            only_near = [k for k in range(len(near)) if int(near.b[k]) not in same]
            pairs = [(int(i), int(j), 0.0) for i, j in zip(exact.a, exact.b, strict=True)]
            pairs += [(int(near.a[k]), int(near.b[k]), float(near.distance[k])) for k in only_near]
            found.append(
                Overlap(fitted=fit, judged=name, exact=len(same), near=len(only_near), n=len(b), pairs=pairs[:100])
            )
    return {"overlaps": found}


def suspects(scene: Scene, top: int) -> dict[str, Any]:
    """Fitted examples whose label surprises models that never saw them: out-of-fold loss, largest first."""
    _needs_gradients(scene, "the ranking of labels")
    fit = next(iter(scene.task.of(Use.FIT)))
    losses = suspicion(scene.subject.model, scene.task, scene.lab.child("suspicion"), split=fit)
    # a classifier must give the label less than a tenth; of numbers, the largest surprises are listed as they are
    least = -np.log(0.1) if scene.at(fit).is_accuracy else 0.0
    order = [i for i in losses.argsort(descending=True)[:top].tolist() if losses[i] > least]
    count = int((losses > least).sum()) if scene.at(fit).is_accuracy else 0
    said = [f"{count} of {len(losses)} training labels get a probability below 0.1 out of fold."] if count else []
    return {
        "suspects": [scene.example(fit, i, float(losses[i])) for i in order],
        "suspicion": losses.tolist(),
        "decisions": said,
    }


def features(scene: Scene) -> dict[str, Any]:
    """Reliance on each feature at the place that matters most, and how far it moved from the fitted examples."""
    named = scene.subject.features
    if not named:
        raise InvalidData(
            "The subject names no features.",
            why="reliance is measured by shuffling one feature at a time.",
            fix='give Subject(features={"age": [0], …}): positions along the input.',
        )
    fit, split = next(iter(scene.task.of(Use.FIT))), scene.hardest
    relied = reliances(scene.first, split, named, scene.lab.child("reliance"))
    before, after = (whole(scene.task.splits[name].data, scene.lab)["x"] for name in (fit, split))
    moved = list(shifts(before, after).values())
    return {
        "features": [
            Feature(
                name=name,
                split=split,
                reliance=replace(relied[name], detail=None),
                shift=max(moved[k].ks for k in places),
                moved=any(moved[k].q < 0.05 for k in places),
            )
            for name, places in named.items()
        ]
    }
