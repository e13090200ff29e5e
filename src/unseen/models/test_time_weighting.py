"""Which member of a committee to trust at test time, without labels (Zhang et al., 2023,
arXiv:2208.08661, section 4).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from math import inf

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from unseen.errors import InvalidConfig, InvalidData
from unseen.models.ensemble_model import Committee, log_probabilities, mixture

TINY = 1e-12
"""Entropies below it count as this much: a certain member has all the weight, not NaN."""


class Granularity(StrEnum):
    """For whom members are weighed."""

    SAMPLE = "sample"
    """Every example by itself."""
    BATCH = "batch"
    """All examples of a batch alike; they must come from one domain."""


class Metric(StrEnum):
    """How far features are from a prototype."""

    COSINE = "cosine"
    L1 = "l1"
    L2 = "l2"


def entropies(outputs: Float[Tensor, "member n c"]) -> Float[Tensor, "member n"]:
    """−Σ p log p of every member's prediction, in nats."""
    log_p = log_probabilities(outputs)
    return -(log_p.exp() * log_p).sum(-1)


def sharpen(cost: Float[Tensor, "member n"], gamma: float) -> Float[Tensor, "member n"]:
    """Weights w_m ∝ cost_m^(−γ) over the members; γ = ∞ gives the cheapest one everything (of
    equals, the first).
    """
    if gamma == inf:
        best = cost.argmin(0, keepdim=True)
        return (torch.arange(len(cost), device=cost.device)[:, None] == best).to(cost.dtype)
    # in logs: cost^(−γ) overflows for small costs
    return (-gamma * cost.clamp_min(TINY).log()).softmax(0)


@dataclass(frozen=True)
class EntropySteering:
    """Members weigh w_m ∝ H_m^(−γ) with H the entropy of their prediction; γ = 0 is the mean, ∞ the
    surest one alone.

    In batches H is the mean over `size` consecutive examples, so the order of a stream matters, and
    a batch of several domains has one answer for all. Members are all heads, the shared one
    included (which the authors' code leaves out).
    """

    granularity: Granularity = Granularity.BATCH
    gamma: float = inf
    size: int = 64

    def __post_init__(self) -> None:
        if not self.gamma >= 0 or self.size < 1:
            raise InvalidConfig(
                f"EntropySteering(gamma={self.gamma}, size={self.size}) is out of range.",
                why="surer members weigh more, and a batch has an example.",
                fix="set gamma ≥ 0 and size ≥ 1.",
            )

    def weights(self, outputs: Float[Tensor, "member n c"]) -> Float[Tensor, "member n"]:
        """The say of every member for every example."""
        cost = entropies(outputs)
        if self.granularity is Granularity.BATCH:
            means = [
                part.mean(1, keepdim=True).expand_as(part) for part in cost.split(self.size, 1)
            ]
            cost = torch.cat(means, 1)
        return sharpen(cost, self.gamma)

    def __call__(
        self, outputs: Float[Tensor, "member n c"], h: Tensor, prototypes: Tensor | None
    ) -> Tensor:
        return mixture(outputs, self.weights(outputs))


@dataclass(frozen=True)
class SimilaritySteering:
    """The head of the domain whose prototype (mean features) is nearest to the example's features.

    Of cosines the largest is nearest; the authors' code takes the smallest.
    """

    metric: Metric = Metric.COSINE

    def distances(
        self, h: Float[Tensor, "n d"], prototypes: Float[Tensor, "domain d"]
    ) -> Float[Tensor, "domain n"]:
        if self.metric is Metric.COSINE:
            return 1 - F.cosine_similarity(prototypes[:, None], h[None], dim=-1)
        gap = prototypes[:, None] - h[None]
        return gap.abs().sum(-1) if self.metric is Metric.L1 else gap.square().sum(-1).sqrt()

    def __call__(
        self, outputs: Float[Tensor, "member n c"], h: Tensor, prototypes: Tensor | None
    ) -> Tensor:
        if prototypes is None:
            raise InvalidData(
                "The model has no prototypes of its training domains.",
                why="similarity is measured to the mean features of each domain.",
                fix="train it with DRM(rule=SimilaritySteering()), which stores them.",
            )
        return mixture(outputs[: len(prototypes)], sharpen(self.distances(h, prototypes), inf))


class Part(StrEnum):
    """Which parameters move at test time."""

    HEADS = "heads"
    ALL = "all"


@dataclass(frozen=True)
class Stream:
    """What online adaptation made of a stream."""

    outputs: Float[Tensor, "n c"]
    confident: Bool[Tensor, " n"]
    """Which examples were sure enough to learn from."""


@dataclass(frozen=True)
class OnlineSteering:
    """Predict a batch, then learn from its sure examples: `steps` of Adam on Σ_members CE(member,
    argmax of the steered p).

    Sure is a steered probability of at least `beta`. A batch without sure examples changes nothing.
    The committee given is changed: adapt a copy, and the original is the state before.
    """

    beta: float = 0.9
    steps: int = 1
    lr: float = 1e-4
    part: Part = Part.HEADS

    def __post_init__(self) -> None:
        if not 0 <= self.beta <= 1 or self.steps < 0 or not self.lr > 0:
            raise InvalidConfig(
                f"OnlineSteering(beta={self.beta}, steps={self.steps}, lr={self.lr}) is out of "
                "range.",
                why="beta is a probability, steps are counted, and a learning rate is positive.",
                fix="correct the value.",
            )

    def __call__(self, model: Committee, stream: Iterable[Tensor]) -> Stream:
        moving = model.members if self.part is Part.HEADS else model
        optimizer = torch.optim.Adam(moving.parameters(), lr=self.lr)
        model.eval()
        outputs, sure = [], []
        for x in stream:
            # predicted before it is learned from, so that no example is scored by a model that has
            # seen it
            with torch.no_grad():
                given = model(x)
            p, label = log_probabilities(given).exp().max(-1)
            chosen = p >= self.beta
            outputs.append(given)
            sure.append(chosen)
            for _ in range(self.steps if bool(chosen.any()) else 0):
                optimizer.zero_grad()
                log_p = log_probabilities(model.member_outputs(x[chosen]))
                loss = (
                    -log_p.gather(-1, label[chosen].expand(len(log_p), -1)[..., None])
                    .mean((1, 2))
                    .sum()
                )
                loss.backward()
                optimizer.step()
        if not outputs:
            raise InvalidData(
                "The stream is empty.", why="there is nothing to predict.", fix="give a batch."
            )
        return Stream(torch.cat(outputs), torch.cat(sure))
