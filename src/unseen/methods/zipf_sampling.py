"""Training examples that are drawn as unequally as words (Zhou, Jiang & Bansal, 2023,
arXiv:2311.04420).
"""

from dataclasses import dataclass, replace

from torch import nn

from unseen.engine.batches import Columns
from unseen.engine.example_sampling import WeightedColumns, order_ranks, zipf_weights
from unseen.engine.loop import Budget, erm_step, train
from unseen.lab import Lab
from unseen.method import Trained
from unseen.methods.novelty_curriculum import columns_of
from unseen.task import Task, Use


@dataclass(frozen=True)
class ZipfSampling:
    """The r-th example is drawn in proportion to r^(−`exponent`).

    Ranks are shuffled; with `column` they are those of its values, from the lowest, and the
    examples of a value share its weight equally. Exponent 0 draws all ranks equally often.
    """

    exponent: float = 1.0
    column: str = ""
    budget: Budget = Budget()

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        splits = {
            name: replace(split, data=self.weigh(columns_of(task, name), lab.child("order", name)))
            if split.use is Use.TRAIN
            else split
            for name, split in task.splits.items()
        }
        weighted = replace(task, splits=splits)
        return replace(train(model, weighted, erm_step, self.budget, lab), task=task)

    def weigh(self, data: Columns, lab: Lab) -> WeightedColumns:
        return WeightedColumns(
            zipf_weights(order_ranks(data, self.column, lab), self.exponent), data
        )


def example() -> ZipfSampling:
    return ZipfSampling(budget=Budget(steps=20, batch_size=8))
