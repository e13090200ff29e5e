"""Exchanged features: what a model ignores changes nothing, what it needs makes it a coin; one
perturbation for all.
"""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.testing import assert_close

from unseen.engine.batches import Columns
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.measures.randomised_auc import RandomisedAUC, exchange_features, randomised_auc
from unseen.measures.universal_perturbation import (
    UniversalPerturbation,
    prediction_flips,
    universal_perturbation,
)
from unseen.method import Trained
from unseen.objectives import classify
from unseen.task import Axis, Split, Task, Use

LAB = Lab(dtype=torch.float64)


def linear(weights) -> nn.Module:
    """Log odds w · x of class 1."""
    model = nn.Linear(len(weights), 2, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-w / 2 for w in weights], [w / 2 for w in weights]]))
    return model


def batch(n=400, d=3):
    """y is the sign of the first feature plus noise; the third one is small."""
    x = torch.randn(n, d, generator=Lab(1).generator(), dtype=torch.float64)
    y = (
        x[:, 0] + 0.5 * torch.randn(n, generator=Lab(2).generator(), dtype=torch.float64) > 0
    ).long()
    return {"x": x, "y": y}


def mask(*chosen, d=3):
    return torch.tensor([j in chosen for j in range(d)])


def trained(model, data):
    splits = {
        "train": Split(Columns(**data), Use.TRAIN),
        "test": Split(Columns(**data), Use.EVALUATE),
    }
    return Trained(model, Task(name="t", axis=Axis.IID, splits=splits, objective=classify))


def test_without_features_it_is_sklearns_area():
    data, model = batch(), linear([1.0, 0.3, 0.0])
    odds = (data["x"] @ torch.tensor([1.0, 0.3, 0.0], dtype=torch.float64)).numpy()
    reading = randomised_auc(model, data, mask(), LAB)
    assert reading.value == pytest.approx(roc_auc_score(data["y"], odds), abs=1e-12)
    assert reading.value == RandomisedAUC(features=())(trained(model, data), LAB).value


def test_ignored_features_change_nothing_and_needed_ones_make_a_coin():
    data, model = batch(), linear([1.0, 0.0, 0.0])
    whole = randomised_auc(model, data, mask(), LAB).value
    assert randomised_auc(model, data, mask(1, 2), LAB).value == pytest.approx(whole, abs=1e-12)
    for needed in (mask(0), mask(0, 1, 2)):
        reading = randomised_auc(model, data, needed, LAB, repeats=50)
        # of 400 examples an AUC of a random ranking has standard deviation 0.029; the mean of 50
        # orders 0.004
        assert reading.value == pytest.approx(0.5, abs=5 * 0.029 / math.sqrt(50))


def test_a_constant_shift_of_the_logit_does_not_look_like_reliance():
    data, model = batch(), linear([1.0, 0.4, 0.0])
    biased = nn.Linear(3, 2).double()
    with torch.no_grad():
        biased.weight.copy_(model.weight)
        biased.bias.copy_(torch.tensor([0.0, 7.0]))
    one, other = (randomised_auc(m, data, mask(1), LAB).value for m in (model, biased))
    assert one == pytest.approx(other, abs=1e-12)


def test_chosen_features_of_a_row_come_from_one_other_row():
    x = torch.arange(12.0).view(4, 3)
    moved = exchange_features(x, mask(0, 2), torch.tensor([2, 0, 3, 1]))
    assert_close(moved, torch.tensor([[6.0, 1, 8], [0, 4, 2], [9, 7, 11], [3, 10, 5]]))


def test_more_than_two_classes_and_positions_outside_are_refused():
    data = batch()
    with pytest.raises(InvalidData, match="outputs"):
        randomised_auc(nn.Linear(3, 3).double(), data, mask(0), LAB)
    with pytest.raises(InvalidData, match="two classes"):
        randomised_auc(linear([1.0, 0, 0]), {**data, "y": data["y"] + 1}, mask(0), LAB)
    for wrong in ({"features": (3,)}, {"repeats": 0}):
        with pytest.raises(InvalidConfig, match="out of range"):
            RandomisedAUC(**wrong)(trained(linear([1.0, 0, 0]), data), LAB)


def test_the_universal_perturbation_of_a_linear_model_is_its_weights():
    data, weights = batch(), torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
    delta = universal_perturbation(linear(weights.tolist()), data, classify.loss, radius=1.5)
    assert delta.norm().item() == pytest.approx(1.5)
    assert abs(torch.dot(delta, weights)).item() == pytest.approx(
        1.5 * weights.norm().item(), rel=1e-6
    )


def test_flips_of_a_linear_model_are_those_whose_margin_is_smaller_than_the_shift():
    data, model = batch(), linear([1.0, 0.0, 0.0])
    by = torch.tensor([0.7, 5.0, -5.0], dtype=torch.float64)
    first = data["x"][:, 0]
    assert torch.equal(prediction_flips(model, data["x"], by).bool(), (first <= 0) & (first > -0.7))
    reading = UniversalPerturbation(radius=0.7)(trained(model, data), LAB)
    share = [
        float(((first <= 0) & (first > -0.7)).double().mean()),
        float(((first > 0) & (first < 0.7)).double().mean()),
    ]
    assert reading.value == pytest.approx(share[0]) or reading.value == pytest.approx(share[1])
    assert np.isclose(reading.detail.mean().item(), reading.value)


def test_a_flat_loss_and_an_empty_ball_are_refused():
    with pytest.raises(InvalidData, match="no direction"):
        universal_perturbation(linear([0.0, 0.0, 0.0]), batch(), classify.loss, radius=1.0)
    for wrong in ({"radius": 0.0}, {"passes": 0}):
        with pytest.raises(InvalidConfig, match="out of range"):
            UniversalPerturbation(**wrong)
