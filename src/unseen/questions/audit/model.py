"""The trained model: what it relies on, where it errs most and through which training examples, how sharp it is."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from unseen.attribution import Attribution
from unseen.engine.batches import gather, length, place, whole
from unseen.errors import InvalidData
from unseen.measures.feature_reliance import reliances, shifts
from unseen.method import Trained
from unseen.questions.audit.requirements import needs_columns, needs_gradients
from unseen.questions.audit.results import Feature, Looked, WorstError
from unseen.questions.explain.request import Ask
from unseen.questions.explain.results import explain
from unseen.reading import Measure, Reading
from unseen.subjects.session import Scene
from unseen.task import Use


def measured(scene: Scene, name: str, measure: Measure[Trained]) -> dict[str, Any]:
    """A plug's reading of the audited model, on the first fitted split unless it names one that exists."""
    needs_gradients(scene)
    if getattr(measure, "split", scene.fitted) not in scene.task.splits:
        measure = replace(measure, split=scene.fitted)  # type: ignore[type-var]
    return {"readings": {name: replace(measure(scene.first, scene.lab), detail=None)}}


def worst_errors(scene: Scene, attribution: Attribution, count: int) -> dict[str, Any]:
    """The judged examples with the largest loss, and the training examples that pushed it down and up."""
    needs_gradients(scene)
    fit, split = list(scene.task.of(Use.FIT)), scene.hardest
    for name in (*fit, split):
        _needs_length(scene, name)
    losses = scene.at(split).loss.mean(0)
    top = np.argsort(-losses, kind="stable")[:count]
    queries = place(gather(scene.task.splits[split].data, torch.as_tensor(top.copy())), scene.lab)
    loss = scene.task.objective.loss
    credits = scene.attributor(attribution)(queries, lambda model, batch: -loss(model, batch))
    starts = np.cumsum([0, *(length(scene.task.splits[name].data) or 0 for name in fit)])

    def trained_on(position: int, value: float) -> Any:
        which = int(np.searchsorted(starts, position, side="right")) - 1
        return scene.example(fit[which], int(position - starts[which]), value)

    worst = []
    for k, index in enumerate(top):
        row = credits.scores[k]
        k3 = min(3, len(row))
        high, low = row.topk(k3), (-row).topk(k3)
        worst.append(
            WorstError(
                query=scene.example(split, int(index), float(losses[index]), is_predicted=True),
                helpful=[trained_on(int(i), float(row[i])) for i in high.indices if row[i] > 0],
                harmful=[trained_on(int(i), float(row[i])) for i in low.indices if row[i] < 0],
            )
        )
    return {"worst": worst}


def looked(scene: Scene, count: int) -> dict[str, Any]:
    """What the model looked at in its worst errors, by the method that is most faithful to it around such examples."""
    needs_gradients(scene)
    split = scene.hardest
    _needs_length(scene, split)
    order = np.argsort(-scene.at(split).loss.mean(0), kind="stable")[:count]
    examples = [scene.example(split, int(index), 0.0) for index in order]
    rows = tuple(example.index if example.row is None else example.row for example in examples)
    ask = Ask(split=split, rows=rows, sample=24, draws=400)
    found = explain(scene, ask, scene.lab.child("explanation"))
    errors = {told.example.index: dict(told.credits) for told in found.told}
    chosen = found.choice
    one = Looked(
        method=chosen.name,
        why=chosen.why,
        faithfulness=replace(chosen.faithfulness, detail=None),
        behaviour=found.behaviour,
        errors=errors,
        heat={told.example.index: told.heat for told in found.told if told.heat},
    )
    return {"looked": [one]}


def _needs_length(scene: Scene, split: str) -> None:
    if length(scene.task.splits[split].data) is None:
        raise InvalidData(
            f"Split `{split}` is a stream.",
            why="single examples cannot be looked up in it.",
            fix="give a dataset with a length.",
        )


def features(scene: Scene) -> dict[str, Any]:
    """Reliance on each feature at the place that matters most, and how far it moved from the fitted examples."""
    named = scene.subject.features
    if not named:
        raise InvalidData(
            "The subject names no features.",
            why="reliance is measured by shuffling one feature at a time.",
            fix='give Subject(features={"age": [0], …}): positions along the input.',
        )
    fit, split = scene.fitted, scene.hardest
    needs_columns(scene, split, "x")
    relied = reliances(scene.first, split, named, scene.lab.child("reliance"))
    scale = 1.0 if scene.at(split).unit is None else scene.subject.unit
    before, after = (whole(scene.task.splits[name].data, scene.lab)["x"].flatten(1) for name in (fit, split))
    moved = list(shifts(before, after).values())
    return {
        "features": [
            Feature(
                name=name,
                split=split,
                reliance=_scaled(relied[name], scale),
                shift=max(moved[k].ks for k in places),
                moved=any(moved[k].q < 0.05 for k in places),
            )
            for name, places in named.items()
        ]
    }


def _scaled(reading: Reading, by: float) -> Reading:
    return Reading(by * reading.value, by * reading.low, by * reading.high, reading.n)
