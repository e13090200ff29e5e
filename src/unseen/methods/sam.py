"""Sharpness-aware minimisation (Foret et al., 2021, arXiv:2010.01412)."""

from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from unseen.engine.loop import Budget, train
from unseen.engine.vectorized.steps import VectorizedStep, mean
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.method import Trained
from unseen.search_space import LogUniform, Space
from unseen.task import Task

SMALLEST = 1e-12
"""Norms below it count as this much: at a stationary point there is no ascent direction, and none
is taken.
"""


def to_radius(norm: Float[Tensor, "*models"], /, *, rho: float | Tensor, **unused: Any) -> Tensor:
    """ρ/‖g‖: so many gradients g lead to w + ρ g/‖g‖, where the loss is largest to first order."""
    return rho / norm.clamp_min(SMALLEST)


@dataclass(frozen=True)
class SAM:
    """Lowers the worst loss within radius `rho`, max over ‖ε‖ ≤ ρ of L(w + ε), to first order in ε.

    Two passes per step; `rho=0` is ERM.
    """

    rho: float = 0.05
    budget: Budget = Budget()
    search: ClassVar[Space] = {"rho": LogUniform(0.01, 0.5)}

    def __post_init__(self) -> None:
        if self.rho < 0:
            raise InvalidConfig(
                f"SAM got rho={self.rho}.",
                "a radius is at least 0.",
                "set rho ≥ 0, for example 0.05.",
            )

    @property
    def step(self) -> VectorizedStep:
        return VectorizedStep(mean, ascent=to_radius, settings={"rho": self.rho})

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        return train(model, task, self.step, self.budget, lab)


def example() -> SAM:
    """SAM for thirty steps; needs only the task's objective."""
    return SAM(rho=0.05, budget=Budget(steps=30, batch_size=32, lr=0.01))
