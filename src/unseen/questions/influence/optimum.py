"""How far from an optimum of the training loss a model stopped: what a straight line from its
weights cannot be trusted for.
"""

from dataclasses import dataclass
from math import sqrt

import torch

from unseen.engine.batches import once, size
from unseen.engine.gradient_factors import GradientFactor
from unseen.engine.parameters import trainable
from unseen.engine.tap import tap_and_reduce
from unseen.lab import Lab
from unseen.method import Trained
from unseen.task import PerExample, Use

SMALL = 0.01
"""Norm of the mean gradient, as a share of a single example's, below which the model counts as
being at an optimum.
"""


@dataclass(frozen=True)
class TrainingGradient:
    """The gradient of the mean training loss at the final weights: zero at an optimum."""

    norm: float
    typical: float
    """Root mean square of the norms of single examples' gradients."""

    @property
    def share(self) -> float:
        return self.norm / self.typical if self.typical > 0 else 0.0

    @property
    def is_optimum(self) -> bool:
        return self.share < SMALL


def training_gradient(trained: Trained, loss: PerExample, lab: Lab) -> TrainingGradient:
    """One pass over the training examples."""
    total = {name: torch.zeros_like(p) for name, p in trainable(trained.model).items()}
    squares, n = 0.0, 0

    def add(name: str, factor: GradientFactor) -> float:
        return float(factor.add_sum_and_norms(total[name]).double().sum())

    for split in trained.task.of(Use.TRAIN).values():
        for batch in once(split.data, 256, lab):
            squares += sum(tap_and_reduce(trained.model, batch, loss, add).values())
            n += size(batch)
    norm2 = sum(float(gradient.double().square().sum()) for gradient in total.values())
    return TrainingGradient(sqrt(norm2) / n, sqrt(squares / n))
