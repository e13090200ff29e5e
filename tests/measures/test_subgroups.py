"""Subgroups: AUC equals scikit-learn's, small groups are not judged, drivers are found where they
were put.
"""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis.strategies import integers
from properties import examples
from scipy.stats import linregress, t
from sklearn.linear_model import LinearRegression
from sklearn.metrics import roc_auc_score

from unseen import stats
from unseen.engine.batches import Columns
from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.lab import Lab
from unseen.measures.subgroups import (
    HighLossFeatures,
    Metric,
    WorstGroup,
    by_group,
    drivers,
    shuffle_block,
)
from unseen.method import Trained
from unseen.objectives import classify
from unseen.task import Axis, Split, Task, Use

LAB = Lab(seed=2)


def scored(n: int, seed: int, groups: int = 3):
    rng = np.random.default_rng(seed)
    y = rng.random(n) < 0.4
    return rng.normal(0, 10, n).round() + 10 * y, y, rng.integers(0, groups, n)


def subject(scores, y, group) -> Trained:
    x = torch.tensor(np.stack([np.zeros_like(scores), scores], 1), dtype=torch.float32)
    split = Split(Columns(x=x, y=torch.tensor(y).long(), group=torch.tensor(group)), Use.TRAIN)
    return Trained(
        torch.nn.Identity(),
        Task(name="scores", axis=Axis.IID, splits={"train": split}, objective=classify),
    )


@given(n=integers(60, 300), seed=integers(0, 999))
@examples(30)
def test_areas_equal_scikit_learn_and_ignore_monotone_changes_and_order(n, seed):
    s, y, g = scored(n, seed)
    order = np.random.default_rng(seed).permutation(n)
    again = by_group(3 * s[order] ** 3, y[order], g[order], list("abc"))
    for k, (each, same) in enumerate(zip(by_group(s, y, g, list("abc")), again, strict=True)):
        mine = g == k
        assert each.n == mine.sum()
        assert each.positives == y[mine].sum()
        if each.reading is not None:
            assert each.reading.value == pytest.approx(roc_auc_score(y[mine], s[mine]))
            assert same.reading.value == pytest.approx(each.reading.value)


def test_accuracy_has_wilsons_interval():
    _, right, g = scored(100, 0, 1)
    (found,) = by_group(right.astype(float), right, g, ["all"], Metric.ACCURACY)
    assert found.reading == stats.proportion(int(right.sum()), 100)


def test_small_groups_are_shown_but_not_judged_and_one_class_has_no_area():
    s = np.arange(130, dtype=float)
    y = np.array([False, True] * 50 + [False] * 20 + [False, True] * 5)
    g = np.array([0] * 100 + [1] * 20 + [2] * 10)
    big, one_class, small = by_group(s, y, g, ["big", "one class", "small"])
    assert big.is_sufficient
    assert one_class.reading is None
    assert not one_class.is_sufficient
    assert small.reading is not None
    assert not small.is_sufficient


def test_the_worst_group_is_the_lowest_of_those_judged():
    s, y, g = scored(600, 1, 2)
    rng = np.random.default_rng(0)
    s[g == 1] = rng.normal(size=(g == 1).sum())  # no better than chance
    tiny_s, tiny_y, tiny_g = np.array([5.0, 1.0]), np.array([False, True]), np.array([2, 2])
    made = subject(np.r_[s, tiny_s], np.r_[y, tiny_y], np.r_[g, tiny_g])
    reading = WorstGroup()(made, LAB)
    assert reading.value == pytest.approx(roc_auc_score(y[g == 1], s[g == 1]), abs=1e-6)
    assert reading.low < reading.value < reading.high < 0.7
    assert reading.detail[:, 4].tolist() == [1, 1, 0]
    assert reading.detail[2, 0] == 0
    assert WorstGroup()(made, LAB).low == reading.low
    accuracy = WorstGroup(metric=Metric.ACCURACY, least=10)(made, LAB)
    per_group = [np.mean((s[g == k] > 0) == y[g == k]) for k in range(2)]
    assert accuracy.value == pytest.approx(min(per_group))


def test_slopes_equal_scikit_learn_and_ignore_units():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=40), rng.normal(size=40)
    area = 0.7 + 0.05 * a - 0.02 * b + 0.01 * rng.normal(size=40)
    found = drivers(area, {"a": a, "b": b})
    z = np.stack([(a - a.mean()) / a.std(), (b - b.mean()) / b.std()], 1)
    np.testing.assert_allclose(
        [r.value for r in found.values()], LinearRegression().fit(z, area).coef_
    )
    scaled = drivers(area, {"a": 1_000 * a + 3, "b": b})
    assert scaled["a"].value == pytest.approx(found["a"].value)
    assert scaled["a"].low == pytest.approx(found["a"].low)
    assert found["a"].low > 0
    assert found["b"].high < 0


def test_one_driver_equals_the_plain_slope():
    rng = np.random.default_rng(1)
    x = rng.normal(size=20)
    y = x + rng.normal(size=20)
    expected = linregress((x - x.mean()) / x.std(), y)  # equal noise, as in the joint regression
    half = t.ppf(0.975, 18) * expected.stderr
    found = drivers(y, {"x": x})["x"]
    assert (found.value, found.low, found.high) == pytest.approx(
        (expected.slope, expected.slope - half, expected.slope + half)
    )


def test_the_feature_that_makes_examples_go_wrong_comes_first():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 5))
    losses = (x[:, 2] + x[:, 3] > 0) + 0.3 * rng.random(600)
    found = HighLossFeatures(folds=3, repeats=2, trees=30).rank(
        x,
        losses,
        {"a": slice(0, 1), "b": slice(1, 2), "pair": slice(2, 4), "c": slice(4, 5)},
        np.arange(600) // 2,
        LAB,
    )
    assert next(iter(found)) == "pair"
    assert found["pair"].low > 0.1
    assert abs(found["a"].value) < 0.05


def test_permuting_keeps_a_block_together_and_the_rest_in_place():
    x = np.arange(40.0).reshape(10, 4)
    new = shuffle_block(x, slice(1, 3), np.random.default_rng(0))
    assert (new[:, [0, 3]] == x[:, [0, 3]]).all()
    assert (new[:, 2] - new[:, 1] == 1).all()
    assert sorted(new[:, 1]) == sorted(x[:, 1])
    assert (new[:, 1] != x[:, 1]).any()


def test_refusals():
    s, y, g = scored(60, 0)
    with pytest.raises(InvalidData, match="finite"):
        WorstGroup(metric=Metric.ACCURACY)(subject(np.where(s == s.max(), np.nan, s), y, g), LAB)
    with pytest.raises(UnknownName, match="grup"):
        WorstGroup(column="grup")(subject(s, y, g), LAB)
    with pytest.raises(InvalidData, match="No group"):
        WorstGroup(least=1_000)(subject(s, y, g), LAB)
    with pytest.raises(InvalidData, match="cannot tell"):
        drivers(np.ones(3), {"a": np.arange(3.0), "b": np.arange(3.0) ** 2})
    with pytest.raises(InvalidData, match="constant"):
        drivers(np.ones(9), {"a": np.ones(9)})
    with pytest.raises(InvalidData, match="determine each other"):
        drivers(np.arange(9.0), {"a": np.arange(9.0), "b": 2 * np.arange(9.0)})
    with pytest.raises(InvalidData, match="median"):
        HighLossFeatures().rank(
            np.ones((30, 1)), np.ones(30), {"a": slice(0, 1)}, np.arange(30), LAB
        )
    with pytest.raises(InvalidConfig):
        HighLossFeatures(folds=1)
