"""Sharpness-aware minimisation (Foret et al., 2021, arXiv:2010.01412)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.func import grad_and_value

from unseen.engine import parameters
from unseen.engine.domain_risks import losses_by_domain
from unseen.engine.loop import Budget, Draw, mean_loss, train
from unseen.engine.parameters import shift_parameters
from unseen.engine.vectorized.ensemble import At
from unseen.engine.vectorized.steps import SMALLEST, Stackable, unmoved
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.method import Trained
from unseen.search_space import LogUniform, Space
from unseen.task import Objective, Task


def sam_step(model: nn.Module, draw: Draw, objective: Objective, *, rho: float) -> Tensor:
    """Leaves in `.grad` the gradient at w + ρ ∇L(w)/‖∇L(w)‖; returns L(w)."""
    params, noise = parameters.trainable(model), torch.get_rng_state()
    loss = mean_loss(model, draw.fit, objective)
    ascent = torch.autograd.grad(loss, list(params.values()), materialize_grads=True)
    scale = rho / parameters.norm(dict(zip(params, ascent, strict=True))).clamp_min(SMALLEST)
    torch.set_rng_state(noise)  # both passes see the same dropout mask: L(w + ε) and L(w) are one function
    with shift_parameters(list(params.values()), [scale * g for g in ascent]), unmoved(model):
        mean_loss(model, draw.fit, objective).backward()
    return loss.detach()


def sam_gradient(
    at: At, params: Mapping[str, Tensor], draw: Draw, objective: Objective, *, rho: float | Tensor
) -> tuple[Mapping[str, Tensor], Tensor]:
    """`sam_step` as a function of the parameters, for many models at once (`engine.together.train_many`)."""
    batches = list(draw.fit.values())

    def mean(model: nn.Module) -> Tensor:
        return torch.cat(losses_by_domain(model, batches, objective)).mean()

    lower = grad_and_value(lambda values: at(values, mean))
    ascent, loss = lower(params)
    scale = rho / parameters.norm(ascent).clamp_min(SMALLEST)
    return lower({name: p + scale * ascent[name] for name, p in params.items()})[0], loss


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
            raise InvalidConfig(f"SAM got rho={self.rho}.", "a radius is at least 0.", "set rho ≥ 0, for example 0.05.")

    @property
    def step(self) -> Stackable:
        return Stackable(sam_step, gradient=sam_gradient, settings={"rho": self.rho}, ascends="rho")

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        return train(model, task, self.step, self.budget, lab)


def example() -> SAM:
    """SAM for thirty steps; needs only the task's objective."""
    return SAM(rho=0.05, budget=Budget(steps=30, batch_size=32, lr=0.01))
