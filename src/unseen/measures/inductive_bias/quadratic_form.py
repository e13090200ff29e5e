"""The distribution of Σ (√l z + b)² over independent standard normal z, far into its lower tail.

A probability of 1e-300 is a small number, not a small difference of large ones, so everything is
done around the saddle point of the inversion integral and in logarithms (Daniels, 1954; Lugannani &
Rice, 1980, Adv. Appl. Prob. 12).
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, log, pi, sqrt

import numpy as np
from jaxtyping import Complex, Float
from scipy.optimize import brentq
from scipy.special import log_ndtr
from scipy.stats import norm

from unseen.errors import InvalidData

ANGLE = pi / 3
"""Of the ray along which is integrated, from the real axis. From π/4 to π/2 every factor of the
integrand only falls along it; below π/2 it falls exponentially, however few terms there are.
"""
NODES, WEIGHTS = np.polynomial.legendre.leggauss(48)
NEGLIGIBLE = -45.0
"""Log of an integrand that no longer matters: e⁻⁴⁵ = 3e-20."""
NOISE = 1e-14
"""Scales below this share of the largest are rounding: those terms are constants."""


@dataclass(frozen=True)
class QuadraticForm:
    """Q = Σ over terms of a scaled non-central χ²: `scale` l, `freedom` m (any positive number) and
    `shift` B, the sum of the term's b². Its mean is Σ (l m + B).
    """

    scale: Float[np.ndarray, " term"]
    freedom: Float[np.ndarray, " term"]
    shift: Float[np.ndarray, " term"]

    def log_probability(self, x: float) -> float:
        """log P(Q ≤ x) by numerical inversion, with about twelve digits of P; −∞ where nothing lies
        below x.

        P = (1/2πi) ∫ exp(K(s) − s x) / (−s) ds, K the cumulant generating function, along two rays
        from the integrand's saddle point c < 0.
        """
        form, left = self._without_constants(x)
        if left <= 0:
            return -inf
        if not len(form.scale):
            return 0.0
        form = form / left  # from here on x = 1
        _refuse_overflow(form.scale + form.shift, x)
        c = -np.exp(_root(lambda v: form.slope(-np.exp(v)) - 1 + np.exp(-v), 0.0))
        width = 1 / sqrt(form.curvature(c) + 1 / c**2)
        total, start, end = 0.0, 0.0, 1.0
        while True:
            r = width * (start + (end - start) * (NODES + 1) / 2)
            exponent = form._rise(c, r * np.exp(1j * ANGLE))
            _refuse_overflow(exponent, x)  # NaN never falls below what is negligible
            values = np.exp(exponent + 1j * ANGLE).imag
            total += width * (end - start) / 2 * float(WEIGHTS @ values)
            if exponent.real.max() < NEGLIGIBLE:
                break
            start, end = end, 2 * end
        return float(form.cumulants(c) - c - log(-c) + log(total / pi))

    def approximate_log_probability(self, x: float) -> float:
        """log P(Q ≤ x) by Lugannani and Rice: a root and no integral.

        Its relative error on χ² of k degrees of freedom, from P = 1e-10 to 0.9: 9 to 16 % for
        k = 1, up to 3 % for 5, 0.3 % for 20, 0.006 % for 100.
        """
        form, left = self._without_constants(x)
        if left <= 0:
            return -inf
        if not len(form.scale):
            return 0.0
        form = form / left
        _refuse_overflow(form.scale + form.shift, x)
        most = 1 / (2 * form.scale.max())
        # s = most − e^v runs through all s below the pole; the slope falls as v grows
        s = most - np.exp(_root(lambda v: form.slope(most - np.exp(v)) - 1, log(most)))
        w = np.sign(s) * sqrt(max(0.0, 2 * (s - form.cumulants(s))))
        u = s * sqrt(form.curvature(s))
        if abs(w) < 1e-4:  # at the mean 1/w − 1/u is a difference of large numbers
            skewness = form.third(0.0) / form.curvature(0.0) ** 1.5
            return log(0.5 + skewness / (6 * sqrt(2 * pi)))
        if w > 0:
            return log(norm.cdf(w) + norm.pdf(w) * (1 / w - 1 / u))
        tail = float(np.exp(log_ndtr(w) - norm.logpdf(w)))
        return float(norm.logpdf(w)) + log(tail + 1 / w - 1 / u)

    def sample(self, n: int, rng: np.random.Generator) -> Float[np.ndarray, " n"]:
        """n independent draws of Q."""
        form, constant = self._without_constants(0.0)
        total = np.full(n, -constant)
        for scale, freedom, shift in zip(form.scale, form.freedom, form.shift, strict=True):
            total += scale * rng.noncentral_chisquare(freedom, shift / scale, n)
        return total

    def __truediv__(self, unit: float) -> "QuadraticForm":
        with np.errstate(over="ignore", invalid="ignore"):  # refused where it is used
            return QuadraticForm(self.scale / unit, self.freedom, self.shift / unit)

    def cumulants(self, s: float) -> float:
        """K(s) = log E exp(s Q)."""
        w = 1 - 2 * s * self.scale
        return float(-0.5 * (self.freedom @ np.log(w)) + s * np.sum(self.shift / w))

    def slope(self, s: float) -> float:
        """K′(s)."""
        w = 1 - 2 * s * self.scale
        return float(np.sum(self.freedom * (self.scale / w) + self.shift / w / w))

    def curvature(self, s: float) -> float:
        """K″(s)."""
        w = 1 - 2 * s * self.scale
        ratio = self.scale / w  # before any power: a scale of 1e200 has no square
        each = 2 * self.freedom * ratio**2 + 4 * (self.shift / w) * (ratio / w)
        return float(np.sum(each))

    def third(self, s: float) -> float:
        """K‴(s)."""
        w = 1 - 2 * s * self.scale
        ratio = self.scale / w
        each = 8 * self.freedom * ratio**3 + 24 * (self.shift / w) * (ratio / w) * ratio
        return float(np.sum(each))

    def _rise(self, c: float, by: Complex[np.ndarray, " node"]) -> Complex[np.ndarray, " node"]:
        """What K(s) − s − log(−s) gains from c to c + by, without cancellation."""
        w = 1 - 2 * c * self.scale
        z = 2 * by[:, None] * self.scale / w
        logs = -0.5 * np.log1p(-z) @ self.freedom
        shifts = by * ((1 / (1 - z)) @ (self.shift / w / w))
        return logs + shifts - by - np.log1p(by / c)

    def _without_constants(self, x: float) -> tuple["QuadraticForm", float]:
        """The terms that vary, and what of x the others leave to them."""
        varies = self.scale > NOISE * self.scale.max(initial=0.0)
        form = QuadraticForm(self.scale[varies], self.freedom[varies], self.shift[varies])
        return form, x - float(self.shift[~varies].sum())


def _refuse_overflow(values: Complex[np.ndarray, " n"] | Float[np.ndarray, " n"], x: float) -> None:
    if not np.isfinite(values).all():
        raise InvalidData(
            f"The probability of at most {x:g} cannot be computed.",
            why="it is NaN, or a scale or shift is NaN, infinite or beyond 1e308 in its unit.",
            fix="check the targets and losses, or ask for a larger error.",
        )


def _root(falling: Callable[[float], float], start: float) -> float:
    """The root of a function that falls from positive to negative values."""
    low, high, step = start, start, 1.0
    with np.errstate(over="ignore"):  # beyond 1e308 the slope is 0, as it should be
        while falling(low) < 0:
            low, step = low - step, 2 * step
        step = 1.0
        while falling(high) > 0:
            high, step = high + step, 2 * step
        return low if low == high else float(brentq(falling, low, high, xtol=1e-13, rtol=1e-13))
