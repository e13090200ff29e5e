"""Curricula of novelty: training examples come in over time (Zhou, Jiang & Bansal, 2023,
arXiv:2311.04420).
"""

from dataclasses import dataclass, replace

from torch import nn

from unseen.engine.batches import Columns
from unseen.engine.example_sampling import GrowingColumns, growing_fraction, order_ranks
from unseen.engine.loop import Budget, erm_step, train
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.task import Split, Task, Use


@dataclass(frozen=True)
class NoveltyCurriculum:
    """Step t of T draws from the first max(`first`, min(1, t / (`end` · T))) of the training
    examples.

    Their order is shuffled; with `column` they come in by its values, from the lowest, and equal
    values together (`length`: short answers first; a column of numbered primitives: new words).
    """

    first: float = 0.2
    end: float = 0.8
    column: str = ""
    budget: Budget = Budget()

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        fraction = growing_fraction(self.first, self.end, max(1, self.budget.steps))
        splits = {}
        for name, split in task.splits.items():
            if split.use is Use.TRAIN:
                data = columns_of(task, name)
                rank = order_ranks(data, self.column, lab.child("order", name))
                split = Split(GrowingColumns(rank, fraction, data), Use.TRAIN, split.at)
            splits[name] = split
        growing = replace(task, splits=splits)
        return replace(train(model, growing, erm_step, self.budget, lab), task=task)


def columns_of(task: Task, name: str) -> Columns:
    """The training data of a split, which must lie in memory."""
    data = task.splits[name].data
    if not isinstance(data, Columns):
        raise InvalidData(
            f"`{name}` of `{task.name}` is a {type(data).__name__}.",
            why="which examples are drawn is chosen by their number.",
            fix="give the examples as Columns.",
        )
    return data


def example() -> NoveltyCurriculum:
    return NoveltyCurriculum(budget=Budget(steps=20, batch_size=8))
