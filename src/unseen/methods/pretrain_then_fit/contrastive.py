"""Representations that tell which inputs belong together."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.methods.pretrain_then_fit.factor_model import linear_encoder
from unseen.methods.pretrain_then_fit.heads import descend
from unseen.methods.pretrain_then_fit.inputs import flat_inputs
from unseen.task import Batch


def pair_loss(
    first: Float[Tensor, "n r"], second: Float[Tensor, "n r"], shuffles: Tensor
) -> Float[Tensor, ""]:
    """Mean logistic loss of p(same | x, x′) = sigmoid(f(x)ᵀf(x′)) on true pairs, plus that on pairs
    shuffled apart.
    """
    same = (first * second).sum(1)
    apart = (first * second[shuffles]).sum(-1)
    return F.softplus(-same).mean() + F.softplus(apart).mean()


@dataclass(frozen=True)
class ContrastiveLinear:
    """A linear f with p(same | x, x′) = sigmoid(f(x)ᵀf(x′)), by maximum likelihood on pairs that
    belong together and pairs shuffled apart; the representation is f(x).

    `pairs` is the column with the second view of every input, or one of integers: inputs with the
    same number (rows of one `entity`) belong together.
    """

    factors: int = 5
    pairs: str = "view"
    shuffles: int = 8
    """Pairs that do not belong together, for each one that does."""
    steps: int = 200

    def __post_init__(self) -> None:
        if min(self.factors, self.shuffles, self.steps) < 1:
            raise InvalidConfig(
                f"ContrastiveLinear(factors={self.factors}, shuffles={self.shuffles}, "
                f"steps={self.steps}) is out of range.",
                why="there is a factor, a pair and a step.",
                fix="use numbers of at least 1.",
            )

    def fit(self, unlabelled: Batch, lab: Lab) -> nn.Module:
        first, second = self._pairs(unlabelled)
        n, d = first.shape
        if self.factors >= min(n, d):
            raise InvalidData(
                f"{self.factors} factors of {n} pairs with {d} inputs.",
                why="a representation is smaller than the input, and is learned from more pairs.",
                fix=f"use factors < {min(n, d)}.",
            )
        mean = torch.cat([first, second]).mean(0)
        scale = (first - mean).square().mean().sqrt()
        if not scale > 0:
            raise InvalidData(
                "The unlabelled inputs are constant.",
                why="nothing tells pairs apart.",
                fix="check the inputs.",
            )
        left, right = (first - mean) / scale, (second - mean) / scale
        generator = lab.child("pairs").generator()
        apart = torch.stack([torch.randperm(n, generator=generator) for _ in range(self.shuffles)])
        start = torch.randn(d, self.factors, generator=generator, dtype=first.dtype) / d**0.5
        weight = start.requires_grad_(True)
        descend([weight], lambda: pair_loss(left @ weight, right @ weight, apart), self.steps)
        return linear_encoder(weight.detach().T.contiguous() / scale, mean)

    def _pairs(self, unlabelled: Batch) -> tuple[Tensor, Tensor]:
        if self.pairs not in unlabelled:
            raise InvalidData(
                f"The unlabelled examples have no column `{self.pairs}`.",
                why="a contrastive method learns from inputs that belong together.",
                fix='give a second view of every input as `view`, or pairs="entity" for a table '
                "with an entity column.",
            )
        x, other = flat_inputs(unlabelled), unlabelled[self.pairs].cpu()
        if other.is_floating_point():
            second = flat_inputs(unlabelled, self.pairs)
            if second.shape != x.shape:
                raise InvalidData(
                    f"Views of shape {tuple(second.shape)} beside inputs of {tuple(x.shape)}.",
                    why="one representation is learned for both.",
                    fix="give views of the same shape.",
                )
            return x, second
        order = other.flatten().argsort(stable=True)
        keys = other.flatten()[order]
        # neighbours in the order of the groups; −1 is no group
        together = (keys[1:] == keys[:-1]) & (keys[1:] >= 0)
        here, there = order[:-1][together], order[1:][together]
        if len(here) < 2:
            raise InvalidData(
                f"{len(here)} pairs of unlabelled inputs share a value of `{self.pairs}`.",
                why="a contrastive method learns from inputs that belong together.",
                fix="name a column whose values repeat.",
            )
        return x[here], x[there]
