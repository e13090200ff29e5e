"""Adversarial training by projected gradient descent (Madry et al., 2018, arXiv:1706.06083)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import grad, grad_and_value

from unseen.engine.domain_risks import inputs_of, merge_batches
from unseen.engine.loop import Budget, Draw, train
from unseen.engine.vectorized.ensemble import At
from unseen.engine.vectorized.steps import Stackable, frozen
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.method import Trained
from unseen.search_space import LogUniform, Space
from unseen.task import Batch, Objective, Task

SMALLEST = 1e-12
"""Norms below it count as this much: where the loss is flat there is no ascent direction, and none is taken."""


class Norm(StrEnum):
    """In which sense a perturbation is small."""

    LINF = "linf"
    """No input moves by more than the radius."""
    L2 = "l2"
    """All inputs of an example together move by the radius at most."""


def norms(delta: Float[Tensor, "n *shape"]) -> Float[Tensor, "n *ones"]:
    """‖δ_i‖₂ of each example, with axes of length 1 behind."""
    return delta.flatten(1).square().sum(1).sqrt().clamp_min(SMALLEST).view(-1, *[1] * (delta.dim() - 1))


def start(draw: Draw, *, norm: Norm, **unused: object) -> Mapping[str, Tensor]:
    """A point drawn uniformly from the unit ball for every example."""
    x = inputs_of(merge_batches(draw.fit.values()), "Adversarial training")
    begin = torch.empty(x.shape, dtype=x.dtype)
    if norm is Norm.LINF:
        return {"begin": begin.uniform_(-1, 1, generator=draw.generator).to(x.device)}
    begin.normal_(generator=draw.generator)
    radius = torch.rand(len(x), generator=draw.generator, dtype=x.dtype) ** (1 / x[0].numel())
    return {"begin": (begin / norms(begin) * radius.view(-1, *[1] * (x.dim() - 1))).to(x.device)}


def projected(delta: Tensor, radius: Tensor | float, norm: Norm) -> Tensor:
    """The nearest perturbation inside the ball."""
    if norm is Norm.LINF:
        if not isinstance(radius, Tensor):
            return delta.clamp(-radius, radius)
        return torch.clamp(delta, -radius, radius)
    return delta * (radius / norms(delta)).clamp(max=1)


def adversarial_gradient(
    at: At,
    params: Mapping[str, Tensor],
    draw: Draw,
    objective: Objective,
    *,
    begin: Tensor,
    radius: Tensor | float,
    norm: Norm,
    passes: int,
    low: float,
    high: float,
) -> tuple[Mapping[str, Tensor], Tensor]:
    """The gradient of the mean loss at x + δ, with δ from `passes` steps of projected ascent of size 2.5 radius/passes."""
    batch = merge_batches(draw.fit.values())
    x = inputs_of(batch, "Adversarial training")

    def total(delta: Tensor) -> Tensor:
        return at(params, lambda model, b: objective.loss(model, b).sum(), _moved(batch, delta))

    def allowed(delta: Tensor) -> Tensor:
        return delta if (low, high) == (-inf, inf) else (x + delta).clamp(low, high) - x

    delta = allowed(radius * begin)
    for _ in range(passes):
        up = grad(total)(delta)
        direction = up.sign() if norm is Norm.LINF else up / norms(up)
        delta = allowed(projected(delta + 2.5 * radius / passes * direction, radius, norm))
    moved = _moved(batch, delta)
    return grad_and_value(lambda values: at(values, lambda model, b: objective.loss(model, b).mean(), moved))(params)


def adversarial_losses(
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
) -> Float[Tensor, " n"]:
    """The losses whose mean `adversarial_gradient` lowers, by plain autograd; a radius for all examples or one for each."""
    x, mask = inputs_of(batch, "Adversarial training"), torch.get_rng_state()
    if isinstance(radius, Tensor) and radius.dim():
        radius = radius.view(-1, *[1] * (x.dim() - 1))
    bounded = (low, high) != (-inf, inf)
    moved = x + radius * begin
    with frozen(model):
        for _ in range(passes):
            if bounded:
                moved.clamp_(low, high)
            torch.set_rng_state(mask)  # all passes see one dropout mask
            (up,) = torch.autograd.grad(objective.loss(model, {**batch, "x": moved.requires_grad_()}).sum(), moved)
            direction = up.sign_() if norm is Norm.LINF else up / norms(up)
            delta = direction.mul_(2.5 * radius / passes).add_(moved.detach()).sub_(x)
            moved = projected(delta, radius, norm).add_(x)
    torch.set_rng_state(mask)
    return objective.loss(model, {**batch, "x": moved.clamp_(low, high) if bounded else moved})


def _moved(batch: Batch, delta: Tensor) -> Batch:
    return {**batch, "x": batch["x"] + delta}


@dataclass(frozen=True)
class AdversarialTraining:
    """Lowers the loss of the worst inputs within `radius`, E max over ‖δ‖ ≤ radius of ℓ(f(x + δ), y); radius 0 is ERM.

    `passes` + 1 forward and backward passes per step. The radius is in units of the inputs: inputs stay between `low`
    and `high` (0 and 1 for images).
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
                f"AdversarialTraining(radius={self.radius}, passes={self.passes}, low={self.low}, high={self.high}) "
                "is out of range.",
                why="a radius is at least 0, the ascent needs a step, and inputs lie between two limits.",
                fix="set radius ≥ 0, passes ≥ 1 and low < high.",
            )

    @property
    def step(self) -> Stackable:
        fixed = {"norm": self.norm, "passes": self.passes, "low": self.low, "high": self.high}
        settings = {"radius": self.radius}
        return Stackable(
            gradient=adversarial_gradient, settings=settings, fixed=fixed, noise=start, losses=adversarial_losses
        )

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        return train(model, task, self.step, self.budget, lab)


def example() -> AdversarialTraining:
    return AdversarialTraining(passes=2, budget=Budget(steps=20, batch_size=32, lr=0.01))
