"""A subject's worst errors, and the training examples that made them likelier and less likely."""

import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from unseen.attributions.influence import Fisher, Influence, Top, sequence_nats
from unseen.engine.batches import gather, length, to_device
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.objectives import cross_entropy, logistic_loss, mean_token_loss
from unseen.questions.influence.results import Influencer, InfluenceReport, QueryInfluence
from unseen.subjects.examples import Example
from unseen.subjects.session import Session, open_session, require_length
from unseen.subjects.subject import Subject
from unseen.task import Batch, PerExample, Use

FEW = 20
"""Classes up to which every one of them is visited for the Fisher matrix: no noise of drawn
labels.
"""
DRAWS = 10
"""Labels drawn per example where classes cannot be visited."""


def trace_errors(
    subject: Subject, lab: Lab, config: Influence, *, split: str, worst: int, k: int, fisher: str
) -> InfluenceReport:
    """Trains the subject's model where none is given, and explains its `worst` errors on
    `split`.
    """
    if worst < 1 or k < 1:
        raise InvalidConfig(
            f"worst={worst}, top={k}.", why="at least one of each is shown.", fix="use 1 or more."
        )
    began = time.perf_counter()
    for name, one in subject.task.of(Use.TRAIN).items():
        require_length(name, one)
    session = open_session(subject, lab)
    lab = session.lab
    session.require_gradients()
    split = split or session.main_split
    session.task.split(split)
    order = session.worst_examples(split, worst)
    queries = to_device(gather(session.task.splits[split].data, torch.tensor(order)), lab)
    loss = session.task.objective.loss
    loss = sequence_nats if loss is mean_token_loss else loss
    config = replace(config, loss=loss, **_fisher(session, loss, fisher, lab))
    trained = time.perf_counter()
    found = config.prepare(session.first, lab)
    likely = _negative(loss)
    best = found.top(queries, likely, k)
    with torch.no_grad():
        said = likely(session.first.model, queries).tolist()
    n = sum(length(one.data) or 0 for one in session.task.of(Use.TRAIN).values())
    where = session.task.splits[split].at
    return InfluenceReport(
        name=f"{session.subject.name} on {session.task.name}",
        answers=[_answer(session, split, index, q, said[q], best) for q, index in enumerate(order)],
        examples=n,
        scored=n,
        settings={"errors on": split if where is None else f"{split} ({where})"}
        | _settings(config),
        decisions=[
            *session.subject.warnings,
            *session.subject.decisions,
            *session.skipped.values(),
            *found.sentences(),
        ],
        facts={
            "seconds to train": trained - began,
            "seconds for influence": time.perf_counter() - trained,
        },
    )


def _answer(
    session: Session, split: str, index: int, q: int, said: float, best: Top
) -> QueryInfluence:
    error = session.example(split, index, said, is_predicted=True)

    def influencers(rows: Tensor, scores: Tensor) -> list[Influencer]:
        return [
            _influencer(session, int(row), float(score))
            for row, score in zip(rows, scores, strict=True)
        ]

    return QueryInfluence(
        title=f"Error {q + 1}: {_where(error)}",
        asked=error.shown,
        label=error.label,
        predicted=error.predicted,
        log_probability=said,
        helpful=[one for one in influencers(best.index[q], best.scores[q]) if one.score > 0],
        harmful=[
            one for one in influencers(best.worst_index[q], best.worst_scores[q]) if one.score < 0
        ],
    )


def _where(example: Example) -> str:
    return f"row {example.row}" if example.row is not None else f"{example.split}[{example.index}]"


def _negative(loss: PerExample) -> PerExample:
    """−loss: the log-likelihood."""

    def likely(model: torch.nn.Module, batch: Batch) -> Tensor:
        return -loss(model, batch)

    return likely


def _fisher(session: Session, loss: PerExample, asked: str, lab: Lab) -> dict[str, Any]:
    """The Fisher matrix asked for, else the one with the least noise for this kind of data."""
    if asked:
        return {"fisher": Fisher(asked)}
    if loss is logistic_loss:
        return {"fisher": Fisher.EXACT}
    if loss is cross_entropy:
        batch = to_device(
            gather(session.task.splits[session.training_split].data, torch.tensor([0])), lab
        )
        with torch.no_grad():
            classes = session.first.model(batch["x"]).shape[-1]
        if classes <= FEW:
            return {"fisher": Fisher.EXACT}
    if session.task.objective.relabel is None:
        return {"fisher": Fisher.EMPIRICAL}
    return {"fisher": Fisher.SAMPLED, "draws": DRAWS}


def _settings(config: Influence) -> dict[str, str]:
    return {
        "curvature": str(config.curvature),
        "Fisher matrix": str(config.fisher),
        "damping": f"{config.damping:g}",
    }


def _influencer(session: Session, position: int, score: float) -> Influencer:
    example = session.training_example(position, score)
    return Influencer(
        index=position,
        score=score,
        source=_where(example),
        shown=example.shown,
        label=example.label,
    )
