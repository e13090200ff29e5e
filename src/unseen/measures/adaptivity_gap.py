"""How far the best hypothesis of the training domains is from that of a new one (Zhang et al.,
2023, arXiv:2208.08661).

For every mixture α of the domains and every h (triangle inequality and change of measure)
    ε_T(h) ≤ Σ_i α_i E_i[(P_T/P_i)(x) |h(x) − f_i(x)|] + Σ_i α_i E_T |f_i(x) − f_T(x)|,
whose second sum is the adaptivity gap of α. It is linear in α, so one domain alone is the best
mixture; choosing a domain for every example makes it smaller still, E_T min_i |f_i − f_T|.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unseen import stats
from unseen.engine.evaluate import per_example
from unseen.engine.toy import toy_model, toy_task
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.models.ensemble_model import Committee, MeanProbability, members_of
from unseen.reading import Reading


def mixture_gap(
    sources: Float[Tensor, "domain n"],
    target: Float[Tensor, " n"],
    alpha: Float[Tensor, " domain"],
    p: Float[Tensor, " n"] | None = None,
) -> Float[Tensor, ""]:
    """Σ_i α_i E_T |f_i − f_T|, over points with probabilities `p` (equal ones)."""
    gaps = _gaps(sources, target)
    return alpha @ (gaps.mean(1) if p is None else gaps @ p)


def pointwise_gap(
    sources: Float[Tensor, "domain n"],
    target: Float[Tensor, " n"],
    p: Float[Tensor, " n"] | None = None,
) -> Float[Tensor, ""]:
    """E_T min_i |f_i − f_T|: the gap of a steering that always chooses right."""
    nearest = _gaps(sources, target).amin(0)
    return nearest.mean() if p is None else nearest @ p


def _gaps(
    sources: Float[Tensor, "domain n"], target: Float[Tensor, " n"]
) -> Float[Tensor, "domain n"]:
    if not sources.numel():
        raise InvalidData(
            "The adaptivity gap of nothing.", "there is no domain or no point.", "give both."
        )
    return (sources - target).abs()


def head_scores(subject: Trained, split: str, lab: Lab) -> Float[Tensor, "member n"]:
    """Score of every member of a committee for every example of a split. With test labels: an
    oracle.
    """
    data, score = subject.task.split(split).data, subject.task.objective.score
    return torch.stack(
        [per_example(member, data, score, lab).double() for member in members_of(subject.model)]
    )


def head_accuracy_matrix(
    subject: Trained, splits: Sequence[str], lab: Lab
) -> Float[Tensor, "member split"]:
    """Mean score of every member on every split: which head suits which domain."""
    return torch.stack([head_scores(subject, split, lab).mean(1) for split in splits], 1)


@dataclass(frozen=True)
class AdaptivityGap:
    """Estimate of min_α Σ_i α_i E_T |f_i − f_T|: the error of the best single head of a training
    domain.

    A head stands for its domain's labelling function, so its own training error counts, too; 0:
    some domain's rule holds there, 1: none ever does, and no steering can help. Uses the split's
    labels. `detail` is the error of every head.
    """

    split: str = "unseen"
    common: int = 1
    """Heads at the end that belong to no domain."""
    draws: int = 500

    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        errors = _errors(subject, self.split, self.common, lab)
        rng = lab.child("bootstrap").numpy()
        reading = stats.bootstrap(
            lambda e: float(e.mean(0).min()), errors.T.numpy(), rng=rng, draws=self.draws
        )
        return _inside(reading, errors.mean(1))


@dataclass(frozen=True)
class PointwiseGap:
    """Estimate of E_T min_i |f_i − f_T|: the share of examples on which no head of a training
    domain is right.
    """

    split: str = "unseen"
    common: int = 1

    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        errors = _errors(subject, self.split, self.common, lab).amin(0)
        reading = stats.of_scores(errors.numpy())
        return Reading(reading.value, reading.low, reading.high, reading.n, "fraction", errors)


def _errors(subject: Trained, split: str, common: int, lab: Lab) -> Float[Tensor, "domain n"]:
    scores = head_scores(subject, split, lab)
    if len(scores) <= common:
        raise InvalidData(
            f"Of {len(scores)} heads {common} belong to no domain.",
            "no domain is left.",
            "lower `common`.",
        )
    scores = scores[: len(scores) - common]
    if not bool(((scores >= 0) & (scores <= 1)).all()):
        raise InvalidData(
            "The score of a head is not between 0 and 1.",
            why="1 − score is read as the distance from the label.",
            fix="evaluate with an accuracy; look for inputs or weights that are not finite.",
        )
    return 1 - scores


def _inside(reading: Reading, detail: Tensor) -> Reading:
    low, high = np.minimum(reading.low, reading.value), np.maximum(reading.high, reading.value)
    return Reading(reading.value, float(low), float(high), reading.n, "fraction", detail)


def example() -> tuple[AdaptivityGap, Trained]:
    """Of three heads of fresh weights."""
    members = [toy_model(Lab(seed)) for seed in range(3)]
    return AdaptivityGap(draws=100), Trained(Committee(members, MeanProbability()), toy_task())
