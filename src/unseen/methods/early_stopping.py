"""Early stopping on held-out data (Prechelt, 1998, Early stopping – but when?)."""

from dataclasses import dataclass, field, replace

from torch import nn

from unseen.engine.loop import Budget, erm_step, train
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.method import Trained
from unseen.task import Task


@dataclass(frozen=True)
class EarlyStopping:
    """ERM that returns the weights with the lowest mean loss on the SELECT splits, read every
    `every` steps.

    It trains for the whole budget and looks back, so that no patience has to be chosen: the result
    is that of stopping with infinite patience. `curves` holds `evaluate_selections` (the steps
    read) and `select_loss`.
    """

    every: int = 50
    budget: Budget = field(default_factory=Budget)

    def __post_init__(self) -> None:
        if not 1 <= self.every <= max(1, self.budget.steps):
            raise InvalidConfig(
                f"EarlyStopping got every={self.every} for {self.budget.steps} steps.",
                why="the held-out loss must be read at least once.",
                fix="choose 1 ≤ every ≤ budget.steps.",
            )

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        return train(model, task, erm_step, replace(self.budget, select_every=self.every), lab)


def example() -> EarlyStopping:
    """Thirty steps, read every ten; needs a split with use=SELECT."""
    return EarlyStopping(every=10, budget=Budget(steps=30, batch_size=32, lr=0.01))
