"""Empirical risk minimisation (Vapnik, 1991)."""

from dataclasses import dataclass

from torch import nn

from unseen.engine.loop import Budget, Step, erm_step, train
from unseen.lab import Lab
from unseen.method import Trained
from unseen.task import Task


@dataclass(frozen=True)
class ERM:
    """Lowers the mean loss over all TRAIN examples of a step; weight decay is
    `budget.weight_decay`.
    """

    budget: Budget = Budget()

    @property
    def step(self) -> Step:
        return erm_step

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        return train(model, task, self.step, self.budget, lab)


def example() -> ERM:
    """ERM for thirty steps; needs only the task's objective."""
    return ERM(Budget(steps=30, batch_size=32, lr=0.01))
