"""Average precision: the sum over thresholds by hand, scikit-learn's, ties, and intervals."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis.strategies import integers
from sklearn.metrics import average_precision_score

from unseen.engine.batches import Columns
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.measures.average_precision import (
    AveragePrecision,
    average_precision,
    bootstrap_average_precision,
)
from unseen.method import Trained
from unseen.objectives import classify
from unseen.task import Axis, Split, Task, Use


def by_thresholds(scores, y):
    """Σ (Rₖ − Rₖ₋₁) Pₖ over distinct thresholds, from the definition."""
    total, before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        called = [k for k, s in enumerate(scores) if s >= threshold]
        recall = sum(y[k] for k in called) / sum(y)
        total += (recall - before) * sum(y[k] for k in called) / len(called)
        before = recall
    return total


@given(n=integers(2, 30), levels=integers(1, 10), seed=integers(0, 999))
def test_it_is_the_sum_over_distinct_thresholds(n, levels, seed):
    rng = np.random.default_rng(seed)
    scores, y = rng.integers(0, levels, n).astype(float), rng.random(n) < 0.4
    y[0] = True
    value = average_precision(scores, y)
    assert value == pytest.approx(by_thresholds(scores.tolist(), y.tolist()))
    assert value == pytest.approx(average_precision_score(y, scores))
    # order and scale do not count; copies count as weights do
    order = rng.permutation(n)
    assert average_precision(3 * scores[order] + 1, y[order]) == pytest.approx(value)
    times = rng.integers(1, 4, n)
    copies = average_precision(np.repeat(scores, times), np.repeat(y, times))
    assert average_precision(scores, y, times.astype(float)) == pytest.approx(copies)


@pytest.mark.parametrize("kind", [np.uint8, bool, np.int64, np.float32])
def test_the_type_of_the_scores_changes_no_order(kind):
    scores, y = np.array([0, 1, 1, 0, 1]), np.array([0, 1, 0, 0, 1], bool)
    wanted = average_precision_score(y, scores)
    assert average_precision(scores.astype(kind), y) == pytest.approx(wanted)
    rng = np.random.default_rng(0)
    assert bootstrap_average_precision(scores.astype(kind), y, rng).value == pytest.approx(wanted)


def test_its_ends():
    y = np.array([1, 1, 0, 0, 0], bool)
    assert average_precision(np.array([5.0, 4, 3, 2, 1]), y) == 1
    assert average_precision(np.zeros(5), y) == pytest.approx(0.4)
    with pytest.warns(UserWarning, match="No example is positive"):
        assert np.isnan(average_precision(np.zeros(5), np.zeros(5, bool)))
    with pytest.raises(InvalidData, match="not finite"):
        average_precision(np.array([np.nan, 1.0]), np.array([True, False]))


@pytest.mark.parametrize(("n", "distance"), [(500, 1.5), (120, 0.5)])
def test_its_interval_covers(n, distance):
    """The value of 200,000 examples lies in the interval of a few, 6 % of them positive."""
    rng = np.random.default_rng(0)

    def draw(size):
        y = rng.random(size) < 0.06
        y[0] = True
        return rng.normal(size=size) + distance * y, y

    true = average_precision(*draw(200_000))
    inside = 0
    for _ in range(200):
        reading = bootstrap_average_precision(*draw(n), rng, draws=200)
        inside += reading.low <= true <= reading.high
    assert inside >= 0.93 * 200


def test_it_reads_the_probability_of_the_second_class():
    x = torch.tensor([[3.0], [2.0], [1.0], [0.0]])
    y = torch.tensor([1, 0, 1, 0])
    model = torch.nn.Linear(1, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0], [1.0]]))
    splits = {
        "train": Split(Columns(x=x, y=y), Use.TRAIN),
        "test": Split(Columns(x=x, y=y), Use.EVALUATE),
    }
    trained = Trained(model, Task(name="t", axis=Axis.IID, splits=splits, objective=classify))
    assert AveragePrecision(draws=50)(trained, Lab()).value == pytest.approx((1 + 2 / 3) / 2)
    splits["test"] = Split(Columns(x=x, y=torch.tensor([0, 1, 2, 1])), Use.EVALUATE)
    with pytest.raises(InvalidData, match="classes 0 and 1"):
        AveragePrecision()(Trained(model, trained.task), Lab())
