"""Transitions, overconfidence, adaptivity gap and diversity of committees against loops and closed
forms.
"""

import copy
from dataclasses import replace
from math import log

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from unseen.engine.prediction_diversity import mutual_information
from unseen.engine.toy import toy_model, toy_task
from unseen.errors import InvalidData, UnsupportedLayer
from unseen.lab import Lab
from unseen.measures.adaptivity_gap import (
    AdaptivityGap,
    PointwiseGap,
    head_accuracy_matrix,
    mixture_gap,
    pointwise_gap,
)
from unseen.measures.correctness_transitions import (
    FalseFalseTrue,
    Overconfidence,
    TrueTrueFalse,
    transitions,
    transitions_of,
)
from unseen.measures.diversity import (
    DecisionDisagreement,
    DiversityGap,
    MutualInformation,
    PairwiseDisagreement,
    member_probabilities,
)
from unseen.method import Trained
from unseen.models.ensemble_model import Committee, MeanLogit, MeanProbability, SingleMember

LAB = Lab(dtype=torch.float64)


def trained(*seeds: int, rule=MeanProbability()) -> Trained:
    return Trained(Committee([toy_model(Lab(s)).double() for s in seeds], rule).eval(), toy_task())


def right(model: nn.Module, split: str = "unseen") -> torch.Tensor:
    batch = toy_task().splits[split].data.columns
    with torch.no_grad():
        return model(batch["x"].double()).argmax(1) == batch["y"]


def test_eight_shares_sum_to_one_and_explain_the_change_of_accuracy():
    a, b, c = (
        torch.rand(300, generator=Lab(s).generator()) < p for s, p in ((1, 0.6), (2, 0.5), (3, 0.8))
    )
    found = transitions(a, b, c)
    assert len(found) == 8
    assert sum(r.value for r in found.values()) == pytest.approx(1)
    assert found["FFT"].value == pytest.approx(
        sum(not x and not y and z for x, y, z in zip(a, b, c, strict=True)) / 300
    )
    gain = {k: r.value for k, r in found.items()}
    change = gain["FFT"] - gain["TTF"] + (gain["TFT"] + gain["FTT"] - gain["TFF"] - gain["FTF"]) / 2
    assert change == pytest.approx(
        c.double().mean().item() - (a.double().mean() + b.double().mean()).item() / 2
    )


def test_false_false_true_by_a_loop():
    subject = trained(1, 2, rule=MeanLogit())
    one, two = (right(m) for m in subject.model.members)
    both = right(subject.model)
    n = len(both)
    fft = sum(not a and not b and c for a, b, c in zip(one, two, both, strict=True)) / n
    ttf = sum(a and b and not c for a, b, c in zip(one, two, both, strict=True)) / n
    assert FalseFalseTrue("unseen")(subject, LAB).value == pytest.approx(float(fft))
    assert TrueTrueFalse("unseen")(subject, LAB).value == pytest.approx(float(ttf))
    three = transitions_of(*subject.model.members, subject.model, subject.task, "unseen", LAB)
    assert three["FFT"].value == pytest.approx(float(fft))
    assert FalseFalseTrue("unseen")(trained(1), LAB).value == 0


class Thirds(nn.Module):
    """Votes for class 0, 1, 2 with fixed certainty, whatever the input."""

    def __init__(self, p: tuple[float, float, float]) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tensor(self.p, dtype=x.dtype).log().expand(len(x), 3)


def test_two_wrong_members_can_be_right_together():
    """Each sees the true class 1 second: the sum of probabilities sees it first."""
    members = [Thirds((0.5, 0.45, 0.05)), Thirds((0.05, 0.45, 0.5))]
    task = toy_task()
    ones = {
        n: replace(
            s, data=type(s.data)(**{**s.data.columns, "y": torch.ones(64, dtype=torch.long)})
        )
        for n, s in task.splits.items()
        if n != "bare"
    }
    subject = Trained(Committee(members, MeanProbability()), replace(task, splits=ones))
    assert FalseFalseTrue("unseen")(subject, LAB).value == 1
    assert TrueTrueFalse("unseen")(subject, LAB).value == 0


def test_overconfidence_by_hand_and_zero_for_earned_certainty():
    subject = trained(1)
    batch = toy_task().splits["unseen"].data.columns
    p = subject.model(batch["x"].double()).softmax(1).max(1).values.detach()
    reading = Overconfidence("unseen")(subject, LAB)
    assert reading.value == pytest.approx(float(p.mean() - right(subject.model).double().mean()))
    assert_close(reading.detail, p)
    half = Trained(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).double(), toy_task())
    for q in half.model.parameters():
        q.data.zero_()
    assert (
        Overconfidence("unseen")(half, LAB).value == 0
    )  # says ½, and half of the labels are class 0


def simplex(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=Lab(seed).generator(), dtype=torch.float64).softmax(-1)


def test_the_bound_holds_on_random_discrete_problems_and_is_tight():
    for seed in range(200):
        g = Lab(seed).generator()
        f = torch.rand(3, 6, generator=g, dtype=torch.float64)
        target, h = (
            torch.rand(6, generator=g, dtype=torch.float64),
            torch.rand(6, generator=g, dtype=torch.float64),
        )
        p, alpha, p_target = (
            simplex(3, 6, seed=seed),
            simplex(3, seed=seed + 500),
            simplex(6, seed=seed + 900),
        )
        error = p_target @ (h - target).abs()
        weighted = sum(alpha[i] * (p[i] @ (p_target / p[i] * (h - f[i]).abs())) for i in range(3))
        gap = mixture_gap(f, target, alpha, p_target)
        assert error <= weighted + gap + 1e-12
        singles = [
            float(mixture_gap(f, target, torch.eye(3, dtype=torch.float64)[i], p_target))
            for i in range(3)
        ]
        assert min(singles) <= float(gap) + 1e-12
        assert float(pointwise_gap(f, target, p_target)) <= min(singles) + 1e-12
    own = torch.eye(3, dtype=torch.float64)[1]  # h = f₁ = f_T: nothing is left
    assert float(mixture_gap(f, f[1], own)) == 0


def test_gap_of_heads_by_a_loop():
    subject = trained(1, 2, 3)
    table = torch.stack([right(m) for m in subject.model.members]).double()
    gap = AdaptivityGap("unseen")(subject, LAB)
    assert gap.value == pytest.approx(1 - float(table[:2].mean(1).max()))
    assert gap.low <= gap.value <= gap.high
    assert PointwiseGap("unseen")(subject, LAB).value == pytest.approx(
        1 - float(table[:2].amax(0).mean())
    )
    assert PointwiseGap("unseen", common=0)(subject, LAB).value == pytest.approx(
        1 - float(table.amax(0).mean())
    )
    matrix = head_accuracy_matrix(subject, ("unseen", "seen:a"), LAB)
    assert_close(matrix[:, 0], table.mean(1))
    assert matrix.shape == (3, 2)


def test_diversity_by_loops():
    subject = trained(1, 2, 3)
    p = member_probabilities(subject, "bare", LAB)
    soft, hard, shared = [], [], []
    for i, j in ((0, 1), (0, 2), (1, 2)):
        soft.append((p[i] - p[j]).abs().sum(1).mean() / 2)
        hard.append((p[i].argmax(1) != p[j].argmax(1)).double().mean())
        shared.append(mutual_information(p[i], p[j]))
    assert PairwiseDisagreement("bare")(subject, LAB).value == pytest.approx(float(sum(soft) / 3))
    assert DecisionDisagreement("bare")(subject, LAB).value == pytest.approx(float(sum(hard) / 3))
    reading = MutualInformation("bare")(subject, LAB)
    assert reading.value == pytest.approx(float(sum(shared) / 3))
    assert reading.low <= reading.value <= reading.high
    turned = replace(subject, model=Committee(list(subject.model.members)[::-1], SingleMember()))
    assert MutualInformation("bare")(turned, LAB).value == pytest.approx(reading.value)


def test_equal_and_opposite_members():
    net = toy_model(Lab(1)).double()
    twin = Trained(Committee([net, copy.deepcopy(net)], SingleMember()), toy_task())
    assert PairwiseDisagreement("bare")(twin, LAB).value == 0
    assert DecisionDisagreement("bare")(twin, LAB).value == 0
    opposite = copy.deepcopy(net)
    for p in opposite[3].parameters():
        p.data.neg_()
    both = Trained(Committee([net, opposite], SingleMember()), toy_task())
    assert DecisionDisagreement("bare")(both, LAB).value == 1
    assert MutualInformation("bare")(both, LAB).value <= log(2)
    gap = DiversityGap("bare", "unseen")(both, LAB)
    here, there = (PairwiseDisagreement(name)(both, LAB).value for name in ("bare", "unseen"))
    assert gap.value == pytest.approx(here - there)
    assert gap.low <= gap.value <= gap.high


def test_refusals():
    alone = Trained(toy_model().double(), toy_task())
    for measure in (
        FalseFalseTrue("unseen"),
        AdaptivityGap("unseen"),
        PairwiseDisagreement("bare"),
    ):
        with pytest.raises(UnsupportedLayer, match="one hypothesis"):
            measure(alone, LAB)
    with pytest.raises(InvalidData, match="no pair"):
        MutualInformation("bare")(trained(1), LAB)
    with pytest.raises(InvalidData, match="belong to no domain"):
        AdaptivityGap("unseen", common=3)(trained(1, 2, 3), LAB)
    with pytest.raises(InvalidData, match="0, 0 and 0 answers"):
        transitions(*[torch.zeros(0, dtype=torch.bool)] * 3)
    with pytest.raises(InvalidData, match="no domain or no point"):
        mixture_gap(torch.zeros(0, 3), torch.zeros(3), torch.zeros(0))
