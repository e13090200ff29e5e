"""Mixup: training between examples (Zhang et al., 2018, arXiv:1710.09412)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from unseen.engine.batches import size
from unseen.engine.domain_risks import inputs_of
from unseen.engine.features import FixedOutput
from unseen.engine.loop import Budget, Draw, train
from unseen.engine.vectorized.steps import VectorizedStep, mean
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.method import Trained
from unseen.search_space import LogUniform, Space
from unseen.task import Batch, Objective, PerExample, Task


def mixing(draw: Draw, *, alpha: float, **unused: Any) -> Mapping[str, Tensor]:
    """The step's share λ ~ Beta(α, α), and who is mixed with whom."""
    n, generator = sum(map(size, draw.fit.values())), draw.generator
    seed = int(torch.randint(2**62, (1,), generator=generator))  # torch's Beta takes no generator
    like = next(iter(draw.fit.values()))["x"]
    share = torch.tensor(np.random.default_rng(seed).beta(alpha, alpha))
    partner = torch.randperm(n, generator=generator)
    return {"share": share.to(like), "partner": partner.to(like.device)}


def between(
    model: nn.Module,
    batch: Batch,
    objective: Objective,
    *,
    share: Tensor,
    partner: Tensor,
    **unused: Any,
) -> tuple[Batch, PerExample]:
    """x̃_i = λ x_i + (1 − λ) x_j(i), and λ ℓ(f(x̃_i), y_i) + (1 − λ) ℓ(f(x̃_i), y_j(i)); one λ, or
    one per example.

    For losses that are linear in the target distribution, as cross-entropy is, this is the loss of
    the mixed target.
    """
    x = inputs_of(batch, "Mixup")
    other = {key: column[partner] for key, column in batch.items()}
    wide = share.view(-1, *[1] * (x.dim() - 1))

    def loss(model: nn.Module, mixed: Batch) -> Float[Tensor, " n"]:
        outputs = FixedOutput(model(mixed["x"]))
        return share * objective.loss(outputs, batch) + (1 - share) * objective.loss(outputs, other)

    return {**batch, "x": torch.lerp(other["x"], x, wide)}, loss


@dataclass(frozen=True)
class Mixup:
    """Lowers the loss at points between two examples, of the two targets in the same proportion λ ~
    Beta(α, α).

    One λ per step, as in the authors' code; partners come from all domains. Small α: λ is near 0 or
    1, close to ERM.
    """

    alpha: float = 0.2
    budget: Budget = field(default_factory=Budget)
    search: ClassVar[Space] = {"alpha": LogUniform(0.05, 2)}

    def __post_init__(self) -> None:
        if not self.alpha > 0:
            raise InvalidConfig(
                f"Mixup got alpha={self.alpha}.",
                "a Beta distribution needs α > 0.",
                "use 0.1 to 1.",
            )

    @property
    def step(self) -> VectorizedStep:
        return VectorizedStep(mean, between, settings={"alpha": self.alpha}, noise=mixing)

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        return train(model, task, self.step, self.budget, lab)


def example() -> Mixup:
    return Mixup(budget=Budget(steps=30, batch_size=32, lr=0.01))
