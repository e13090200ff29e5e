"""How fast the loss rises around the weights.

Top Hessian eigenvalue and trace; SAM-sharpness (Foret et al., 2021, arXiv:2010.01412); average
sharpness in a ball (Jiang et al., 2020, arXiv:1912.02178, use a Gaussian). None is invariant to
rescaling a layer and its successor (Dinh et al., 2017, arXiv:1703.04933): compare models of one
architecture and parametrisation.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unseen import stats
from unseen.engine import parameters
from unseen.engine.batches import once, size
from unseen.engine.curvature import hessian, hutchinson, lanczos
from unseen.engine.example_values import example_values
from unseen.engine.parameters import real_view, shift_parameters, sphere
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.reading import Direction, MeasureEntry, Need, Reading, Work
from unseen.task import Batch, PerExample


@dataclass(frozen=True)
class TopEigenvalue:
    """The largest eigenvalue of the Hessian of the mean loss. The limits are ± the residual of
    Lanczos' method.
    """

    split: str = "train"
    most: int = 5_000
    """Examples read, from the start of the split."""
    products: int = 100
    tolerance: float = 1e-3

    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        batches = examples(subject, self.split, self.most, lab)
        with evaluating(subject.model):
            product = hessian(subject.model, batches, subject.task.objective.loss)
            found = lanczos(
                product,
                _params(subject.model),
                1,
                lab.child("lanczos"),
                most=self.products,
                tolerance=self.tolerance,
            )
        value, residual = float(found.values[0]), float(found.residuals[0])
        return Reading(value, value - residual, value + residual, _n(batches))


@dataclass(frozen=True)
class HessianTrace:
    """The trace of the Hessian of the mean loss, with the interval of Hutchinson's random draws."""

    split: str = "train"
    most: int = 5_000
    draws: int = 32

    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        batches = examples(subject, self.split, self.most, lab)
        with evaluating(subject.model):
            product = hessian(subject.model, batches, subject.task.objective.loss)
            found = hutchinson(
                product, _params(subject.model), lab.child("hutchinson"), draws=self.draws
            )
        return Reading(found.value, found.low, found.high, _n(batches))


@dataclass(frozen=True)
class SAMSharpness:
    """L(w + ρ g/‖g‖) − L(w) with g = ∇L(w): the rise to the worst point within radius ρ, to first
    order.

    The interval is that of the paired differences over examples, at this ascent direction; `detail`
    holds them.
    """

    split: str = "train"
    rho: float = 0.05
    most: int = 5_000

    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        _refuse_radius(self.rho)
        batches = examples(subject, self.split, self.most, lab)
        model, f = subject.model, subject.task.objective.loss
        with evaluating(model):
            params = list(_params(model).values())
            gradient = mean_gradient(model, batches, f)
            squares = [real_view(g).double().square().sum() for g in gradient]
            norm = torch.stack(squares).sum().sqrt()
            if not norm > 0:
                raise InvalidData(
                    f"The gradient of the mean loss on `{self.split}` is {float(norm)}.",
                    why="at a stationary point there is no ascent direction.",
                    fix="use AverageSharpness or TopEigenvalue.",
                )
            before = losses(model, batches, f)
            with shift_parameters(params, [g * (self.rho / norm).to(g) for g in gradient]):
                rise = losses(model, batches, f) - before
        reading = stats.mean(rise.numpy())
        return Reading(reading.value, reading.low, reading.high, len(rise), detail=rise)


@dataclass(frozen=True)
class AverageSharpness:
    """E[L(w + ε)] − L(w) for ε uniform in the ball of radius ρ, with the interval of the draws.

    Draws come in pairs ±ε, which cancels the gradient. For a quadratic it is ρ² trace(H) / (2 (d +
    2)).
    """

    split: str = "train"
    rho: float = 0.5
    draws: int = 32
    most: int = 5_000

    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        _refuse_radius(self.rho)
        batches = examples(subject, self.split, self.most, lab)
        model, f, generator = (
            subject.model,
            subject.task.objective.loss,
            lab.child("ball").generator(),
        )
        rises = []
        with evaluating(model):
            params = list(_params(model).values())
            d = sum(real_view(p).numel() for p in params)
            before = losses(model, batches, f).mean()
            for _ in range(self.draws):
                radius = self.rho * float(
                    torch.rand((), generator=generator, dtype=torch.float64)
                ) ** (1 / d)
                step = sphere(params, radius, generator)
                for by in (step, [-s for s in step]):
                    with shift_parameters(params, by):
                        rises.append(losses(model, batches, f).mean() - before)
        pairs = torch.stack(rises).view(-1, 2).mean(1)
        found = stats.mean(pairs.numpy())
        return Reading(found.value, found.low, found.high, _n(batches), detail=pairs)


def examples(subject: Trained, split: str, most: int, lab: Lab) -> list[Batch]:
    """The first `most` examples of a split as batches of at most 1,000."""
    batches: list[Batch] = []
    for batch in once(subject.task.split(split).data, 1_000, lab):
        left = most - _n(batches)
        batches.append({name: tensor[:left] for name, tensor in batch.items()})
        if left <= size(batch):
            break
    return batches


@torch.no_grad()
def losses(model: nn.Module, batches: list[Batch], f: PerExample) -> Float[Tensor, " n"]:
    """Every example's loss, in float64 on the CPU: small rises are differences of large sums."""
    found = torch.cat([example_values(f, model, batch).double().cpu() for batch in batches])
    if not torch.isfinite(found).all():
        raise InvalidData(
            "A loss is not finite.",
            "its rise has no value.",
            "check the weights, or lower the radius.",
        )
    return found


def mean_gradient(model: nn.Module, batches: list[Batch], f: PerExample) -> list[Tensor]:
    """∇L over all examples, for the trainable parameters; `.grad` is left alone."""
    params, n = list(_params(model).values()), _n(batches)
    total = [torch.zeros_like(p) for p in params]
    for batch in batches:
        with torch.enable_grad():
            loss = example_values(f, model, batch).sum() / n
            part = torch.autograd.grad(loss, params, materialize_grads=True)
        torch._foreach_add_(total, list(part))
    return total


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode; afterwards every module has its own mode back."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _params(model: nn.Module) -> dict[str, nn.Parameter]:
    params = parameters.trainable(model)
    if not params:
        raise InvalidData(
            "The model has no trainable parameter.",
            why="sharpness moves them.",
            fix="call `model.requires_grad_(True)` for what shall be moved.",
        )
    return params


def _n(batches: list[Batch]) -> int:
    return sum(size(batch) for batch in batches)


def _refuse_radius(rho: float) -> None:
    if not 0 < rho < float("inf"):
        raise InvalidConfig(
            f"Sharpness got rho={rho}.", "the radius of a ball is positive.", "set rho > 0."
        )


MEASURES = (
    MeasureEntry(
        name="sharpness within radius 0.05",
        measure=SAMSharpness(most=2_000),
        meaning="Rise of the training loss one step of length 0.05 up its gradient: small where "
        "the minimum is flat.",
        direction=Direction.LOWER,
        family="sharpness",
        passes=3,
        interval="examples",
        needs=frozenset({Need.GRADIENTS}),
        covers=parameters.trainable,
        work=Work(forward=2, gradients=1, sweeps=10),
    ),
    MeasureEntry(
        name="largest curvature",
        measure=TopEigenvalue(most=1_000, products=40, tolerance=1e-2),
        meaning="Largest eigenvalue of the training loss's Hessian: how steep its steepest valley "
        "is.",
        direction=Direction.LOWER,
        family="sharpness",
        passes=40,
        interval="the numerical error of Lanczos' method",
        needs=frozenset({Need.GRADIENTS}),
        covers=parameters.trainable,
        # float64, and twice while a new vector is made orthogonal to them
        work=Work(products=40, sweeps=1_700, copies=160),
    ),
    MeasureEntry(
        name="Hessian trace",
        measure=HessianTrace(most=1_000, draws=16),
        meaning="Sum of all curvatures of the training loss: the rise under small random changes "
        "of all weights.",
        direction=Direction.LOWER,
        family="sharpness",
        passes=16,
        interval="random directions",
        needs=frozenset({Need.GRADIENTS}),
        covers=parameters.trainable,
        work=Work(products=16, sweeps=130, copies=6),
    ),
    MeasureEntry(
        name="average sharpness within radius 0.5",
        measure=AverageSharpness(most=1_000, draws=16),
        meaning="Mean rise of the training loss under random changes of the weights of length up "
        "to 0.5.",
        direction=Direction.LOWER,
        family="sharpness",
        passes=33,
        interval="random directions",
        needs=frozenset({Need.GRADIENTS}),
        covers=parameters.trainable,
        work=Work(forward=33, sweeps=200, copies=10),
    ),
)


def example() -> SAMSharpness:
    """The rise within radius 0.05 on the training examples of a `Trained`."""
    return SAMSharpness(split="train", rho=0.05, most=256)
