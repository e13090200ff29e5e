"""Ensembles in the space of outputs (Lakshminarayanan, Pritzel & Blundell, 2017,
arXiv:1612.01474).
"""

import copy
from dataclasses import dataclass, field, replace
from enum import StrEnum

from torch import nn

from unseen.engine.loop import Budget, erm_step
from unseen.engine.vectorized.choose import train_many
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.models.ensemble_model import Committee, MeanProbability, Rule
from unseen.task import Task


class Start(StrEnum):
    """Where the members but the first begin."""

    FRESH = "fresh"
    """At weights of their own, drawn as the layers draw theirs."""
    GIVEN = "given"
    """At the weights given, as is right for a pre-trained model."""


def reinitialize(model: nn.Module, lab: Lab) -> nn.Module:
    """A copy whose layers have drawn their weights anew from the lab's stream."""
    other, drew = copy.deepcopy(model), set()
    with lab.seeded():
        for module in other.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()  # type: ignore[operator]
                drew |= {id(p) for p in module.parameters(recurse=False)}
    left = [name for name, p in other.named_parameters() if id(p) not in drew]
    if left:
        raise InvalidData(
            f"The parameters {', '.join(left[:4])} do not know how to begin anew.",
            why="members that share weights at the start are no independent hypotheses.",
            fix="use start=Start.GIVEN, or give the module a `reset_parameters` method.",
        )
    return other


@dataclass(frozen=True)
class OutputEnsemble:
    """`members` models, each with its own order of the data, whose probabilities are averaged; the
    first is ERM's model.
    """

    members: int = 2
    start: Start = Start.FRESH
    rule: Rule = field(default_factory=MeanProbability)
    budget: Budget = field(default_factory=Budget)

    def __post_init__(self) -> None:
        if self.members < 1:
            raise InvalidConfig(
                f"OutputEnsemble got members={self.members}.", "nobody speaks.", "use 2 or more."
            )

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        labs = [lab.child("member", k) if k else lab for k in range(self.members)]
        fresh = self.start is Start.FRESH
        others = [
            reinitialize(model, each.child("init")) if fresh else copy.deepcopy(model)
            for each in labs[1:]
        ]
        models = [model, *others]
        trained = train_many(models, task, erm_step, self.budget, labs)
        curves = {f"loss {k}": each.curves["loss"] for k, each in enumerate(trained)}
        committee = Committee(models, self.rule).eval()
        return replace(
            trained[0],
            model=committee,
            curves={"loss": trained[0].curves["loss"], **curves},
            start=None,
        )


def example() -> OutputEnsemble:
    return OutputEnsemble(budget=Budget(steps=30, batch_size=32, lr=0.01))
