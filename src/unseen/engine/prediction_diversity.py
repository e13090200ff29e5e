"""How far the predictions of two hypotheses depend on each other."""

from collections.abc import Callable
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor

from unseen.errors import InvalidData

TINY = 1e-12
"""Probabilities below it count as this much in a logarithm; times 0 it stays 0."""


def mutual_information(p: Float[Tensor, "n k"], q: Float[Tensor, "n l"]) -> Float[Tensor, ""]:
    """Σ_ij J_ij log(J_ij / m_i m'_j) in nats, J = mean over examples of p qᵀ, m and m' its
    marginals.

    0 if one of them is the same for all examples, log 2 for two equal, confident and balanced
    binary ones. In n examples independent hypotheses show about (k − 1)(l − 1)/(2 n).
    """
    if len(p) < 2:
        raise InvalidData(
            f"Mutual information got {len(p)} example.",
            why="what two hypotheses share shows in how they vary together over examples.",
            fix="use batches of at least two examples.",
        )
    joint = p.T @ q / len(p)
    apart = p.mean(0)[:, None] * q.mean(0)
    return (joint * (joint.clamp_min(TINY).log() - apart.clamp_min(TINY).log())).sum()


def disagreement(p: Float[Tensor, "n k"], q: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
    """½ Σ_k |p_k − q_k| per example: 0 if the predictions agree, 1 if they exclude each other."""
    return (p - q).abs().sum(1) / 2


def over_pairs(
    values: Float[Tensor, "member n k"], f: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """f of every pair of members, stacked in the order (0, 1), (0, 2), …"""
    if len(values) < 2:
        raise InvalidData(
            "One member makes no pair.",
            why="there is nobody to differ from.",
            fix="give at least two.",
        )
    return torch.stack([f(a, b) for a, b in combinations(values, 2)])
