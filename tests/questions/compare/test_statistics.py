"""What is read from the scores: closed forms on tables made by hand."""

from dataclasses import replace
from math import inf, sqrt

import numpy as np
import pytest
from scipy import stats as peer

from unseen import stats
from unseen.errors import InvalidData
from unseen.questions.compare import statistics
from unseen.questions.compare.quantities import Area, Mean
from unseen.questions.compare.results import AVERAGE, WORST
from unseen.questions.compare.tables import ScoreTable
from unseen.reading import Reading


def test_average_over_places_adds_intervals_in_square():
    value = stats.average([Reading(0.6, 0.5, 0.7, 10), Reading(0.8, 0.6, 0.9, 30)])
    assert (value.value, value.n) == (pytest.approx(0.7), 40)
    assert value.low == pytest.approx(0.7 - sqrt(0.1**2 + 0.2**2) / 2)
    assert value.high == pytest.approx(0.7 + sqrt(0.1**2 + 0.1**2) / 2)


def test_average_of_one_place_is_that_place():
    one = Reading(0.6, 0.5, 0.7, 10)
    assert stats.average([one]) == one


def test_an_accuracy_of_one_is_not_certain():
    value = stats.mean_score(np.ones((3, 20)))
    wilson = stats.proportion(20, 20)
    assert (value.value, value.low, value.high) == (1.0, wilson.low, 1.0)


def test_one_example_is_refused():
    with pytest.raises(InvalidData, match="no spread"):
        stats.mean_score(np.ones((3, 1)))


@pytest.mark.parametrize("among", [1, 3, 7])
def test_widened_intervals_are_bonferronis(among):
    value = stats.widen(Reading(1.0, 1.0 - 1.959964, 1.0 + 1.959964), among)
    z = peer.norm.ppf(1 - 0.05 / 2 / among)
    assert (value.low, value.high) == (
        pytest.approx(1 - z, abs=1e-5),
        pytest.approx(1 + z, abs=1e-5),
    )


def test_the_best_stands_out_only_if_its_interval_excludes_every_other():
    values = {"a": 0.9, "b": 0.8, "c": 0.1}
    clear = {("a", "b"): Reading(0.1, 0.05, 0.15), ("a", "c"): Reading(0.8, 0.7, 0.9)}
    assert statistics.stands_out(values, clear) == "a"
    assert statistics.stands_out(values, clear | {("a", "b"): Reading(0.1, -0.01, 0.21)}) is None
    # clear alone, but not after the choice among two rivals
    assert statistics.stands_out(values, clear | {("a", "b"): Reading(0.1, 0.001, 0.199)}) is None


@pytest.mark.parametrize("values", [{"a": 0.9}, {}])
def test_nothing_stands_out_alone(values):
    assert statistics.stands_out(values, {}) is None


def test_a_rival_with_unknown_difference_keeps_the_best_from_standing_out():
    assert statistics.stands_out({"a": 0.9, "b": 0.8}, {}) is None


def test_differences_pair_the_seeds_that_both_have():
    one, other = (
        {0: np.array([1.0, 0.0]), 2: np.array([1.0, 1.0])},
        {2: np.array([0.0, 1.0]), 1: np.array([9.0, 9.0])},
    )
    a, b = statistics.pair_by_seed(one, other)
    assert (a.tolist(), b.tolist()) == ([[1.0, 1.0]], [[0.0, 1.0]])
    with pytest.raises(InvalidData, match="paired by seed"):
        statistics.pair_by_seed({0: a[0]}, {1: b[0]})


def board(worse: str = "east") -> ScoreTable:
    """Two methods at two sites, three seeds, forty examples: `new` is better by 0.2 at `west`, by
    0.1 at `east`.
    """
    rng = np.random.default_rng(0)
    noise = {place: rng.normal(0, 0.1, (3, 40)) for place in ("west", "east")}
    level = {("old", "west"): 0.5, ("old", "east"): 0.4, ("new", "west"): 0.7, ("new", "east"): 0.5}
    if worse == "west":
        level["new", "west"] = 0.3
    values = {(m, p): {s: x + noise[p][s] for s in range(3)} for (m, p), x in level.items()}
    return ScoreTable(
        quantity=Mean("score"), methods=["old", "new"], sites=["west", "east"], values=values
    )


def test_paired_differences_have_no_noise_left_and_average_over_places():
    found = board()
    for column, gap in (("west", 0.2), ("east", 0.1), (AVERAGE, 0.15), (WORST, 0.1)):
        change = found.differences(column)["new", "old"]
        assert change.value == pytest.approx(gap)
        assert change.high - change.low < 1e-9  # the same noise in both: paired, it is gone
        assert found.differences(column)["old", "new"].value == pytest.approx(-gap)
    assert found.lowest == {"old": "east", "new": "east"}


def test_worst_places_that_differ_leave_open_which_one_counts():
    found = board(worse="west")
    assert found.lowest == {"old": "east", "new": "west"}
    change = found.differences(WORST)["new", "old"]
    lowest = found.readings_in(WORST)
    assert change.value == pytest.approx(lowest["new"].value - lowest["old"].value)
    # paired at west and at east, without noise: −0.2 and +0.1
    assert (change.low, change.high) == (pytest.approx(-0.2), pytest.approx(0.1))


def test_the_interval_of_the_worst_site_knows_of_the_choice():
    found = board()
    east, worst = found.readings["old", "east"], found.readings["old", WORST]
    assert worst.value == east.value
    assert worst.low <= east.low
    assert worst.high > east.high
    assert (worst.low, worst.high) == (
        (chosen := stats.lowest_of([found.readings["old", s] for s in found.sites])).low,
        chosen.high,
    )


def test_a_missing_place_leaves_no_average():
    whole = board()
    part = ScoreTable(
        quantity=whole.quantity,
        methods=whole.methods,
        sites=whole.sites,
        values={**whole.values, ("new", "west"): {}},
    )
    assert set(part.readings_in(AVERAGE)) == set(part.readings_in(WORST)) == {"old"}
    assert set(part.readings_in("east")) == {"old", "new"}
    assert (part.seeds("new", "west"), part.seeds("new", AVERAGE), part.seeds("new", "east")) == (
        0,
        0,
        3,
    )


def test_the_area_is_the_share_of_pairs_in_the_right_order():
    area = Area({"here": np.array([False, False, True, True])})
    margins = {0: np.array([0.0, 2.0, 1.0, 3.0]), 1: np.array([0.0, 1.0, 2.0, 3.0])}
    assert area.reading("here", margins).value == pytest.approx((3 / 4 + 1) / 2)
    assert area.change("here", margins, margins).value == 0


def test_the_mean_is_in_the_targets_unit():
    values = {0: np.array([-0.5, -1.5]), 1: np.array([-1.0, -1.0])}
    found = Mean("mean absolute error", -16.0).reading("here", values)
    assert found.value == pytest.approx(16.0)
    assert found.low <= 16.0 <= found.high


def test_of_errors_the_largest_is_the_worst():
    """The same table as negative scores and as errors, up to the sign."""
    scores = board(worse="west")
    errors = replace(scores, quantity=Mean("mean absolute error", -1.0))
    assert errors.lowest == scores.lowest
    for column in (*scores.sites, AVERAGE, WORST):
        for method in scores.methods:
            score, error = (b.readings[method, column] for b in (scores, errors))
            assert error.value == pytest.approx(-score.value)
            assert (error.low, error.high) == (
                pytest.approx(-score.high),
                pytest.approx(-score.low),
            )
        change = scores.differences(column)["new", "old"]
        turned = errors.differences(column)["old", "new"]
        assert turned.value == pytest.approx(change.value)
        assert (turned.low, turned.high) == (pytest.approx(change.low), pytest.approx(change.high))


def test_worst_is_the_lowest_value():
    assert statistics.worst({"a": Reading(0.5, -inf, inf), "b": Reading(0.4, 0.3, 0.9)}) == "b"
