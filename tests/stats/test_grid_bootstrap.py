"""The bootstrap of a grid of runs and items: what it holds, and what it refuses."""

from math import sqrt

import numpy as np
import pytest
from scipy.special import expit

from unseen import stats
from unseen.errors import InvalidData

REPEATS, ITEMS = 200, 100
LEAST = 0.93 - 2 * sqrt(0.93 * 0.07 / REPEATS)


def draw_answers(rng, runs, item_spread, run_spread):
    """Right and wrong answers whose probabilities differ between items and between runs."""
    item = rng.normal(0, item_spread, (1, ITEMS))
    run = rng.normal(0, run_spread, (runs, 1))
    return rng.random((runs, ITEMS)) < np.clip(expit(0.3 + item) + run, 0, 1)


def truth(item_spread, run_spread):
    rng = np.random.default_rng(1)
    item, run = rng.normal(0, item_spread, 100_000), rng.normal(0, run_spread, 100_000)
    return float(np.clip(expit(0.3 + item) + run, 0, 1).mean())


def coverage(runs, item_spread, run_spread):
    rng, mean = np.random.default_rng(0), truth(item_spread, run_spread)
    held = 0
    for _ in range(REPEATS):
        table = draw_answers(rng, runs, item_spread, run_spread)
        found = stats.grid_bootstrap(np.array, table, rng=rng, draws=300)
        held += found.low <= mean <= found.high
    return held / REPEATS


@pytest.mark.parametrize("runs", [3, 10])
@pytest.mark.parametrize(("item_spread", "run_spread"), [(0, 0), (2, 0), (1, 0.05), (0, 0.1)])
def test_it_holds_the_mean_of_a_grid(runs, item_spread, run_spread):
    assert coverage(runs, item_spread, run_spread) >= LEAST


def test_runs_that_differ_much_are_held_as_rarely_as_the_docstring_says():
    assert 0.84 <= coverage(3, 0, 0.2) <= 0.93


def test_one_run_gives_the_interval_over_items():
    x = np.random.default_rng(0).random((1, 200)) < 0.7
    found = stats.grid_bootstrap(np.array, x, rng=np.random.default_rng(1))
    wilson = stats.proportion(int(x.sum()), 200)
    assert found.value == x.mean()
    assert found.low == pytest.approx(wilson.low, abs=0.01)
    assert found.high == pytest.approx(wilson.high, abs=0.01)


def test_tables_share_their_items():
    """A difference of equal tables has no width; with items drawn separately it would."""
    x = np.random.default_rng(0).random((3, 50)) < 0.5
    found = stats.grid_bootstrap(np.subtract, x, x, rng=np.random.default_rng(1))
    assert (found.low, found.value, found.high) == (0, 0, 0)


def test_order_of_items_and_chunks_do_not_matter():
    x = np.random.default_rng(0).random((3, 50))
    value = stats.grid_bootstrap(np.array, x, rng=np.random.default_rng(1), draws=2_000)
    other = stats.grid_bootstrap(np.array, x[:, ::-1], rng=np.random.default_rng(2), draws=1_200)
    assert other.value == pytest.approx(value.value)
    assert other.low == pytest.approx(value.low, abs=0.01)


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ((), "tables of shape"),
        ((np.ones((2, 3)), np.ones((2, 4))), r"\(2, 3\), \(2, 4\)"),
        ((np.ones(3),), r"\(3,\)"),
        ((np.ones((2, 1)),), r"\(2, 1\)"),
        ((np.full((2, 3), np.nan),), "NaN or infinite"),
    ],
)
def test_tables_that_make_no_grid_are_refused(tables, words):
    with pytest.raises(InvalidData, match=words):
        stats.grid_bootstrap(np.array, *tables, rng=np.random.default_rng(0))


def test_a_statistic_that_never_exists_is_refused():
    zero = np.zeros((2, 5))
    with (
        np.errstate(invalid="ignore"),
        pytest.raises(InvalidData, match="does not exist in any draw"),
    ):
        stats.grid_bootstrap(np.divide, zero, zero, rng=np.random.default_rng(0))
