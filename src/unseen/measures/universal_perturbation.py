"""One perturbation for all inputs (Moosavi-Dezfooli et al., 2017, arXiv:1610.08401), found by
projected ascent.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unseen import stats
from unseen.engine.batches import whole
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.measures.sharpness import evaluating
from unseen.method import Trained
from unseen.reading import Direction, MeasureEntry, Need, Reading, Scope
from unseen.task import Batch, PerExample


def universal_perturbation(
    model: nn.Module, batch: Batch, loss: PerExample, radius: float, *, passes: int = 40
) -> Float[Tensor, "*shape"]:
    """δ that raises the mean loss at x + δ, ‖δ‖₂ ≤ radius: `passes` steps of length radius/10 up
    the gradient, projected.

    The authors add minimal perturbations of one example after the other; this is the same problem
    by gradients.
    """
    delta = batch["x"].new_zeros(batch["x"].shape[1:])
    with evaluating(model):
        for _ in range(passes):
            delta.requires_grad_(True)
            rise = loss(model, {**batch, "x": batch["x"] + delta}).mean()
            (up,) = torch.autograd.grad(rise, delta)
            if not torch.isfinite(up).all() or not up.norm() > 0:
                raise InvalidData(
                    f"The gradient of the mean loss has norm {float(up.norm())}.",
                    why="there is no direction in which the loss rises.",
                    fix="check the inputs; use float64, or a model that is not yet saturated.",
                )
            delta = delta.detach() + 0.1 * radius * up / up.norm()
            delta = delta * (radius / delta.norm()).clamp(max=1)
    return delta


@torch.no_grad()
def prediction_flips(
    model: nn.Module, x: Float[Tensor, "n *shape"], by: Tensor
) -> Float[Tensor, " n"]:
    """1 where the most likely class (or the sign of one logit) differs between x and x + by."""
    with evaluating(model):
        before, after = model(x).flatten(1), model(x + by).flatten(1)
    if not (torch.isfinite(before).all() and torch.isfinite(after).all()):
        raise InvalidData(
            "An output is not finite.", "its class has no meaning.", "check the weights and inputs."
        )
    if before.shape[1] == 1:
        return ((before > 0) != (after > 0)).flatten().to(x.dtype)
    return (before.argmax(1) != after.argmax(1)).to(x.dtype)


@dataclass(frozen=True)
class UniversalPerturbation:
    """Share of a split whose class changes under the one perturbation that hurts the training split
    most: 0 if none does.
    """

    radius: float = 0.5
    """ℓ₂, in units of the inputs."""
    split: str = "test"
    fitted: str = "train"
    passes: int = 40

    def __post_init__(self) -> None:
        if not self.radius > 0 or self.passes < 1:
            raise InvalidConfig(
                f"UniversalPerturbation(radius={self.radius}, passes={self.passes}) is out of "
                "range.",
                why="a ball has a radius, and an ascent takes a step.",
                fix="set radius > 0 and passes ≥ 1.",
            )

    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        task, model = subject.task, subject.model
        fitted, judged = (whole(task.split(name).data, lab) for name in (self.fitted, self.split))
        delta = universal_perturbation(
            model, fitted, task.objective.loss, self.radius, passes=self.passes
        )
        changed = prediction_flips(model, judged["x"], delta)
        reading = stats.of_scores(changed.double().cpu().numpy())
        return Reading(reading.value, reading.low, reading.high, reading.n, reading.unit, changed)


MEASURES = (
    MeasureEntry(
        name="flips under one perturbation of length 0.5",
        measure=UniversalPerturbation(passes=20),
        meaning="Share of decisions that the one change of all inputs turns which hurts the "
        "training examples most.",
        direction=Direction.LOWER,
        family="function",
        passes=21,
        interval="examples",
        needs=frozenset({Need.GRADIENTS, Need.CLASSES, Need.INPUTS}),
        scope=Scope.SITES,
        most=2_000,
    ),
)


def example() -> UniversalPerturbation:
    return UniversalPerturbation(radius=1.0, split="same", passes=10)
