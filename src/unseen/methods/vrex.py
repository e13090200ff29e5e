"""Risk extrapolation (Krueger et al., 2021, arXiv:2003.00688), its variance form V-REx."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unseen.engine.domain_risks import anneal, penalized_risk, require_domains
from unseen.engine.loop import Budget, train
from unseen.engine.toy import toy_subject
from unseen.engine.vectorized.steps import VectorizedStep
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.method import Trained
from unseen.search_space import LogUniform, Space
from unseen.task import Task


def mean_and_variance(
    losses: Sequence[Float[Tensor, " example"]],
    step: int,
    *,
    weight: Tensor | float,
    until: int,
    **unused: Any,
) -> Float[Tensor, ""]:
    """(mean_e R_e + β Var_e R_e) / max(1, β), the variance being that of the domains at hand
    (divisor m).
    """
    require_domains(len(losses), "V-REx")
    risks = torch.stack([each.mean() for each in losses])
    return penalized_risk(risks, risks.var(correction=0), anneal(weight, step, until))


@dataclass(frozen=True)
class VREx:
    """Lowers the mean of the domains' risks plus `weight` times their variance; a weight of 0 is
    the mean alone.

    The paper adds the risks up: its β is `weight` times the number of domains. As in the authors'
    code the weight is 1 in the first `warmup` share of the steps, and the sum is divided by a
    weight above 1.
    """

    weight: float = 10.0
    warmup: float = 0.2
    budget: Budget = field(default_factory=Budget)
    search: ClassVar[Space] = {"weight": LogUniform(0.1, 1_000)}

    def __post_init__(self) -> None:
        if not self.weight >= 0 or not 0 <= self.warmup <= 1:
            raise InvalidConfig(
                f"VREx(weight={self.weight}, warmup={self.warmup}) is out of range.",
                why="a variance is to be lowered, and the warm-up is a share of the steps.",
                fix="set weight ≥ 0 and 0 ≤ warmup ≤ 1.",
            )

    @property
    def step(self) -> VectorizedStep:
        fixed = {"until": round(self.warmup * self.budget.steps)}
        return VectorizedStep(mean_and_variance, settings={"weight": self.weight}, fixed=fixed)

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        return train(model, task, self.step, self.budget, lab)


def example() -> tuple[VREx, Trained]:
    """Thirty steps on a task with two domains to fit."""
    return VREx(budget=Budget(steps=30, batch_size=32, lr=0.01)), toy_subject()
