"""Correlation alignment of features (Sun & Saenko, 2016, arXiv:1607.01719), between all pairs of
domains.
"""

from dataclasses import dataclass, field
from itertools import combinations
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unseen.engine.domain_risks import losses_by_domain
from unseen.engine.features import record_features
from unseen.engine.loop import Budget, Draw, train
from unseen.engine.toy import toy_subject
from unseen.engine.vectorized.steps import VectorizedStep
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.search_space import LogUniform, Space
from unseen.task import Objective, Task


def covariance(x: Float[Tensor, "n d"]) -> Float[Tensor, "d d"]:
    """Σ (x_i − x̄)(x_i − x̄)ᵀ / (n − 1)."""
    if len(x) < 2:
        raise InvalidData(
            "CORAL got a domain with one example in a minibatch.",
            why="one point has no covariance.",
            fix="use a batch size of at least 2 and domains of at least two examples.",
        )
    centred = x - x.mean(0)
    return centred.T @ centred / (len(x) - 1)


def coral_distance(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Float[Tensor, ""]:
    """‖C_a − C_b‖_F² / (4 d²)."""
    return (covariance(a) - covariance(b)).square().sum() / (4 * a.shape[1] ** 2)


def coral_criterion(
    model: nn.Module, draw: Draw, objective: Objective, *, weight: Tensor | float, layer: str
) -> Tensor:
    """The mean of the TRAIN splits' risks plus `weight` times the mean distance of all pairs of
    TRAIN and ADAPT splits.
    """
    if len(draw.fit) + len(draw.adapt) < 2:
        raise InvalidData(
            "CORAL needs at least two domains, and the task has one split to fit "
            f"({', '.join(draw.fit)}).",
            why="it aligns the features of one domain with those of another.",
            fix="give one TRAIN split per domain (`unseen.tasks.domains`), or unlabelled data as "
            "an ADAPT split.",
        )
    fit, adapt = list(draw.fit.values()), list(draw.adapt.values())
    with record_features(model, layer) as seen:
        losses = losses_by_domain(model, fit, objective)
        for batch in adapt:
            model(batch["x"])
    if len(seen) < len(fit) + len(adapt):  # the TRAIN splits went through together
        seen = [*seen[0].split([len(part) for part in losses]), *seen[1:]]
    risks = torch.stack([part.mean() for part in losses])
    pairs = [coral_distance(a, b) for a, b in combinations(seen, 2)]
    return risks.mean() + weight * torch.stack(pairs).mean()


@dataclass(frozen=True)
class CORAL:
    """Lowers the mean risk plus `weight` times the mean distance ‖C_a − C_b‖_F²/(4d²) of the
    domains' covariances.

    The features are the inputs of the last linear layer, or of the module `layer`. Unlabelled ADAPT
    splits are further domains, as in the paper, which aligns one labelled and one unlabelled
    domain; the pairs of several labelled ones are DomainBed's (Gulrajani & Lopez-Paz, 2021,
    arXiv:2007.01434), who also align the means, which the paper does not.
    """

    weight: float = 1.0
    layer: str = ""
    budget: Budget = field(default_factory=Budget)
    search: ClassVar[Space] = {"weight": LogUniform(0.1, 1_000)}

    def __post_init__(self) -> None:
        if not self.weight >= 0:
            raise InvalidConfig(
                f"CORAL got weight={self.weight}.",
                "a distance is to be lowered.",
                "set weight ≥ 0.",
            )

    @property
    def step(self) -> VectorizedStep:
        return VectorizedStep(
            criterion=coral_criterion, settings={"weight": self.weight}, fixed={"layer": self.layer}
        )

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        return train(model, task, self.step, self.budget, lab)


def example() -> tuple[CORAL, Trained]:
    """Thirty steps on a task with two domains to fit."""
    return CORAL(budget=Budget(steps=30, batch_size=32, lr=0.01)), toy_subject()
