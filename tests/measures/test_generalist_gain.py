"""Gains are paired; the data ratio is read off the specialist's curve."""

import pytest
import torch

from unseen.errors import InvalidData, UnknownName
from unseen.lab import Lab
from unseen.measures.generalist_gain import (
    DataRatio,
    GeneralistGain,
    LearningCurves,
    example,
    size_at,
)


def curves(specialist, mixed, sizes=(100, 200, 400), items=100):
    """Scores of so many items with these means."""

    def rows(means):
        return torch.stack([(torch.arange(items) < round(mean * items)).double() for mean in means])

    return LearningCurves(sizes, rows(specialist), rows(mixed))


def test_the_ratio_is_one_where_both_curves_coincide():
    same = curves([0.1, 0.4, 0.8], [0.1, 0.4, 0.8])
    for n in same.sizes:
        assert DataRatio(n)(same, Lab()).value == pytest.approx(1)
        assert GeneralistGain(n)(same, Lab()).value == 0


def test_the_ratio_says_how_many_target_examples_are_replaced():
    found = curves([0.1, 0.4, 0.8], [0.4, 0.8, 0.8])
    assert DataRatio(100)(found, Lab()).value == pytest.approx(2)
    assert DataRatio(200)(found, Lab()).value == pytest.approx(2)
    # half-way between two sizes on a scale of logarithms
    half = curves([0.1, 0.4, 0.8], [0.25, 0.4, 0.8])
    assert DataRatio(100)(half, Lab()).value == pytest.approx(2**0.5)
    assert DataRatio(400)(curves([0.1, 0.4, 0.8], [0.1, 0.4, 0.4]), Lab()).value == pytest.approx(
        0.5
    )


def test_a_curve_that_falls_counts_as_its_highest_value():
    assert size_at((1, 2, 4), (0.5, 0.3, 0.7), 0.5) == 1
    assert size_at((1, 2, 4), (0.2, 0.6, 0.6), 0.6) == 2


def test_the_gain_pairs_items():
    found = curves([0.2, 0.2, 0.2], [0.5, 0.2, 0.1])
    assert GeneralistGain(100)(found, Lab()).value == pytest.approx(0.3)
    assert GeneralistGain(400)(found, Lab()).value == pytest.approx(-0.1)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    shuffled = LearningCurves(found.sizes, found.specialist[:, order], found.mixed[:, order])
    one, other = (GeneralistGain(100)(x, Lab()) for x in (found, shuffled))
    assert (one.low, one.high) == pytest.approx((other.low, other.high))


def test_scores_off_the_curve_have_no_ratio():
    with pytest.raises(InvalidData, match="above all of the specialist's"):
        DataRatio(100)(curves([0.1, 0.4, 0.8], [0.9, 0.9, 0.9]), Lab())
    with pytest.raises(InvalidData, match="below all of the specialist's"):
        DataRatio(100)(curves([0.1, 0.4, 0.8], [0.0, 0.4, 0.8]), Lab())
    with pytest.raises(UnknownName):
        GeneralistGain(50)(example()[1], Lab())
    with pytest.raises(InvalidData):
        GeneralistGain(100)(LearningCurves((200, 100), torch.zeros(2, 3), torch.zeros(2, 3)), Lab())


def test_coinciding_curves_have_the_ratio_one_where_they_fall_too():
    same = curves([0.4, 0.1, 0.8], [0.4, 0.1, 0.8])
    assert [DataRatio(n)(same, Lab()).value for n in same.sizes] == [1, 1, 1]
