"""Factor models of inputs: x = μ + B z + noise, by maximum likelihood.

Probabilistic PCA: Tipping & Bishop (1999). Factor analysis (one noise per input) is scikit-learn's.
"""

from dataclasses import dataclass
from math import log, pi

import numpy as np
import torch
from jaxtyping import Float
from sklearn.decomposition import FactorAnalysis as SklearnFactorAnalysis
from torch import Tensor, nn

from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.methods.pretrain_then_fit.heads import linear_layer
from unseen.methods.pretrain_then_fit.inputs import flat_inputs
from unseen.task import Batch

MOST_FACTORS = 50
"""Where the number of factors is chosen by the inputs, at most so many."""


@dataclass(frozen=True)
class GaussianFactors:
    """N(μ, B Bᵀ + σ² I) by the eigenvectors of the covariance: B = U (Λ − σ² I)^½."""

    mean: Float[Tensor, " d"]
    directions: Float[Tensor, "d r"]
    variances: Float[Tensor, " r"]
    noise2: float

    @property
    def loadings(self) -> Float[Tensor, "d r"]:
        return self.directions * (self.variances - self.noise2).clamp_min(0).sqrt()

    def mean_log_likelihood(self, x: Float[Tensor, "n d"]) -> float:
        """Nats per example."""
        d, r = self.directions.shape
        centred = x - self.mean
        inside = centred @ self.directions
        outside = (centred.square().sum(1) - inside.square().sum(1)) / self.noise2
        distance = (inside.square() / self.variances).sum(1) + outside
        volume = float(self.variances.log().sum()) + (d - r) * log(self.noise2)
        return float(-(d * log(2 * pi) + volume + distance.mean()) / 2)

    def encoder(self) -> nn.Linear:
        """x ↦ E[z | x] = (Λ − σ² I)^½ Λ⁻¹ Uᵀ (x − μ), with σ² = 0 the coordinates of x in unit
        variance.
        """
        scale = (self.variances - self.noise2).clamp_min(0).sqrt() / self.variances
        return linear_encoder((self.directions * scale).T, self.mean)


def linear_encoder(weight: Float[Tensor, "r d"], mean: Float[Tensor, " d"]) -> nn.Linear:
    """x ↦ W (x − μ), frozen."""
    return linear_layer(weight, -weight @ mean).requires_grad_(False)


def fit_factors(x: Float[Tensor, "m d"], factors: int | None) -> GaussianFactors:
    """The maximum-likelihood model (with divisor m − 1, as scikit-learn's `PCA`).

    `factors` None: as many as have the lowest Bayesian information criterion. With m ≤ d
    scikit-learn averages the noise over the m − r directions that it sees, here over all d − r.
    """
    m, d = x.shape
    mean = x.mean(0)
    _, singular, rows = torch.linalg.svd(x - mean, full_matrices=False)
    spectrum = singular.square() / max(1, m - 1)
    # directions that the inputs do not have: rounding, not variance
    rank = int((spectrum > spectrum[0] * 1e-10).sum()) if spectrum[0] > 0 else 0
    r = factors or _best_number(spectrum[:rank], m)
    _refuse(r, rank, m, d)
    noise2 = float(spectrum[r:].sum()) / (d - r)
    return GaussianFactors(mean, rows[:r].T, spectrum[:r], noise2)


def _best_number(spectrum: Float[Tensor, " rank"], m: int) -> int:
    """The number of factors by the Bayesian information criterion, of the directions with variance
    alone: a constant input would be a certain one, of infinite likelihood.
    """
    d = len(spectrum)
    logs, sums = spectrum.log().cumsum(0), spectrum.cumsum(0)
    best, lowest = 1, float("inf")
    for r in range(1, min(d, MOST_FACTORS + 1)):
        noise2 = float(sums[-1] - sums[r - 1]) / (d - r)
        parameters = d * r - r * (r - 1) / 2 + 1
        criterion = m * (float(logs[r - 1]) + (d - r) * log(noise2)) + parameters * log(m)
        if criterion < lowest:
            best, lowest = r, criterion
    return best


def _refuse(r: int, rank: int, m: int, d: int) -> None:
    if r >= d or r >= m:
        raise InvalidData(
            f"{r} factors of {m} unlabelled examples with {d} inputs.",
            why="a factor model needs fewer factors than inputs and than examples: otherwise "
            "nothing is left over for the noise.",
            fix=f"use factors ≤ {max(1, min(d, m) - 1)}, or give more unlabelled examples.",
        )
    if r > rank:
        raise InvalidData(
            f"The unlabelled inputs vary in {rank} directions only, and {r} factors were asked "
            "for.",
            why="a factor without variance cannot be read from inputs.",
            fix=f"use factors ≤ {rank}." if rank else "check the inputs: they are constant.",
        )


@dataclass(frozen=True)
class ProbabilisticPCA:
    """x = μ + B z + σ e with the same σ for every input; the representation is E[z | x].

    Inputs in different units count by their variance: scale them first (tables are). `factors`
    None: chosen by the inputs.
    """

    factors: int | None = None

    def __post_init__(self) -> None:
        _refuse_number(self.factors)

    def fit(self, unlabelled: Batch, lab: Lab) -> nn.Module:
        return fit_factors(flat_inputs(unlabelled), self.factors).encoder()


@dataclass(frozen=True)
class FactorAnalysis:
    """x = μ + B z + Ψ^½ e with a noise of its own for every input; the representation is E[z | x].

    Where the noise differs between inputs, probabilistic PCA takes loud inputs for factors.
    """

    factors: int = 5

    def __post_init__(self) -> None:
        _refuse_number(self.factors)

    def fit(self, unlabelled: Batch, lab: Lab) -> nn.Module:
        x = flat_inputs(unlabelled)
        _refuse(self.factors, min(x.shape), *x.shape)
        # lapack: no random numbers. The default tolerance of 0.01 stops far from the maximum
        model = SklearnFactorAnalysis(self.factors, tol=1e-5, max_iter=5_000, svd_method="lapack")
        model.fit(x.numpy())
        origin = torch.from_numpy(model.mean_)
        units = model.mean_ + np.eye(x.shape[1])
        basis = torch.from_numpy(model.transform(units))
        return linear_encoder(basis.T.contiguous(), origin)


def _refuse_number(factors: int | None) -> None:
    if factors is not None and factors < 1:
        raise InvalidConfig(
            f"factors={factors}.", why="at least one factor is learned.", fix="use factors ≥ 1."
        )
