"""Effects on made rows against their definitions written out."""

from math import exp, log

import numpy as np
import pytest

from unseen import stats
from unseen.errors import InvalidData
from unseen.study import average, gap, rate
from unseen.study.effects import crossed_gap, distinct, grid, overlapping, ratio, share, worst

ROWS = [
    {"setting": label, "seed": seed, "v": value + 0.01 * seed, "kind": kind}
    for label, value, kind in (("c", 0.99, "x"), ("a", 0.95, "x"), ("b", 0.2, "y"))
    for seed in range(3)
]


def test_distinct_keeps_the_order_of_rows_and_skips_rows_without_the_column():
    assert distinct([*ROWS, {"seed": 9}], "setting") == [("c",), ("a",), ("b",)]
    assert distinct(ROWS, "kind", "setting") == [("x", "c"), ("x", "a"), ("y", "b")]
    assert distinct([], "setting") == []


def test_the_worst_group_is_the_farthest_from_the_ideal():
    a, b, c = (average("v", setting=setting)(ROWS) for setting in "abc")
    found = worst(average("v"), "setting", 1.0)(ROWS)
    assert found.value == b.value
    assert (found.low, found.high) == (b.low, c.high)  # the hull of all groups
    assert found.readings == {"setting a": a, "setting b": b, "setting c": c}
    assert worst(average("v"), "setting", 0.0)(ROWS).value == c.value
    assert worst(average("v"), "setting", 1.0, kind="x")(ROWS).value == a.value
    with pytest.raises(InvalidData, match="No row has `setting`"):
        worst(average("v"), "setting", 1.0, kind="z")(ROWS)


def test_a_ratio_of_geometric_means_does_not_depend_on_units():
    rows = [
        {"side": side, "seed": s, "v": log(m)}
        for side, ms in (("a", (2, 8)), ("b", (1, 1)))
        for s, m in enumerate(ms)
    ]
    effect = ratio("v", {"side": "a"}, {"side": "b"})
    assert effect(rows).value == pytest.approx(4)
    plain = gap("v", {"side": "a"}, {"side": "b"})(rows)
    assert (effect(rows).low, effect(rows).high) == (exp(plain.low), exp(plain.high))
    assert effect([row | {"v": row["v"] + 3} for row in rows]).value == pytest.approx(4)


def test_intervals_of_proportions_know_both_seeds_and_examples():
    alike = [{"hit": 100, "of": 100, "seed": seed} for seed in range(4)]
    found = share("hit", "of")(alike)
    assert found.value == 1
    assert found.low == pytest.approx(rate("hit", "of")(alike).low)
    mixed = [{"hit": hit, "of": 100, "seed": seed} for seed, hit in enumerate((60, 100, 100, 100))]
    found = share("hit", "of")(mixed)
    assert found.value == pytest.approx(0.9)
    assert (
        found.low < stats.mean([0.6, 1, 1, 1]).low
    )  # one seed of four fails: few seeds say little
    assert found.high == 1
    assert share("hit", "of")(alike[:1]).low == pytest.approx(rate("hit", "of")(alike[:1]).low)


def test_a_grid_pairs_seeds_and_places_whatever_the_order_of_rows():
    table = grid(ROWS, "v", "seed", "setting")
    np.testing.assert_allclose(
        table, [[v + 0.01 * seed for v in (0.95, 0.2, 0.99)] for seed in range(3)]
    )
    np.testing.assert_array_equal(grid(ROWS[::-1], "v", "seed", "setting"), table)
    for broken in (ROWS[1:], [*ROWS, ROWS[0]], []):
        with pytest.raises(InvalidData, match="once each"):
            grid(broken, "v", "seed", "setting")


def test_a_crossed_gap_is_paired_and_needs_two_places():
    one, other = np.random.default_rng(0).normal(size=(2, 3, 5))
    assert crossed_gap(one, other) == stats.crossed_mean(one - other)
    assert crossed_gap(other, one).value == pytest.approx(-crossed_gap(one, other).value)
    for a, b in ((one[:, :1], other[:, :1]), (one, other[:2])):
        with pytest.raises(InvalidData, match="difference over sites"):
            crossed_gap(a, b)


def test_an_interval_over_overlapping_seeds_is_no_narrower_than_one_sample():
    one, many = overlapping([0.1], [0.0004]), overlapping([0.1, 0.12, 0.08], [0.0004] * 3)
    assert one.high - one.value == pytest.approx(1.96 * 0.02, rel=1e-4)
    assert many.high - many.low > one.high - one.low
    assert many.value == pytest.approx(0.1)
    assert overlapping([0.08, 0.1, 0.12], [0.0004] * 3).low == pytest.approx(many.low)
    with pytest.raises(InvalidData, match="No seed"):
        overlapping([], [])
