"""Forget ratios: closed values, an interval that covers, refusals; confidence and variability."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from unseen.engine.loop import Budget
from unseen.engine.parameters import copy_parameters
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.measures.forgetting import (
    ForgetRatio,
    choice_confidence,
    example,
    forget_gap,
    forget_ratio,
    predict_forgetting,
    representation_variability,
)
from unseen.method import Trained
from unseen.methods.erm import ERM


def share(accuracy: float, n: int = 100) -> np.ndarray:
    return (np.arange(n) < accuracy * n).astype(float)


def test_all_is_forgotten_at_chance_and_nothing_at_the_same_accuracy():
    assert forget_ratio(share(0.8), share(0.5), 0.5).value == pytest.approx(1)
    nothing = forget_ratio(share(0.8), share(0.8), 0.5)
    assert (nothing.value, nothing.low, nothing.high) == (0, 0, 0)
    assert forget_gap(share(0.8), share(0.5)).value == pytest.approx(0.3)


def test_chance_adapts_to_items_with_other_numbers_of_choices():
    chance = np.where(np.arange(1000) < 500, 0.5, 0.25)
    found = forget_ratio(share(0.8, 1000), share(0.375, 1000), chance)
    assert found.value == pytest.approx(1)


def test_a_model_at_chance_has_nothing_to_forget():
    with pytest.raises(InvalidData, match="one standard error above chance"):
        forget_ratio(share(0.52), share(0.5), 0.5)
    with pytest.raises(InvalidData, match="before and"):
        forget_ratio(share(0.8), share(0.8, 50), 0.5)
    with pytest.raises(InvalidData, match="not finite"):
        forget_ratio(share(0.8), share(0.8) * np.nan, 0.5)


@pytest.mark.parametrize("n", [10, 50])
def test_the_interval_covers_the_ratio(n):
    """Accuracy .9 before; of the right answers .6 stay, of the others .5 become right."""
    rng = np.random.default_rng(n)
    truth = (0.9 - (0.9 * 0.6 + 0.1 * 0.5)) / 0.4
    held = tried = 0
    while tried < 2_000:
        before = rng.random(n) < 0.9
        after = rng.random(n) < np.where(before, 0.6, 0.5)
        try:
            found = forget_ratio(before.astype(float), after.astype(float), 0.5)
        except InvalidData:
            continue
        tried += 1
        held += found.low <= truth <= found.high
    assert held / tried >= 0.93


def test_the_measure_compares_with_the_weights_before():
    measure, trained = example()
    assert measure(trained, Lab()).low > 0
    same = Trained(trained.model, trained.task, start=copy_parameters(trained.model))
    assert measure(same, Lab()).value == 0
    with pytest.raises(InvalidData, match="before training are not known"):
        measure(Trained(trained.model, trained.task), Lab())


def test_a_learning_rate_of_nothing_forgets_nothing():
    _, trained = example()
    known = Trained(trained.model, trained.task)
    for name, value in trained.start.items():
        known.model.get_parameter(name).data.copy_(value)
    same = ERM(Budget(steps=0)).fit(known.model, trained.task, Lab())
    assert ForgetRatio("held out", 0.5)(same, Lab()).value == 0


def test_confidence_is_one_over_the_choices_where_they_are_alike():
    assert choice_confidence([torch.zeros(4), torch.zeros(4)]).value == pytest.approx(0.25)
    sure = choice_confidence([torch.tensor([0.0, -100.0])] * 2)
    assert sure.value == pytest.approx(1)
    with pytest.raises(InvalidData, match="no items"):
        choice_confidence([])


def test_variability_ignores_scale_and_rotation():
    h = torch.randn(50, 8, generator=torch.Generator().manual_seed(0)).double() + 1
    turn = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(1)).double())
    value = representation_variability(h)
    assert_close(representation_variability(-7 * h @ turn.Q), value)
    centred = h - h.mean(0)
    assert_close(representation_variability(centred), 50 / 49)
    assert representation_variability(torch.ones(5, 3)) == 0
    with pytest.raises(InvalidData, match="1 states"):
        representation_variability(h[:1])


def test_fewer_than_eight_tasks_predict_nothing():
    assert predict_forgetting(range(7), range(7)) is None
    assert predict_forgetting(range(8), range(8)).value == 1
