"""Minibatches hold the examples that weights and growing parts allow."""

from itertools import islice

import pytest
import torch

from unseen.engine.batches import Columns, forever
from unseen.engine.example_sampling import (
    GrowingColumns,
    WeightedColumns,
    growing_fraction,
    order_ranks,
    zipf_weights,
)
from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.lab import Lab


def numbers(n):
    return Columns(x=torch.arange(n), length=torch.arange(n) // 2)


def test_examples_are_drawn_as_often_as_their_weights_say():
    data = WeightedColumns(torch.tensor([0.0, 1.0, 3.0]), numbers(3))
    drawn = torch.cat([b["x"] for b in islice(forever(data, 50, Lab()), 80)])
    share = (drawn == 2).double().mean().item()
    assert not (drawn == 0).any()
    assert abs(share - 0.75) < 5 * (0.75 * 0.25 / 4_000) ** 0.5
    again = next(iter(forever(data, 50, Lab())))["x"]
    assert torch.equal(again, drawn[:50])


def test_weights_of_zipf_sum_to_one_and_halve_by_two_to_the_exponent():
    rank = torch.tensor([5, 3, 3, 9])  # classes 3, 5, 9: ranks 1, 2, 3
    for exponent in (0.0, 1.0, 1.7):
        weights = zipf_weights(rank, exponent)
        assert weights.sum().item() == pytest.approx(1)
        first, second = weights[1] + weights[2], weights[0]
        assert (first / second).item() == pytest.approx(2**exponent)
        assert weights[1] == weights[2]


def test_a_growing_part_is_the_first_share_then_everything():
    fraction = growing_fraction(0.2, 0.9, 100)
    assert [fraction(t) for t in (0, 90, 100)] == [0.2, 1.0, 1.0]
    assert fraction(45) == pytest.approx(0.5)
    data = GrowingColumns(torch.arange(10).flip(0), fraction, numbers(10))
    batches = list(islice(forever(data, 64, Lab()), 100))
    assert set(batches[0]["x"].tolist()) == {8, 9}  # the lowest ranks
    assert [data.visible(t) for t in (0, 45, 90)] == [2, 5, 10]
    assert set(batches[95]["x"].tolist()) == set(range(10))


def test_equal_ranks_come_in_together():
    data = numbers(8)
    growing = GrowingColumns(order_ranks(data, "length", Lab()), lambda t: 0.25, data)
    assert growing.visible(0) == 2
    assert growing[growing.order[:2]]["length"].tolist() == [0, 0]


def test_without_a_column_the_order_is_a_shuffle_of_the_lab():
    first, second = (order_ranks(numbers(50), "", Lab(seed)) for seed in (0, 1))
    assert sorted(first.tolist()) == list(range(50))
    assert not torch.equal(first, second)
    assert torch.equal(first, order_ranks(numbers(50), "", Lab(0)))


def test_refusals():
    with pytest.raises(InvalidData, match="one weight per example"):
        WeightedColumns(torch.ones(2), numbers(3))
    with pytest.raises(InvalidData, match="at least 0"):
        WeightedColumns(torch.tensor([-1.0, 1, 1]), numbers(3))
    with pytest.raises(InvalidData, match="ranks of shape"):
        GrowingColumns(torch.arange(2), lambda t: 1.0, numbers(3))
    with pytest.raises(InvalidConfig, match="A share of 2"):
        GrowingColumns(torch.arange(3), lambda t: 2.0, numbers(3)).visible(0)
    with pytest.raises(InvalidConfig, match="sees all of them"):
        growing_fraction(0.0, 0.9, 100)
    with pytest.raises(InvalidConfig, match="frequencies fall"):
        zipf_weights(torch.arange(3), -1.0)
    with pytest.raises(UnknownName, match="column"):
        order_ranks(numbers(3), "lengths", Lab())
    with pytest.raises(InvalidData, match="one number each"):
        order_ranks(Columns(tokens=torch.zeros(3, 2)), "tokens", Lab())
