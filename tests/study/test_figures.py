"""Figures and tables from rows: the numbers are means that a reader can check."""

from statistics import fmean, median

import pytest

from unseen.errors import InvalidData
from unseen.reading import Reading
from unseen.study import column
from unseen.study.figures import curves, draw_bars, points, summary

ROWS = [
    {"rule": rule, "epoch": epoch, "seed": seed, "test": factor * epoch + seed**2, "fit": 1.0}
    for seed in range(3)
    for rule, factor in (("b", 2), ("a", 1))
    for epoch in (0, 1, 5)
]


def test_curves_are_means_over_seeds_per_group_in_order_of_rows():
    drawn = curves(x="epoch", y="test", by="rule", offset=1, log_x=True, title="t")(ROWS)
    assert (drawn.x, [*drawn.y], drawn.log_x, drawn.title) == ([1, 2, 6], ["b", "a"], True, "t")
    assert drawn.y["a"] == [
        fmean(column(ROWS, "test", rule="a", epoch=epoch)) for epoch in (0, 1, 5)
    ]
    assert curves(x="epoch", y="test", by="rule", middle=median, title="t")(ROWS).y["a"] == [
        1,
        2,
        6,
    ]
    assert curves(x="epoch", y="test", by="rule", title="t")(ROWS[::-1]).y["a"] == drawn.y["a"]


def test_columns_as_lines_and_only_the_steps_that_all_share():
    drawn = curves(x="epoch", y={"accuracy": "test", "fitted": "fit"}, title="t")(ROWS)
    assert drawn.y["fitted"] == [1, 1, 1]
    longer = [*ROWS, {"rule": "a", "epoch": 9, "seed": 0, "test": 0.0}]
    assert curves(x="epoch", y="test", by="rule", title="t")(longer).x == [0, 1, 5]
    apart = [{"rule": "a", "epoch": 0, "test": 1.0}, {"rule": "b", "epoch": 1, "test": 1.0}]
    for rows in (apart, []):
        with pytest.raises(InvalidData, match="every line"):
            curves(x="epoch", y="test", by="rule", title="t")(rows)


def test_points_are_one_per_seed_or_one_per_step():
    drawn = points(x="epoch", y="test", by="rule", over="epoch", title="t")(ROWS)
    assert drawn.groups["a"] == [
        (epoch, fmean(column(ROWS, "test", rule="a", epoch=epoch))) for epoch in (0, 1, 5)
    ]
    last = [row for row in ROWS if row["epoch"] == 5]
    assert points(x="fit", y="test", by="rule", title="t")(last).groups["a"] == [
        (1, 5),
        (1, 6),
        (1, 9),
    ]


def test_bars_draw_only_intervals_that_exist():
    drawn = draw_bars({"a": Reading(0.5, 0.4, 0.6), "b": Reading(0.7)}, title="t", label="accuracy")
    assert (drawn.values, drawn.intervals) == ({"a": 0.5, "b": 0.7}, {"a": (0.4, 0.6)})


def test_a_summary_has_a_row_per_combination_and_leaves_out_what_no_row_has():
    rows = [*ROWS, {"rule": "c", "epoch": 0, "seed": 0, "fit": 0.5}]
    found = summary(("rule", "epoch"), {"accuracy": "test", "fitted": "fit"})(rows)
    assert len(found) == 7
    assert found[0] == {"rule": "b", "epoch": 0, "accuracy": pytest.approx(5 / 3), "fitted": 1}
    assert found[-1] == {"rule": "c", "epoch": 0, "fitted": 0.5}
    assert summary(["rule"], ["test"], median)(rows)[1] == {"rule": "a", "test": 4}
    assert summary(["rule"], ["test"])([]) == []
