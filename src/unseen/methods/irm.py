"""Invariant risk minimisation (Arjovsky et al., 2019, arXiv:1907.02893), its practical form
IRMv1.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unseen.engine.batches import size
from unseen.engine.domain_risks import (
    anneal,
    environments,
    merge_batches,
    mergeable,
    penalized_risk,
)
from unseen.engine.features import FixedOutput
from unseen.engine.loop import Budget, Draw, train
from unseen.engine.toy import toy_subject
from unseen.engine.vectorized.steps import VectorizedStep
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.search_space import LogUniform, Space
from unseen.task import Batch, Objective, Task


def scale_gradients(outputs: Tensor, batch: Batch, objective: Objective) -> Float[Tensor, " half"]:
    """d/dw of the mean loss of w · outputs at w = 1, for the even and the odd rows of the
    minibatch.
    """

    def risk(w: Tensor, rows: slice) -> Tensor:
        part = {key: column[rows] for key, column in batch.items()}
        return objective.loss(FixedOutput(w * outputs[rows]), part).mean()

    one = outputs.new_ones(())
    halves = (slice(0, None, 2), slice(1, None, 2))
    return torch.stack([torch.func.grad(risk)(one, rows) for rows in halves])


def irm_criterion(
    model: nn.Module, draw: Draw, objective: Objective, *, weight: Tensor | float, until: int
) -> Tensor:
    """(mean_e R_e + λ mean_e P_e) / max(1, λ), P_e the product of the two halves' scale gradients.

    The product of two independent gradients is an unbiased estimate of the squared one (the paper's
    appendix D); it may be negative.
    """
    batches = environments(draw, "IRM")
    if min(map(size, batches)) < 2:
        raise InvalidData(
            "IRM got a domain with one example in a minibatch.",
            why="its penalty is the product of the gradients of two halves.",
            fix="use a batch size of at least 2 and domains of at least two examples.",
        )
    if mergeable(model, batches):
        each = model(merge_batches(batches)["x"]).split([size(batch) for batch in batches])
    else:
        each = [model(batch["x"]) for batch in batches]
    pairs = list(zip(each, batches, strict=True))
    values = torch.stack(
        [objective.loss(FixedOutput(outputs), batch).mean() for outputs, batch in pairs]
    )
    penalties = torch.stack(
        [scale_gradients(outputs, batch, objective).prod() for outputs, batch in pairs]
    )
    return penalized_risk(values, penalties.mean(), anneal(weight, draw.step, until))


@dataclass(frozen=True)
class IRM:
    """Lowers the domains' mean risk plus `weight` times ‖∇_w R_e(w · f)‖² at w = 1: one scale is to
    suit all domains.

    As in the authors' code the weight is 1 in the first `warmup` share of the steps, and the sum is
    divided by a weight above 1. A weight of 0 is the mean of the domains' risks alone.
    """

    weight: float = 10.0
    warmup: float = 0.2
    budget: Budget = field(default_factory=Budget)
    search: ClassVar[Space] = {"weight": LogUniform(0.1, 10_000)}

    def __post_init__(self) -> None:
        if not self.weight >= 0 or not 0 <= self.warmup <= 1:
            raise InvalidConfig(
                f"IRM(weight={self.weight}, warmup={self.warmup}) is out of range.",
                why="a squared gradient is to be lowered, and the warm-up is a share of the steps.",
                fix="set weight ≥ 0 and 0 ≤ warmup ≤ 1.",
            )

    @property
    def step(self) -> VectorizedStep:
        fixed = {"until": round(self.warmup * self.budget.steps)}
        return VectorizedStep(
            criterion=irm_criterion, settings={"weight": self.weight}, fixed=fixed
        )

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        return train(model, task, self.step, self.budget, lab)


def example() -> tuple[IRM, Trained]:
    """Thirty steps on a task with two domains to fit."""
    return IRM(budget=Budget(steps=30, batch_size=32, lr=0.01)), toy_subject()
