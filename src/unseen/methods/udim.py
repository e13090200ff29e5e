"""Unknown domain inconsistency minimisation (Shin et al., 2024, arXiv:2403.07329), on top of SAM.

The equations follow the paper's first-order solutions; gradients with respect to the weights are
those of the last linear layer, for which they have closed forms.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import grad

from unseen.engine.domain_risks import inputs_of, merge_batches
from unseen.engine.features import FixedOutput, record_features
from unseen.engine.loop import Budget, Draw, train
from unseen.engine.vectorized.steps import VectorizedStep, mean
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.method import Trained
from unseen.methods.adversarial_training import norms
from unseen.methods.sam import to_radius
from unseen.search_space import LogUniform, Space
from unseen.task import Batch, Objective, Task


class Perturbation(StrEnum):
    """Which way the inputs of a minibatch are moved."""

    WORST = "worst"
    """Up the gradient of the loss within the ball of weights, to first order."""
    RANDOM = "random"
    """In a direction drawn uniformly: the control that every table needs."""


def root(square: Tensor) -> Tensor:
    """√, with derivative 0 at 0."""
    return torch.where(square > 0, square, 1.0).sqrt() * (square > 0)


def errors_and_features(
    model: nn.Module, batch: Batch, objective: Objective, layer: str
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n c"], Float[Tensor, "n d"]]:
    """Losses ℓ, errors ∂ℓ/∂z at the outputs z (p − y for cross-entropy) and features h with 1
    appended.
    """
    with record_features(model, layer) as seen:
        outputs = model(batch["x"])
    losses = objective.loss(FixedOutput(outputs), batch)
    errors = grad(lambda z: objective.loss(FixedOutput(z), batch).sum())(outputs).flatten(1)
    h = seen[0]
    return losses, errors, torch.cat([h, torch.ones_like(h[:, :1])], 1)


def head_norms(errors: Float[Tensor, "n c"], h: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """‖∂ℓ_i/∂(W, b)‖ = ‖e_i‖ ‖h_i‖, as the gradient of one example is the outer product e hᵀ."""
    return root(errors.square().sum(1) * h.square().sum(1))


def head_variances(errors: Float[Tensor, "n c"], h: Float[Tensor, "n d"]) -> Float[Tensor, "c d"]:
    """Elementwise variance over the examples (divisor n) of the gradients e_i h_iᵀ, without forming
    them.
    """
    n = len(h)
    return errors.square().T @ h.square() / n - (errors.T @ h / n).square()


def spheres(draw: Draw, *, perturbation: Perturbation, **unused: Any) -> Mapping[str, Tensor]:
    """A direction per example, where they are random."""
    x = inputs_of(merge_batches(draw.fit.values()), "UDIM")
    if perturbation is Perturbation.WORST:
        return {}
    return {"direction": torch.randn(x.shape, generator=draw.generator, dtype=x.dtype).to(x.device)}


def inconsistency(
    model: nn.Module,
    draw: Draw,
    objective: Objective,
    *,
    radius: Tensor | float,
    sharpness: Tensor | float,
    loss_weight: Tensor | float,
    variance_weight: Tensor | float,
    layer: str,
    low: float,
    high: float,
    direction: Tensor | None = None,
    **unused: Any,
) -> Float[Tensor, ""]:
    """λ₁ L(x̃) + λ₂ ‖v(x̃) − v(x)‖, v the variances of the last layer's gradients: what is added to
    SAM's loss.

    x̃ = x + ρ_x u/‖u‖, u the gradient of ℓ + ρ' ‖∇ℓ‖ in x. Three passes beside SAM's two: for x̃,
    then on x̃ and x.
    """
    batch, dropout_mask = merge_batches(draw.fit.values()), torch.get_rng_state()
    x = inputs_of(batch, "UDIM")

    def read(inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        torch.set_rng_state(dropout_mask)
        return errors_and_features(model, {**batch, "x": inputs}, objective, layer)

    def worst_nearby(inputs: Tensor) -> Float[Tensor, ""]:
        losses, errors, h = read(inputs)
        return (losses + sharpness * head_norms(errors, h)).sum()

    if direction is None:
        with torch.no_grad():  # of the inputs only: the weights take no part in this gradient
            direction = grad(worst_nearby)(x)
    losses, *moved = read((x + radius * direction / norms(direction)).clamp(low, high))
    _, *still = read(x)
    distance = root((head_variances(*moved) - head_variances(*still)).square().sum())
    return loss_weight * losses.mean() + variance_weight * distance


@dataclass(frozen=True)
class UDIM:
    """SAM whose flat region is to stay flat on perturbed inputs: their loss and gradient variances
    are lowered, too.

    `rho` is SAM's radius, `radius` the ℓ2 norm by which every example moves (in units of the
    inputs, which stay between `low` and `high`), `sharpness` the radius in the weights for which
    the worst inputs are sought. Without both weights it is SAM. The loss recorded is SAM's, at the
    weights themselves. A large `variance_weight` (10) costs accuracy.
    """

    rho: float = 0.05
    radius: float = 0.5
    sharpness: float = 0.05
    loss_weight: float = 1.0
    variance_weight: float = 0.1
    perturbation: Perturbation = Perturbation.WORST
    layer: str = ""
    low: float = -inf
    high: float = inf
    budget: Budget = field(default_factory=Budget)
    search: ClassVar[Space] = {
        "rho": LogUniform(0.01, 0.3),
        "radius": LogUniform(0.05, 2),
        "loss_weight": LogUniform(0.1, 1),
        "variance_weight": LogUniform(1e-3, 0.5),
    }

    def __post_init__(self) -> None:
        values = (self.rho, self.radius, self.sharpness, self.loss_weight, self.variance_weight)
        if not all(value >= 0 for value in values) or not self.low < self.high:
            raise InvalidConfig(
                f"UDIM(rho={self.rho}, radius={self.radius}, sharpness={self.sharpness}, "
                f"loss_weight={self.loss_weight}, "
                f"variance_weight={self.variance_weight}, low={self.low}, high={self.high}) is out "
                "of range.",
                why="radii and weights are at least 0, and inputs lie between two limits.",
                fix="correct the value.",
            )

    @property
    def step(self) -> VectorizedStep:
        settings = {
            name: getattr(self, name)
            for name in ("rho", "radius", "sharpness", "loss_weight", "variance_weight")
        }
        fixed = {name: getattr(self, name) for name in ("perturbation", "layer", "low", "high")}
        return VectorizedStep(
            mean,
            ascent=to_radius,
            criterion=inconsistency,
            settings=settings,
            fixed=fixed,
            noise=spheres,
        )

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        return train(model, task, self.step, self.budget, lab)


def example() -> UDIM:
    return UDIM(budget=Budget(steps=20, batch_size=32, lr=0.01))
