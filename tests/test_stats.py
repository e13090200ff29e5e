"""Intervals against scipy, closed forms and their coverage (seeds fixed)."""

from math import inf, isnan, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis.strategies import floats, integers, lists
from scipy import stats as scipy_stats

from unseen import stats
from unseen.errors import InvalidData
from unseen.reading import Reading

RNG = np.random.default_rng


def limits(reading: Reading) -> tuple[float, float, float]:
    return reading.value, reading.low, reading.high


def coverage(make, truth: float, repeats: int = 400, seed: int = 0) -> int:
    rng = RNG(seed)
    return sum(
        reading.low <= truth <= reading.high for reading in (make(rng) for _ in range(repeats))
    )


def test_mean_is_students_interval():
    x = RNG(0).normal(3, 2, size=9)
    ci = scipy_stats.ttest_1samp(x, 0).confidence_interval()
    assert limits(stats.mean(x)) == pytest.approx((x.mean(), ci.low, ci.high))
    cut = stats.mean([0.0, 1.0, 1.0], within=(0, 1))
    assert (cut.low, cut.high) == (0, 1)
    one = stats.mean([5.0])
    assert one.value == 5
    assert isnan(one.low)


@given(
    values=lists(floats(-100, 100), min_size=2, max_size=20),
    shift=floats(-10, 10),
    scale=floats(0.1, 10),
)
def test_mean_and_median_move_with_shift_and_scale(values, shift, scale):
    moved = scale * np.array(values) + shift
    for f in (stats.mean, stats.median):
        a, b = limits(f(values)), limits(f(moved))
        assert b == pytest.approx(tuple(scale * v + shift for v in a), abs=1e-6)


def test_median_covers_and_small_samples_say_so():
    assert (stats.median([1, 2, 3]).low, stats.median([1, 2, 3]).high) == (-inf, inf)
    reading = stats.median(np.arange(1, 11))  # n = 10: the exact interval is [x2, x9], 97.9 %
    assert limits(reading) == (5.5, 2, 9)
    assert coverage(lambda rng: stats.median(rng.exponential(size=25)), np.log(2)) >= 372


def test_wilson_closed_form_and_clopper_pearson():
    z, k, n = 1.959963984540054, 7, 20
    p = k / n
    centre, half = (
        (p + z * z / (2 * n)) / (1 + z * z / n),
        z / (1 + z * z / n) * sqrt(p * (1 - p) / n + z * z / (4 * n * n)),
    )
    assert limits(stats.proportion(k, n)) == pytest.approx((p, centre - half, centre + half))
    exact = stats.proportion(k, n, exact=True)
    beta = scipy_stats.beta
    assert (exact.low, exact.high) == pytest.approx(
        (beta.ppf(0.025, k, n - k + 1), beta.ppf(0.975, k + 1, n - k))
    )
    assert stats.proportion(0, 5).low == 0
    assert stats.proportion(5, 5).high == pytest.approx(1)


@given(n=integers(1, 60), k=integers(0, 60))
def test_proportions_stay_within_bounds_and_mirror(n, k):
    k = min(k, n)
    for exact in (False, True):
        a, b = stats.proportion(k, n, exact=exact), stats.proportion(n - k, n, exact=exact)
        assert 0 <= a.low <= a.value + 1e-12
        assert a.value - 1e-12 <= a.high <= 1
        assert (a.low, a.high) == pytest.approx((1 - b.high, 1 - b.low))


def test_wilson_covers():
    for p, n in ((0.5, 10), (0.1, 30), (0.9, 100)):
        assert (
            366 <= coverage(lambda rng, p=p, n=n: stats.proportion(rng.binomial(n, p), n), p) <= 396
        )


def test_difference_is_paired_and_welch_is_not():
    rng = RNG(1)
    a = rng.normal(size=12)
    b = a + 0.1 * rng.normal(size=12) - 1
    paired, free = stats.difference(a, b), stats.welch(a, b)
    ci = scipy_stats.ttest_rel(a, b).confidence_interval()
    assert limits(paired) == pytest.approx(((a - b).mean(), ci.low, ci.high))
    ci = scipy_stats.ttest_ind(a, b, equal_var=False).confidence_interval()
    assert limits(free) == pytest.approx(((a - b).mean(), ci.low, ci.high))
    assert paired.high - paired.low < free.high - free.low
    assert limits(stats.welch([1.0, 1.0], [0.0, 0.0])) == (1, 1, 1)


def test_crossed_covers_when_seeds_and_examples_both_vary():
    def table(rng: np.random.Generator, seeds: int = 6, n: int = 30) -> Reading:
        return stats.crossed_mean(
            0.5 * rng.normal(size=(seeds, 1))
            + rng.normal(size=(1, n))
            + rng.normal(size=(seeds, n))
        )

    assert 362 <= coverage(table, 0.0) <= 396
    naive = coverage(
        lambda rng: stats.mean((rng.normal(size=(6, 1)) + rng.normal(size=(6, 30))).ravel()), 0.0
    )
    assert naive < 300  # what it is for: all cells taken as independent cover far too rarely
    row = RNG(0).normal(size=(1, 9))
    assert limits(stats.crossed_mean(row)) == limits(stats.mean(row[0]))
    assert limits(stats.crossed_mean(np.ones((3, 4)))) == (1, 1, 1)


def test_bootstrap_of_a_mean_agrees_with_students_interval_and_redraws_undefined_samples():
    x = RNG(2).normal(size=200)
    got, wanted = stats.bootstrap(np.mean, x, rng=RNG(0)), stats.mean(x)
    assert got.value == pytest.approx(wanted.value)
    assert (got.low, got.high) == pytest.approx((wanted.low, wanted.high), abs=0.03)
    assert limits(stats.bootstrap(np.mean, x, rng=RNG(0))) == limits(got)

    def picky(values: np.ndarray) -> float:
        if 0 not in values:
            raise InvalidData("no zero")
        return float(values.mean())

    assert stats.bootstrap(picky, np.arange(5), rng=RNG(0), draws=50).low > -inf


def test_slope_is_least_squares_with_hc3():
    """HC3 and the degrees of freedom of Bell and McCaffrey, with matrices written out."""
    x = np.arange(10.0) ** 1.5
    y = 2 * x + RNG(3).normal(size=10)
    design = np.stack([np.ones(10), x], 1)
    inverse = np.linalg.inv(design.T @ design)
    hat = design @ inverse @ design.T
    residual = y - hat @ y
    weight = (residual / (1 - np.diag(hat))) ** 2
    variance = (inverse @ design.T @ np.diag(weight) @ design @ inverse)[1, 1]
    contrast = (inverse @ design.T)[1]
    columns = (np.eye(10) - hat) * (contrast / (1 - np.diag(hat)))
    eigenvalues = np.linalg.eigvalsh(columns.T @ columns)
    freedom = eigenvalues.sum() ** 2 / (eigenvalues**2).sum()
    half = scipy_stats.t.ppf(0.975, freedom) * sqrt(variance)
    value = float(np.polyfit(x, y, 1)[0])
    assert limits(stats.slope(x, y)) == pytest.approx((value, value - half, value + half))
    assert isnan(
        stats.slope([0, 0, 1.0], [0, 1, 5.0]).low
    )  # the line goes through the third point whatever its noise


def test_rank_correlation_of_perfect_ranks_is_not_certain():
    x = np.arange(10.0)
    y = 2 * x + RNG(3).normal(size=10)
    reading = stats.rank_correlation(x, y)
    assert reading.value == pytest.approx(scipy_stats.spearmanr(x, y).statistic)
    assert limits(stats.rank_correlation(np.exp(x), y)) == limits(reading)
    assert limits(stats.rank_correlation(-x, y)) == pytest.approx(
        (-reading.value, -reading.high, -reading.low)
    )
    perfect = {n: stats.rank_correlation(range(n), range(n)) for n in (4, 10)}
    assert (perfect[4].value, perfect[4].high, perfect[10].high) == (1, 1, 1)
    assert perfect[4].low < 0 < 0.8 < perfect[10].low < 1

    def normal(rng: np.random.Generator) -> Reading:
        a, b = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], size=40).T
        return stats.rank_correlation(a, b)

    assert (
        360 <= coverage(normal, 6 / np.pi * np.arcsin(0.3)) <= 396
    )  # Spearman's ρ of the bivariate normal


def test_auc_counts_pairs_and_covers():
    s, y = np.array([1, 2, 2, 3, 5, 0.0]), np.array([0, 1, 0, 0, 1, 0])
    pairs = [(a > b) + 0.5 * (a == b) for a in s[y == 1] for b in s[y == 0]]
    assert stats.auc(s, y).value == pytest.approx(np.mean(pairs))
    assert stats.auc(np.exp(s), y).value == stats.auc(s, y).value
    assert stats.auc(-s, y).value == pytest.approx(1 - stats.auc(s, y).value)
    perfect = stats.auc([1, 2, 3, 4.0], [0, 0, 1, 1])
    assert (perfect.value, perfect.high) == (1, 1)
    assert perfect.low < 0.5


def test_delong_variance_by_its_double_sum():
    """DeLong et al. (1988), equations 4 and 5, with the kernel written out."""
    rng, label = RNG(4), np.repeat([1, 0], [12, 15])
    a, b = rng.normal(size=(2, 27)) + label
    kernels = [np.sign(s[label == 1][:, None] - s[label == 0][None]) / 2 + 0.5 for s in (a, b)]
    gap = kernels[0] - kernels[1]
    variance = gap.mean(1).var(ddof=1) / 12 + gap.mean(0).var(ddof=1) / 15
    reading = stats.auc_difference(a, b, label)
    parts = gap.mean(1).var(ddof=1) / 12, gap.mean(0).var(ddof=1) / 15
    assert sum(parts) == pytest.approx(variance)
    half = sqrt(
        scipy_stats.t.ppf(0.975, 11) ** 2 * parts[0] + scipy_stats.t.ppf(0.975, 14) ** 2 * parts[1]
    )
    assert limits(reading) == pytest.approx((gap.mean(), gap.mean() - half, gap.mean() + half))
    assert stats.auc_difference(b, a, label).value == pytest.approx(-reading.value)
    assert limits(stats.auc_difference(a, a, label)) == (0, 0, 0)


def test_scores_choose_their_interval():
    assert limits(stats.of_scores([1, 0, 1, 1])) == limits(stats.proportion(3, 4))
    assert limits(stats.of_scores([0.5, 0, 1])) == limits(stats.mean([0.5, 0, 1]))
    assert stats.average_readings([Reading(1.0), Reading(3.0)]).value == 2


@pytest.mark.parametrize(
    "call",
    [
        lambda: stats.mean([]),
        lambda: stats.mean([1.0, np.nan]),
        lambda: stats.median([np.inf]),
        lambda: stats.proportion(1, 0),
        lambda: stats.proportion(3, 2),
        lambda: stats.difference([1.0], [1.0, 2.0]),
        lambda: stats.crossed_mean([1.0, 2.0]),
        lambda: stats.crossed_mean([[1.0], [2.0]]),
        lambda: stats.bootstrap(np.mean, [1.0], rng=RNG(0)),
        lambda: stats.bootstrap(np.mean, [1.0, 2.0], [1.0], rng=RNG(0)),
        lambda: stats.slope([1, 1, 1], [1, 2, 3]),
        lambda: stats.rank_correlation([1, 2, 3, 4], [1, 1, 1, 1]),
        lambda: stats.auc([1.0, 2.0], [1, 1]),
        lambda: stats.welch([1.0], [1.0, 2.0]),
    ],
)
def test_what_has_no_value_is_refused(call):
    with pytest.raises(InvalidData):
        call()
