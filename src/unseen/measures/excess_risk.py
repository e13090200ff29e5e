"""By how much a model's risk lies above the smallest possible one.

Exactly, for a linear model of Gaussian inputs whose distribution is known; else against the best
model that there is, over the same examples.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unseen import stats
from unseen.engine.batches import Columns
from unseen.engine.evaluate import per_example
from unseen.errors import InvalidData, UnsupportedLayer
from unseen.lab import Lab
from unseen.method import Trained
from unseen.objectives import regress
from unseen.reading import Reading
from unseen.task import Axis, Split, Task, Use


def quadratic_risk(
    weight: Float[Tensor, " d"],
    best: Float[Tensor, " k"],
    covariance: Float[Tensor, "a b"],
    offset: float = 0.0,
) -> float:
    """(w − w*)ᵀ Σ (w − w*) + offset²: the excess squared error of wᵀx + offset where
    E[y | x] = w*ᵀx and x has mean 0 and covariance Σ.
    """
    if covariance.shape != (len(best), len(best)) or weight.shape != best.shape:
        raise InvalidData(
            f"Weights of shapes {tuple(weight.shape)} and {tuple(best.shape)}, covariance "
            f"{tuple(covariance.shape)}.",
            why="all are about the same inputs.",
            fix="give w and w* with d numbers and Σ as d × d.",
        )
    away = weight.double() - best.double()
    found = float(away @ covariance.double() @ away) + offset**2
    if not found >= 0:
        raise InvalidData(
            f"The excess risk is {found}.",
            why="a covariance has no negative direction, and weights are finite.",
            fix="check Σ, and look for NaN in the weights.",
        )
    return found


@torch.no_grad()
def affine_map(
    model: nn.Module, dim: int, lab: Lab
) -> tuple[Float[Tensor, " d"], Float[Tensor, ""]]:
    """Weights and intercept of a model with one output that is affine in its inputs."""
    was_training = model.training
    model.eval()
    try:
        zero = torch.zeros(1, dim, device=lab.device, dtype=lab.dtype)
        probe = torch.randn(8, dim, generator=lab.child("probe").generator(), dtype=torch.float64)
        probe = probe.to(zero)
        origin = model(zero).reshape(-1)
        units = model(torch.eye(dim, device=lab.device, dtype=lab.dtype)).reshape(dim, -1)
        values = model(probe).reshape(len(probe), -1)
    finally:
        model.train(was_training)
    if not all(bool(torch.isfinite(found).all()) for found in (origin, units, values)):
        raise InvalidData(
            "The model gives outputs that are NaN or infinite.",
            why="they have no risk.",
            fix="look for weights that are not finite.",
        )
    if units.shape[1] != 1:
        raise UnsupportedLayer(
            f"The model has {units.shape[1]} outputs.",
            why="the excess squared error is that of one number.",
            fix="measure against a reference model: ExcessRisk(best=…).",
        )
    weight = (units - origin)[:, 0].double()
    expected = probe.double() @ weight + origin.double()
    # 1e-4 of the largest value: float32 sums over inputs
    slack = 1e-4 * float(values.abs().max().clamp_min(1e-30))
    if not torch.allclose(values[:, 0].double(), expected, rtol=0, atol=slack):
        raise UnsupportedLayer(
            "The model is not affine in its inputs.",
            why="only then the excess risk follows from weights and covariance.",
            fix="measure against a reference model: ExcessRisk(best=…).",
        )
    return weight, origin[0].double()


@dataclass(frozen=True, eq=False)
class ExactExcessRisk:
    """The excess squared error of an affine model where the population is known; 0 for the best.

    No test set: `covariance` of the inputs (mean 0) and the weights `best` of E[y | x] decide.
    """

    covariance: Float[Tensor, "d d"]
    best: Float[Tensor, " d"]

    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        weight, offset = affine_map(subject.model, len(self.best), lab)
        value = quadratic_risk(weight.cpu(), self.best, self.covariance, float(offset))
        return Reading(value, unit="squared error")


@dataclass(frozen=True, eq=False)
class ExcessRisk:
    """Mean loss of the model minus that of `best` over the same examples of a split, with its
    interval.

    `best` is the best model known: the Bayes rule where data are generated, else for example one
    trained on all labels. Below 0 where the model is better than it.
    """

    best: nn.Module
    split: str = "test"

    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        loss, data = subject.task.objective.loss, subject.task.split(self.split).data
        here, there = (
            per_example(model, data, loss, lab).double().numpy()
            for model in (subject.model, self.best)
        )
        return stats.difference(here, there)


def example() -> tuple[ExactExcessRisk, Trained]:
    """A linear model that ignores the second of two inputs."""
    x = torch.randn(40, 2, generator=Lab().generator())
    splits = {"train": Split(Columns(x=x, y=x.sum(1)), Use.TRAIN)}
    model = nn.Linear(2, 1)
    model.weight.data, model.bias.data = torch.tensor([[1.0, 0.0]]), torch.zeros(1)
    task = Task(name="sum", axis=Axis.IID, splits=splits, objective=regress)
    return ExactExcessRisk(torch.eye(2), torch.ones(2)), Trained(model, task)
