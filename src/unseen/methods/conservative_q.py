"""Conservative Q-learning for discrete actions (Kumar, Zhou, Tucker & Levine, 2020,
arXiv:2006.04779)."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from unseen.engine.loop import Budget, Draw, train
from unseen.engine.toy_chain import chain_subject
from unseen.engine.value_losses import (
    bellman_target,
    conservative_penalty,
    double_value,
    follow,
    lagging_copy,
    merge_transitions,
    refuse_outside,
    require_transitions,
    td_loss,
)
from unseen.lab import Lab
from unseen.method import Trained
from unseen.methods.behaviour_cloning import OFFLINE
from unseen.search_space import LogUniform, Space
from unseen.task import Objective, Task


def conservative_step(
    model: nn.Module,
    draw: Draw,
    objective: Objective,
    *,
    target: nn.Module,
    penalty: float,
    discount: float,
    rate: float,
) -> Tensor:
    """Leaves in `.grad` the gradient of the temporal difference loss plus `penalty` times how much
    larger the values of other actions are.
    """
    follow(target, model, rate)
    batch = merge_transitions(draw.fit)
    with torch.no_grad():
        next_value = double_value(model(batch["next_x"]), target(batch["next_x"]))
        aim = bellman_target(batch["reward"], batch["terminal"], next_value, discount)
    values = model(batch["x"])
    losses = td_loss(values, batch["y"], aim)
    if penalty:
        losses = losses + penalty * conservative_penalty(values, batch["y"])
    loss = losses.mean()
    loss.backward()
    return loss.detach()


@dataclass(frozen=True)
class DiscreteCQL:
    """Double Q-learning that lowers the values of actions which were not logged; without penalty
    plain double Q-learning.
    """

    penalty: float = 1.0
    """α; the reference for Procgen takes 4."""
    discount: float = 0.99
    rate: float = 0.005
    """Share by which the lagging copy follows at every step. The reference copies it every 1,000
    steps."""
    budget: Budget = OFFLINE
    search: ClassVar[Space] = {"penalty": LogUniform(0.1, 10)}

    def __post_init__(self) -> None:
        refuse_outside("penalty", self.penalty, 0, float("inf"))
        refuse_outside("discount", self.discount, 0, 1)
        refuse_outside("rate", self.rate, 0, 1)

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        require_transitions(task)
        step = partial(
            conservative_step,
            target=lagging_copy(model, lab),
            penalty=self.penalty,
            discount=self.discount,
            rate=self.rate,
        )
        return train(model, task, step, self.budget, lab)


def example() -> tuple[DiscreteCQL, Trained]:
    """On logged walks along a chain."""
    return DiscreteCQL(budget=Budget(steps=20, batch_size=16)), chain_subject()
