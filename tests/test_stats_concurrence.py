"""Concurrence of splits: against scipy on the crossed points, brute force and simulation."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from scipy.stats import kendalltau

from unseen.errors import InvalidConfig, InvalidData
from unseen.stats.concurrence import (
    FEWEST_MODELS,
    Scores,
    concurrences,
    exchanges,
    source_difference,
    source_effect,
    split_quality,
)


def scores(values) -> Scores:
    values = np.asarray(values, dtype=float)
    splits, models = values.shape[:2]
    return Scores(
        tuple(f"s{k}" for k in range(splits)), tuple(f"m{k}" for k in range(models)), values
    )


def noisy(splits=2, models=6, seeds=3, noise=0.3, seed=0):
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(splits, models, 1))
    return means + noise * rng.normal(size=(splits, models, seeds))


def crossed(a, b) -> float:
    """τ_b of the points, one by one."""
    points = [
        (x, y)
        for first, second in zip(a, b, strict=True)
        for x in first
        for y in second
        if np.isfinite(x) and np.isfinite(y)
    ]
    return float(kendalltau(*zip(*points, strict=True)).statistic)


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_tau_is_that_of_the_crossed_points(missing):
    rng = np.random.default_rng(1)
    values = np.round(noisy(4), 1)
    values[rng.random(values.shape) < missing] = np.nan
    for pair in concurrences(scores(values), draws=0):
        a, b = (int(name[1:]) for name in (pair.first, pair.second))
        assert pair.tau.value == pytest.approx(crossed(values[a], values[b]), abs=1e-12)


def test_order_alone_counts_and_both_ways_agree():
    values = noisy(3)
    found = concurrences(scores(values), draws=19)
    for one, other in zip(found, concurrences(scores(np.exp(values)), draws=19), strict=True):
        assert replace(one, tau_of_means=0.0) == replace(other, tau_of_means=0.0)
    backward = concurrences(scores(values[::-1]), draws=19)
    assert backward[0].tau.value == pytest.approx(found[-1].tau.value, abs=1e-12)
    assert backward[0].p == found[-1].p


def test_a_split_agrees_with_itself_and_not_with_its_reverse():
    one = np.arange(6.0)[None, :, None]
    same, reverse, _ = concurrences(scores(np.concatenate([one, one + 1, -one])), draws=99)
    assert (same.tau.value, reverse.tau.value) == (1.0, -1.0)
    assert same.p == reverse.p == pytest.approx(2 / 720)
    assert (same.tau.low, same.reason) != (1.0, "")  # one seed: no interval
    assert np.isnan(same.corrected)


def test_p_is_the_share_of_all_exchanges():
    values = noisy(2, models=5)
    taus = [crossed(values[0], values[1][list(order)]) for order in permutations(range(5))]
    expected = np.mean(np.abs(taus) >= abs(taus[0]) - 1e-12)
    assert concurrences(scores(values), draws=0)[0].p == pytest.approx(expected)


def test_p_is_valid_where_models_mean_nothing():
    """P(p ≤ α) ≤ α + 3 standard errors; a τ of 54 points that count as independent is not."""
    draws, naive, exact = 200, 0, {0.05: 0, 0.2: 0}
    for k in range(draws):
        values = noisy(noise=0.05, seed=k)
        found = concurrences(scores(values), draws=0)[0]
        for level in exact:
            exact[level] += found.p <= level
        points = [(x, y) for a, b in zip(*values, strict=True) for x in a for y in b]
        naive += kendalltau(*zip(*points, strict=True)).pvalue <= 0.05
    for level, count in exact.items():
        assert count / draws <= level + 3 * np.sqrt(level * (1 - level) / draws)
    assert naive / draws > 0.3


def test_intervals_cover_what_other_seeds_give():
    rng = np.random.default_rng(0)
    covered = []
    for k in range(3):
        means = np.random.default_rng(k).normal(size=(2, 6, 1))

        def draw(means=means):
            return scores(means + 0.3 * rng.normal(size=(2, 6, 3)))

        target = np.mean(
            [one.order.against(one.order)[0, 1] for one in (draw() for _ in range(200))]
        )
        intervals = [concurrences(draw(), draws=0)[0].tau for _ in range(30)]
        covered += [one.low <= target <= one.high for one in intervals]
    assert np.mean(covered) > 0.88


@pytest.mark.parametrize(("seeds", "noise"), [(3, 0.1), (20, 0.1)])
def test_without_the_noise_of_seeds_equal_splits_agree(seeds, noise):
    rng = np.random.default_rng(0)
    means = 0.2 * np.arange(6)[None, :, None].repeat(2, 0)
    found = [
        concurrences(scores(means + noise * rng.normal(size=(2, 6, seeds))), draws=0)[0]
        for _ in range(60 if seeds == 3 else 6)
    ]
    assert np.mean([one.tau.value for one in found]) < 0.85
    assert np.mean([one.corrected for one in found]) == pytest.approx(1, abs=0.05)


def test_what_does_not_exist_has_a_reason():
    few = concurrences(scores(noisy(models=4)), draws=19)[0]
    assert np.isnan(few.p)
    assert np.isnan(few.p_family)
    assert "4 models have 24 orders" in few.reason
    tied = noisy()
    tied[0] = 1.0
    found = concurrences(scores(tied), draws=19)[0]
    assert np.isnan(found.tau.value)
    assert "tied" in found.reason
    assert split_quality(scores(tied), 0).reason == "all models are tied"
    one_seed = split_quality(scores(noisy(seeds=1)), 0)
    assert np.isnan(one_seed.reliability)
    assert "one seed" in one_seed.reason
    absent = noisy()
    absent[1, 2] = np.nan
    assert concurrences(scores(absent), draws=0)[0].models == FEWEST_MODELS
    with pytest.raises(InvalidData, match=r"shape \(2, 6\)"):
        Scores(("a", "b"), tuple("uvwxyz"), np.zeros((2, 6)))
    with pytest.raises(InvalidConfig, match="draws=-1"):
        concurrences(scores(noisy()), draws=-1)


def test_a_split_at_its_ceiling_tells_no_models_apart():
    values = noisy()
    values[0] = 100.0
    assert split_quality(scores(values), 0).separated == 0.0
    assert split_quality(scores(noisy(noise=1e-6)), 0).separated == 1.0


def test_source_against_strategy_by_all_relabelings():
    sources, strategies = list("aaabbb"), list("xyzxyz")
    taus = np.where(np.equal.outer(sources, sources), 0.8, 0.1)
    taus[np.equal.outer(strategies, strategies)] = -0.2
    found = source_effect(taus, sources, strategies)
    assert found.relabelings == 60
    assert found.p == pytest.approx(1 / 60)
    assert found.difference == pytest.approx(1.0)
    assert found.neither == pytest.approx(0.1)
    with pytest.raises(InvalidData, match="shares the strategy"):
        source_effect(taus[:3, :3], list("aaa"), list("xyz"))


def test_exchanges_begin_with_none():
    rng = np.random.default_rng(0)
    assert len(exchanges(4, rng)) == 24
    assert exchanges(9, rng)[0].tolist() == list(range(9))


def test_two_splits_of_pure_noise_have_no_corrected_concurrence():
    """Reliabilities below 0 in both: their product is positive, and means nothing."""
    noisy = np.array([[1.0, 4, 0], [3, 0, 2], [0, 3, 5], [4, 1, 1], [2, 2, 3]])
    scores = Scores(("a", "b"), tuple("vwxyz"), np.stack([noisy, noisy[:, ::-1]]))
    assert split_quality(scores, 0).reliability < 0
    assert np.isnan(concurrences(scores, draws=19)[0].corrected)


def exchangeable_taus(rng, shift):
    """τ of six splits whose models' scores are drawn alike, `shift` more for the same source than
    for the same strategy.
    """
    sources, strategies = list("aaabbb"), list("xyzxyz")
    scores = Scores(tuple(map(str, range(6))), tuple("uvwxyz"), rng.normal(size=(6, 6, 1)))
    source, strategy = (np.equal.outer(np.array(x), np.array(x)) for x in (sources, strategies))
    added = shift / 2 * (source.astype(float) - strategy)
    return scores.order.against(scores.order) + added, sources, strategies


@pytest.mark.parametrize("shift", [0.0, 0.4])
def test_the_interval_of_the_difference_of_sources_covers_it(shift):
    rng = np.random.default_rng(5)
    n = 200
    found = [source_difference(*exchangeable_taus(rng, shift)) for _ in range(n)]
    covered = np.mean([one.low <= shift + 1e-9 and one.high >= shift - 1e-9 for one in found])
    # 1 − 2 / 60 and more, since τ of six models has ties; three standard errors of the draws
    assert 1 - 2 / 60 - 3 * (0.967 * 0.033 / n) ** 0.5 <= covered < 1


def test_the_interval_excludes_zero_where_no_other_assignment_is_as_extreme():
    rng = np.random.default_rng(6)
    for shift in (0.0, 0.5, 1.0):
        for _ in range(10):
            taus, sources, strategies = exchangeable_taus(rng, shift)
            found = source_difference(taus, sources, strategies)
            p = source_effect(taus, sources, strategies).p
            assert (found.low > 1e-12) == (p < 1.5 / 60)
            assert found.low <= found.value <= found.high


def test_a_difference_of_sources_needs_pairs_of_both_kinds():
    taus = exchangeable_taus(np.random.default_rng(0), 0.0)[0]
    with pytest.raises(InvalidData, match="shares the strategy"):
        source_difference(taus, list("aaabbb"), list("uvwxyz"))
