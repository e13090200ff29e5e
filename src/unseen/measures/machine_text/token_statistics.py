"""What a scoring language model says of every token of a text, and the statistics of a text that
follow: likelihood, rank, curvature and Binoculars.

Gehrmann et al. (2019), arXiv:1906.04043 (rank); Su et al. (2023), arXiv:2306.05540 (LRR); Bao et
al. (2024), arXiv:2310.05130 (Fast-DetectGPT); Hans et al. (2024), arXiv:2401.12070 (Binoculars).
All logits stand at the positions that predict: row t predicts token t.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unseen.errors import InvalidData


@dataclass(frozen=True)
class TokenStatistics:
    """Of each predicted token of one text, with scorer q and sampler p."""

    log_probability: Float[Tensor, " t"]
    """ℓ_t = log q(x_t | x_<t)."""
    mean: Float[Tensor, " t"]
    """μ_t = Σ_v p(v) log q(v): what ℓ_t is on average where p writes."""
    variance: Float[Tensor, " t"]
    """σ²_t = Σ_v p(v) log² q(v) − μ_t²."""
    rank: Int[Tensor, " t"]
    """1 + the number of tokens that q finds likelier."""

    def __len__(self) -> int:
        return len(self.log_probability)


@torch.no_grad()
def token_statistics(
    logits: Float[Tensor, "t v"],
    tokens: Int[Tensor, " t"],
    sampler_logits: Float[Tensor, "t w"] | None = None,
) -> TokenStatistics:
    """The statistics of every position; without logits of a sampler p = q."""
    refuse_other_vocabulary(logits, sampler_logits)
    log_q = logits.float().log_softmax(-1) if logits.dtype is not torch.float64 else (
        logits.log_softmax(-1)
    )  # fmt: skip
    p = log_q.exp() if sampler_logits is None else sampler_logits.to(log_q.dtype).softmax(-1)
    found = log_q.gather(-1, tokens[:, None])
    # a token that p cannot write contributes nothing, also where log q is −∞
    weighted = torch.where(p > 0, p * log_q, 0)
    mean = weighted.sum(-1)
    square = torch.linalg.vecdot(weighted, log_q.clamp_min(torch.finfo(log_q.dtype).min))
    return TokenStatistics(
        log_probability=found[:, 0],
        mean=mean,
        variance=(square - mean.square()).clamp_min(0),
        rank=1 + (log_q > found).sum(-1),
    )


def log_likelihood(text: TokenStatistics) -> float:
    """Mean ℓ_t: high for machines."""
    return float(text.log_probability.mean())


def log_rank(text: TokenStatistics) -> float:
    """−mean log r_t: high for machines."""
    return -float(text.rank.double().log().mean())


def entropy(text: TokenStatistics) -> float:
    """−mean μ_t: the scorer's own entropy where p = q."""
    return -float(text.mean.mean())


def likelihood_over_rank(text: TokenStatistics) -> float:
    """LRR = −Σ ℓ_t / Σ log r_t: high for machines."""
    ranks = float(text.rank.double().log().sum())
    if ranks == 0:
        raise InvalidData(
            "Every token of the text is the scorer's first choice.",
            why="the ratio of likelihood to rank divides by Σ log r = 0.",
            fix="read a longer text, or the likelihood.",
        )
    return -float(text.log_probability.double().sum()) / ranks


def curvature(text: TokenStatistics) -> float:
    """d = (Σℓ_t − Σμ_t) / √Σσ²_t: of text that p writes itself 0 with s.d. 1; high for machines."""
    variance = float(text.variance.double().sum())
    # a uniform model has variance 0 but for rounding
    if variance <= 1e-10 * max(1.0, float(text.mean.double().square().sum())):
        raise InvalidData(
            "The scoring model finds every token equally likely at every position.",
            why="curvature divides by the spread of its log-probabilities, which is 0.",
            fix="score with a trained model.",
        )
    return float((text.log_probability.double() - text.mean.double()).sum()) / variance**0.5


def sample_curvature(
    logits: Float[Tensor, "t v"],
    tokens: Int[Tensor, " t"],
    draws: int,
    generator: torch.Generator,
    sampler_logits: Float[Tensor, "t w"] | None = None,
) -> float:
    """The same from `draws` tokens of p at every position instead of the closed form: mean and
    spread of the drawn texts' log-likelihood."""
    refuse_other_vocabulary(logits, sampler_logits)
    log_q = logits.log_softmax(-1)
    p = (logits if sampler_logits is None else sampler_logits).softmax(-1)
    drawn = torch.multinomial(p, draws, replacement=True, generator=generator)
    texts = log_q.gather(-1, drawn).sum(0)
    real = log_q.gather(-1, tokens[:, None]).sum()
    return float((real - texts.mean()) / texts.std())


def binoculars(
    performer_logits: Float[Tensor, "t v"],
    observer_logits: Float[Tensor, "t w"],
    tokens: Int[Tensor, " t"],
) -> float:
    """Mean NLL of the performer / mean cross-entropy −Σ_v p_observer(v) log q_performer(v): low for
    machines.

    Numerator and denominator are means over the same positions (the released code divides them by
    T − 1 and T and leaves out every end-of-text token).
    """
    return perplexity_ratio(token_statistics(performer_logits, tokens, observer_logits))


def perplexity_ratio(text: TokenStatistics) -> float:
    """Binoculars from the performer's statistics with the observer as sampler; with one model
    twice NLL over entropy."""
    return log_likelihood(text) / float(text.mean.mean())


def refuse_other_vocabulary(logits: Tensor, sampler_logits: Tensor | None) -> None:
    """Raises where two models number other tokens."""
    if sampler_logits is not None and sampler_logits.shape != logits.shape:
        raise InvalidData(
            f"The models give logits of shape {tuple(logits.shape)} and "
            f"{tuple(sampler_logits.shape)}.",
            why="token k of one vocabulary is another word in the other; cutting the longer one "
            "would give wrong numbers.",
            fix="use two models with the same tokenizer.",
        )
