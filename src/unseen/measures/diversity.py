"""How differently the hypotheses of a committee decide, and where (Benoit et al., 2024,
arXiv:2312.16313).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unseen import stats
from unseen.engine.evaluate import outputs
from unseen.engine.prediction_diversity import disagreement, mutual_information, over_pairs
from unseen.engine.toy import toy_model, toy_task
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.models.ensemble_model import Committee, MeanProbability, log_probabilities, members_of
from unseen.reading import Direction, MeasureEntry, Need, Reading, Scope


@torch.no_grad()
def member_probabilities(subject: Trained, split: str, lab: Lab) -> Float[Tensor, "member n k"]:
    """Every member's probabilities on a split, which may be unlabelled."""
    data = subject.task.split(split).data
    each = [
        log_probabilities(outputs(m, data, lab).double()).exp() for m in members_of(subject.model)
    ]
    p = torch.stack(each)
    if not torch.isfinite(p).all():
        raise InvalidData(
            "A prediction is not finite.",
            "it agrees with none.",
            "look for inputs or weights that are not finite.",
        )
    return p


def pairwise_disagreement(p: Float[Tensor, "member n k"]) -> Float[Tensor, " n"]:
    """Mean over pairs of members of ½ Σ_k |p_k − q_k|, for each example."""
    return over_pairs(p, disagreement).mean(0)


def hard_disagreement(p: Float[Tensor, "member n k"]) -> Float[Tensor, " n"]:
    """Share of pairs of members that decide differently, for each example."""
    votes = p.argmax(-1)
    return over_pairs(torch.nn.functional.one_hot(votes, p.shape[-1]).double(), disagreement).mean(
        0
    )


@dataclass(frozen=True)
class PairwiseDisagreement:
    """Mean total variation between the predictions of two members: 0 if they agree, 1 if they
    exclude each other.
    """

    split: str = "test"

    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        return _of(pairwise_disagreement(member_probabilities(subject, self.split, lab)))


@dataclass(frozen=True)
class DecisionDisagreement:
    """How often two members decide differently."""

    split: str = "test"

    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        return _of(hard_disagreement(member_probabilities(subject, self.split, lab)))


@dataclass(frozen=True)
class MutualInformation:
    """Mean over pairs of members of the mutual information of their predictions: 0 nats if they are
    independent.

    Independent members show about (k − 1)²/(2 n) in n examples. The interval is a bootstrap's,
    shifted by its own bias.
    """

    split: str = "test"
    draws: int = 200

    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        p = member_probabilities(subject, self.split, lab)
        rng = lab.child("bootstrap").numpy()
        return shifted_bootstrap(
            p, lambda part: over_pairs(part, mutual_information).mean(), self.draws, rng
        )


def shifted_bootstrap(
    p: Float[Tensor, "member n k"],
    statistic: Callable[[Tensor], Tensor],
    draws: int,
    rng: np.random.Generator,
) -> Reading:
    """The statistic with quantiles over resampled examples, shifted so that the resamples' mean
    lies on the value.
    """
    value, n = float(statistic(p)), p.shape[1]
    drawn = torch.stack(
        [statistic(p[:, torch.from_numpy(rng.integers(n, size=n))]) for _ in range(draws)]
    )
    bounds = drawn.quantile(
        torch.tensor([0.5 - stats.LEVEL / 2, 0.5 + stats.LEVEL / 2], dtype=drawn.dtype)
    )
    low, high = (bounds - drawn.mean() + value).tolist()
    return Reading(value, max(0.0, min(low, value)), max(high, value), n, "nats")


@dataclass(frozen=True)
class DiversityGap:
    """Disagreement on the unlabelled data minus that on an evaluation split: diversity that was
    learned there and stays there.

    0 if members disagree alike in both places; positive if the disagreement holds for the
    unlabelled data only.
    """

    unlabelled: str = "unlabelled"
    split: str = "test"

    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        here, there = (
            pairwise_disagreement(member_probabilities(subject, name, lab))
            for name in (self.unlabelled, self.split)
        )
        return stats.welch(here.numpy(), there.numpy(), "fraction")


def _of(values: Float[Tensor, " n"]) -> Reading:
    reading = stats.of_scores(values.numpy())
    return Reading(reading.value, reading.low, reading.high, reading.n, "fraction", values)


NEEDS = frozenset({Need.MODEL, Need.MEMBERS, Need.CLASSES, Need.INPUTS})
MEASURES = (
    MeasureEntry(
        name="disagreement of probabilities",
        measure=PairwiseDisagreement(),
        meaning="Distance between the probabilities of two members, or of two trainings: what the "
        "seed alone changes.",
        direction=Direction.NEITHER,
        family="diversity",
        passes=1,
        interval="examples",
        needs=NEEDS,
        scope=Scope.SITES,
        most=20_000,
    ),
    MeasureEntry(
        name="disagreement of decisions",
        measure=DecisionDisagreement(),
        meaning="How often two members, or two trainings, decide differently.",
        direction=Direction.NEITHER,
        family="diversity",
        passes=1,
        interval="examples",
        needs=NEEDS,
        scope=Scope.SITES,
        most=20_000,
    ),
    MeasureEntry(
        name="mutual information of members",
        measure=MutualInformation(),
        meaning="How much one member's or training's decisions tell of another's: 0 if they are "
        "independent.",
        direction=Direction.NEITHER,
        family="diversity",
        passes=1,
        interval="examples",
        needs=NEEDS,
        scope=Scope.SITES,
        most=20_000,
    ),
)


def example() -> tuple[PairwiseDisagreement, Trained]:
    """Of two members of fresh weights, on unlabelled data."""
    members = [toy_model(Lab(seed)) for seed in range(2)]
    return PairwiseDisagreement(split="bare"), Trained(
        Committee(members, MeanProbability()), toy_task()
    )
