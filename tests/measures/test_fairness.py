"""Fairness measures against fairlearn, by hand, and on people whose counterfactual is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from unseen.engine.batches import Columns
from unseen.engine.toy import toy_model, toy_task
from unseen.errors import InvalidData, UnknownName, UnsupportedLayer
from unseen.lab import Lab
from unseen.measures.fairness import (
    CounterfactualEffect,
    CounterfactualFlips,
    DemographicParity,
    EqualizedOdds,
    ModelBasedEffect,
    demographic_parity_gap,
    effect,
    equalized_odds_gap,
)
from unseen.method import Trained

LAB = Lab()


def people(n: int, groups: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    a, y = rng.integers(groups, size=n), rng.integers(2, size=n)
    positive = rng.random(n) < 0.3 + 0.2 * y + 0.1 * a
    return torch.tensor(positive), torch.tensor(y), torch.tensor(a)


@pytest.mark.parametrize("groups", [2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_gaps_equal_fairlearn(groups, seed):
    metrics = pytest.importorskip("fairlearn.metrics")
    positive, y, a = people(200, groups, seed)
    known = {
        "y_true": y.numpy(),
        "y_pred": positive.long().numpy(),
        "sensitive_features": a.numpy(),
    }
    parity, odds = demographic_parity_gap(positive, a), equalized_odds_gap(positive, y, a)
    assert parity.value == pytest.approx(metrics.demographic_parity_difference(**known), abs=1e-12)
    assert odds.value == pytest.approx(metrics.equalized_odds_difference(**known), abs=1e-12)


def test_gaps_by_hand():
    positive = torch.tensor([True, True, False, True, False, False])
    y, a = torch.tensor([1, 1, 0, 1, 0, 1]), torch.tensor([0, 0, 0, 1, 1, 1])
    parity = demographic_parity_gap(positive, a)
    assert parity.value == pytest.approx(2 / 3 - 1 / 3)
    assert 0 <= parity.low <= parity.value <= parity.high
    assert equalized_odds_gap(positive, y, a).value == pytest.approx(
        1 - 1 / 2
    )  # of y = 1: 2/2 and 1/2; of y = 0: 0 and 0


def test_names_of_groups_do_not_matter_and_equal_groups_have_no_gap():
    positive, y, a = people(120, 2, 9)
    for other in (1 - a, 5 * a - 2):
        assert (
            demographic_parity_gap(positive, other).value
            == demographic_parity_gap(positive, a).value
        )
        assert (
            equalized_odds_gap(positive, y, other).value == equalized_odds_gap(positive, y, a).value
        )
    twice, both = positive.repeat(2), torch.arange(2).repeat_interleave(120)
    assert demographic_parity_gap(twice, both).value == 0
    assert equalized_odds_gap(twice, y.repeat(2), both).value == 0


class Reads(nn.Module):
    """The log odds of class 1 are `scale` times one input."""

    def __init__(self, column: int, scale: float = 40.0) -> None:
        super().__init__()
        self.column, self.scale = column, scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * x[:, self.column : self.column + 1]

    def counterfactual(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x[:, :3], -x[:, 3:]], 1)


def world() -> Trained:
    """x₃ = ± 1 is the group; in the counterfactual it alone changes."""
    task = toy_task()
    own = task.splits["unseen"].data.columns
    x = torch.cat([own["x"][:, :3], 2.0 * own["a"][:, None] - 1], 1)
    other = torch.cat([x[:, :3], -x[:, 3:]], 1)
    split = replace(task.splits["unseen"], data=Columns(**{**own, "x": x, "counterfactual": other}))
    return Trained(toy_model(), replace(task, splits={**task.splits, "unseen": split}))


def test_known_counterfactuals():
    """A rule without a has no effect, a rule of a alone has effect 1; one between has the
    difference of its odds.
    """
    fair, unfair, mild = (replace(world(), model=m) for m in (Reads(0), Reads(3), Reads(3, 0.5)))
    for measure in (
        CounterfactualEffect("unseen"),
        CounterfactualFlips("unseen"),
        ModelBasedEffect("unseen"),
    ):
        assert measure(fair, LAB).value == 0
        assert measure(unfair, LAB).value == pytest.approx(1)
    wanted = float(torch.tensor(0.5).sigmoid() - torch.tensor(-0.5).sigmoid())
    assert CounterfactualEffect("unseen")(mild, LAB).value == pytest.approx(wanted)
    assert ModelBasedEffect("unseen")(mild, LAB).value == pytest.approx(wanted)
    assert CounterfactualFlips("unseen")(mild, LAB).value == 1
    assert DemographicParity("unseen")(unfair, LAB).value == 1
    assert EqualizedOdds("unseen")(unfair, LAB).value == 1


def test_effect_is_the_change_of_the_positive_probability_and_symmetric():
    z = torch.randn(2, 9, 2, generator=LAB.generator(), dtype=torch.float64).softmax(2)
    assert torch.allclose(effect(z[0], z[1]), (z[0, :, 1] - z[1, :, 1]).abs())
    assert torch.equal(effect(z[0], z[1]), effect(z[1], z[0]))


def test_refusals():
    positive, y, a = people(40, 2, 1)
    with pytest.raises(InvalidData, match="1 group"):
        demographic_parity_gap(positive, torch.zeros_like(a))
    with pytest.raises(InvalidData, match="Group 1 has no example with label 1"):
        equalized_odds_gap(positive, y * (a == 0), a)
    with pytest.raises(UnknownName, match="counterfactual"):
        CounterfactualEffect("unseen")(Trained(toy_model(), toy_task()), LAB)
    with pytest.raises(UnsupportedLayer, match="makes no counterfactuals"):
        ModelBasedEffect("unseen")(Trained(toy_model(), toy_task()), LAB)
