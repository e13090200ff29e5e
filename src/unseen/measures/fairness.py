"""Fairness between the groups of a sensitive attribute: of outcomes, of errors, and of the same
person in the other group.

Demographic parity: Dwork et al. (2012, arXiv:1104.3913). Equalized odds: Hardt, Price & Srebro
(2016, arXiv:1610.02413). Counterfactual fairness: Kusner et al. (2017, arXiv:1703.06856); its total
effect as in Lin et al. (2023, arXiv:2309.13005).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unseen import stats
from unseen.engine.batches import Columns, once
from unseen.engine.evaluate import outputs
from unseen.engine.toy import toy_model, toy_task
from unseen.errors import InvalidData, UnknownName, UnsupportedLayer
from unseen.lab import Lab
from unseen.method import Trained
from unseen.models.ensemble_model import log_probabilities
from unseen.reading import Reading

Decisions = Bool[Tensor, " n"]


def rates(positive: Decisions, group: Int[Tensor, " n"]) -> dict[int, Reading]:
    """Share of positive decisions in each group, with Wilson's interval."""
    if len(group.unique()) < 2:
        raise InvalidData(
            f"All {len(group)} examples belong to {len(group.unique())} group.",
            why="fairness compares groups.",
            fix="evaluate on a split with more than one value of the sensitive attribute.",
        )
    return {
        int(g): stats.proportion(int(positive[group == g].sum()), int((group == g).sum()))
        for g in group.unique()
    }


def widest(found: Mapping[int, Reading]) -> Reading:
    """Highest − lowest rate, with Newcombe's interval for these two groups (cut at 0)."""
    high, low = (
        max(found.values(), key=lambda r: r.value),
        min(found.values(), key=lambda r: r.value),
    )
    gap = stats.independent_difference(high, low)
    table = torch.tensor(
        [[g, r.value, r.low, r.high, r.n] for g, r in found.items()], dtype=torch.float64
    )
    return Reading(
        gap.value, max(0.0, gap.low), gap.high, sum(r.n for r in found.values()), "fraction", table
    )


def demographic_parity_gap(positive: Decisions, group: Int[Tensor, " n"]) -> Reading:
    """max_g P(ŷ = 1 | g) − min_g P(ŷ = 1 | g); `detail` is [group, (number, rate, low, high,
    n)].
    """
    return widest(rates(positive, group))


def equalized_odds_gap(
    positive: Decisions, y: Int[Tensor, " n"], group: Int[Tensor, " n"]
) -> Reading:
    """The larger of the gaps of P(ŷ = 1 | y = 1, g) and P(ŷ = 1 | y = 0, g) over groups."""
    gaps = []
    for label in (1, 0):
        among = y == label
        missing = set(group.unique().tolist()) - set(group[among].unique().tolist())
        if missing:
            raise InvalidData(
                f"Group {min(missing)} has no example with label {label}.",
                why="its rate of such errors does not exist.",
                fix="merge groups, or evaluate on more examples.",
            )
        gaps.append(widest(rates(positive[among], group[among])))
    return max(gaps, key=lambda gap: gap.value)


def effect(p: Float[Tensor, "n k"], q: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
    """½ Σ_y |p(y) − q(y)|: for two classes |p(ŷ = 1 | x) − p(ŷ = 1 | x̄)|."""
    return (p - q).abs().sum(1) / 2


@torch.no_grad()
def probabilities(
    subject: Trained, split: str, lab: Lab, column: str = "x"
) -> Float[Tensor, "n k"]:
    """The model's probabilities for the inputs in a column."""
    data = subject.task.split(split).data
    columns(subject, split, lab, column)
    p = log_probabilities(outputs(subject.model, data, lab, column).double().flatten(1)).exp()
    if not torch.isfinite(p).all():
        raise InvalidData(
            "A prediction is not finite.",
            "it decides nothing.",
            "look for inputs or weights that are not finite.",
        )
    return p


def columns(subject: Trained, split: str, lab: Lab, *names: str) -> dict[str, Tensor]:
    """The named columns of a split."""
    parts: list[Mapping[str, Tensor]] = []
    for batch in once(subject.task.split(split).data, 4096, lab):
        for name in names:
            if name not in batch:
                raise UnknownName.near(f"column of split `{split}`", name, batch)
        parts.append({name: batch[name].cpu() for name in names})
    return {name: torch.cat([part[name] for part in parts]) for name in names}


@dataclass(frozen=True)
class DemographicParity:
    """Largest difference between groups in how often the model says 1: 0 is parity. Says nothing
    about who is right.
    """

    split: str = "test"
    sensitive: str = "a"

    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        positive = probabilities(subject, self.split, lab).argmax(1) == 1
        return demographic_parity_gap(
            positive, columns(subject, self.split, lab, self.sensitive)[self.sensitive]
        )


@dataclass(frozen=True)
class EqualizedOdds:
    """Largest difference between groups in how often the model says 1 to those with y = 1, or to
    those with y = 0.
    """

    split: str = "test"
    sensitive: str = "a"

    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        positive = probabilities(subject, self.split, lab).argmax(1) == 1
        own = columns(subject, self.split, lab, self.sensitive, "y")
        return equalized_odds_gap(positive, own["y"], own[self.sensitive])


@dataclass(frozen=True)
class CounterfactualEffect:
    """E |p(ŷ = 1 | x) − p(ŷ = 1 | x̄)| with x̄ the true counterfactual, a column of inputs: 0 is
    counterfactually fair.

    Needs a task that knows the structural equations. `detail` holds the effect on each person.
    """

    split: str = "test"
    column: str = "counterfactual"

    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        p, q = (probabilities(subject, self.split, lab, column) for column in ("x", self.column))
        return _of(effect(p, q), "probability")


@dataclass(frozen=True)
class CounterfactualFlips:
    """How often the decision changes when the person is in the other group."""

    split: str = "test"
    column: str = "counterfactual"

    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        p, q = (
            probabilities(subject, self.split, lab, column).argmax(1)
            for column in ("x", self.column)
        )
        return _of((p != q).double(), "fraction")


@dataclass(frozen=True)
class ModelBasedEffect:
    """`CounterfactualEffect` with the model's own `counterfactual(x)` for x̄: what it believes, not
    what is true.

    A model trained to make it small does so; compare with the true effect where that is known.
    """

    split: str = "test"

    @torch.no_grad()
    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        made = getattr(subject.model, "counterfactual", None)
        if made is None:
            raise UnsupportedLayer(
                f"{type(subject.model).__name__} makes no counterfactuals.",
                why="the effect compares an input with the model's idea of the same person in the "
                "other group.",
                fix="train with CDSAE, or use CounterfactualEffect on a task that knows the true "
                "ones.",
            )
        own = columns(subject, self.split, lab, "x")["x"]
        other = outputs(_Counterfactual(subject.model), Columns(x=own), lab)
        moved = Columns(x=own, other=other.reshape(own.shape))
        both = [
            outputs(subject.model, moved, lab, key).double().flatten(1) for key in ("x", "other")
        ]
        p, q = (log_probabilities(each).exp() for each in both)
        return _of(effect(p, q), "probability")


class _Counterfactual(nn.Module):
    """x ↦ the model's counterfactual of x."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = model.training

    def forward(self, x: Tensor) -> Tensor:
        return self.model.counterfactual(x)  # type: ignore[operator]


def _of(values: Float[Tensor, " n"], unit: str) -> Reading:
    reading = stats.of_scores(values.numpy())
    return Reading(reading.value, reading.low, reading.high, reading.n, unit, values)


def example() -> tuple[DemographicParity, Trained]:
    """Of a model of fresh weights."""
    return DemographicParity(split="unseen"), Trained(toy_model(), toy_task())
