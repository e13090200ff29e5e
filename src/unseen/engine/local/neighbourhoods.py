"""Neighbourhoods of an input: where a local function approximation is fitted and evaluated.

Han, Srinivas & Lakkaraju (2022), arXiv:2206.01254, table 1. A neighbourhood is a map from ξ to
inputs and a weighted sample of ξ. The sample is shared by all explained inputs, so that one
factorisation serves them all and a batch equals a loop; only the weights of `Masks` depend on the
input.
"""

from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations
from math import comb, inf
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unseen.errors import InvalidConfig
from unseen.lab import Lab


class Parametrization(StrEnum):
    """How ξ moves the input x₀ with baseline b."""

    ADDITIVE = "additive"
    """x₀ + ξ; a feature of several entries (one-hot column, patch, token) moves along the unit
    vector from its baseline.
    """
    MULTIPLICATIVE = "multiplicative"
    """b + ξ ⊙ (x₀ − b): ξ = 1 is the input, ξ = 0 the baseline."""


@dataclass(frozen=True)
class Sample:
    """Draws of ξ and their weights, which sum to 1 (one row for all inputs, or one per input)."""

    xi: Float[Tensor, "n d"]
    weight: Float[Tensor, "#point n"]


@runtime_checkable
class Neighbourhood(Protocol):
    """`draw` gets per input and feature the squared distance by which the input moves when the
    feature is removed.
    """

    @property
    def parametrization(self) -> Parametrization: ...
    @property
    def title(self) -> str: ...
    def draw(self, lengths2: Float[Tensor, "point d"], lab: Lab) -> Sample: ...


@dataclass(frozen=True)
class Gaussian:
    """ξ ~ N(0, σ² I), additive; drawn in pairs ξ, −ξ, so that odd terms cancel."""

    sigma: float = 0.1
    n: int = 1_000

    def __post_init__(self) -> None:
        _require_positive("sigma", self.sigma)
        _require_at_least("n", self.n, 1)

    @property
    def parametrization(self) -> Parametrization:
        return Parametrization.ADDITIVE

    @property
    def title(self) -> str:
        return f"Gaussian noise of standard deviation {self.sigma:g} on every feature"

    def draw(self, lengths2: Float[Tensor, "point d"], lab: Lab) -> Sample:
        half = torch.randn(
            -(-self.n // 2), lengths2.shape[1], generator=lab.generator(), dtype=torch.float64
        )
        xi = self.sigma * torch.cat([half, -half])[: self.n]
        return Sample(xi.to(lengths2), _uniform_weights(self.n, lengths2))


@dataclass(frozen=True)
class PointMass:
    """The neighbourhood shrunk to the input itself: ξ = 0 (additive) or ξ = 1 (multiplicative)."""

    parametrization: Parametrization = Parametrization.ADDITIVE

    @property
    def title(self) -> str:
        return "infinitely small changes" + (
            " towards the baseline"
            if self.parametrization is Parametrization.MULTIPLICATIVE
            else ""
        )

    def draw(self, lengths2: Float[Tensor, "point d"], lab: Lab) -> Sample:
        xi = lengths2.new_full(
            (1, lengths2.shape[1]), float(self.parametrization is Parametrization.MULTIPLICATIVE)
        )
        return Sample(xi, _uniform_weights(1, lengths2))


class Rule(StrEnum):
    """Where an integral over a segment is read."""

    GAUSS_LEGENDRE = "Gauss-Legendre"
    """Exact for polynomials of degree 2n − 1: for smooth functions."""
    MIDPOINT = "midpoint"
    """Error O(n⁻²) that kinks do not spoil: for piecewise linear networks."""


@dataclass(frozen=True)
class PathSegment:
    """ξ = a·1 with a ~ U(start, 1), multiplicative: the way from the baseline (start = 0) to the
    input.
    """

    start: float = 0.0
    n: int = 50
    rule: Rule = Rule.GAUSS_LEGENDRE

    def __post_init__(self) -> None:
        _require_at_least("n", self.n, 1)
        if not 0 <= self.start < 1:
            raise InvalidConfig(
                f"start={self.start}.", "the segment ends at the input, 1.", "use 0 ≤ start < 1."
            )

    @property
    def parametrization(self) -> Parametrization:
        return Parametrization.MULTIPLICATIVE

    @property
    def title(self) -> str:
        where = "baseline" if self.start == 0 else f"{self.start:g} of the way from the baseline"
        return f"the straight line from the {where} to the input"

    def draw(self, lengths2: Float[Tensor, "point d"], lab: Lab) -> Sample:
        if self.rule is Rule.GAUSS_LEGENDRE:
            nodes, weights = np.polynomial.legendre.leggauss(self.n)
        else:
            nodes, weights = (2 * np.arange(self.n) + 1) / self.n - 1, np.full(self.n, 2 / self.n)
        a = torch.as_tensor(self.start + (1 - self.start) * (nodes + 1) / 2).to(lengths2)
        return Sample(
            a[:, None].expand(-1, lengths2.shape[1]),
            torch.as_tensor(weights / 2).to(lengths2)[None],
        )


@dataclass(frozen=True)
class Masks:
    """ξ ~ Bernoulli(½)^d with weight exp(−‖x₀ − x_ξ‖²/width²), multiplicative; all 2^d masks where
    they fit into n.

    `scaled` measures the distance in units of ‖x₀ − b‖, so that one width suits tables, images and
    texts. Captum's kernel is exp(−dist²/2width²): its width 1 is our √2.
    """

    width: float = inf
    n: int = 1_000
    scaled: bool = True

    def __post_init__(self) -> None:
        _require_positive("width", self.width)
        _require_at_least("n", self.n, 1)

    @property
    def parametrization(self) -> Parametrization:
        return Parametrization.MULTIPLICATIVE

    @property
    def title(self) -> str:
        near = "" if self.width == inf else f", near ones first (kernel width {self.width:g})"
        return f"random halves of the features removed{near}"

    def draw(self, lengths2: Float[Tensor, "point d"], lab: Lab) -> Sample:
        d = lengths2.shape[1]
        if d < 30 and 2**d <= self.n:
            xi = (torch.arange(2**d)[:, None] >> torch.arange(d) & 1).to(lengths2)
        else:
            xi = torch.randint(2, (self.n, d), generator=lab.generator()).to(lengths2)
        if self.width == inf:
            return Sample(xi, _uniform_weights(len(xi), lengths2))
        distance2 = lengths2 @ (1 - xi).T
        if self.scaled:
            distance2 = distance2 / lengths2.sum(1, keepdim=True).clamp_min(1e-30)
        return Sample(xi, (-distance2 / self.width**2).softmax(1))


@dataclass(frozen=True)
class Coalitions:
    """ξ ∈ {0, 1}^d with the Shapley kernel (d − 1)/(C(d, k) k (d − k)), k = Σξ, multiplicative;
    ends are exact.

    Sizes whose subsets are fewer than their share of the budget are enumerated; the others are
    drawn with their complements (Covert & Lee, 2021, arXiv:2012.01536).
    """

    n: int = 1_000

    def __post_init__(self) -> None:
        _require_at_least("n", self.n, 2)

    @property
    def parametrization(self) -> Parametrization:
        return Parametrization.MULTIPLICATIVE

    @property
    def title(self) -> str:
        return "features removed, every number of them equally often"

    def draw(self, lengths2: Float[Tensor, "point d"], lab: Lab) -> Sample:
        d = lengths2.shape[1]
        if d == 1:  # the two ends are all there is
            return Sample(lengths2.new_zeros(0, 1), lengths2.new_zeros(1, 0))
        mass = 1 / (np.arange(1, d) * (d - np.arange(1, d)))
        mass = mass / mass.sum()
        rows, weights, left = [], [], self.n
        sizes = list(range(1, d // 2 + 1))
        while sizes and (subsets := _count_both(d, sizes[0])) <= left:
            share = _mass(mass, d, sizes[:1]) / _mass(mass, d, sizes)
            if subsets > left * share:
                break
            k = sizes.pop(0)
            rows.append(_subsets(d, k))
            weights.append(np.full(subsets, _mass(mass, d, [k]) / subsets))
            left -= subsets
        if sizes:
            subsets_drawn = _draw_subsets(d, sizes, mass, left - left % 2, lab.numpy())
            rows.append(subsets_drawn)
            weights.append(
                np.full(len(subsets_drawn), _mass(mass, d, sizes) / max(1, len(subsets_drawn)))
            )
        weight = np.concatenate(weights)
        return Sample(
            torch.as_tensor(np.concatenate(rows)).to(lengths2),
            torch.as_tensor(weight / weight.sum()).to(lengths2)[None],
        )


@dataclass(frozen=True)
class LeaveOneOut:
    """ξ uniform over the unit vectors: what is explained is f(x₀) − f(x with that one feature at
    the baseline).
    """

    @property
    def parametrization(self) -> Parametrization:
        return Parametrization.MULTIPLICATIVE

    @property
    def title(self) -> str:
        return "single features removed"

    def draw(self, lengths2: Float[Tensor, "point d"], lab: Lab) -> Sample:
        d = lengths2.shape[1]
        return Sample(torch.eye(d).to(lengths2), _uniform_weights(d, lengths2))


def _count_both(d: int, k: int) -> int:
    """Subsets of size k and of size d − k."""
    return comb(d, k) * (1 if 2 * k == d else 2)


def _mass(mass: np.ndarray, d: int, sizes: list[int]) -> float:
    return float(sum(mass[k - 1] + (mass[d - k - 1] if 2 * k != d else 0) for k in sizes))


def _subsets(d: int, k: int) -> np.ndarray:
    """All subsets of size k, and their complements, as rows of 0 and 1."""
    chosen = np.array(list(combinations(range(d), k)))
    rows = np.zeros((len(chosen), d))
    np.put_along_axis(rows, chosen, 1, axis=1)
    return rows if 2 * k == d else np.concatenate([rows, 1 - rows])


def _draw_subsets(
    d: int, sizes: list[int], mass: np.ndarray, n: int, rng: np.random.Generator
) -> np.ndarray:
    """n/2 random subsets of random sizes with their complements."""
    chances = np.array([_mass(mass, d, [k]) for k in sizes])
    size = rng.choice(sizes, n // 2, p=chances / chances.sum())
    ranks = rng.random((n // 2, d)).argsort(1).argsort(1)
    rows = (ranks < size[:, None]).astype(float)
    return np.concatenate([rows, 1 - rows])


def _uniform_weights(n: int, like: Tensor) -> Tensor:
    return like.new_full((1, n), 1 / n)


def _require_positive(name: str, value: float) -> None:
    if not value > 0:
        raise InvalidConfig(
            f"{name}={value}.",
            why="a neighbourhood has a positive extent.",
            fix=f"use {name} > 0, or PointMass().",
        )


def _require_at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise InvalidConfig(
            f"{name}={value}.", why="nothing would be drawn.", fix=f"use {name} ≥ {least}."
        )
