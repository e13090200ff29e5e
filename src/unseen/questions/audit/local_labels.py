"""What 30, 100 and 300 labelled examples of a held-out site would buy, and by which remedy."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Int

from unseen.engine.batches import Columns, whole
from unseen.engine.evaluate import outputs
from unseen.engine.loop import Budget
from unseen.errors import InvalidData, UnseenError
from unseen.measures.site_shift.local_labels import (
    best_threshold,
    over_draws,
    recalibrate_margin,
    recalibrate_number,
)
from unseen.methods.fit_estimator import FitEstimator
from unseen.methods.site_finetune import LocalFinetune
from unseen.models.recorded import RecordedModel
from unseen.questions.audit.clusters import clusters, in_order, largest, whole_clusters
from unseen.reading import Reading
from unseen.subjects.predictions import SplitPredictions, predict
from unseen.subjects.session import Session
from unseen.task import Split, Use

LABELS = (30, 100, 300)
PER_CLUSTER = 0.5
"""Most of the labels that one entity or block may hold: of a draw of whole ones at least as large a
share is left.
"""
LEAST_LEFT = 50
"""Examples that must be left to evaluate on."""
MOST_EVALUATED = 20_000
"""Other examples that a remedy is evaluated on: those that follow the labels in their draw."""
DRAWS, REFITS = 20, 3
"""Draws of labels: those that cost nothing, and those that train."""
COPIES = 5
"""How often a local row counts beside one of another site where an estimator is fitted again."""
FINETUNING = Budget(steps=100, lr=5e-4)

Rows = Int[np.ndarray, "_"]


@dataclass(frozen=True, kw_only=True)
class LocalGain:
    """The paired change of every metric by one remedy with so many labels of the site."""

    remedy: str
    labels: int
    change: Mapping[str, Reading]


Change: TypeAlias = Callable[[Rows, Rows], Mapping[str, Reading]]
"""The change by a draw of labels, evaluated on the other rows."""
Curve: TypeAlias = Callable[[Sequence[int]], list[LocalGain]]


@dataclass(frozen=True, kw_only=True)
class LocalLabels:
    """A learning curve of labels from one held-out site, for the first trained model. The labels
    used are never evaluated on, nor is another example of their entity or block.
    """

    site: str
    examples: int
    gains: Sequence[LocalGain]
    skipped: Mapping[str, str]
    """Remedy → why it was not tried."""


def local_labels(session: Session, name: str) -> LocalLabels:
    """Draws of labels at random, of whole entities and blocks; every remedy gets the same draws."""
    n = session.predictions(name).score.shape[1]
    counts = _counts(n, largest(_clusters(session, name)))
    if n - min(counts) > MOST_EVALUATED:
        session.note_cap(
            f"What labels of a site bring is evaluated on {MOST_EVALUATED:,} of the {n:,} examples "
            f"of `{name}`, drawn at random with the labels."
        )
    gains, skipped = list[LocalGain](), dict[str, str]()
    for remedy, attempt in _remedies(session, name).items():
        try:
            gains += attempt(counts)
        except UnseenError as error:
            skipped[remedy] = error.what
    return LocalLabels(
        site=str(session.task.splits[name].at or name), examples=n, gains=gains, skipped=skipped
    )


def _counts(n: int, most_together: int) -> list[int]:
    """The numbers of labels that can be drawn."""
    counts = [count for count in LABELS if n - count >= LEAST_LEFT]
    if not counts:
        raise InvalidData(
            f"{n} examples are at the site.",
            why=f"{LABELS[0]} labels are drawn and {LEAST_LEFT} examples must be left.",
            fix="collect more labelled examples there.",
        )
    found = [count for count in counts if most_together <= max(1, PER_CLUSTER * count)]
    if not found:
        raise InvalidData(
            f"{most_together} of the {n} examples at the site are of one entity or block.",
            why=f"whole ones are drawn, and none may hold more than half of {counts[-1]} labels.",
            fix="collect labelled examples of more entities there.",
        )
    return found


def _clusters(session: Session, name: str) -> Rows:
    return clusters(whole(session.task.splits[name].data, session.lab))


def _remedies(session: Session, name: str) -> dict[str, Curve]:
    def curve(remedy: str, draws: int, make: Callable[[Session, str], Change]) -> Curve:
        return lambda counts: [
            _gain(session, name, remedy, count, draws, make(session, name)) for count in counts
        ]

    found = {"recalibration": curve("recalibration", DRAWS, _recalibration)}
    if session.predictions(name).margin is not None:
        found["threshold"] = curve("threshold", DRAWS, _threshold)
    if session.tries_remedies:
        found["local refit"] = curve("local refit", REFITS, _refit)
    return found


def _gain(
    session: Session,
    name: str,
    remedy: str,
    count: int,
    draws: int,
    change: Change,
) -> LocalGain:
    cluster = _clusters(session, name)
    found: dict[str, list[Reading]] = {}
    for k in range(draws):
        # one order per draw: 100 labels are the first 30 and 70 more
        rng = session.lab.child("local labels", name, k).numpy()
        order = in_order(cluster, rng.permutation(int(cluster.max()) + 1))
        end = whole_clusters(cluster[order], count)
        rest = np.sort(order[end : end + MOST_EVALUATED])
        for metric, reading in change(order[:end], rest).items():
            found.setdefault(metric, []).append(reading)
    readings = {metric: over_draws(several) for metric, several in found.items()}
    return LocalGain(remedy=remedy, labels=count, change=readings)


def first_of(predictions: SplitPredictions) -> SplitPredictions:
    """The predictions of the first model."""
    margin = predictions.margin
    return replace(
        predictions,
        loss=predictions.loss[:1],
        score=predictions.score[:1],
        margin=None if margin is None else margin[:1],
    )


def take(predictions: SplitPredictions, rows: Rows) -> SplitPredictions:
    """The predictions of these examples."""
    y, margin, block = predictions.y, predictions.margin, predictions.block
    return replace(
        predictions,
        loss=predictions.loss[:, rows],
        score=predictions.score[:, rows],
        y=None if y is None else y[rows],
        margin=None if margin is None else margin[:, rows],
        block=None if block is None else block[rows],
    )


def _recalibration(session: Session, name: str) -> Change:
    base = first_of(session.predictions(name))
    if base.unit is not None:
        return _relocation(session, name, base)

    def change(labelled: Rows, rest: Rows) -> Mapping[str, Reading]:
        if base.margin is None or base.y is None:
            raise InvalidData(
                "The target is no number and has more than two classes.",
                why="log odds of one class are recalibrated.",
                fix="recalibrate the classes one by one.",
            )
        y = base.y
        margin = np.stack([recalibrate_margin(m, y[labelled], m[labelled]) for m in base.margin])
        loss = np.logaddexp(0, margin) - y * margin
        new = replace(base, margin=margin, loss=loss, score=((margin > 0) == y).astype(float))
        found = take(new, rest).changes(take(base, rest))
        found.pop("AUC", None)  # the order of examples stays as it is
        return found

    return change


def _relocation(session: Session, name: str, base: SplitPredictions) -> Change:
    data = session.task.splits[name].data
    predicted = outputs(session.first.model, data, session.lab).double().flatten().numpy()

    def change(labelled: Rows, rest: Rows) -> Mapping[str, Reading]:
        y = base.y
        if y is None or predicted.size != y.size:
            raise InvalidData(
                "The target is several numbers.",
                why="a line maps one number to another.",
                fix="recalibrate them one by one.",
            )
        new = recalibrate_number(predicted, y[labelled], predicted[labelled])
        error = np.abs(new - y)[None]
        changed = replace(base, score=-error, loss=error**2 / 2)
        found = take(changed, rest).changes(take(base, rest))
        return {metric: reading for metric, reading in found.items() if metric != "loss"}

    return change


def _threshold(session: Session, name: str) -> Change:
    base = first_of(session.predictions(name))

    def change(labelled: Rows, rest: Rows) -> Mapping[str, Reading]:
        assert base.margin is not None
        assert base.y is not None
        y = base.y
        cuts = [best_threshold(y[labelled], m[labelled]) for m in base.margin]
        above = base.margin > np.array(cuts)[:, None]
        new = replace(base, score=(above == y).astype(float), margin=None)
        found = take(new, rest).changes(take(base, rest))
        return {base.score_name: found[base.score_name]}

    return change


def _refit(session: Session, name: str) -> Change:
    """The first model: a network trained further on the labels, an estimator fitted again with
    them beside the rows of the other sites.
    """
    split, lab = session.task.splits[name], session.lab
    is_given = not session.has_gradients and not session.retrained
    if is_given or isinstance(session.first.model, RecordedModel):
        raise InvalidData(
            "The model cannot be trained here.",
            why="a local refit trains it with the labels of the site.",
            fix="audit with mode=trained-again (--mode trained-again).",
        )
    columns = Columns(**whole(split.data, lab))
    start = (session.models if session.has_gradients else session.retrained)[0]
    base = predict([start.model], session.task, split, lab, session.subject.unit)

    def change(labelled: Rows, rest: Rows) -> Mapping[str, Reading]:
        local = columns.subset(torch.from_numpy(np.ascontiguousarray(labelled)))
        if session.has_gradients:
            model = _finetune(session, start.model, local)
        else:
            model = _fit_again(session, local)
        remaining = Split(columns.subset(torch.from_numpy(rest)), Use.EVALUATE, split.at)
        task = replace(session.task, splits={**session.task.splits, name: remaining})
        new = predict([model], task, remaining, lab, session.subject.unit)
        return new.changes(take(base, rest))

    return change


def _finetune(session: Session, model: torch.nn.Module, local: Columns) -> torch.nn.Module:
    splits = {**session.task.of(Use.TRAIN), "local": Split(local, Use.TRAIN)}
    task = replace(session.task, splits=splits)
    batch_size = min(session.subject.budget.batch_size, len(local))
    method = LocalFinetune(replace(FINETUNING, batch_size=batch_size))
    return method.fit(deepcopy(model), task, session.lab.child("local refit")).model


def _fit_again(session: Session, local: Columns) -> torch.nn.Module:
    known = [whole(split.data, session.lab) for split in session.task.of(Use.TRAIN).values()]
    here = whole(local, session.lab)
    parts = [*known, *[here] * COPIES]
    columns = Columns(**{key: torch.cat([part[key] for part in parts]) for key in ("x", "y")})
    task = replace(session.task, splits={"train": Split(columns, Use.TRAIN)})
    model = session.runs.initial_model(0)
    return FitEstimator().fit(model, task, session.lab.child("local refit")).model
