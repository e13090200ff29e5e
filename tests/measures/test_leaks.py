"""Leaks that are planted are found and named; strong and many honest features raise no alarm."""

import numpy as np
import pytest

from unseen.measures.leaks import EVERYWHERE, identifier_order, leaks, settled_share, settled_tail

N = 600


def table(seed: int, features: int = 8, effect: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, features)).astype(np.float32)
    p = 1 / (1 + np.exp(-effect * (x[:, 0] + x[:, 1])))
    return x, (rng.random(N) < p).astype(np.int64)


def names(x: np.ndarray) -> dict[str, list[int]]:
    return {f"c{k}": [k] for k in range(x.shape[1])}


def plant(kind: str, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    match kind:
        case "copy":
            return 2.0 * y + 1
        case "copy with 1 % noise":
            return np.where(rng.random(len(y)) < 0.003, 1 - y, y).astype(float)
        case "score of AUC 0.998":
            return rng.normal(4.07 * y)
        case "bands":  # not monotone: the class is the parity of the band
            return 2.0 * rng.integers(0, 4, len(y)) + y + 0.1 * rng.random(len(y))
    raise AssertionError(kind)


@pytest.mark.parametrize("kind", ["copy", "copy with 1 % noise", "score of AUC 0.998", "bands"])
def test_a_planted_leak_is_named_and_nothing_else(kind: str) -> None:
    rng = np.random.default_rng(1)
    x, y = table(1)
    x[:, 5] = plant(kind, y, rng)
    (leak,) = leaks(x, y, names(x), None, rng)
    assert (leak.features, leak.site) == (("c5",), EVERYWHERE)
    assert leak.strength.value > 0.985


def test_a_leak_at_one_site_only_is_named_with_its_site() -> None:
    rng = np.random.default_rng(2)
    x, y = table(2)
    site = np.repeat([0, 1, 2], N // 3)
    x[:, 3] = np.where(site == 1, y, rng.normal(size=N))
    (leak,) = leaks(x, y, names(x), site, rng)
    assert (leak.features, leak.site) == (("c3",), 1)


def test_two_columns_that_add_up_to_the_target_are_named_together() -> None:
    rng = np.random.default_rng(3)
    x = rng.gamma(2.0, size=(N, 6)).astype(np.float32)
    y = (x[:, 2] + 3 * x[:, 4]).astype(np.float32)
    (leak,) = [leak for leak in leaks(x, y, names(x), None, rng) if len(leak.features) > 1]
    assert set(leak.features) == {"c2", "c4"}


@pytest.mark.parametrize("seed", range(4))
def test_honest_features_raise_no_alarm(seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    x, y = table(seed, features=60, effect=3.0)
    site = rng.integers(0, 8, N)
    assert leaks(x, y, names(x), site, rng) == []
    rare = (rng.random(N) < 0.06).astype(np.int64)
    assert leaks(x, rare, names(x), site, rng) == []
    assert leaks(x, rng.normal(size=N).astype(np.float32) + x[:, 0], names(x), site, rng) == []


@pytest.mark.parametrize("y", [np.zeros(N, np.int64), np.full(N, 2.0), np.arange(N) % 300])
def test_targets_that_cannot_be_judged_give_nothing(y: np.ndarray) -> None:
    x, _ = table(4)
    assert leaks(x, y, names(x), None, np.random.default_rng(0)) == []


def test_a_constant_target_at_one_site_is_given_away_by_nothing() -> None:
    """In float32 its standard deviation is rounding, of which every feature explains all."""
    x, _ = table(5)
    rng = np.random.default_rng(0)
    site, y = np.arange(N) % 3, rng.normal(size=N).astype(np.float32)
    y[site == 2] = np.float32(0.1)
    assert y[site == 2].std() > 0
    assert leaks(x, y, names(x), site, rng) == []


@pytest.mark.parametrize("copy", [lambda y: y, lambda y: 1 - y, lambda y: (y - 0.01) / 0.1])
def test_a_copy_of_a_rare_class_is_named(copy) -> None:
    """One row in a hundred: a column that is nearly always the same value."""
    rng = np.random.default_rng(5)
    y = (np.arange(5_000) % 100 == 0).astype(np.int64)
    x = rng.normal(size=(len(y), 4)).astype(np.float32)
    x[:, 2] = copy(y)
    (leak,) = leaks(x, y, names(x), None, rng)
    assert leak.features == ("c2",)


def test_a_category_of_forty_levels_that_decides_is_named() -> None:
    rng = np.random.default_rng(6)
    x, y = table(6)
    level = np.where(y == 1, rng.integers(0, 20, N), rng.integers(20, 40, N))
    block = np.eye(40, dtype=np.float32)[rng.permutation(40)[level]]
    features = names(x) | {"code": range(x.shape[1], x.shape[1] + 40)}
    (leak,) = leaks(np.hstack([x, block]), y, features, None, rng)
    assert leak.features == ("code",)


def test_a_strong_honest_feature_is_no_leak_at_a_small_site() -> None:
    """AUC 0.97 everywhere: above 0.985 at one of six sites of 100 rows in a third of tables."""
    for seed in range(12):
        rng = np.random.default_rng(seed)
        y = (rng.random(N) < 0.4).astype(np.int64)
        x = rng.normal(size=(N, 5)).astype(np.float32)
        x[:, 0] += 2.66 * y
        found = leaks(x, y, names(x), np.repeat(np.arange(6), N // 6), rng)
        assert [leak for leak in found if leak.site != EVERYWHERE] == []


def test_a_sum_is_found_whatever_the_units_of_its_columns() -> None:
    rng = np.random.default_rng(7)
    x = rng.normal(size=(N, 6))
    y = x[:, 1] + x[:, 4] + rng.normal(size=N)
    x[:, 2] = 1e7 * (y - x[:, 4])
    (leak,) = leaks(x.astype(np.float32), y.astype(np.float32), names(x), None, rng)
    assert set(leak.features) == {"c2", "c4"}


def consequence(n: int, seed: int = 0):
    """A flag that every positive has, and one negative in 20; AUC 0.975."""
    rng = np.random.default_rng(seed)
    y = rng.random(n) < 0.45
    return (y | (rng.random(n) < 0.05)).astype(np.float32)[:, None], y


def test_a_consequence_of_the_outcome_settles_one_class_and_its_share_is_read():
    flag, y = consequence(4_000)
    (found,) = leaks(flag, y.astype(int), {"flag": [0]}, None, np.random.default_rng(0))
    assert found.settled is not None
    assert found.settled.value == pytest.approx((flag[~y] == 0).mean())
    assert found.strength.value < 0.985


def test_what_settles_a_class_does_not_depend_on_the_scale_or_the_order_of_values():
    flag, y = consequence(4_000)
    share = settled_share(flag, y, 0)
    assert settled_share(-7 * flag + 3, y, 0) == share
    assert settled_share(flag, ~y, 0) == share


def test_an_honest_score_settles_nothing_at_any_size():
    for seed in range(10):
        rng = np.random.default_rng(seed)
        y = rng.random(4_000) < 0.45
        score = (rng.normal(size=y.size) + 2.6 * y).astype(np.float32)[:, None]  # AUC 0.967
        assert settled_share(score, y, seed) is None
    flag, y = consequence(1_000)  # 450 positives cannot show that fewer than 5 in 1,000 have it
    assert settled_share(flag, y, 0) is None


def test_an_observation_that_ends_with_the_outcome_settles_the_class_that_is_followed_longer():
    """As `end` of COMPAS: days until the outcome, or until the end of two years and more."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        y = rng.random(3_279) < 0.36
        early, late = rng.integers(1, 763, y.size), rng.integers(828, 1_187, y.size)
        ends = np.where(rng.random(y.size) < np.where(y, 0.003, 0.85), late, early)
        days = ends.astype(np.float32)
        (found,) = leaks(days[:, None], y.astype(int), {"end": [0]}, None, rng)
        assert found.settled.value == pytest.approx(0.85, abs=0.03)
        share = settled_tail(days, y)
        assert settled_tail(1 - 2 * days, y) == share  # any unit and direction
        assert settled_tail(days, ~y) == share
        assert settled_tail(rng.permutation(days), y) is None


def test_an_honest_score_has_no_tail_of_one_class():
    for seed in range(10):
        rng = np.random.default_rng(seed)
        y = rng.random(4_000) < 0.45
        score = rng.normal(size=y.size) + 2.6 * y  # AUC 0.967
        assert settled_tail(score, y) is None
        assert settled_tail(np.exp(score), y) is None


def test_identifiers_that_sort_with_the_target_are_seen_and_others_are_not():
    y = np.repeat([0, 1], 100)
    numbers = np.arange(200.0) + 5_000
    assert identifier_order(numbers, y).value == 1.0
    words = np.array([f"P{k:04d}" for k in range(200)])
    assert identifier_order(words, y).value == 1.0
    shuffled = np.random.default_rng(0).permutation(numbers)
    assert identifier_order(shuffled, y) is None
    assert identifier_order(numbers / 7, y) is None  # measured, not counted
    assert identifier_order(np.where(numbers < 5_002, 5_000, numbers), y) is None
    assert identifier_order(numbers, np.zeros(200, int)) is None
