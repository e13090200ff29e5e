"""A subject's worst errors, and the training examples that made them likelier and less likely."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unseen.attributions.influence import Influence, InfluenceScores, Top
from unseen.engine.batches import gather, length, to_device
from unseen.errors import Divergence, InvalidConfig
from unseen.lab import Lab
from unseen.questions.influence import advice
from unseen.questions.influence.optimum import training_gradient
from unseen.questions.influence.procedure import for_session, negative, query_loss
from unseen.questions.influence.results import Influencer, InfluenceReport, QueryInfluence
from unseen.questions.influence.retraining import (
    MOST_OPERATIONS,
    SEEDS,
    Removal,
    Retraining,
    confirm,
    effect,
    obstacle,
    refuse_unknown_training,
)
from unseen.questions.influence.target_words import target_kind
from unseen.reading import Reading
from unseen.subjects.examples import Example
from unseen.subjects.session import Session, open_session, require_length
from unseen.subjects.subject import Subject
from unseen.subjects.table_models import is_estimator
from unseen.task import Use


def refuse_estimator(subject: object) -> None:
    """Refuses a fitted pipeline before its table is read: influence follows gradients."""
    if is_estimator(subject):
        name = type(subject).__name__
        raise InvalidConfig(
            f"{name} has no gradients.",
            why="influence functions follow the gradient of a network's loss.",
            fix="ask about a network: leave the model out; unseen.explain(model, frame, …) and "
            "unseen.audit(model, frame, …) take it as it is.",
        )


@dataclass(frozen=True, kw_only=True)
class ErrorRequest:
    """What `unseen influence` asks of a subject."""

    config: Influence
    fisher: str = ""
    """Empty: what suits the data."""
    split: str = ""
    """Empty: the one that matters most."""
    worst: int = 5
    k: int = 5
    retrainings: int | None = None
    """Seeds that measure every shown example; None: eight where the model is small; 0: order only.
    """
    confirm: int = 0
    """Examples at the top of each query without which the model is retrained; 0: none."""

    def __post_init__(self) -> None:
        if self.worst < 1 or self.k < 1:
            raise InvalidConfig(
                f"worst={self.worst}, top={self.k}.",
                why="at least one of each is shown.",
                fix="use 1 or more.",
            )
        if self.confirm < 0 or (self.retrainings or 0) < 0 or self.retrainings == 1:
            raise InvalidConfig(
                f"retrainings={self.retrainings}, confirm={self.confirm}.",
                why="an interval needs two retrainings or more; 0 asks for none.",
                fix="use 0, or for example retrainings=8, confirm=5.",
            )


def trace_errors(subject: Subject, lab: Lab, request: ErrorRequest) -> InfluenceReport:
    """Trains the subject's model where none is given, and explains its worst errors on a split."""
    began = time.perf_counter()
    for name, one in subject.task.of(Use.TRAIN).items():
        require_length(name, one)
    session = open_session(subject, lab)
    lab = session.lab
    session.require_gradients()
    if request.retrainings or request.confirm:
        refuse_unknown_training(session)
    split = request.split or session.main_split
    session.task.split(split)
    order = session.worst_examples(split, request.worst)
    queries = to_device(gather(session.task.splits[split].data, torch.tensor(order)), lab)
    config = for_session(request.config, session, request.fisher)
    trained = time.perf_counter()
    found = session.attributor(config)
    assert isinstance(found, InfluenceScores)  # what `Influence` prepares
    likely = negative(query_loss(session))
    best = found.top(queries, likely, max(request.k, request.confirm))
    with torch.no_grad():
        said = likely(session.first.model, queries).tolist()
    traced = time.perf_counter()
    answers = [_answer(session, split, index, q, said[q], best) for q, index in enumerate(order)]
    seeds = SEEDS if request.retrainings is None else request.retrainings
    retraining = Retraining(session, queries, likely, seeds or SEEDS)
    answers = _confirm(answers, retraining, request.confirm) if request.confirm else answers
    answers = [_shorten(answer, request.k) for answer in answers]
    answers, sizes = _measure(answers, retraining, request.retrainings)
    n = sum(length(one.data) or 0 for one in session.task.of(Use.TRAIN).values())
    where = session.task.splits[split].at
    return InfluenceReport(
        name=f"{session.subject.name} on {session.task.name}",
        answers=answers,
        examples=n,
        scored=n,
        kind=target_kind(session.task.objective.loss),
        settings={"errors on": split if where is None else f"{split} ({where})"}
        | _settings(config),
        caveat=advice.caveat(training_gradient(session.first, session.task.objective.loss, lab)),
        sizes=sizes,
        decisions=[
            *session.subject.warnings,
            *session.subject.decisions,
            *session.skipped.values(),
            *found.sentences(),
            *filter(None, [advice.choice(config.curvature, config.iterations)]),
        ],
        facts={
            "seconds to train": trained - began,
            "seconds for influence": traced - trained,
            "seconds to retrain": time.perf_counter() - traced,
        },
    )


def _measure(
    answers: list[QueryInfluence], retraining: Retraining, seeds: int | None
) -> tuple[list[QueryInfluence], str]:
    """The answers with the retrained effect of every shown example, and where sizes come from."""
    rows = sorted({one.index for answer in answers for one in _all_influencers(answer)})
    reason = _reason_for_none(retraining, seeds, len(rows))
    if reason or not rows:
        return answers, advice.no_sizes(reason)
    try:
        effects = retraining.copies(rows)
    except Divergence as error:
        return answers, advice.no_sizes(f"a retraining diverged: {error.what}")
    measured = [
        {row: effect(effects[k, :, q]) for k, row in enumerate(rows)} for q in range(len(answers))
    ]
    answers = [_with_sizes(answer, one) for answer, one in zip(answers, measured, strict=True)]
    return answers, advice.measured_sizes(answers, retraining.seeds)


def _reason_for_none(retraining: Retraining, seeds: int | None, rows: int) -> str:
    """Why nothing is retrained; empty where it is."""
    if seeds == 0:
        return "nothing was retrained, as asked"
    if reason := obstacle(retraining.session):
        return reason
    if seeds is None and retraining.operations(rows) > MOST_OPERATIONS:
        return (
            f"{(rows + 1) * SEEDS} retrainings of this model would take long; "
            f"--retrainings {SEEDS} does them all the same"
        )
    return ""


def _confirm(
    answers: Sequence[QueryInfluence], retraining: Retraining, k: int
) -> list[QueryInfluence]:
    """The answers with the effect of retraining without the first k examples of either side."""
    removals = [
        Removal(q, role, [one.index for one in first], -sum(one.score for one in first))
        for q, answer in enumerate(answers)
        for role, first in (("helpful", answer.helpful[:k]), ("harmful", answer.harmful[:k]))
        if first
    ]
    found = confirm(retraining, removals)
    return [replace(answer, confirmations=found.get(q, ())) for q, answer in enumerate(answers)]


def _all_influencers(answer: QueryInfluence) -> list[Influencer]:
    return [*answer.helpful, *answer.harmful]


def _shorten(answer: QueryInfluence, k: int) -> QueryInfluence:
    return replace(answer, helpful=answer.helpful[:k], harmful=answer.harmful[:k])


def _with_sizes(answer: QueryInfluence, sizes: Mapping[int, Reading]) -> QueryInfluence:
    helpful, harmful = (
        [replace(one, retrained=sizes[one.index]) for one in found]
        for found in (answer.helpful, answer.harmful)
    )
    return replace(answer, helpful=helpful, harmful=harmful)


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
