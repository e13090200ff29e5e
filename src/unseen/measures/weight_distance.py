"""How far weights travel, by which law, and how rough the landscape is (Hoffer et al., 2017,
arXiv:1705.08741).

A walker on a random potential with E(L(w) − L(w'))² ~ ‖w − w'‖^α diffuses as E‖w_t − w_0‖² ~ (log
t)^(4/α): for α = 2 the distance grows with log t, so the number of updates, not of epochs, decides
how far training gets.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import stats as scipy_stats
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from unseen import stats
from unseen.engine import parameters
from unseen.engine.batches import whole
from unseen.engine.evaluate import per_example
from unseen.engine.loop import Watch, mean_loss
from unseen.engine.parameters import shift_parameters, sphere
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.reading import Direction, MeasureEntry, Need, Reading, Work
from unseen.task import Task


def log_steps(last: int) -> tuple[int, ...]:
    """About thirty numbers of updates from 1 to `last`, evenly spaced on a log scale."""
    return tuple(np.unique(np.geomspace(1, last, 40).round().astype(int)).tolist())


def weight_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Trainable tensors with at least two axes: no biases, no gains and shifts of normalisation
    layers.
    """
    return {name: p for name, p in parameters.trainable(model).items() if p.dim() > 1}


def distance_from(start: Mapping[str, Tensor]) -> Watch:
    """‖w − w_0‖ over the weight tensors, to be watched during training."""

    def distance(model: nn.Module) -> float:
        weights = weight_tensors(model)
        if not weights:
            raise InvalidData(
                f"{type(model).__name__} has no trainable tensor with two or more axes.",
                why="the distance is taken over weights, without biases and gains.",
                fix="measure a model with linear or convolutional layers.",
            )
        return parameters.distance(weights, start).item()

    return distance


@dataclass(frozen=True)
class WeightDistance:
    """‖w − w_0‖ over the weight tensors, from before training to after it."""

    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        if subject.start is None:
            raise InvalidData(
                "The trained model has no `start`.",
                why="a distance needs the weights before training, too.",
                fix="train with a method of this library, or give Trained(…, "
                "start=flat.copied(model)).",
            )
        distance = distance_from(subject.start)(subject.model)
        if not isfinite(distance):
            raise InvalidData(
                f"The distance from the start is {distance}.",
                why="a weight before or after training is not finite.",
                fix="lower the learning rate, or clip the gradient.",
            )
        return Reading(distance, n=len(weight_tensors(subject.model)), unit="norm")


@dataclass(frozen=True)
class Diffusion:
    """Three laws fitted by least squares to distances d(t)."""

    intercept: float
    slope: float
    """d = intercept + slope · log t."""
    r2_log: float
    r2_root: float
    """Of d = a + b √t."""
    r2_power: float
    """Of d = c t^γ."""
    exponent: float
    """The average local exponent: slope of log d on log t. ½ for a random walk."""

    @property
    def is_ultra_slow(self) -> bool:
        """Whether log t describes the distances better than √t, with an exponent below ½."""
        return self.r2_log > self.r2_root and self.exponent < 0.5


def diffusion_fit(steps: ArrayLike, distances: ArrayLike) -> Diffusion:
    """The laws a + b log t, a + b √t and c t^γ; give log-spaced steps within one learning rate."""
    t, d = np.asarray(steps, dtype=np.float64), np.asarray(distances, dtype=np.float64)
    if t.shape != d.shape or t.ndim != 1 or len(t) < 4 or len(np.unique(t)) < 4:
        raise InvalidData(
            f"diffusion_fit got steps of shape {t.shape} and distances of shape {d.shape}.",
            why="laws of two parameters need at least four different steps to be compared.",
            fix="watch the distance at more steps, for example log-spaced ones.",
        )
    if not np.isfinite(d).all() or (d <= 0).any() or (t <= 0).any() or np.ptp(d) == 0:
        raise InvalidData(
            "diffusion_fit got steps or distances that are not positive and finite, or distances "
            "that never change.",
            why="log t and log d do not exist there, or every law fits perfectly.",
            fix="leave out step 0, and check that the weights move.",
        )
    log, root = (scipy_stats.linregress(x, d) for x in (np.log(t), np.sqrt(t)))
    local = scipy_stats.linregress(np.log(t), np.log(d))
    return Diffusion(
        intercept=float(log.intercept),
        slope=float(log.slope),
        r2_log=float(log.rvalue**2),
        r2_root=float(root.rvalue**2),
        r2_power=_power(t, d),
        exponent=float(local.slope),
    )


def _power(t: NDArray[np.float64], d: NDArray[np.float64]) -> float:
    """R² of the best c t^γ; for each γ the best c is known."""

    def residual(gamma: float) -> float:
        x = t**gamma
        return float(((d - (x @ d) / (x @ x) * x) ** 2).sum())

    best = minimize_scalar(residual, bounds=(-2.0, 2.0), method="bounded", options={"xatol": 1e-8})
    return 1 - float(best.fun) / float(((d - d.mean()) ** 2).sum())


@dataclass(frozen=True)
class Roughness:
    """Spread of the loss difference at each radius, over random directions."""

    radii: tuple[float, ...]
    spread: tuple[float, ...]
    slope: Reading
    """Of log spread on log radius: α/2."""


def landscape_roughness(
    loss: Callable[[], float],
    weights: Sequence[Tensor],
    radii: Sequence[float],
    directions: int,
    generator: torch.Generator,
) -> Roughness:
    """Standard deviation over directions u of L(w + r u) − L(w), ‖u‖ = 1, for each radius r; the
    weights come back.

    `loss` reads the weights as they are. Near w it is r times the gradient's spread (slope 1, α =
    2) for any smooth loss: the radii should reach as far as training does.
    """
    if len(radii) < 3 or any(not r > 0 for r in radii) or len(set(radii)) < 3 or directions < 2:
        raise InvalidConfig(
            f"landscape_roughness got radii={tuple(radii)} and {directions} directions.",
            why="a log-log slope needs three different positive radii, a spread two directions.",
            fix="for example radii=(0.1, 0.3, 1.0, 3.0) and 16 directions.",
        )
    here, found = loss(), np.empty((directions, len(radii)))
    for row in found:
        unit = sphere(weights, 1.0, generator)
        for k, radius in enumerate(radii):
            with shift_parameters(weights, [radius * u for u in unit]):
                row[k] = loss() - here
    spread = found.std(axis=0, ddof=1)
    if not np.isfinite(spread).all() or (spread == 0).any():
        raise InvalidData(
            f"The spread of the loss is {spread.tolist()} at radii {tuple(radii)}.",
            why="its logarithm is needed.",
            fix="choose radii at which the loss is finite and changes.",
        )
    return Roughness(
        tuple(radii), tuple(spread.tolist()), stats.slope(np.log(radii), np.log(spread))
    )


def training_roughness(model: nn.Module, task: Task, lab: Lab) -> float:
    """α/2 at the model's weights: radii as far as training goes, batch statistics as the walker
    sees them.

    Leaves the model in training mode, with running statistics that have seen the probes: give a
    copy.
    """
    batch = {name: tensor[:1_000] for name, tensor in whole(task.splits["train"].data, lab).items()}
    model.train()

    @torch.no_grad()
    def loss() -> float:
        return mean_loss(model, {"train": batch}, task.objective).item()

    weights, radii = list(weight_tensors(model).values()), (0.1, 0.3, 1.0, 3.0, 10.0)
    return landscape_roughness(
        loss, weights, radii, 16, lab.child("directions").generator()
    ).slope.value


@dataclass(frozen=True)
class LandscapeRoughness:
    """α/2 around the starting weights: growth exponent of the loss's spread with the distance,
    evaluation mode.
    """

    split: str = "train"
    radii: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0)
    directions: int = 16

    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        if subject.start is None:
            raise InvalidData(
                "The trained model has no `start`.",
                why="roughness is measured around the weights before training.",
                fix="train with a method of this library, or give Trained(…, "
                "start=flat.copied(model)).",
            )
        model, data = subject.model, subject.task.split(self.split).data
        weights = weight_tensors(model)

        def loss() -> float:
            return per_example(model, data, subject.task.objective.loss, lab).double().mean().item()

        params = parameters.trainable(model)
        back = [subject.start[name] - p.detach() for name, p in params.items()]
        with shift_parameters(list(params.values()), back):
            found = landscape_roughness(
                loss, list(weights.values()), self.radii, self.directions, lab.generator()
            )
        return Reading(
            found.slope.value, found.slope.low, found.slope.high, self.directions, "exponent"
        )


MEASURES = (
    MeasureEntry(
        name="landscape roughness",
        measure=LandscapeRoughness(directions=8),
        meaning="Exponent with which the loss's spread grows with the distance from the starting "
        "weights: 1 is smooth, ½ a random walk.",
        direction=Direction.NEITHER,
        family="training",
        passes=33,
        interval="distances",
        needs=frozenset({Need.GRADIENTS, Need.START}),
        covers=weight_tensors,
        work=Work(forward=33, sweeps=300, copies=8),
    ),
)


def example() -> WeightDistance:
    return WeightDistance()
