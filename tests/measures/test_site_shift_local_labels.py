"""Labels of a site recalibrate a model there; the interval over draws of labels holds its gain."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from unseen import stats
from unseen.errors import InvalidData
from unseen.measures.site_shift.local_labels import (
    best_threshold,
    over_draws,
    recalibrate_margin,
    recalibrate_number,
)
from unseen.reading import Reading


def site(rng: np.random.Generator, n: int, intercept: float, slope: float):
    margin = 1.5 * rng.normal(size=n)
    p = 1 / (1 + np.exp(-(intercept + slope * margin)))
    return margin, (rng.random(n) < p).astype(float)


def test_many_labels_give_the_maximum_of_the_likelihood() -> None:
    margin, y = site(np.random.default_rng(0), 20_000, 1.0, -0.5)
    line = recalibrate_margin(np.array([0.0, 1.0]), y, margin)
    fit = LogisticRegression(C=np.inf).fit(margin[:, None], y)
    assert line[0] == pytest.approx(fit.intercept_[0], abs=0.01)
    assert line[1] - line[0] == pytest.approx(fit.coef_[0, 0], abs=0.01)


@pytest.mark.parametrize("scale", [1.0, 4.0, 30.0])
def test_confident_margins_that_are_wrong_are_turned_around(scale: float) -> None:
    """Newton's method without halving diverges from here; the ridge leaves a part of the slope."""
    margin, y = site(np.random.default_rng(1), 200, 0.0, -1.0)
    line = recalibrate_margin(np.array([0.0, 1.0]), y, scale * margin)
    assert -1.3 / scale < line[1] - line[0] < -0.1 / scale


def test_labels_of_one_class_leave_finite_log_odds() -> None:
    line = recalibrate_margin(np.linspace(-3, 3, 7), np.ones(10), np.linspace(-1, 1, 10))
    assert np.isfinite(line).all()
    assert (np.diff(line) > 0).all()


def test_numbers_are_mapped_by_a_line() -> None:
    rng = np.random.default_rng(0)
    predicted = rng.normal(size=5_000)
    labels = 3 + 0.5 * predicted + 0.1 * rng.normal(size=5_000)
    line = recalibrate_number(np.array([0.0, 1.0]), labels, predicted)
    assert line == pytest.approx([3.0, 3.5], abs=0.01)


@pytest.mark.parametrize("seed", range(5))
def test_no_threshold_is_right_more_often(seed: int) -> None:
    margin, y = site(np.random.default_rng(seed), 40, 1.0, 1.0)
    right = [((margin > cut) == y).sum() for cut in [*margin, -np.inf]]
    assert ((margin > best_threshold(y, margin)) == y).sum() == max(right)


def test_a_threshold_that_is_as_good_stays_where_it_is() -> None:
    assert best_threshold(np.array([0.0, 0, 1, 1]), np.array([-2.0, -1, 1, 2])) == 0


def test_order_of_labels_does_not_matter() -> None:
    margin, y = site(np.random.default_rng(2), 50, 1.0, 1.0)
    order = np.random.default_rng(3).permutation(50)
    assert recalibrate_margin(margin, y[order], margin[order]) == pytest.approx(
        recalibrate_margin(margin, y, margin)
    )
    assert best_threshold(y[order], margin[order]) == best_threshold(y, margin)


def test_one_draw_is_its_own_interval() -> None:
    reading = Reading(1.0, 0.5, 1.5, 30, freedom=29)
    found = over_draws([reading])
    assert (found.value, found.low, found.high) == pytest.approx((1.0, 0.5, 1.5))
    wider = over_draws([reading, Reading(2.0, 1.5, 2.5, 30, freedom=29)])
    assert wider.high - wider.low > 1


def gains(rng: np.random.Generator, n: int, labels: int, intercept: float, draws: int):
    margin, y = site(rng, n, intercept, 0.7)
    changes = []
    for _ in range(draws):
        order = rng.permutation(n)
        local, rest = order[:labels], order[labels:]
        new = recalibrate_margin(margin, y[local], margin[local])
        loss = [np.logaddexp(0, z) - y * z for z in (new, margin)]
        changes.append(stats.mean((loss[0] - loss[1])[rest]))
    return changes


@pytest.mark.parametrize(("n", "labels"), [(123, 30), (200, 100)])
@pytest.mark.parametrize("intercept", [0.0, -1.5])
def test_the_interval_holds_the_expected_gain(n: int, labels: int, intercept: float) -> None:
    """At least 93 %, less the error of 100 repeats; the truth from 300 fresh draws."""
    truth = np.mean(
        [
            gains(np.random.default_rng(1_000 + k), labels + 4_000, labels, intercept, 1)[0].value
            for k in range(300)
        ]
    )
    held = 0
    for seed in range(100):
        found = over_draws(gains(np.random.default_rng(seed), n, labels, intercept, 5))
        held += found.low <= truth <= found.high
    assert held / 100 >= 0.93 - 2 * (0.93 * 0.07 / 100) ** 0.5


@pytest.mark.parametrize("labels", [np.array([1.0]), np.array([0.0, np.nan])])
def test_too_few_labels_are_refused(labels: np.ndarray) -> None:
    for measure in (recalibrate_margin, recalibrate_number):
        with pytest.raises(InvalidData):
            measure(np.zeros(3), labels, np.zeros(len(labels)))
    with pytest.raises(InvalidData):
        best_threshold(labels, np.zeros(len(labels)))
