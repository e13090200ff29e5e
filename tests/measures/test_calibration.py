"""Calibration against closed cases and scikit-learn's logistic regression."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis.strategies import integers
from properties import examples
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from unseen import stats
from unseen.engine.batches import Columns
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.measures.calibration import (
    CalibrationError,
    CalibrationInTheLarge,
    CalibrationSlope,
    by_chance,
    calibration_error,
    confidences,
    expected_calibration_error,
    in_the_large,
    miscalibration,
    recalibrate,
    recalibration,
    reliability,
)
from unseen.method import Trained
from unseen.objectives import classify
from unseen.task import Axis, Split, Task, Use


def drawn(n: int, seed: int, slope: float = 1.0, offset: float = 0.0):
    """Forecasts p and outcomes with P(y = 1) = σ(slope · logit p + offset)."""
    rng = np.random.default_rng(seed)
    p = expit(rng.normal(0, 1.5, n))
    return p, (rng.random(n) < expit(slope * logit(p) + offset)).astype(float)


def trained(logits: torch.Tensor, y: torch.Tensor) -> Trained:
    split = Split(Columns(x=logits, y=y), Use.TRAIN)
    task = Task(name="given logits", axis=Axis.IID, splits={"train": split}, objective=classify)
    return Trained(torch.nn.Identity(), task)


def test_closed_cases():
    p = np.array([0.25] * 4 + [0.75] * 4)
    assert expected_calibration_error(p, np.array([1, 0, 0, 0, 1, 1, 1, 0.0]), 10) == 0
    assert expected_calibration_error(p, np.array([0, 1, 1, 1, 0, 0, 0, 1.0]), 10) == 0.5
    assert expected_calibration_error(np.ones(5), np.zeros(5)) == 1
    assert expected_calibration_error(np.ones(5), np.ones(5)) == 0
    table = reliability(np.array([0.1, 0.12, 0.5, 1.0]), np.array([0, 1, 1, 1.0]), 2)
    np.testing.assert_allclose(table, [[0.11, 0.5, 2], [0.75, 1, 2]])


@given(n=integers(2, 80), bins=integers(1, 20), seed=integers(0, 999))
@examples(40)
def test_equals_a_plain_loop_and_ignores_order(n, bins, seed):
    p, y = drawn(n, seed)
    total = 0.0
    for k in range(bins):
        inside = (p >= k / bins) & ((p < (k + 1) / bins) | (k == bins - 1))
        if inside.any():
            total += inside.sum() / n * abs(y[inside].mean() - p[inside].mean())
    assert expected_calibration_error(p, y, bins) == pytest.approx(total)
    order = np.random.default_rng(seed).permutation(n)
    assert expected_calibration_error(p[order], y[order], bins) == pytest.approx(total)
    assert 0 <= total <= 1


@given(seed=integers(0, 999))
@examples(20)
def test_slope_and_intercept_equal_scikit_learn(seed):
    p, y = drawn(400, seed, 0.6, 0.4)
    peer = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1_000).fit(logit(p)[:, None], y)
    a, b = recalibration(p, y)
    assert a == pytest.approx(peer.coef_[0, 0], abs=1e-4)
    assert b == pytest.approx(peer.intercept_[0], abs=1e-4)


@given(seed=integers(0, 999), shift=integers(-3, 3))
@examples(20)
def test_in_the_large_makes_the_mean_right_and_moves_with_the_forecasts(seed, shift):
    p, y = drawn(300, seed, 1, 0.5)
    b = in_the_large(p, y)
    assert expit(logit(p) + b).mean() == pytest.approx(y.mean(), abs=1e-7)
    assert in_the_large(expit(logit(p) + shift), y) == pytest.approx(b - shift, abs=1e-6)


def test_the_slope_of_overconfident_forecasts():
    p, y = drawn(20_000, 0)
    sharpened = expit(2 * logit(p))
    a, b = recalibration(sharpened, y)
    plain, offset = recalibration(p, y)
    assert a == pytest.approx(plain / 2, abs=1e-6)
    assert b == pytest.approx(offset, abs=1e-6)
    assert plain == pytest.approx(1, abs=0.06)


def test_chance_explains_the_error_of_calibrated_forecasts_only():
    p, y = drawn(2_000, 0)
    chance = by_chance(p, 15, np.random.default_rng(0))
    assert chance.low <= expected_calibration_error(p, y) <= chance.high
    assert expected_calibration_error(expit(3 * logit(p)), y) > chance.high


@given(n=integers(2, 200), seed=integers(0, 99))
@examples(15)
def test_limits_contain_the_value(n, seed):
    reading = calibration_error(*drawn(n, seed), 10, 50, np.random.default_rng(seed))
    assert 0 <= reading.low <= reading.value <= reading.high <= 1
    assert reading.detail[:, 2].sum() == n


def test_two_classes_read_the_second_more_read_the_top():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    p, outcome = confidences(logits, torch.tensor([0, 1]))
    np.testing.assert_allclose(p, expit([-2, 1]))
    assert outcome.tolist() == [0, 1]
    single, _ = confidences(torch.tensor([[-2.0], [1.0]]), torch.tensor([0, 1]))
    np.testing.assert_allclose(single, p, rtol=1e-6)
    three = torch.tensor([[3.0, 0, 0], [0, 0, 1.0]])
    p, outcome = confidences(three, torch.tensor([0, 1]))
    np.testing.assert_allclose(p, three.softmax(1).max(1).values)
    assert outcome.tolist() == [1, 0]


def test_measures_read_a_trained_model():
    p, y = drawn(1_500, 3, slope=0.5)
    logits = torch.tensor(np.stack([np.zeros_like(p), logit(p)], 1), dtype=torch.float32)
    subject = trained(logits, torch.tensor(y).long())
    lab = Lab(seed=0)
    error, slope, large = (
        m("train")(subject, lab)
        for m in (CalibrationError, CalibrationSlope, CalibrationInTheLarge)
    )
    assert error.value == pytest.approx(expected_calibration_error(p, y), abs=1e-4)
    assert slope.low < 0.5 < slope.high < 1
    assert slope.value == pytest.approx(recalibration(p, y)[0], abs=1e-4)
    assert large.value == pytest.approx(in_the_large(p, y), abs=1e-4)
    assert large.low < large.value < large.high
    assert CalibrationError()(subject, lab).low == error.low


@pytest.mark.parametrize(
    ("p", "y", "call"),
    [
        ([], [], expected_calibration_error),
        ([0.5, np.nan], [0, 1], expected_calibration_error),
        ([0.5, 1.5], [0, 1], expected_calibration_error),
        ([0.5, 0.5], [0, 2], expected_calibration_error),
        ([0.5, 0.5], [0, 1], recalibration),
        ([0.1, 0.9], [0, 1], recalibration),
        ([0.1, 0.9], [1, 1], recalibration),
        ([0.1, 0.9], [1, 1], in_the_large),
    ],
)
def test_refusals(p, y, call):
    with pytest.raises(InvalidData) as caught:
        call(np.array(p, float), np.array(y, float))
    assert caught.value.fix


def test_infinite_logits_are_refused():
    with pytest.raises(InvalidData):
        confidences(torch.tensor([[0.0, float("inf")]]), torch.tensor([0]))


@pytest.mark.parametrize("n", [30, 100, 800])
@pytest.mark.parametrize("centre", [0.0, -2.0])
def test_calibrated_forecasts_are_rarely_called_miscalibrated(n, centre):
    rng = np.random.default_rng(n)
    alarms = 0
    for _ in range(200):
        p = expit(rng.normal(centre, 1.5, n))
        outcome = (rng.random(n) < p).astype(float)
        alarms += miscalibration(p, outcome, 15, rng, draws=199) <= 0.05
    assert stats.proportion(alarms, 200).low < 0.05


def test_a_model_twice_too_confident_is_found_with_a_hundred_examples():
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(200):
        z = rng.normal(0, 1.5, 100)
        outcome = (rng.random(100) < expit(z)).astype(float)
        found += miscalibration(expit(2 * z), outcome, 15, rng, draws=199) <= 0.05
    assert stats.proportion(found, 200).low > 0.75


@pytest.mark.parametrize(("p", "outcome"), [([0.9] * 40, [0] * 40), ([0.001] * 9, [1] + [0] * 8)])
def test_miscalibration_needs_no_maximum_of_the_likelihood(p, outcome):
    """One outcome only, or one probability only: recalibration has no slope, the test a p-value."""
    given = np.array(p), np.array(outcome, float)
    assert miscalibration(*given, 15, np.random.default_rng(0)) < 0.05
    fair = np.full(40, 0.5), np.arange(40) % 2.0
    assert miscalibration(*fair, 15, np.random.default_rng(0)) > 0.5


@pytest.mark.parametrize("n", [30, 200])
def test_intercept_and_slope_are_inside_their_limits(n):
    rng = np.random.default_rng(n)
    inside = np.zeros(2)
    for _ in range(100):
        z = rng.normal(-1, 1.5, n)
        outcome = (rng.random(n) < expit(0.5 * z + 0.3)).astype(float)
        try:
            fit = recalibrate(expit(z), outcome)
        except InvalidData:  # separated: rare, and then there are no limits
            inside += 0.95
            continue
        inside += [
            fit.slope.low < 0.5 < fit.slope.high,
            fit.intercept.low < 0.3 < fit.intercept.high,
        ]
    for hits in inside:
        assert stats.proportion(float(hits), 100).high > 0.93


def test_limits_are_where_the_likelihood_ratio_test_stops_rejecting():
    p, y = drawn(120, 4, 0.7, 0.2)
    slope = recalibrate(p, y).slope
    x = logit(p)

    def deviance(a: float) -> float:
        best = minimize_scalar(lambda b: np.logaddexp(0, a * x + b).sum() - y @ (a * x + b))
        return 2 * float(best.fun)

    for limit in (slope.low, slope.high):
        rise = deviance(limit) - deviance(slope.value)
        assert rise == pytest.approx(stats.t_quantile(118) ** 2, abs=1e-4)
