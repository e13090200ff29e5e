"""The best local function approximation in closed form, for all inputs of a batch at once.

Squared error: weighted least squares through the normal equations in float64 (ξ is drawn by us and
well conditioned); where the weights do not depend on the input, one factorisation serves the batch.
Gradient matching: the mean gradient.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unseen.attribution import Cause
from unseen.attributions.explanation.logistic import logistic_matching, logistic_regression
from unseen.engine.local.neighbourhoods import (
    Coalitions,
    LeaveOneOut,
    Neighbourhood,
    PathSegment,
    Sample,
)
from unseen.engine.local.perturbed_model import PerturbedModel
from unseen.engine.local.surrogate import Explanation, Family, GradientSample, Loss, evaluate
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab

SMALLEST = 1e-7
"""Ratio of pivots below which the normal equations have lost all but a few digits."""


@dataclass(frozen=True)
class Approximation:
    """What an explanation method is: where f is looked at, how f and g are compared, and what g may
    be.
    """

    neighbourhood: Neighbourhood
    loss: Loss = Loss.SQUARED
    family: Family = Family.LINEAR
    ridge: float = 0.0
    """Adds ridge · ‖w‖² to the mean squared error."""

    def __post_init__(self) -> None:
        if self.ridge < 0:
            raise InvalidConfig(
                f"ridge={self.ridge}.", "a penalty is not negative.", "use ridge ≥ 0."
            )


@dataclass(frozen=True)
class Fit:
    """w and w₀ of every input, with the loss on the sample and that of w = 0."""

    w: Float[Tensor, "point d"]
    intercept: Float[Tensor, " point"] | None
    loss: Float[Tensor, " point"]
    null: Float[Tensor, " point"]


def solve_explanation(at: PerturbedModel, how: Approximation, lab: Lab) -> Explanation:
    """The optimal g around every input of `at`."""
    where = how.neighbourhood
    fit = _logistic(at, how, lab) if how.family is Family.LOGISTIC else _linear(at, how, lab)
    complete = isinstance(where, Coalitions) or (
        isinstance(where, PathSegment) and where.start == 0
    )
    gap = (
        at.at_point - at.at_base - fit.w.sum(1)
        if complete and how.family is Family.LINEAR
        else None
    )
    return Explanation(
        scores=fit.w,
        cause=Cause.FEATURE,
        labels=tuple(at.inputs.names),
        parametrization=where.parametrization,
        intercept=fit.intercept,
        loss=fit.loss,
        null=fit.null,
        family=how.family,
        gap=gap,
    )


def _linear(at: PerturbedModel, how: Approximation, lab: Lab) -> Fit:
    where = how.neighbourhood
    found = evaluate(at, where, how.loss, lab)
    if isinstance(found, GradientSample):
        return Fit(found.mean, None, found.spread, found.null)
    if isinstance(where, LeaveOneOut):
        w, intercept = found.f, None
    elif isinstance(where, Coalitions):
        w, intercept = between_ends(found.sample, found.f, at.at_point, at.at_base), at.at_base
    else:
        w, intercept = least_squares(found.sample, found.f, how.ridge)
    return Fit(w, intercept, found.loss(w), found.null)


def _logistic(at: PerturbedModel, how: Approximation, lab: Lab) -> Fit:
    if bool((at.at_point <= 0).any() or (at.at_point >= 1).any()):
        raise InvalidData(
            "A logistic g was asked for a behaviour outside (0, 1).",
            why="it approximates probabilities.",
            fix="explain the probability of a class, or use the linear family for logits.",
        )
    where = how.neighbourhood
    sample = at.sample(where, lab)
    if how.loss is Loss.SQUARED:
        _refuse_few(sample)
        return Fit(*logistic_regression(sample, at.values(where, sample.xi)))
    f = at.values(where, sample.xi)
    g = torch.empty(at.n, *sample.xi.shape, dtype=f.dtype, device=f.device)
    for points, part, rows in at.gradients(where, sample.xi):
        g[points, part] = rows
    return Fit(*logistic_matching(sample, f, g))


def least_squares(sample: Sample, f: Tensor, ridge: float = 0.0) -> tuple[Tensor, Tensor]:
    """w and w₀ of the weighted least squares of f on ξ."""
    _refuse_few(sample)
    xi, weight, y = sample.xi.double(), sample.weight.double(), f.double()
    middle, level = weight @ xi, (weight * y).sum(1)  # [#point d], [point]
    eye = ridge * torch.eye(xi.shape[1], dtype=xi.dtype, device=xi.device)
    if len(weight) == 1:
        z = xi - middle
        lower = _cholesky(z.T @ (weight[0, :, None] * z) + eye)
        w = torch.cholesky_solve(((y - level[:, None]) * weight @ z).T, lower).T
    else:
        rows = []
        for k in range(
            len(weight)
        ):  # a product each: [point, n, d] would not fit for many features
            z = xi - middle[k]
            weighted = weight[k, :, None] * z
            lower = _cholesky(weighted.T @ z + eye)
            rows.append(
                torch.cholesky_solve((weighted.T @ (y[k] - level[k]))[:, None], lower)[:, 0]
            )
        w = torch.stack(rows)
    return w.to(f), (level - (w * middle).sum(1)).to(f)


def between_ends(
    sample: Sample, f: Tensor, top: Tensor, bottom: Tensor
) -> Float[Tensor, "point d"]:
    """Weighted least squares with g(0) = `bottom` and g(1) = `top` exactly: the last weight is what
    the others leave.
    """
    whole = (top - bottom).double()
    if sample.xi.shape[1] == 1:
        return whole[:, None].to(f)
    _refuse_few(sample)
    xi, weight = sample.xi.double(), sample.weight.double()
    last = xi[:, -1]
    z = xi[:, :-1] - last[:, None]
    y = f.double() - bottom.double()[:, None] - whole[:, None] * last
    weighted = weight[0, :, None] * z
    w = torch.cholesky_solve((y @ weighted).T, _cholesky(weighted.T @ z)).T
    return torch.cat([w, whole[:, None] - w.sum(1, keepdim=True)], 1).to(f)


def _refuse_few(sample: Sample) -> None:
    n, d = sample.xi.shape
    if n <= d and not (
        n == 2**d - 2 and d == 2
    ):  # two coalitions of two features determine the one free weight
        raise InvalidConfig(
            f"n={n} samples for {d} features.",
            why="fewer equations than unknowns have no unique solution, and a minimum-norm answer "
            "would be made up.",
            fix=f"use n > {d + 1}, better ten times as many, or fewer features (a mask).",
        )


def _cholesky(a: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    lower, info = torch.linalg.cholesky_ex(a)
    pivots = lower.diagonal()
    if int(info) or float(pivots.min()) < SMALLEST * float(pivots.max()):
        raise InvalidConfig(
            "The weighted samples do not span all features.",
            why="n is small, or the kernel's width leaves weight on too few samples: the fit has "
            "no unique solution.",
            fix="raise n or width, or add a ridge.",
        )
    return lower
