"""Intervals that the audit relies on: over seeds crossed with examples, of AUC over seeds, of
independent gaps.
"""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from unseen import stats
from unseen.errors import InvalidData


def test_crossed_covers_the_mean_of_a_two_way_layout():
    rng, covered, draws = np.random.default_rng(0), 0, 400
    for _ in range(draws):
        seeds, examples = rng.normal(0, 0.3, (5, 1)), rng.normal(0, 1.0, (1, 40))
        reading = stats.crossed_mean(seeds + examples + rng.normal(0, 0.5, (5, 40)))
        covered += reading.low <= 0 <= reading.high
    assert (
        0.92 <= covered / draws <= 1.0
    )  # 95 % nominal; the variance estimate is kept conservative


def test_crossed_with_one_seed_is_students_interval():
    x = np.random.default_rng(1).normal(size=30)
    one, plain = stats.crossed_mean(x[None]), stats.mean(x)
    assert (one.value, one.low, one.high) == pytest.approx((plain.value, plain.low, plain.high))


def test_crossed_ignores_the_order_of_seeds_and_examples():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(3, 20))
    a, b = stats.crossed_mean(x), stats.crossed_mean(x[::-1][:, rng.permutation(20)])
    assert (a.value, a.low, a.high) == pytest.approx((b.value, b.low, b.high))


@pytest.mark.parametrize("table", [np.ones((3, 1)), np.ones(5), np.full((2, 4), np.nan)])
def test_crossed_refuses_what_has_no_interval(table):
    with pytest.raises(InvalidData):
        stats.crossed_mean(table)


def test_crossed_auc_is_the_mean_of_scikit_learns():
    rng = np.random.default_rng(3)
    y = rng.random(80) < 0.4
    scores, other = rng.normal(size=(3, 80)) + y, rng.normal(size=(3, 80))
    want = np.mean([roc_auc_score(y, row) for row in scores])
    base = np.mean([roc_auc_score(y, row) for row in other])
    assert stats.crossed_auc(scores, y).value == pytest.approx(want)
    assert stats.crossed_auc(scores, y, against=other).value == pytest.approx(want - base)


def test_paired_auc_of_a_model_with_itself_is_exactly_zero():
    rng = np.random.default_rng(4)
    y, scores = np.arange(30) % 2 == 0, rng.normal(size=(2, 30))
    reading = stats.crossed_auc(scores, y, against=scores)
    assert (reading.value, reading.low, reading.high) == (0, 0, 0)


def test_one_seed_paired_auc_is_delongs():
    rng = np.random.default_rng(5)
    y = np.arange(60) % 3 == 0
    a, b = rng.normal(size=60) + y, rng.normal(size=60) + 0.5 * y
    mine, delong = stats.crossed_auc(a, y, against=b), stats.auc_difference(a, b, y)
    assert (mine.value, mine.low, mine.high) == pytest.approx(
        (delong.value, delong.low, delong.high)
    )


def test_apart_is_newcombes_method_ten():
    # Newcombe (1998), Statistics in Medicine 17, 873–890, table II: 56/70 − 48/80
    reading = stats.independent_difference(stats.proportion(56, 70), stats.proportion(48, 80))
    assert (reading.value, reading.low, reading.high) == pytest.approx(
        (0.2, 0.0524, 0.3339), abs=5e-5
    )
