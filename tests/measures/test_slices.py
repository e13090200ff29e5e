"""Parts of the data where a model is surer than right: planted ones are found and confirmed, and
honest noise is not.
"""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from unseen.errors import InvalidData
from unseen.measures.site_shift.slices import (
    LEAST_RELATIVE,
    Condition,
    excess_of_losses,
    excess_of_probabilities,
    worst_slice,
)

SITES = 3


def drawn(seed: int, n: int, planted: str = ""):
    """Features, and a logistic regression's answers at sites that it was not trained on; `planted`:
    the relation is inverted for 15 % of the examples.
    """
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 6))
    word = rng.choice(["x", "y", "z"], n, p=[0.15, 0.5, 0.35])
    z = x[:, :3] @ np.array([1.2, -0.8, 0.6])
    inverted = {"word": word == "x", "number": x[:, 3] > 1.04}.get(planted, np.zeros(n, bool))
    y = rng.random(n) < expit(np.where(inverted, -z, z))
    site = rng.integers(0, SITES, n)
    inputs = np.column_stack([x, word == "x", word == "y"])
    logit = np.zeros(n)
    for held_out in range(SITES):
        fit = site != held_out
        model = LogisticRegression(max_iter=500).fit(inputs[fit], y[fit])
        logit[~fit] = model.decision_function(inputs[~fit])
    features = {"word": word, **{f"f{k}": x[:, k] for k in range(6)}}
    return features, logit, y, site, rng


def found(seed: int, n: int, planted: str = ""):
    features, logit, y, site, rng = drawn(seed, n, planted)
    loss = np.logaddexp(0, np.where(y, -logit, logit))
    return worst_slice(features, excess_of_probabilities(logit, y, site), loss, rng)


@pytest.mark.parametrize(("planted", "feature"), [("word", "word"), ("number", "f3")])
def test_an_inverted_part_is_found_in_four_of_five_draws(planted, feature):
    slices = [found(seed, 600, planted) for seed in range(30)]
    right = [s is not None and any(c.feature == feature for c in s.conditions) for s in slices]
    assert np.mean(right) >= 0.8
    for part in filter(None, slices):
        assert part.excess.low > 0
        assert part.inside.value > part.outside.value


def test_null_data_raise_no_alarm():
    """At most 2 %: of 100 draws two; a rate of 2 % gives five or more in 5 %."""
    assert sum(found(seed, 600) is not None for seed in range(100)) <= 4


def test_the_excess_of_a_calibrated_model_has_mean_zero_everywhere():
    rng = np.random.default_rng(0)
    logit = rng.normal(0, 2, 200_000)
    y = rng.random(logit.size) < expit(logit)
    excess = excess_of_probabilities(logit, y, np.zeros(logit.size))
    for inside in (logit < -1, np.abs(logit) < 1, logit > 1):
        half = 4 * excess[inside].std() / np.sqrt(inside.sum())
        assert abs(excess[inside].mean()) < half


def test_the_excess_is_the_loss_beyond_the_entropy():
    logit, y = np.tile([-1.5, 0.3, 1.5, -0.3], 500), np.tile([False, True, True, False], 500)
    y[: len(y) // 4] = ~y[: len(y) // 4]
    site = np.zeros(len(y))
    excess = excess_of_probabilities(logit, y, site)
    for value in np.unique(logit):
        no, yes = (excess[(logit == value) & (y == k)][0] for k in (False, True))
        p = expit(no - yes)  # (p − y) · z is p · z for no, (p − 1) · z for yes
        entropy = -p * np.log(p) - (1 - p) * np.log(1 - p)
        assert no == pytest.approx(-np.log(1 - p) - entropy)
        assert yes == pytest.approx(-np.log(p) - entropy)


def test_order_and_scale_of_the_features_do_not_matter():
    features, logit, y, site, _ = drawn(3, 600, "number")
    loss = np.logaddexp(0, np.where(y, -logit, logit))
    excess = excess_of_probabilities(logit, y, site)
    one = worst_slice(features, excess, loss, np.random.default_rng(0))
    scaled = {
        name: column if name == "word" else 10 * column
        for name, column in reversed(features.items())
    }
    other = worst_slice(scaled, excess, loss, np.random.default_rng(0))
    assert one is not None
    assert other is not None
    assert other.excess.value == pytest.approx(one.excess.value)
    assert other.conditions[0].value == pytest.approx(10 * one.conditions[0].value)


def test_numbers_beyond_float32_are_searched():
    features, logit, y, site, rng = drawn(3, 600, "word")
    huge = {**features, "f5": np.where(features["f5"] > 0, 1.7e308, -1e300)}
    excess = excess_of_probabilities(logit, y, site)
    part = worst_slice(huge, excess, excess, rng)
    assert part is None or np.isfinite(part.p)


def test_missing_cells_are_a_part_of_their_own():
    rng = np.random.default_rng(0)
    gone = rng.random(600) < 0.2
    loss = rng.gamma(2.0, 1.0, 600) * np.where(gone, 3, 1)
    for cells in (np.where(gone, np.nan, rng.normal(size=600)), np.where(gone, "", "known")):
        part = worst_slice({"lab": cells}, excess_of_losses(loss), loss, rng, LEAST_RELATIVE)
        assert part is not None
        (condition,) = part.conditions
        assert (condition.holds(cells) == gone).all()


def test_conditions_say_for_whom_they_hold():
    numbers, words = np.array([1.0, 2.0, np.nan]), np.array(["a", "b", ""])
    assert Condition("n", 1.5, True).holds(numbers).tolist() == [False, True, False]
    assert Condition("n", 1.5, False).holds(numbers).tolist() == [True, False, False]
    assert Condition("w", "a", False).holds(words).tolist() == [False, True, True]
    assert Condition("w", "", True).holds(words).tolist() == [False, False, True]


def test_what_cannot_be_searched_is_refused():
    rng, few = np.random.default_rng(0), np.ones(20)
    with pytest.raises(InvalidData, match="20 examples"):
        worst_slice({"a": few}, few, few, rng)
    many = np.ones(200)
    with pytest.raises(InvalidData, match="No feature varies"):
        worst_slice({"a": many}, many, many, rng)
    with pytest.raises(InvalidData, match="not finite"):
        worst_slice({"a": rng.normal(size=200)}, np.full(200, np.nan), many, rng)
