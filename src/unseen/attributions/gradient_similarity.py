"""Gradient similarity: which training examples push a behaviour up or down with their next gradient
step.

One checkpoint of TracIn (Pruthi et al., 2020, arXiv:2002.08484, section 3), without a learning
rate. It is not an influence function: no curvature, so examples with large gradients dominate
unless `cosine` divides by their norms (Barshan et al., 2020, arXiv:2003.11630).
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from unseen.attribution import Cause, Credits
from unseen.engine.batches import once
from unseen.engine.tap import tap
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.task import Batch, PerExample, Use


@dataclass(frozen=True)
class GradientSimilarity:
    """score[q, z] = −⟨∇f(q), ∇ℓ(z)⟩: the rate at which f(q) changes when training steps down the
    loss of z.

    With f = log-likelihood, positive examples helped and negative ones harmed. Causes are the
    examples of the TRAIN splits, in the task's order. With `cosine`, both gradients are scaled to
    length 1.
    """

    cosine: bool = True
    batch_size: int = 256

    def prepare(self, trained: Trained, lab: Lab) -> "Similarities":
        return Similarities(trained, lab, self)


@dataclass(frozen=True)
class Similarities:
    """The attributor: two passes of `tap`, one over the queries and one over the training
    stream.
    """

    trained: Trained
    lab: Lab
    config: GradientSimilarity = field(default_factory=GradientSimilarity)

    def __call__(self, queries: Batch, behaviour: PerExample) -> Credits:
        model, loss = self.trained.model, self.trained.task.objective.loss
        asked = tap(model, queries, behaviour)
        rows: list[Tensor] = []
        for split in self.trained.task.of(Use.TRAIN).values():
            for batch in once(split.data, self.config.batch_size, self.lab):
                given = tap(model, batch, loss)
                dots = torch.stack([form.dots(given[name]) for name, form in asked.items()]).sum(0)
                norms2 = torch.stack([form.norms2() for form in given.values()]).sum(0)
                rows.append(-dots / norms2.sqrt().clamp_min(1e-30) if self.config.cosine else -dots)
        scores = torch.cat(rows, 1)
        if self.config.cosine:
            length = torch.stack([form.norms2() for form in asked.values()]).sum(0).sqrt()
            scores = scores / length.clamp_min(1e-30)[:, None]
        if not torch.isfinite(scores).all():
            raise InvalidData(
                "A per-example gradient is not finite.",
                why="the loss of a query or of a training example overflows.",
                fix="check the inputs for extreme values, or measure in float64.",
            )
        return Credits(scores, Cause.EXAMPLE)


def example() -> GradientSimilarity:
    return GradientSimilarity()
