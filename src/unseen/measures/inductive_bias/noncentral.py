"""Scaled non-central χ² fitted to losses: by three moments in closed form, and by likelihood.

If a hypothesis' outputs on the test points are Gaussian given the training data, its mean squared
error is a weighted sum of non-central χ²; one scaled non-central χ² stands for that sum.
"""

from dataclasses import dataclass
from math import exp, log, pi, sqrt

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize
from scipy.special import ive
from scipy.stats import kstat

from unseen.errors import InvalidData
from unseen.measures.inductive_bias.quadratic_form import QuadraticForm

LARGE_ORDER = 30.0
"""From this order on Bessel functions are taken from their uniform expansion (relative error below
1e-6): scipy's underflow where the order is large and the argument small.
"""
BLOCKS = 200
"""Sorted losses are averaged within so many blocks before a likelihood is fitted: a block of nearly
equal losses tells no more than its mean.
"""


@dataclass(frozen=True)
class ScaledChi2:
    """`scale` · χ′²(`freedom`, `noncentrality`)."""

    scale: float
    freedom: float
    noncentrality: float

    @property
    def form(self) -> QuadraticForm:
        """The same as a quadratic form of one term, whose tail is exact."""
        shift = self.scale * self.noncentrality
        return QuadraticForm(*np.array([[self.scale], [self.freedom], [shift]], dtype=np.float64))

    def log_density(self, x: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """The density's logarithm at positive x."""
        x = x / self.scale
        order, root = self.freedom / 2 - 1, np.sqrt(x * self.noncentrality)
        power = order / 2 * np.log(x / self.noncentrality)
        distance = -0.5 * (np.sqrt(x) - sqrt(self.noncentrality)) ** 2
        return power + distance + log_bessel(order, root) - log(2 * self.scale)


def log_bessel(order: float, x: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """log I(x) − x, I the modified Bessel function of the first kind, for order > −1 and x > 0."""
    if order < LARGE_ORDER:
        return np.log(ive(order, x))
    # Abramowitz & Stegun 9.7.7: uniform in x for large orders
    ratio = x / order
    root = np.sqrt(1 + ratio**2)
    t = 1 / root
    u1 = (3 * t - 5 * t**3) / 24
    u2 = (81 * t**2 - 462 * t**4 + 385 * t**6) / 1152
    u3 = (30375 * t**3 - 369603 * t**5 + 765765 * t**7 - 425425 * t**9) / 414720
    series = np.log1p(u1 / order + u2 / order**2 + u3 / order**3)
    exponent = order * (root + np.log(ratio / (1 + root))) - x
    return exponent - 0.5 * np.log(2 * pi * order) - 0.5 * np.log(root) + series


def fit_by_moments(losses: Float[np.ndarray, " n"]) -> ScaledChi2:
    """The distribution with the mean κ₁, variance κ₂ and third cumulant κ₃ of the sample.

    κ₁ = c(k + λ), κ₂ = 2c²(k + 2λ), κ₃ = 8c³(k + 3λ), so κ₁c² − κ₂c + κ₃/8 = 0. A sample more
    skewed than any of these gets the central χ² of its mean and variance, one less skewed than
    any with k ≥ 1 that of k = 1.
    """
    mean, variance, third = (float(kstat(losses, order)) for order in (1, 2, 3))
    if not variance > 1e-24 * mean**2:
        raise InvalidData(
            f"All {len(losses)} losses are {mean:g}.",
            why="a distribution without spread says nothing of what other hypotheses do.",
            fix="let hypotheses differ: other initial weights and orders of the data.",
        )
    inside = variance**2 - mean * third / 2
    if inside <= 0 or variance >= 2 * mean**2:  # the latter: k < 1, which has no shift
        return ScaledChi2(variance / (2 * mean), 2 * mean**2 / variance, 0.0)
    scale = (variance - sqrt(inside)) / (2 * mean)
    # k c² = 2 κ₁ c − κ₂/2, compared before any division: c is 0 where the third cumulant is
    if 2 * mean * scale - variance / 2 < scale**2:
        scale = variance / 2 / (mean + sqrt(mean**2 - variance / 2))
        return ScaledChi2(scale, 1.0, mean / scale - 1)
    noncentrality = variance / (2 * scale**2) - mean / scale
    return ScaledChi2(scale, mean / scale - noncentrality, noncentrality)


def fit_by_likelihood(losses: Float[np.ndarray, " n"]) -> ScaledChi2:
    """The most likely distribution, found from the one by moments."""
    if (smallest := float(losses.min())) <= 0:
        raise InvalidData(
            f"{int(np.sum(losses <= 0))} of {len(losses)} losses are {smallest:g} or at most 0.",
            why="the density of a scaled χ² is 0 or without bound there, and so is a likelihood.",
            fix='fit by moments (`fit="moments"`), or measure a loss that is positive.',
        )
    blocks = np.array_split(np.sort(losses), min(BLOCKS, len(losses)))
    x, weight = np.array([(block.mean(), len(block)) for block in blocks]).T
    first = fit_by_moments(losses)
    share = 0.5 if first.noncentrality == 0 else first.noncentrality / (
        first.freedom + first.noncentrality
    )  # fmt: skip
    # mean, effective number of squares and share of the shift: nearly independent of each other
    squares = 2 * losses.mean() ** 2 / losses.var()
    start = (log(losses.mean()), log(squares), log(share / (1 - min(share, 1 - 1e-6))))

    def loss(parameters: Float[np.ndarray, "3"]) -> float:
        found = -float(weight @ _from_shape(*parameters).log_density(x))
        return found if np.isfinite(found) else 1e300

    options = {"xatol": 1e-4, "fatol": 1e-6, "maxiter": 600}
    return _from_shape(*minimize(loss, start, method="Nelder-Mead", options=options).x)


def _from_shape(log_mean: float, log_squares: float, logit: float) -> ScaledChi2:
    """From the mean, 2 mean²/variance and the share of λ in k + λ: κ₂ = 2 mean² (1 + share)/(k +
    λ).
    """
    share = 1 / (1 + exp(-min(max(logit, -12.0), 12.0)))
    total = exp(log_squares) * (1 + share)
    return ScaledChi2(exp(log_mean) / total, total * (1 - share), total * share)
