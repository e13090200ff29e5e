"""Adaptive sharpness-aware minimisation (Kwon et al., 2021, arXiv:2102.11600)."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from unseen.engine import parameters
from unseen.engine.loop import Budget, Draw, Step, mean_loss, train
from unseen.engine.vectorized.steps import preserve_buffers
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.method import Trained
from unseen.methods.sam import SMALLEST
from unseen.search_space import LogUniform, Space
from unseen.task import Objective, Task


def asam_step(
    model: nn.Module, draw: Draw, objective: Objective, *, rho: float, eta: float
) -> Tensor:
    """Leaves in `.grad` the gradient at w + ρ T² g/‖T g‖, with g = ∇L(w) and T = |w| + η.

    Returns L(w).
    """
    params = list(parameters.trainable(model).values())
    dropout_mask = torch.get_rng_state()
    loss = mean_loss(model, draw.fit, objective)
    gradient = torch.autograd.grad(loss, params, materialize_grads=True)
    scales = [p.detach().abs() + eta for p in params]
    scaled = [t * g for t, g in zip(scales, gradient, strict=True)]
    length = parameters.norm({str(k): g for k, g in enumerate(scaled)}).clamp_min(SMALLEST)
    ascent = [rho / length * t * g for t, g in zip(scales, scaled, strict=True)]
    torch.set_rng_state(dropout_mask)  # L(w + ε) and L(w) are one function
    with parameters.shift_parameters(params, ascent), preserve_buffers(model):
        mean_loss(model, draw.fit, objective).backward()
    return loss.detach()


@dataclass(frozen=True)
class ASAM:
    """Lowers the worst loss where every weight may move in proportion to its size, to first order.

    max over ‖T⁻¹ε‖ ≤ ρ of L(w + ε) with T = |w| + η: unlike SAM's, this sharpness stays as it is
    when one layer's weights are multiplied and the next one's divided. Two passes per step;
    `rho=0` is ERM. The defaults are those of the paper for CIFAR-10; the authors' code takes T = 1
    for biases, we do not.
    """

    rho: float = 0.5
    eta: float = 0.01
    budget: Budget = Budget()
    search: ClassVar[Space] = {"rho": LogUniform(0.05, 5)}

    def __post_init__(self) -> None:
        if not self.rho >= 0 or not self.eta >= 0:
            raise InvalidConfig(
                f"ASAM(rho={self.rho}, eta={self.eta}) is out of range.",
                why="a radius is at least 0, and so is the smallest scale of a weight.",
                fix="set rho ≥ 0, for example 0.5, and eta ≥ 0.",
            )

    @property
    def step(self) -> Step:
        return partial(asam_step, rho=self.rho, eta=self.eta)

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        return train(model, task, self.step, self.budget, lab)


def example() -> ASAM:
    """ASAM for thirty steps; needs only the task's objective."""
    return ASAM(rho=0.5, budget=Budget(steps=30, batch_size=32, lr=0.01))
