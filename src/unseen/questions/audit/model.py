"""The trained model: what it relies on, where it errs most and through which training examples, how
sharp it is.
"""

from dataclasses import replace

import torch

from unseen.attribution import Attribution
from unseen.engine.batches import gather, to_device, whole
from unseen.errors import InvalidData
from unseen.measures.feature_reliance import reliances, shifts
from unseen.method import Trained
from unseen.questions.audit.results import ErrorExplanation, Feature, WorstError
from unseen.questions.explain.job import explain_model
from unseen.questions.explain.request import ExplainRequest
from unseen.reading import Measure, Reading
from unseen.subjects.session import Session
from unseen.task import Use


def reading_of(session: Session, measure: Measure[Trained]) -> Reading:
    """A plug's reading of the audited model, on the first training split unless it names one that
    exists.
    """
    session.require_gradients()
    if getattr(measure, "split", session.training_split) not in session.task.splits:
        measure = replace(measure, split=session.training_split)  # type: ignore[type-var]
    return replace(measure(session.first, session.lab), detail=None)


def worst_errors(session: Session, attribution: Attribution, count: int) -> list[WorstError]:
    """The evaluation examples with the largest loss, and the training examples that pushed it down
    and up.
    """
    session.require_gradients()
    for name in session.task.of(Use.TRAIN):
        session.require_length(name)
    split = session.main_split
    session.require_length(split)
    losses = session.predictions(split).loss.mean(0)
    top = session.worst_examples(split, count)
    queries = to_device(gather(session.task.splits[split].data, torch.tensor(top)), session.lab)
    loss = session.task.objective.loss
    credits = session.attributor(attribution)(queries, lambda model, batch: -loss(model, batch))
    worst = []
    for k, index in enumerate(top):
        row = credits.scores[k]
        k3 = min(3, len(row))
        high, low = row.topk(k3), (-row).topk(k3)
        worst.append(
            WorstError(
                query=session.example(split, index, float(losses[index]), is_predicted=True),
                helpful=[
                    session.training_example(int(i), float(row[i]))
                    for i in high.indices
                    if row[i] > 0
                ],
                harmful=[
                    session.training_example(int(i), float(row[i]))
                    for i in low.indices
                    if row[i] < 0
                ],
            )
        )
    return worst


def error_explanation(session: Session, count: int) -> ErrorExplanation:
    """What the model looked at in its worst errors, by the method that is most faithful to it
    around such examples.
    """
    session.require_gradients()
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
    named = session.subject.features
    if not named:
        raise InvalidData(
            "The subject names no features.",
            why="reliance is measured by shuffling one feature at a time.",
            fix='give Subject(features={"age": [0], …}): positions along the input.',
        )
    fit, split = session.training_split, session.main_split
    session.require_columns(split, "x")
    relied = reliances(session.first, split, named, session.lab.child("reliance"))
    scale = 1.0 if session.predictions(split).unit is None else session.subject.unit
    before, after = (
        whole(session.task.splits[name].data, session.lab)["x"].flatten(1) for name in (fit, split)
    )
    moved = list(shifts(before, after).values())
    return [
        Feature(
            name=name,
            split=split,
            reliance=_scale(relied[name], scale),
            shift=max(moved[k].ks for k in positions),
            moved=any(moved[k].q < 0.05 for k in positions),
        )
        for name, positions in named.items()
    ]


def _scale(reading: Reading, by: float) -> Reading:
    return Reading(by * reading.value, by * reading.low, by * reading.high, reading.n)
