"""Batch-constrained Q-learning for discrete actions (Fujimoto, Conti, Ghavamzadeh & Pineau, 2019,
arXiv:1910.01708)."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from unseen.engine.loop import Budget, Draw, train
from unseen.engine.toy_chain import chain_subject
from unseen.engine.value_losses import (
    bellman_target,
    constrain,
    double_value,
    follow,
    imitation_loss,
    lagging_copy,
    merge_transitions,
    refuse_outside,
    require_transitions,
    td_loss,
    untrained_copy,
)
from unseen.lab import Lab
from unseen.method import Trained
from unseen.methods.behaviour_cloning import OFFLINE
from unseen.search_space import Space, Uniform
from unseen.task import Objective, Task


class ConstrainedValues(nn.Module):
    """Values of the actions that the behaviour takes often enough; the others are `AVOIDED`."""

    def __init__(self, values: nn.Module, behaviour: nn.Module, threshold: float) -> None:
        super().__init__()
        self.values, self.behaviour, self.threshold = values, behaviour, threshold

    def forward(self, x: Tensor) -> Tensor:
        return constrain(self.values(x), self.behaviour(x), self.threshold)


def constrained_step(
    model: ConstrainedValues,
    draw: Draw,
    objective: Objective,
    *,
    target: nn.Module,
    discount: float,
    rate: float,
) -> Tensor:
    """Leaves in `.grad` the gradients of the temporal difference loss, whose next action is one of
    the likely ones, and of imitation.
    """
    follow(target, model.values, rate)
    batch = merge_transitions(draw.fit)
    with torch.no_grad():
        next_value = double_value(model(batch["next_x"]), target(batch["next_x"]))
        aim = bellman_target(batch["reward"], batch["terminal"], next_value, discount)
    losses = td_loss(model.values(batch["x"]), batch["y"], aim)
    losses = losses + imitation_loss(model.behaviour(batch["x"]), batch["y"])
    loss = losses.mean()
    loss.backward()
    return loss.detach()


@dataclass(frozen=True)
class DiscreteBCQ:
    """Double Q-learning among the actions that the logged player takes at least `threshold` times
    as often as its favourite: 0 is plain double Q-learning, just below 1 the favourite itself.
    """

    threshold: float = 0.3
    discount: float = 0.99
    rate: float = 0.005
    budget: Budget = OFFLINE
    search: ClassVar[Space] = {"threshold": Uniform(0.05, 0.9)}

    def __post_init__(self) -> None:
        refuse_outside("threshold", self.threshold, 0, 1 - 1e-9)
        refuse_outside("discount", self.discount, 0, 1)
        refuse_outside("rate", self.rate, 0, 1)

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        require_transitions(task)
        behaviour = untrained_copy(model, lab.child("behaviour"))
        both = ConstrainedValues(model, behaviour, self.threshold)
        step = partial(
            constrained_step,
            target=lagging_copy(model, lab),
            discount=self.discount,
            rate=self.rate,
        )
        return train(both, task, step, self.budget, lab)


def example() -> tuple[DiscreteBCQ, Trained]:
    """On logged walks along a chain."""
    return DiscreteBCQ(budget=Budget(steps=20, batch_size=16)), chain_subject()
