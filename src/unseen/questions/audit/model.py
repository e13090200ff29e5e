"""The trained model: what it relies on, where it errs most and through which training examples, how
sharp it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from unseen.attribution import Attribution, Attributor
from unseen.engine.batches import gather, to_device, whole
from unseen.errors import InvalidData
from unseen.measures.feature_reliance import association, reliances, shifts
from unseen.method import Trained
from unseen.questions.audit.results import ErrorExplanation, Feature, WorstError
from unseen.questions.explain.job import explain_model
from unseen.questions.explain.request import ExplainRequest
from unseen.questions.influence.procedure import (
    default_influence,
    for_session,
    negative,
    query_loss,
)
from unseen.questions.influence.retraining import Removal, Retraining, confirm, obstacle
from unseen.questions.measure.catalogue import catalogue, plain_entry
from unseen.questions.measure.evaluate import MeasureReader
from unseen.questions.measure.results import Measurement
from unseen.reading import Measure, Reading
from unseen.subjects.examples import Example
from unseen.subjects.session import Session
from unseen.task import Use

NAMED = 3
"""Training examples that are named on either side of an error."""
CONFIRMED = 2
"""Errors whose examples are left out in retraining; of several sites the report shows as many."""
SEEDS = 6
"""Retrainings with and without: a tenth of what an audit of heart disease costs."""
MOST_FEATURES = 100
"""Features whose reliance is measured; of more, the most telling ones."""
MOST_SHUFFLED = 5_000
"""Examples among which a feature is shuffled: their interval is narrow already."""
MOST_CANDIDATES = 20_000
"""Training examples of a split that are asked for their influence."""
PARTS_OF_THEIR_OWN = (
    "calibration error",
    "calibration slope",
    "calibration in the large",
    "coherence α",
    "copies of training examples",
)
"""Measures that other parts of the audit read, and more about them."""
MOST_OPERATIONS = 1e10
"""Floating-point operations up to which an audit retrains for its worst errors: seconds."""


def measures(
    session: Session, given: Mapping[str, Measure[Trained]] | None
) -> tuple[list[Measurement], dict[str, str]]:
    """The measures of the catalogue that no other part reads, or the given ones, of the audited
    model; those that do not apply with the reason.
    """
    if given is None:
        entries = [entry for entry in catalogue() if entry.name not in PARTS_OF_THEIR_OWN]
    else:
        entries = [plain_entry(name, measure) for name, measure in given.items()]
    return MeasureReader(session)(entries, trainings=False)


def worst_errors(session: Session, attribution: Attribution | None, count: int) -> list[WorstError]:
    """The evaluation examples with the largest loss, and the training examples that pushed it down
    and up (none of a model without gradients).
    """
    if not session.has_gradients and attribution is None:
        return [
            WorstError(query=error, helpful=(), harmful=()) for error in _errors(session, count)
        ]
    for name in session.task.of(Use.TRAIN):
        session.require_length(name)
    split = session.main_split
    session.require_length(split)
    losses = session.predictions(split).loss.mean(0)
    top = session.worst_examples(split, count)
    queries = to_device(gather(session.task.splits[split].data, torch.tensor(top)), session.lab)
    likely = negative(query_loss(session))
    credits = attributor(session, attribution)(queries, likely)
    worst = []
    for k, index in enumerate(top):
        row = credits.scores[k]
        high, low = (signed.topk(min(NAMED, len(row))).indices.tolist() for signed in (row, -row))
        worst.append(
            WorstError(
                query=session.example(split, index, float(losses[index]), is_predicted=True),
                helpful=[_candidate(session, i, float(row[i])) for i in high if row[i] > 0],
                harmful=[_candidate(session, i, float(row[i])) for i in low if row[i] < 0],
            )
        )
    return worst


def _errors(session: Session, count: int) -> list[Example]:
    split = session.main_split
    losses = session.predictions(split).loss.mean(0)
    return [
        session.example(split, index, float(losses[index]), is_predicted=True)
        for index in session.worst_examples(split, count)
    ]


def attributor(session: Session, attribution: Attribution | None) -> Attributor:
    """What answers for the audited model: the attribution that was asked for, else the one of
    `unseen influence`; of very many training examples it is asked about some.
    """
    chosen = for_session(default_influence(), session) if attribution is None else attribution
    return session.attributor(chosen, MOST_CANDIDATES)


def candidates(session: Session) -> list[tuple[str, Sequence[int]]]:
    """The training examples that an attribution is asked about: positions by split, in the order
    in which it counts them.
    """
    found: list[tuple[str, Sequence[int]]] = []
    for name in session.task.of(Use.TRAIN):
        n = session.require_length(name)
        _, positions = session.sample(name, MOST_CANDIDATES)
        found.append((name, range(n) if positions is None else positions.tolist()))
        if positions is not None:
            session.note_cap(
                f"The training examples behind errors are looked for among {len(positions)} of the "
                f"{n} of `{name}`, evenly spaced."
            )
    return found


def _candidate(session: Session, position: int, value: float) -> Example:
    """The training example at a position among the candidates."""
    for name, rows in candidates(session):
        if position < len(rows):
            return session.example(name, rows[position], value)
        position -= len(rows)
    raise IndexError(position)


def confirm_errors(session: Session, worst: Sequence[WorstError]) -> list[WorstError]:
    """The errors, the first two with what retraining without the examples that harmed them does,
    where that costs seconds.
    """
    if not any(error.harmful for error in worst) or obstacle(session):
        return list(worst)
    split = session.task.splits[worst[0].query.split]
    order = torch.tensor([error.query.index for error in worst])
    queries = to_device(gather(split.data, order), session.lab)
    retraining = Retraining(session, queries, negative(query_loss(session)), SEEDS)
    removals = [
        Removal(
            k,
            "harmful",
            [_number(session, one) for one in error.harmful],
            -sum(one.value for one in error.harmful),
        )
        for k, error in enumerate(worst[:CONFIRMED])
        if error.harmful
    ]
    if retraining.operations(len(removals)) > MOST_OPERATIONS:
        return list(worst)
    found = confirm(retraining, removals)
    return [replace(error, confirmations=found.get(k, ())) for k, error in enumerate(worst)]


def _number(session: Session, example: Example) -> int:
    """The example's number among all training examples, split after split."""
    before = 0
    for name in session.task.of(Use.TRAIN):
        if name == example.split:
            return before + example.index
        before += session.require_length(name)
    raise IndexError(example.split)


def error_explanation(session: Session, count: int) -> ErrorExplanation:
    """What the model looked at in its worst errors, by the method that is most faithful to it
    around such examples; of a model without gradients by those that need none.
    """
    session.require_model()
    split = session.main_split
    session.require_length(split)
    examples = [
        session.example(split, index, 0.0) for index in session.worst_examples(split, count)
    ]
    rows = tuple(example.index if example.row is None else example.row for example in examples)
    request = ExplainRequest(split=split, rows=rows, sample=24, draws=400)
    found = explain_model(session, request, session.lab.child("explanation"))
    errors = {told.example.index: dict(told.credits) for told in found.examples}
    chosen = found.choice
    return ErrorExplanation(
        method=chosen.name,
        why=chosen.why,
        faithfulness=replace(chosen.faithfulness, detail=None),
        behaviour=found.behaviour,
        errors=errors,
        heat={told.example.index: told.heat for told in found.examples if told.heat},
    )


def features(session: Session) -> list[Feature]:
    """Reliance on each feature at the site that matters most, and how far it moved from the
    training examples.
    """
    session.require_model()
    named = session.subject.features
    if not named:
        raise InvalidData(
            "The subject names no features.",
            why="reliance is measured by shuffling one feature at a time.",
            fix='give Subject(features={"age": [0], …}): positions along the input.',
        )
    fit, split = session.training_split, session.main_split
    session.require_columns(split, "x")
    scale = 1.0 if session.predictions(split).unit is None else session.subject.unit
    before, after = (
        whole(session.task.splits[name].data, session.lab)["x"].flatten(1) for name in (fit, split)
    )
    moved = list(shifts(before, after).values())
    shift = {name: max(moved[k].ks for k in named[name]) for name in named}
    chosen = _telling(session, before, shift)
    relied = reliances(_shorter(session, split), split, chosen, session.lab.child("reliance"))
    return [
        Feature(
            name=name,
            split=split,
            reliance=_scale(relied[name], scale),
            shift=shift[name],
            moved=any(moved[k].q < 0.05 for k in positions),
        )
        for name, positions in chosen.items()
    ]


def _telling(
    session: Session, x: Float[Tensor, "n input"], shift: Mapping[str, float]
) -> dict[str, Sequence[int]]:
    """The features whose reliance is measured: all, or in turn the one that moved most and the one
    that is most associated with the target.
    """
    named = session.subject.features
    if len(named) <= MOST_FEATURES:
        return dict(named)
    session.require_columns(session.training_split, "y")
    target = whole(session.task.splits[session.training_split].data, session.lab)["y"]
    alone = association(x, target)
    told = {name: max(float(alone[k]) for k in positions) for name, positions in named.items()}
    orders = [sorted(named, key=lambda name: -by[name]) for by in (shift, told)]
    turns = dict.fromkeys(name for pair in zip(*orders, strict=True) for name in pair)
    first = set(list(turns)[:MOST_FEATURES])
    session.note_cap(
        f"Reliance is measured for {MOST_FEATURES} of {len(named)} features: in turn the one whose "
        "distribution moved most and the one that tells most of the target by itself."
    )
    return {name: positions for name, positions in named.items() if name in first}


def _shorter(session: Session, split: str) -> Trained:
    """The first model with at most so many examples of the split, evenly spaced."""
    data, positions = session.sample(split, MOST_SHUFFLED)
    if positions is None:
        return session.first
    session.note_cap(
        f"Features are shuffled among {len(positions)} of the {session.require_length(split)} "
        f"examples of `{split}`, evenly spaced."
    )
    few = replace(session.task.splits[split], data=data)
    task = replace(session.task, splits={**session.task.splits, split: few})
    return replace(session.first, task=task)


def _scale(reading: Reading, by: float) -> Reading:
    return Reading(by * reading.value, by * reading.low, by * reading.high, reading.n)
