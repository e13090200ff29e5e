"""Losses of several responses to one prompt, as functions of their log-likelihoods.

ℓ_i = log p(y_i | x) is the *sum* over the tokens of response i: with means over tokens, weights
e^ℓ would not be those of a mixture of responses.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from unseen.errors import InvalidConfig


def mle_aug(
    log_likelihoods: Float[Tensor, "prompt response"],
    present: Bool[Tensor, "prompt response"],
    *,
    mean: bool = True,
) -> Float[Tensor, " prompt"]:
    """−Σ ℓ_i over the responses that are present, or their mean: all count alike."""
    _refuse_empty(present)
    total = -log_likelihoods.masked_fill(~present, 0.0).sum(1)
    return total / present.sum(1) if mean else total


def beta_mml(
    log_likelihoods: Float[Tensor, "prompt response"],
    present: Bool[Tensor, "prompt response"],
    beta: float,
) -> Float[Tensor, " prompt"]:
    """−(1/β) log Σ e^{β ℓ_i} (Ni et al., 2023, arXiv:2205.14318). Its gradient weighs response i by
    softmax(β ℓ)_i: alike for β → 0, the likeliest alone where ℓ are far apart.
    """
    if not 0 < beta <= 1:
        raise InvalidConfig(
            f"beta_mml got beta={beta:g}.",
            why="weights are e^{β ℓ}, from nearly alike (β → 0) to likelihoods (β = 1).",
            fix="use 0 < beta ≤ 1; 0.25 in the paper.",
        )
    _refuse_empty(present)
    scaled = (beta * log_likelihoods).masked_fill(~present, -torch.inf)
    return -torch.logsumexp(scaled, 1) / beta


def mml(
    log_likelihoods: Float[Tensor, "prompt response"],
    present: Bool[Tensor, "prompt response"],
) -> Float[Tensor, " prompt"]:
    """−log Σ e^{ℓ_i}: that one of the responses is given (maximum marginal likelihood)."""
    return beta_mml(log_likelihoods, present, 1.0)


def dpo(
    better: Float[Tensor, " pair"],
    worse: Float[Tensor, " pair"],
    reference_better: Float[Tensor, " pair"],
    reference_worse: Float[Tensor, " pair"],
    beta: float = 0.1,
) -> Float[Tensor, " pair"]:
    """−log σ(β [(ℓ_w − ℓ_w^ref) − (ℓ_l − ℓ_l^ref)]) (Rafailov et al., 2023,
    arXiv:2305.18290); log 2 where the model is its reference.
    """
    if not beta > 0:
        raise InvalidConfig(
            f"dpo got beta={beta:g}.", why="it is how strongly pairs count.", fix="use 0.1."
        )
    return -F.logsigmoid(beta * (better - reference_better - worse + reference_worse))


def info_nce(
    similarity: Float[Tensor, "anchor candidate"], temperature: float = 1.0
) -> Float[Tensor, " anchor"]:
    """−log of the softmax of similarity/τ at candidate i of anchor i; all others are negatives
    (van den Oord et al., 2018, arXiv:1807.03748). log of their number where all are alike.
    """
    if not temperature > 0:
        raise InvalidConfig(
            f"info_nce got temperature={temperature:g}.",
            why="similarities are divided by it.",
            fix="use a positive one, for example 0.1.",
        )
    if similarity.shape[1] < similarity.shape[0]:
        raise InvalidConfig(
            f"info_nce got {similarity.shape[1]} candidates for {similarity.shape[0]} anchors.",
            why="candidate i belongs to anchor i.",
            fix="give at least as many candidates.",
        )
    log_p = (similarity / temperature).log_softmax(1)
    return -log_p.diagonal()


def imposter_contrast(
    similarity: Float[Tensor, "anchor anchor"],
    imposters: Float[Tensor, " anchor"],
    temperature: float = 1.0,
) -> Float[Tensor, " anchor"]:
    """`info_nce` with the similarity of each anchor to its imposter among its negatives (CLAPS;
    Lee, Lee & Hwang, 2021, arXiv:2012.07280).
    """
    return info_nce(torch.cat([similarity, imposters[:, None]], 1), temperature)


def replace_diagonal(
    similarity: Float[Tensor, "anchor anchor"], positives: Float[Tensor, " anchor"]
) -> Float[Tensor, "anchor anchor"]:
    """The similarities with other positives for the anchors."""
    own = torch.eye(len(similarity), dtype=torch.bool, device=similarity.device)
    return torch.where(own, positives[:, None], similarity)


def weight_entropy(
    log_likelihoods: Float[Tensor, "prompt response"],
    present: Bool[Tensor, "prompt response"],
    beta: float = 1.0,
) -> Float[Tensor, " prompt"]:
    """Entropy of the weights of `beta_mml`, as a share of the largest possible: near 0 where it has
    collapsed onto one response. 1 where there is one response.
    """
    weights = (beta * log_likelihoods).masked_fill(~present, -torch.inf).softmax(1)
    entropy = -torch.xlogy(weights, weights).sum(1)
    most = present.sum(1).clamp(min=2).double().log().to(entropy.dtype)
    return torch.where(present.sum(1) > 1, entropy / most, torch.ones_like(entropy))


def _refuse_empty(present: Bool[Tensor, "prompt response"]) -> None:
    if bool((~present.any(1)).any()):
        raise InvalidConfig(
            f"{int((~present.any(1)).sum())} prompts have no response.",
            why="there is nothing to learn from.",
            fix="give each prompt at least its reference response.",
        )
