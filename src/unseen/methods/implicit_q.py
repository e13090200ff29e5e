"""Implicit Q-learning for discrete actions (Kostrikov, Nair & Levine, 2022, arXiv:2110.06169)."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from unseen.engine.loop import Budget, Draw, train
from unseen.engine.toy_chain import chain_subject
from unseen.engine.value_losses import (
    advantage_weight,
    at_action,
    bellman_target,
    cloning_loss,
    expectile_loss,
    follow,
    lagging_copy,
    merge_transitions,
    refuse_outside,
    require_transitions,
    untrained_copy,
)
from unseen.lab import Lab
from unseen.method import Trained
from unseen.methods.behaviour_cloning import OFFLINE
from unseen.search_space import LogUniform, Space, Uniform
from unseen.task import Objective, Task


class ImplicitNetworks(nn.Module):
    """The policy, with which it answers, and the values that weigh its imitation."""

    def __init__(self, policy: nn.Module, values: nn.ModuleList, baseline: nn.Module) -> None:
        super().__init__()
        self.policy, self.values, self.baseline = policy, values, baseline

    def forward(self, x: Tensor) -> Tensor:
        return self.policy(x)


def implicit_step(
    model: ImplicitNetworks,
    draw: Draw,
    objective: Objective,
    *,
    targets: nn.ModuleList,
    expectile: float,
    temperature: float,
    discount: float,
    rate: float,
) -> Tensor:
    """Leaves in `.grad` three gradients: V to the expectile of Q, Q to r + γ V(s′), and imitation
    weighted by Q − V. No action is evaluated that was not logged.
    """
    follow(targets, model.values, rate)
    batch = merge_transitions(draw.fit)
    actions = batch["y"]
    n = len(actions)
    # one pass of V for both states; the next one has no gradient
    here = model.baseline(batch["x"])[:, 0]
    with torch.no_grad():
        after = model.baseline(batch["next_x"])[:, 0]
        aim = bellman_target(batch["reward"], batch["terminal"], after, discount)
        lagging = torch.stack([at_action(target(batch["x"]), actions) for target in targets])
        lowest = lagging.min(0).values
        weights = advantage_weight(lowest - here, temperature)
    losses = expectile_loss(lowest - here, expectile)
    losses = losses + weights * cloning_loss(model.policy(batch["x"]), actions)
    for values in model.values:
        losses = losses + (at_action(values(batch["x"]), actions) - aim).square()
    loss = losses.sum() / n
    loss.backward()
    return loss.detach()


@dataclass(frozen=True)
class DiscreteIQL:
    """Values of logged actions only, a high expectile of which stands for the best; the policy
    imitates what was better than expected.

    With expectile ½ and temperature 0 it is behavioural cloning beside the behaviour's own value.
    """

    expectile: float = 0.8
    temperature: float = 3.0
    """β of the weights min(exp(β (Q − V)), 100)."""
    discount: float = 0.99
    rate: float = 0.005
    budget: Budget = OFFLINE
    search: ClassVar[Space] = {
        "expectile": Uniform(0.5, 0.95),
        "temperature": LogUniform(0.3, 10),
    }

    def __post_init__(self) -> None:
        refuse_outside("expectile", self.expectile, 0, 1)
        refuse_outside("temperature", self.temperature, 0, float("inf"))
        refuse_outside("discount", self.discount, 0, 1)
        refuse_outside("rate", self.rate, 0, 1)

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        require_transitions(task)
        values = nn.ModuleList(untrained_copy(model, lab.child("values", k)) for k in range(2))
        baseline = untrained_copy(model, lab.child("baseline"), outputs=1)
        step = partial(
            implicit_step,
            targets=lagging_copy(values, lab),
            expectile=self.expectile,
            temperature=self.temperature,
            discount=self.discount,
            rate=self.rate,
        )
        networks = ImplicitNetworks(model, values, baseline)
        return train(networks, task, step, self.budget, lab)


def example() -> tuple[DiscreteIQL, Trained]:
    """On logged walks along a chain."""
    return DiscreteIQL(budget=Budget(steps=20, batch_size=16)), chain_subject()
