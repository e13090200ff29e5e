"""Training with large batches as with small ones (Hoffer, Hubara & Soudry, 2017, arXiv:1705.08741).

The gap of large batches is one of too few updates: the same number of updates at each learning rate
(regime adaptation), a learning rate grown with the root of the batch size, and ghost batch norm
close it.
"""

from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import ceil, sqrt

import torch
from torch import nn

from unseen.engine.batches import Columns, length
from unseen.engine.loop import Budget, Optimizer, Watch, erm_step, train
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.method import Trained
from unseen.methods.ghost_batch_norm import convert
from unseen.models.mlp import mlp
from unseen.objectives import classify
from unseen.task import Axis, Split, Task, Use


def root_lr(lr: float, small: int, large: int) -> float:
    """η √(large/small): the covariance of one update, (η²/B) · (1/N) Σ g gᵀ for B ≪ N, stays the
    same.
    """
    return lr * sqrt(large / small)


def keep_epochs(small: Budget, batch_size: int) -> Budget:
    """The regime with another batch size and the same epochs: steps, warm-up and drops shrink by
    the ratio of sizes.
    """
    return _rescale(small, small.batch_size / batch_size, batch_size)


def adapt_regime(small: Budget, batch_size: int) -> Budget:
    """Regime adaptation: every epoch number × ⌈large/small⌉, so as many updates at each learning
    rate as before.
    """
    ratio = batch_size / small.batch_size
    return _rescale(small, ceil(ratio) / ratio, batch_size)


def _rescale(budget: Budget, factor: float, batch_size: int) -> Budget:
    return replace(
        budget,
        batch_size=batch_size,
        steps=max(1, round(budget.steps * factor)),
        warmup=round(budget.warmup * factor),
        drops=tuple(round(at * factor) for at in budget.drops),
    )


def updates_per_rate(budget: Budget) -> list[int]:
    """Number of updates between the drops of the learning rate."""
    edges = [0, *sorted(min(at, budget.steps) for at in budget.drops), budget.steps]
    return [after - before for before, after in pairwise(edges)]


@dataclass(frozen=True)
class LargeBatch:
    """A small-batch regime carried over to `batch_size`: by default the same epochs at the same
    learning rate.

    `root` scales the learning rate with √(batch_size/small), `adapt` restores the number of updates
    at each learning rate, `ghost` replaces batch norm by ghosts of that size. All three together
    are the paper's recipe.
    """

    small: Budget = field(
        default_factory=lambda: Budget(
            steps=2_560,
            batch_size=32,
            lr=0.1,
            optimizer=Optimizer.SGD,
            momentum=0.9,
            weight_decay=5e-4,
            drops=(1_280, 2_048),
            clip=5.0,
        )
    )
    """The regime that works with small batches."""
    batch_size: int = 1_024
    root: bool = True
    adapt: bool = True
    ghost: int | None = 32

    def __post_init__(self) -> None:
        if self.batch_size < self.small.batch_size or (self.ghost is not None and self.ghost < 2):
            raise InvalidConfig(
                f"LargeBatch(batch_size={self.batch_size}, ghost={self.ghost}) for a small batch "
                "of "
                f"{self.small.batch_size} is out of range.",
                why="the regime grows from a smaller batch, and a ghost needs at least two "
                "examples.",
                fix="use batch_size ≥ small.batch_size and ghost ≥ 2 or None.",
            )

    @property
    def budget(self) -> Budget:
        """The budget that is trained with."""
        budget = (adapt_regime if self.adapt else keep_epochs)(self.small, self.batch_size)
        lr = root_lr(budget.lr, self.small.batch_size, self.batch_size) if self.root else budget.lr
        return replace(budget, lr=lr)

    def fit(
        self, model: nn.Module, task: Task, lab: Lab, watch: dict[str, Watch] | None = None
    ) -> Trained:
        for name, split in task.of(Use.TRAIN).items():
            n = length(split.data)
            if n is not None and n < self.batch_size:
                raise InvalidConfig(
                    f"batch_size={self.batch_size} is larger than the {n} examples of split "
                    f"`{name}`.",
                    why="a batch holds different examples, so it would silently be smaller.",
                    fix=f"use batch_size ≤ {n}.",
                )
        budget = self.budget
        lab.log(lr=budget.lr, batch_size=budget.batch_size, updates=budget.steps)
        if self.ghost is not None:
            model = convert(model, self.ghost)
        return train(model, task, erm_step, budget, lab, watch)


def example() -> tuple[LargeBatch, Trained]:
    """A batch four times as large, in four ghosts, on the smallest model with batch norm."""
    x = torch.randn(128, 3, generator=Lab().generator())
    data = Columns(x=x, y=(x[:, 0] > 0).long())
    task = Task(
        name="half_spaces",
        axis=Axis.IID,
        objective=classify,
        splits={"train": Split(data, Use.TRAIN)},
    )
    with Lab().seeded():
        model = mlp([3, 8, 2], norm=nn.BatchNorm1d)
    small = Budget(steps=40, batch_size=16, lr=0.05, optimizer=Optimizer.SGD, drops=(30,))
    return LargeBatch(small, batch_size=64, ghost=16), Trained(model, task)
