"""Local function approximation: the model evaluated in a neighbourhood, and how far an explanation
is from it.

g* = argmin over g of E_ξ loss(f, g, x₀, ξ) with g(ξ) = w·ξ (+ w₀); the explanation is w (Han,
Srinivas & Lakkaraju, 2022, arXiv:2206.01254, definition 1). The minimum itself is the explanation's
own unfaithfulness.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from unseen import stats
from unseen.attribution import Credits
from unseen.engine.local.neighbourhoods import (
    Coalitions,
    LeaveOneOut,
    Neighbourhood,
    Parametrization,
    Sample,
)
from unseen.engine.local.perturbed_model import PerturbedModel
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.reading import Reading


class Loss(StrEnum):
    """How f and g are compared at ξ."""

    SQUARED = "squared error"
    """(f(x_ξ) − g(ξ))²"""
    GRADIENT = "gradient matching"
    """‖∇_ξ f(x_ξ) − ∇_ξ g(ξ)‖²"""


class Family(StrEnum):
    """The class of g."""

    LINEAR = "linear"
    """w·ξ + w₀"""
    LOGISTIC = "logistic"
    """1/(1 + e^−(w·ξ + w₀)), for behaviours that are probabilities."""


@dataclass(frozen=True)
class Explanation(Credits):
    """Credits of features: w per explained input, in the units of its neighbourhood's map, with its
    own loss.

    Additive: change of f per unit of the feature. Multiplicative: what the feature's presence adds
    to f.
    """

    parametrization: Parametrization = Parametrization.MULTIPLICATIVE
    intercept: Float[Tensor, " query"] | None = None
    loss: Float[Tensor, " query"] | None = None
    """The LFA loss on the sample it was fitted to."""
    null: Float[Tensor, " query"] | None = None
    """The loss of no explanation, w = 0, on the same sample."""
    family: Family = Family.LINEAR
    gap: Float[Tensor, " query"] | None = None
    """f(x₀) − f(b) − Σ w, where the method promises 0 (completeness)."""

    @property
    def unexplained_share(self) -> Tensor:
        """Share of what the model does in the neighbourhood that the explanation leaves
        unexplained, per input.

        0 where the model does nothing there.
        """
        assert self.loss is not None
        assert self.null is not None
        return torch.where(self.null > 0, self.loss / self.null.clamp_min(1e-30), 0.0)


@dataclass(frozen=True)
class ValueSample:
    """f at the sample of a neighbourhood: for the squared error."""

    sample: Sample
    f: Float[Tensor, "point n"]
    intercept: Float[Tensor, " point"] | None = None
    """w₀ where the neighbourhood fixes it: f(b) where g(0) is exact, 0 for single removals."""

    def loss(self, w: Float[Tensor, "point d"]) -> Float[Tensor, " point"]:
        """E(f − w·ξ − w₀)² at the best w₀, or at the one that the neighbourhood fixes."""
        return self._residual_loss(self.f - w.to(self.f) @ self.sample.xi.T)

    @property
    def null(self) -> Float[Tensor, " point"]:
        """The loss of w = 0."""
        return self._residual_loss(self.f)

    def _residual_loss(self, residual: Float[Tensor, "point n"]) -> Float[Tensor, " point"]:
        free = (residual * self.sample.weight).sum(1) if self.intercept is None else self.intercept
        residual = residual - free[:, None]
        return (residual.square() * self.sample.weight).sum(1)


@dataclass(frozen=True)
class GradientSample:
    """Mean and spread E‖∇f − mean‖² of the gradients: all that gradient matching needs."""

    mean: Float[Tensor, "point d"]
    spread: Float[Tensor, " point"]

    def loss(self, w: Float[Tensor, "point d"]) -> Float[Tensor, " point"]:
        """E‖∇f − w‖² = spread + ‖mean − w‖²."""
        return self.spread + (self.mean - w.to(self.mean)).square().sum(1)

    @property
    def null(self) -> Float[Tensor, " point"]:
        """The loss of w = 0."""
        return self.spread + self.mean.square().sum(1)


def evaluate(
    at: PerturbedModel, neighbourhood: Neighbourhood, loss: Loss, lab: Lab
) -> ValueSample | GradientSample:
    """Evaluates the model on the neighbourhood, once for any number of explanations."""
    sample = at.sample(neighbourhood, lab)
    if loss is Loss.GRADIENT:
        return _sample_gradients(at, neighbourhood, sample)
    fixed = None
    if isinstance(neighbourhood, Coalitions):
        fixed = at.at_base
    elif isinstance(neighbourhood, LeaveOneOut):
        fixed = torch.zeros_like(at.at_point)
    return ValueSample(sample, at.values(neighbourhood, sample.xi), fixed)


def _sample_gradients(
    at: PerturbedModel, neighbourhood: Neighbourhood, sample: Sample
) -> GradientSample:
    """One pass, relative to the first gradient of each point: the spread does not cancel."""
    if len(sample.xi) == 1:
        blocks = [g[:, 0] for _, _, g in at.gradients(neighbourhood, sample.xi)]
        mean = blocks[0] if len(blocks) == 1 else torch.cat(blocks)
        return GradientSample(mean, mean.new_zeros(len(mean)))
    origin, total = (at.point.new_zeros(at.n, at.d, dtype=at.compute_dtype) for _ in range(2))
    square, weight = total.new_zeros(at.n), sample.weight.expand(at.n, -1)
    for where, part, g in at.gradients(neighbourhood, sample.xi):
        if part.start == 0:
            origin[where] = g[:, 0]
        off = g - origin[where].unsqueeze(1)
        total[where] += torch.bmm(weight[where, part].unsqueeze(1), off).squeeze(1)
        square[where] += (off.square().sum(2) * weight[where, part]).sum(1)
    return GradientSample(origin + total, (square - total.square().sum(1)).clamp_min(0))


def convert(
    at: PerturbedModel,
    w: Float[Tensor, "point d"],
    source: Parametrization,
    target: Parametrization,
) -> Float[Tensor, "point d"]:
    """w in the units of another map: w·(x₀ − b) from slopes to effects, w/(x₀ − b) back, 0 where x₀
    = b.

    Both maps move a feature along one line, so that for one of many entries x₀ − b is its signed
    length on that line.
    """
    if source is target:
        return w
    direction, difference = (
        at.direction(Parametrization.ADDITIVE),
        at.difference.to(at.compute_dtype),
    )
    lengths = at.sum_by_feature(
        (difference if direction is None else difference * direction).flatten(1)
    )
    if source is Parametrization.ADDITIVE:
        return w.to(lengths) * lengths
    return torch.where(lengths != 0, w.to(lengths) / torch.where(lengths != 0, lengths, 1.0), 0.0)


def weights_in(
    at: PerturbedModel, explanation: Explanation, target: Parametrization
) -> Float[Tensor, "point d"]:
    """The explanation's weights in the units of a neighbourhood's map."""
    if explanation.family is Family.LOGISTIC:
        raise InvalidConfig(
            "A logistic explanation is evaluated on a linear scale.",
            why="its weights are log-odds, not changes of the behaviour.",
            fix="read its own `loss`, or explain the logit with a linear function.",
        )
    return convert(at, explanation.scores, explanation.parametrization, target)


def share_explained(
    loss: Float[Tensor, " point"], null: Float[Tensor, " point"], lab: Lab
) -> Reading:
    """Faithfulness 1 − Σ loss/Σ loss of w = 0 over inputs: 1 perfect, 0 no better than nothing,
    below 0 misleading.

    The interval resamples inputs; one input has none. `detail` is the loss per input.
    """
    pairs = torch.stack([loss.detach().double(), null.detach().double()], 1).cpu().numpy()
    if not pairs[:, 1].sum() > 0:
        raise InvalidData(
            "The behaviour does not change anywhere in this neighbourhood.",
            why="there is nothing to explain, and 0/0 is no faithfulness.",
            fix="widen the neighbourhood, or choose a baseline that differs from the inputs.",
        )
    value = _share(pairs)
    if len(pairs) == 1:
        return Reading(value, n=1, unit="share explained", detail=loss)
    found = stats.bootstrap(_share, pairs, rng=lab.numpy(), unit="share explained")
    return Reading(found.value, found.low, found.high, found.n, found.unit, loss)


def _share(pairs: NDArray[np.float64]) -> float:
    loss, null = pairs.sum(0)
    return float(1 - loss / null) if null > 0 else float("nan")


def effects(at: PerturbedModel, explanation: Explanation) -> Float[Tensor, "point d"]:
    """What each feature's presence adds to f, by this explanation."""
    return weights_in(at, explanation, Parametrization.MULTIPLICATIVE)
