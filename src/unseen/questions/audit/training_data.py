"""The training data: do its examples agree, which labels look wrong, and what stands in evaluation
splits, too?
"""

from dataclasses import replace
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from unseen.attribution import Attribution
from unseen.attributions.influence import InfluenceScores
from unseen.engine.batches import Columns, gather, length, whole
from unseen.errors import InvalidData
from unseen.measures.coherence import CoherenceResult, unbiased_alpha
from unseen.measures.coherence import agreement as agreements
from unseen.measures.coherence import coherence as measured_coherence
from unseen.measures.duplicates import equal_rows, near_pairs, near_threshold, reference_rows
from unseen.models.recorded import RecordedModel
from unseen.questions.audit.model import attributor, candidates
from unseen.questions.audit.results import Coherence, Overlap
from unseen.reading import Reading
from unseen.subjects.examples import Example
from unseen.subjects.session import Session
from unseen.task import Use

Inputs = TypeVar("Inputs", np.ndarray, Tensor)

SHOWN_PAIRS = 100
"""Pairs of an example and its copy that the findings hold."""
MOST_COMPARED = 1 << 28
"""Distances between a training and an evaluation split: a second or two of a processor."""
FEWEST_SEARCHED = 1_000
"""Examples whose near-duplicates are looked for whatever it costs."""
MOST_CLASSES = 20
"""Coherence is given per class up to so many classes."""
MOST_ALIKE = 20_000
"""Training examples whose gradients are compared with one another."""
MOST_STEPS = 10_000
"""The models that suspect labels are trained as long as the audited one, up to so many steps."""


def coherence(session: Session, top: int) -> Coherence:
    """Coherence of the training examples, total and per class, and the examples most in conflict
    with the rest.
    """
    session.require_gradients()
    fit = session.training_split
    data, positions = session.sample(fit, MOST_ALIKE)
    if positions is not None:
        session.note_cap(
            f"Coherence is that of {len(positions)} of the {session.require_length(fit)} examples "
            f"of `{fit}`, evenly spaced."
        )
    model, loss = session.first.model, session.task.objective.loss
    found = measured_coherence(model, loss, data, session.lab)
    n = found.n
    readings = {
        "coherence α": _alpha(found),
        "coherence α without bias": Reading(
            found.unbiased_alpha, unbiased_alpha(found.low, n), unbiased_alpha(found.high, n), n
        ),
        "coherence m·α": Reading(found.m_alpha, n * found.low, n * found.high, n, "examples"),
    }
    if length(data) is None:
        return Coherence(readings=readings)
    for name, rows in _by_class(session, data).items():
        part = measured_coherence(model, loss, Columns(**gather(data, rows)), session.lab)
        readings[f"coherence α of {name}"] = _alpha(part)
    agreement = agreements(model, loss, data, session.lab, found.total)
    order = agreement.argsort()[:top].tolist()
    return Coherence(
        readings=readings,
        conflicting=[
            session.example(fit, i if positions is None else int(positions[i]), float(agreement[i]))
            for i in order
        ],
    )


def _alpha(found: CoherenceResult) -> Reading:
    return Reading(found.alpha, found.low, found.high, found.n, "fraction")


def _by_class(session: Session, data: Dataset[Any]) -> dict[str, Tensor]:
    """Rows of every class with enough examples for an interval; nothing where the target is no
    class.
    """
    if not session.classifies:
        return {}
    y, names = whole(data, session.lab)["y"].flatten().cpu(), session.subject.classes
    found = [int(k) for k in y.unique()]
    rows = {
        str(names[k]) if 0 <= k < len(names) else str(k): (y == k).nonzero().flatten()
        for k in found
    }
    return (
        {name: of for name, of in rows.items() if len(of) >= 4}
        if len(found) <= MOST_CLASSES
        else {}
    )


def without_outputs(session: Session, x: Inputs) -> Inputs:
    """Inputs [example, …] without what stands behind them, recorded outputs or what comparison
    models read: two rows may be the same although something else was predicted for them.
    """
    model = session.first.model
    return (
        x[:, : model.start] if isinstance(model, RecordedModel) else x[:, : session.subject.inputs]
    )


def overlaps(session: Session) -> list[Overlap]:
    """Examples of evaluation splits that also stand, exactly or nearly, in a training split."""
    column = (
        "x"
        if session.has(session.training_split, "x")
        or not session.has(session.training_split, "tokens")
        else "tokens"
    )
    found = []
    for fit, fitted in session.task.of(Use.TRAIN).items():
        session.require_columns(fit, column)
        inputs = without_outputs(session, whole(fitted.data, session.lab)[column])
        a = inputs.double()
        # the distance of token numbers means nothing
        asked = _most_asked(len(a))
        threshold = near_threshold(a, most=asked) if inputs.is_floating_point() else None
        for name, split in session.task.of(Use.EVALUATE).items():
            session.require_columns(name, column)
            b = without_outputs(session, whole(split.data, session.lab)[column]).double()
            if a.shape[1:] != b.shape[1:]:  # longer sequences: not one can be the same
                found.append(Overlap(fitted=fit, evaluated=name, exact=0, near=None, n=len(b)))
                continue
            rows = _sample_rows(a, b)
            if threshold is not None and len(rows) < len(b):
                session.note_cap(
                    f"Near-duplicates are looked for among {len(rows)} of the {len(b)} examples of "
                    f"`{name}`, evenly spaced; exact duplicates among all."
                )
            found.append(_overlap(fit, name, a, b, rows, threshold))
        measured = len(reference_rows(len(a), asked))
        if measured < len(a) and threshold is not None:
            session.note_cap(
                f"How near is unusual is measured from {measured} of the {len(a)} examples of "
                f"`{fit}`."
            )
    return found


def _most_asked(n: int) -> int:
    """How many of n training rows are asked for their nearest neighbour among all of them."""
    return min(5_000, max(FEWEST_SEARCHED, MOST_COMPARED // n))


def _sample_rows(a: Tensor, b: Tensor) -> Tensor:
    """The rows of b whose nearest neighbour in a is looked for: all, or evenly spaced ones."""
    count = min(len(b), max(FEWEST_SEARCHED, MOST_COMPARED // len(a)))
    return torch.linspace(0, len(b) - 1, count).round().long()


def _overlap(
    fit: str, name: str, a: Tensor, b: Tensor, rows: Tensor, threshold: float | None
) -> Overlap:
    same = equal_rows(a, b)
    every_pair = ((i, j, 0.0) for j, equal in same.items() for i in equal)
    pairs = list(islice(every_pair, SHOWN_PAIRS))
    exact = Overlap(fitted=fit, evaluated=name, exact=len(same), near=None, n=len(b), pairs=pairs)
    if threshold is None:
        return exact
    near = near_pairs(a, b[rows], threshold=threshold)
    others = [
        (int(i), int(rows[j]), float(d))
        for i, j, d in zip(near.a, near.b, near.distance, strict=True)
        if int(rows[j]) not in same
    ]
    return replace(
        exact, near=len(others), searched=len(rows), pairs=[*pairs, *others][:SHOWN_PAIRS]
    )


def self_influential(session: Session, attribution: Attribution | None, top: int) -> list[Example]:
    """Training examples with the largest influence on their own loss: what the model would not say
    without them.
    """
    session.require_gradients()
    found = attributor(session, attribution)
    if not isinstance(found, InfluenceScores):
        raise InvalidData(
            f"{type(attribution).__name__} gives no self-influence.",
            why="it needs the curvature of the loss.",
            fix="audit with attribution=Influence(…), the default.",
        )
    _, rows = candidates(session)[0]
    own = found.self_influence()[: len(rows)]
    order = own.argsort(descending=True)[:top].tolist()
    return [session.example(session.training_split, rows[i], float(own[i])) for i in order]
