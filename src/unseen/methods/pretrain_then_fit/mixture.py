"""Mixtures of spherical Gaussians by expectation maximisation (Dempster, Laird & Rubin, 1977)."""

from dataclasses import dataclass
from math import log, pi

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.methods.pretrain_then_fit.inputs import flat_inputs
from unseen.task import Batch

FLOOR = 1e-6
"""Added to every variance, as scikit-learn's `reg_covar`: a component on one point has none."""


class SphericalMixture(nn.Module):
    """Σ_k π_k N(μ_k, σ_k² I), several at once on a leading axis; gives p(k | x)."""

    weights: Tensor
    means: Tensor
    variances: Tensor

    def __init__(
        self,
        weights: Float[Tensor, "*start k"],
        means: Float[Tensor, "*start k d"],
        variances: Float[Tensor, "*start k"],
    ) -> None:
        super().__init__()
        self.register_buffer("weights", weights)
        self.register_buffer("means", means)
        self.register_buffer("variances", variances)

    def log_joint(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "*start n k"]:
        """log π_k N(x; μ_k, σ_k² I)."""
        cross = x @ self.means.mT
        squares = x.square().sum(1)[:, None] + self.means.square().sum(-1)[..., None, :]
        variances = self.variances[..., None, :]
        distance = (squares - 2 * cross).clamp_min(0) / variances
        volume = x.shape[1] * (log(2 * pi) + variances.log())
        return self.weights.log()[..., None, :] - (volume + distance) / 2

    def forward(self, x: Float[Tensor, "n ..."]) -> Float[Tensor, "*start n k"]:
        return self.log_joint(x.flatten(1)).softmax(-1)


def maximise(x: Float[Tensor, "n d"], shares: Float[Tensor, "*start n k"]) -> SphericalMixture:
    """The M step: the mixture of highest likelihood where example i belongs to k by its share."""
    # as scikit-learn: an empty component keeps a weight above zero
    totals = shares.sum(-2) + 10 * torch.finfo(x.dtype).eps
    means = shares.mT @ x / totals[..., None]
    second = shares.mT @ x.square() / totals[..., None]
    variances = (second - means.square()).clamp_min(0).mean(-1) + FLOOR
    return SphericalMixture(totals / totals.sum(-1, keepdim=True), means, variances)


@dataclass(frozen=True)
class Ascent:
    """A mixture after EM, and the mean log-likelihood before every step (nats per example)."""

    mixture: SphericalMixture
    likelihoods: Float[Tensor, "step *start"]


@torch.no_grad()
def ascend(
    x: Float[Tensor, "n d"], start: SphericalMixture, steps: int, tolerance: float
) -> Ascent:
    """EM from a start (or several) until no likelihood rises by more than `tolerance` in a step."""
    mixture, likelihoods = start, list[Tensor]()
    for _ in range(steps):
        joint = mixture.log_joint(x)
        likelihoods.append(joint.logsumexp(-1).mean(-1))
        mixture = maximise(x, joint.softmax(-1))
        if len(likelihoods) > 1:
            rise = likelihoods[-1] - likelihoods[-2]
            if bool((rise < tolerance).all()):
                break
    return Ascent(mixture, torch.stack(likelihoods))


def spread_centres(
    x: Float[Tensor, "n d"], components: int, generator: torch.Generator
) -> Float[Tensor, "k d"]:
    """k-means++ (Arthur & Vassilvitskii, 2007): each centre an example, drawn with probability in
    proportion to its squared distance from the nearest earlier one.
    """
    first = torch.randint(len(x), (1,), generator=generator)
    chosen = [int(first)]
    nearest = (x - x[chosen[0]]).square().sum(1)
    for _ in range(components - 1):
        if not nearest.max() > 0:
            raise InvalidData(
                f"The unlabelled inputs have {len(chosen)} different values, and {components} "
                "components were asked for.",
                why="every component needs a point of its own to start from.",
                fix=f"use components ≤ {len(chosen)}.",
            )
        chosen.append(int(torch.multinomial(nearest, 1, generator=generator)))
        nearest = torch.minimum(nearest, (x - x[chosen[-1]]).square().sum(1))
    return x[chosen]


def starts_of(x: Float[Tensor, "n d"], components: int, number: int, lab: Lab) -> SphericalMixture:
    """Mixtures around spread centres, with equal weights and the variance around the nearest
    centre.
    """
    generator = lab.generator()
    means = torch.stack([spread_centres(x, components, generator) for _ in range(number)])
    nearest = torch.cdist(x, means).amin(-1).square().mean(-1) / x.shape[1]
    variances = (nearest + FLOOR)[:, None].expand(number, components)
    return SphericalMixture(torch.full_like(variances, 1 / components), means, variances.clone())


@dataclass(frozen=True)
class MixtureEM:
    """A mixture of spherical Gaussians, the likeliest of `starts` runs of EM from k-means++
    centres; the representation is p(component | x).

    EM ends in local optima: with eight components a single start often merges two of them.
    """

    components: int = 8
    starts: int = 10
    steps: int = 500
    tolerance: float = 1e-7

    def __post_init__(self) -> None:
        if min(self.components, self.starts, self.steps) < 1 or not self.tolerance >= 0:
            raise InvalidConfig(
                f"MixtureEM(components={self.components}, starts={self.starts}, "
                f"steps={self.steps}, tolerance={self.tolerance}) is out of range.",
                why="there is a component, a start and a step.",
                fix="use numbers of at least 1.",
            )

    def fit(self, unlabelled: Batch, lab: Lab) -> nn.Module:
        x = flat_inputs(unlabelled)
        if len(x) <= self.components:
            raise InvalidData(
                f"{self.components} components of {len(x)} unlabelled examples.",
                why="a component needs more than one example to have a variance.",
                fix="use fewer components, or give more unlabelled examples.",
            )
        centre = x.mean(0)  # squares of far values would lose their digits
        start = starts_of(x - centre, self.components, self.starts, lab.child("starts"))
        found = ascend(x - centre, start, self.steps, self.tolerance).mixture
        likelihood = found.log_joint(x - centre).logsumexp(-1).mean(-1)
        best = int(likelihood.argmax())
        return SphericalMixture(
            found.weights[best], found.means[best] + centre, found.variances[best]
        )
