"""Adversarial training by projected gradient descent (Madry et al., 2018, arXiv:1706.06083)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unseen.engine.domain_risks import inputs_of, merge_batches
from unseen.engine.loop import Budget, Draw, train
from unseen.engine.vectorized.steps import VectorizedStep, freeze_parameters, mean
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.method import Trained
from unseen.search_space import LogUniform, Space
from unseen.task import Batch, Objective, PerExample, Task

SMALLEST = 1e-12
"""Norms below it count as this much: where the loss is flat there is no ascent direction, and none
is taken.
"""


class Norm(StrEnum):
    """In which sense a perturbation is small."""

    LINF = "linf"
    """No input moves by more than the radius."""
    L2 = "l2"
    """All inputs of an example together move by the radius at most."""


def norms(delta: Float[Tensor, "n *shape"]) -> Float[Tensor, "n *ones"]:
    """‖δ_i‖₂ of each example, with axes of length 1 behind."""
    return (
        delta.flatten(1)
        .square()
        .sum(1)
        .sqrt()
        .clamp_min(SMALLEST)
        .view(-1, *[1] * (delta.dim() - 1))
    )


def start(draw: Draw, *, norm: Norm, **unused: object) -> Mapping[str, Tensor]:
    """A point drawn uniformly from the unit ball for every example."""
    x = inputs_of(merge_batches(draw.fit.values()), "Adversarial training")
    begin = torch.empty(x.shape, dtype=x.dtype)
    if norm is Norm.LINF:
        return {"begin": begin.uniform_(-1, 1, generator=draw.generator).to(x.device)}
    begin.normal_(generator=draw.generator)
    radius = torch.rand(len(x), generator=draw.generator, dtype=x.dtype) ** (1 / x[0].numel())
    return {"begin": (begin / norms(begin) * radius.view(-1, *[1] * (x.dim() - 1))).to(x.device)}


def project(delta: Tensor, radius: Tensor | float, norm: Norm) -> Tensor:
    """The nearest perturbation inside the ball."""
    if norm is Norm.LINF:
        if not isinstance(radius, Tensor):
            return delta.clamp(-radius, radius)
        return torch.clamp(delta, -radius, radius)
    return delta * (radius / norms(delta)).clamp(max=1)


def worst_inputs(
    model: nn.Module,
    batch: Batch,
    objective: Objective,
    *,
    begin: Tensor,
    radius: Tensor | float,
    norm: Norm,
    passes: int,
    low: float,
    high: float,
    **unused: Any,
) -> tuple[Batch, PerExample]:
    """x + δ with δ from `passes` steps of projected ascent of size 2.5 radius/passes; one radius,
    or one per example.
    """
    x, dropout_mask = inputs_of(batch, "Adversarial training"), torch.get_rng_state()
    if isinstance(radius, Tensor) and radius.dim():
        radius = radius.view(-1, *[1] * (x.dim() - 1))
    bounded = (low, high) != (-inf, inf)
    moved = x + radius * begin
    with freeze_parameters(model):
        for _ in range(passes):
            if bounded:
                moved.clamp_(low, high)
            torch.set_rng_state(dropout_mask)  # all passes see one dropout mask
            (up,) = torch.autograd.grad(
                objective.loss(model, {**batch, "x": moved.requires_grad_()}).sum(), moved
            )
            direction = up.sign_() if norm is Norm.LINF else up / norms(up)
            delta = direction.mul_(2.5 * radius / passes).add_(moved.detach()).sub_(x)
            moved = project(delta, radius, norm).add_(x)
    torch.set_rng_state(dropout_mask)
    return {**batch, "x": moved.clamp_(low, high) if bounded else moved}, objective.loss


@dataclass(frozen=True)
class AdversarialTraining:
    """Lowers the loss of the worst inputs within `radius`, E max over ‖δ‖ ≤ radius of ℓ(f(x + δ),
    y); radius 0 is ERM.

    `passes` + 1 forward and backward passes per step. The radius is in units of the inputs: inputs
    stay between `low` and `high` (0 and 1 for images).
    """

    radius: float = 0.1
    norm: Norm = Norm.LINF
    passes: int = 5
    low: float = -inf
    high: float = inf
    budget: Budget = field(default_factory=Budget)
    search: ClassVar[Space] = {"radius": LogUniform(0.01, 0.5)}

    def __post_init__(self) -> None:
        if not self.radius >= 0 or self.passes < 1 or not self.low < self.high:
            raise InvalidConfig(
                f"AdversarialTraining(radius={self.radius}, passes={self.passes}, low={self.low}, "
                f"high={self.high}) "
                "is out of range.",
                why="a radius is at least 0, the ascent needs a step, and inputs lie between two "
                "limits.",
                fix="set radius ≥ 0, passes ≥ 1 and low < high.",
            )

    @property
    def step(self) -> VectorizedStep:
        fixed = {"norm": self.norm, "passes": self.passes, "low": self.low, "high": self.high}
        return VectorizedStep(
            mean, worst_inputs, settings={"radius": self.radius}, fixed=fixed, noise=start
        )

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        return train(model, task, self.step, self.budget, lab)


def example() -> AdversarialTraining:
    return AdversarialTraining(passes=2, budget=Budget(steps=20, batch_size=32, lr=0.01))
