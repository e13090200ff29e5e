"""How much more wrong a factor model can be about its factors than about the inputs alone (Ge,
Tang, Fan & Jin, 2024, arXiv:2303.01566).

A family is κ⁻¹-informative if for every φ some rotation of the factors brings the joint law of
inputs and factors within κ times the distance of the inputs' laws. The paper measures distances in
total variation, which has no closed form in several dimensions, or (weakly) by Hellinger, as here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import expm1

import torch
from jaxtyping import Float
from torch import Tensor

from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.reading import Reading


def hellinger(first: Float[Tensor, "d d"], second: Float[Tensor, "d d"]) -> float:
    """√(1 − BC) of N(0, Σ₁) and N(0, Σ₂), with BC = |Σ₁|^¼ |Σ₂|^¼ / |(Σ₁ + Σ₂)/2|^½."""
    root = torch.linalg.cholesky(first)
    half = torch.linalg.solve_triangular(root, second, upper=False)
    ratios = torch.linalg.eigvalsh(torch.linalg.solve_triangular(root, half.mT, upper=False))
    # as logarithms: near 1 the determinants agree in all their digits
    log_affinity = float((ratios.log() / 4 - ((1 + ratios) / 2).log() / 2).sum())
    return max(0.0, -expm1(log_affinity)) ** 0.5


def input_covariance(loadings: Float[Tensor, "d r"], noise: float) -> Float[Tensor, "d d"]:
    """B Bᵀ + σ² I."""
    return loadings @ loadings.T + noise**2 * torch.eye(len(loadings)).to(loadings)


def joint_covariance(loadings: Float[Tensor, "d r"], noise: float) -> Float[Tensor, "d+r d+r"]:
    """Of x and z."""
    factors = torch.eye(loadings.shape[1]).to(loadings)
    above = torch.cat([input_covariance(loadings, noise), loadings], 1)
    return torch.cat([above, torch.cat([loadings.T, factors], 1)])


def nearest_rotation(
    loadings: Float[Tensor, "d r"], truth: Float[Tensor, "d r"]
) -> Float[Tensor, "r r"]:
    """The orthogonal O with the smallest ‖B O − B*‖ (Procrustes)."""
    u, _, v = torch.linalg.svd(loadings.T @ truth)
    return u @ v


@dataclass(frozen=True)
class Informativeness:
    """The largest ratio of the two Hellinger distances over random models around the true one: a
    lower bound of κ, at least 1.

    Of a factor model with `loadings` B [d, r] and `noise` σ. `detail` has the ratio of every model;
    their loadings are B + size · ‖B‖/√(d r) · G with standard normal G.
    """

    sizes: tuple[float, ...] = (0.01, 0.1, 0.5)
    draws: int = 10

    def __post_init__(self) -> None:
        if self.draws < 1 or not self.sizes or min(self.sizes) <= 0:
            raise InvalidConfig(
                f"Informativeness(sizes={self.sizes}, draws={self.draws}).",
                why="it compares the true model with others.",
                fix="use sizes > 0 and draws ≥ 1.",
            )

    def __call__(self, subject: Mapping[str, Tensor], lab: Lab) -> Reading:
        truth, noises = subject["loadings"].double(), subject["noise"].flatten().tolist()
        is_density = len(noises) == 1 and noises[0] > 0 and truth.numel() > 0
        if not is_density or not bool(torch.isfinite(truth).all()):
            raise InvalidData(
                f"Loadings of shape {tuple(truth.shape)} and noise {noises} make no density.",
                why="distances are those of densities.",
                fix="give finite loadings and one noise > 0.",
            )
        noise = float(noises[0])
        generator = lab.child("models").generator()
        scale = truth.square().mean().sqrt()
        ratios = []
        for size in self.sizes:
            for _ in range(self.draws):
                moved = torch.randn(truth.shape, generator=generator, dtype=torch.float64)
                ratios.append(distance_ratio(truth + size * scale * moved, truth, noise))
        found = torch.tensor(ratios, dtype=torch.float64)
        return Reading(float(found.max()), n=len(ratios), unit="ratio", detail=found)


def distance_ratio(
    loadings: Float[Tensor, "d r"], truth: Float[Tensor, "d r"], noise: float
) -> float:
    """Distance of the joint laws after the nearest rotation, over that of the inputs' laws."""
    turned = loadings @ nearest_rotation(loadings, truth)
    joint = hellinger(joint_covariance(turned, noise), joint_covariance(truth, noise))
    inputs = hellinger(input_covariance(loadings, noise), input_covariance(truth, noise))
    if not inputs > 0:
        raise InvalidData(
            "Two models have the same law of inputs.",
            why="the ratio of distances is 0/0.",
            fix="give loadings that are not zero.",
        )
    return joint / inputs


def example() -> tuple[Informativeness, dict[str, Tensor]]:
    """Two factors of six inputs."""
    loadings = torch.randn(6, 2, generator=Lab().generator(), dtype=torch.float64)
    return Informativeness(draws=2), {"loadings": loadings, "noise": torch.ones(1)}
