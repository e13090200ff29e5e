"""What retraining says about training examples: the effect of a copy more, or of leaving some out,
on queries.

The subject's model is trained again with other weights of its examples, by the seeds of its own
training and new ones, each pair on the same minibatches from the same initial weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from unseen import stats
from unseen.engine.batches import gather, length, size, to_device
from unseen.engine.parameters import trainable
from unseen.engine.retrain import examples, retrain_reweighted
from unseen.errors import InvalidConfig
from unseen.identity import identify
from unseen.methods.erm import ERM
from unseen.questions.influence.results import Confirmation
from unseen.questions.influence.target_words import target_kind
from unseen.reading import Reading
from unseen.subjects.fresh_models import untrained_model
from unseen.subjects.session import Session
from unseen.subjects.stacking import most_together
from unseen.task import Batch, PerExample, Use

SEEDS = 8
"""Retrainings of every kind where nobody says how many: eight leave an interval of ±0.8 standard
deviations of one.
"""
MOST_OPERATIONS = 5e11
"""Floating-point operations of all retrainings up to which nobody needs to ask for them: about two
minutes on one core.
"""


@dataclass(frozen=True, eq=False)
class Retraining:
    """Asks a subject's retrained models about queries; what they say is kept."""

    session: Session
    queries: Batch
    behaviour: PerExample
    seeds: int = SEEDS

    def copies(self, rows: Sequence[int]) -> Float[Tensor, "row seed query"]:
        """What one copy more of each of these training examples adds to the behaviour."""
        weights = torch.ones(len(rows), examples(self.session.task))
        weights[torch.arange(len(rows)), torch.tensor(rows)] = 2.0
        return self.effects(weights)

    def removals(self, sets: Sequence[Sequence[int]]) -> Float[Tensor, "set seed query"]:
        """What leaving out each of these sets of training examples adds to the behaviour."""
        weights = torch.ones(len(sets), examples(self.session.task))
        for row, members in enumerate(sets):
            weights[row, list(members)] = 0.0
        return self.effects(weights)

    def effects(self, weights: Float[Tensor, "set example"]) -> Float[Tensor, "set seed query"]:
        """The behaviour after training with each set of weights, minus that after training with
        none.
        """
        weights = torch.cat([torch.ones_like(weights[:1]), weights])
        together = max(1, most_together(self.session.first.model) // len(weights))
        parts = torch.arange(self.seeds).split(together)
        found = [
            self._outputs(weights, seeds.tolist())
            for seeds in self.session.lab.track(parts, len(parts))
        ]
        outputs = torch.cat(found, 1)
        return outputs[1:] - outputs[:1]

    def _outputs(self, weights: Tensor, seeds: list[int]) -> Float[Tensor, "set seed query"]:
        session = self.session
        runs, budget = session.runs, session.subject.budget
        splits = session.task.splits.items()
        visible = {name: split for name, split in splits if split.use is not Use.EVALUATE}

        @torch.no_grad()
        def make() -> dict[str, Tensor]:
            with torch.enable_grad():
                trained = retrain_reweighted(
                    partial(untrained_model, session.subject),
                    replace(session.task, splits=visible),
                    weights,
                    budget,
                    session.lab,
                    seeds=seeds,
                )
            values = [
                torch.stack([self.behaviour(each.model, self.queries).double() for each in row])
                for row in trained
            ]
            return {"outputs": torch.stack(values).cpu()}

        key = identify(
            "retrained models",
            model=runs.initial_model(seeds[0]),
            method=ERM(budget),
            task=runs.task,
            queries=self.queries,
            behaviour=self.behaviour,
            weights=weights,
            seeds=tuple(seeds),
            lab=session.lab.signature,
            code=Retraining,
        )
        return session.lab.keep(key, make)["outputs"]

    def operations(self, sets: int) -> float:
        """Floating-point operations of retraining with so many sets of weights."""
        return operations_per_run(self.session) * self.seeds * (1 + sets)


def refuse_unknown_training(session: Session) -> None:
    """Raises where nobody can say how the model was trained."""
    reason = obstacle(session)
    if reason:
        raise InvalidConfig(
            "This model cannot be retrained.",
            why=reason,
            fix="leave `trained` out of the Subject, so that it is trained here with its budget.",
        )


def obstacle(session: Session) -> str:
    """Why the session's model cannot be trained again as it was; empty where it can."""
    if session.subject.trained is not None:
        return "it was given trained, so nobody here knows how it was trained"
    if not trainable(session.first.model):
        return "it has no trainable parameter"
    return ""


def operations_per_run(session: Session) -> float:
    """Floating-point operations of one training run: three forward passes' worth a step."""
    budget, total = session.subject.budget, 0.0
    for split in session.task.of(Use.TRAIN).values():
        n = min(budget.batch_size, length(split.data) or 0)
        batch = to_device(gather(split.data, torch.arange(n)), session.lab)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            session.task.objective.loss(session.first.model, batch)
        total += 3.0 * counter.get_total_flops() * budget.batch_size / size(batch)
    return total * budget.steps


@dataclass(frozen=True)
class Removal:
    """Training examples to retrain without, and the query that it is about."""

    query: int
    role: str
    rows: Sequence[int]
    estimate: float


def confirm(retraining: Retraining, removals: Sequence[Removal]) -> dict[int, list[Confirmation]]:
    """What every removal does to its query, by query; all of them are retrained together."""
    found: dict[int, list[Confirmation]] = {}
    effects = retraining.removals([one.rows for one in removals]) if removals else ()
    for one, values in zip(removals, effects, strict=True):
        found.setdefault(one.query, []).append(
            Confirmation(
                role=one.role,
                rows=one.rows,
                estimate=one.estimate,
                effect=effect(values[:, one.query]),
                kind=target_kind(retraining.session.task.objective.loss),
            )
        )
    return found


def effect(values: Float[Tensor, " seed"]) -> Reading:
    """The mean over seeds with Student's interval."""
    return stats.mean(values.numpy())
