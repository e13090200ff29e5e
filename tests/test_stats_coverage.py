"""How often the interval of each function of `unseen.stats` holds the truth, by simulation with
fixed seeds.

Nominal 95 %; at least 93 % is asked, less the error of so many repeats, unless the function's
docstring names the case.
"""

from collections.abc import Callable
from math import asin, pi, sqrt

import numpy as np
import pytest
from scipy import stats as scipy_stats

from unseen import stats
from unseen.errors import InvalidData
from unseen.reading import Reading

REPEATS = 300
LEAST = 0.93 - 2 * sqrt(0.93 * 0.07 / REPEATS)
SIZES = (3, 5, 10, 50)
Draw = Callable[[np.random.Generator, int], np.ndarray]
DRAWS: dict[str, tuple[Draw, float]] = {
    "normal": (lambda rng, n: rng.normal(size=n), 0.0),
    "skewed": (lambda rng, n: rng.gamma(2, size=n), 2.0),
    "bounded": (lambda rng, n: rng.beta(4, 1, size=n), 0.8),
}
FAILING: tuple[Draw, float] = (
    lambda rng, n: np.where(rng.random(n) < 0.1, 0.0, 0.9 + 0.01 * rng.normal(size=n)),
    0.81,
)


def coverage(make: Callable[[np.random.Generator], Reading], truth: float, seed: int = 0) -> float:
    rng = np.random.default_rng(seed)
    readings = [make(rng) for _ in range(REPEATS)]
    return float(
        np.mean([reading.low - 1e-12 <= truth <= reading.high + 1e-12 for reading in readings])
    )


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("kind", DRAWS)
def test_means_and_differences(kind, n):
    draw, truth = DRAWS[kind]
    exception = 0.03 if kind != "normal" and n <= 5 else 0.0  # named in the docstring: 91 %
    assert coverage(lambda rng: stats.mean(draw(rng, n)), truth) >= LEAST - exception
    assert coverage(lambda rng: stats.difference(draw(rng, n), draw(rng, n)), 0.0) >= LEAST
    assert coverage(lambda rng: stats.welch(draw(rng, n), draw(rng, n)), 0.0) >= LEAST


@pytest.mark.parametrize(("n", "least", "most"), [(3, 0.2, 0.35), (10, 0.6, 0.72)])
def test_a_mean_where_one_seed_in_ten_fails_is_held_as_rarely_as_the_docstring_says(n, least, most):
    draw, truth = FAILING
    assert least <= coverage(lambda rng: stats.mean(draw(rng, n)), truth) <= most


@pytest.mark.parametrize("n", [6, 10, 50])
@pytest.mark.parametrize(
    ("kind", "truth"), [("normal", 0.0), ("skewed", 1.6783), ("bounded", 0.5 ** (1 / 4))]
)
def test_medians(kind, truth, n):
    assert coverage(lambda rng: stats.median(DRAWS[kind][0](rng, n)), truth) >= LEAST


@pytest.mark.parametrize("n", [5, 10, 50])
@pytest.mark.parametrize("kind", DRAWS)
def test_interquartile_means(kind, n):
    draw, _ = DRAWS[kind]
    truth = stats.interquartile(draw(np.random.default_rng(1), 200_000))

    def reading(rng):
        return stats.interquartile_mean(draw(rng, n), rng, draws=100)

    assert coverage(reading, truth) >= LEAST


def test_interquartile_mean_by_hand():
    rng = np.random.default_rng(0)
    eight = np.arange(8.0)
    assert stats.interquartile(eight) == 3.5
    assert stats.interquartile(rng.permutation(eight).reshape(4, 2)) == 3.5
    three = stats.interquartile_mean(eight[:3], rng)
    assert three == stats.mean(eight[:3])
    assert np.isnan(stats.interquartile_mean(eight[None], rng).low)
    outlier = np.append(eight, 1e6)
    assert stats.interquartile(outlier) < 5
    with pytest.raises(InvalidData, match="finite"):
        stats.interquartile_mean([1.0, np.nan, 2.0], rng)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("p", [0.5, 0.8, 0.95])
def test_proportions(p, n):
    wilson = coverage(lambda rng: stats.proportion(int(rng.binomial(n, p)), n), p)
    exact = coverage(lambda rng: stats.proportion(int(rng.binomial(n, p)), n, exact=True), p)
    # Wilson's mean coverage over p is 95 %, single points of a discrete count dip below
    assert wilson >= LEAST - (0.15 if n == 3 else 0.09)
    assert exact >= LEAST


def test_wilson_holds_95_percent_on_average_over_proportions():
    for n in SIZES:
        p = np.random.default_rng(1).uniform(0.02, 0.98, size=30)
        held = [
            coverage(lambda rng, q=q, n=n: stats.proportion(int(rng.binomial(n, q)), n), q)
            for q in p
        ]
        assert np.mean(held) >= 0.93


@pytest.mark.parametrize(
    "sizes", [(50, 50, 50), (1000, 10, 10), (5,) * 5, (400, 40, 4, 400, 40), (50,) * 10]
)
@pytest.mark.parametrize(("p", "spread"), [(0.5, 0.0), (0.9, 0.0), (0.98, 0.0), (0.9, 0.05)])
def test_mean_proportions_of_even_and_uneven_seeds(sizes, p, spread):
    n = np.array(sizes)

    def make(rng: np.random.Generator) -> Reading:
        scale = (1 - spread) / spread if spread else 0.0
        truth = rng.beta(p * scale, (1 - p) * scale, size=n.size) if spread else p
        return stats.mean_proportion(rng.binomial(n, truth), n)

    assert coverage(make, p) >= LEAST


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("n", [10, 50])
@pytest.mark.parametrize("between", [0.0, 0.3, 1.0])
def test_crossed_tables(seeds, n, between):
    def make(rng: np.random.Generator) -> Reading:
        table = (
            between * rng.normal(size=(seeds, 1))
            + rng.normal(size=(1, n))
            + rng.normal(size=(seeds, n))
        )
        return stats.crossed_mean(table)

    assert coverage(make, 0.0) >= LEAST


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("kind", DRAWS)
def test_bootstrap_of_a_mean_and_a_ratio(kind, n):
    draw, truth = DRAWS[kind]
    boot = np.random.default_rng(9)
    exception = (
        0.03 if n == 3 or (n == 5 and kind == "skewed") else 0.0
    )  # named in the docstring: 91 %
    mean = coverage(lambda rng: stats.bootstrap(np.mean, draw(rng, n), rng=boot, draws=100), truth)
    assert mean >= LEAST - exception

    def ratio(a: np.ndarray, b: np.ndarray) -> float:
        return float(a.sum() / b.sum())

    held = coverage(
        lambda rng: stats.bootstrap(
            ratio, 5 + draw(rng, n), 5 + rng.normal(size=n), rng=boot, draws=100
        ),
        (5 + truth) / 5,
    )
    assert held >= LEAST - exception


@pytest.mark.parametrize("n", [4, 5, 10, 50])
@pytest.mark.parametrize("rho", [0.0, 0.6, 0.9, 0.97, 0.995])
def test_rank_correlations(rho, n):
    def make(rng: np.random.Generator) -> Reading:
        return stats.rank_correlation(
            *rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], size=n).T
        )

    assert coverage(make, 6 / pi * asin(rho / 2)) >= LEAST  # Spearman's ρ of the bivariate normal


@pytest.mark.parametrize("n", [4, 5, 10, 50])
@pytest.mark.parametrize("noise", ["equal", "ends", "far point", "grows"])
def test_slopes_with_equal_and_unequal_noise(noise, n):
    x = np.linspace(0, 1, n)
    sd = np.ones(n)
    if noise == "ends":
        sd = 0.1 + 8 * (x - 0.5) ** 2
    if noise == "far point":
        x = np.r_[x[:-1], 4.0]
        sd = np.r_[np.full(n - 1, 0.1), 2.0]
    if noise == "grows":
        x, sd = np.arange(n) ** 3.0, np.arange(1, n + 1) ** 2.0
    assert coverage(lambda rng: stats.slope(x, sd * rng.normal(size=n)), 0.0) >= LEAST


def two_classes(kind: str, rng: np.random.Generator, positives: int, negatives: int) -> np.ndarray:
    if kind == "spread":  # positives of three times the spread
        return np.r_[3 * rng.normal(size=positives) + 2, rng.normal(size=negatives)]
    if kind == "exponential":
        return np.r_[4 * rng.exponential(size=positives), rng.exponential(size=negatives)]
    if kind == "mixed":  # three in ten positives look like negatives
        hidden = rng.random(positives) < 0.3
        return np.r_[
            np.where(hidden, -1.0, 4.0) + rng.normal(size=positives), rng.normal(size=negatives)
        ]
    return np.r_[
        rng.normal(size=positives) + (2 if kind == "far" else 1), rng.normal(size=negatives)
    ]


AREAS = {
    "near": scipy_stats.norm.cdf(1 / sqrt(2)),
    "far": scipy_stats.norm.cdf(sqrt(2)),
    "spread": scipy_stats.norm.cdf(2 / sqrt(10)),
    "exponential": 0.8,
    "mixed": 0.7 * scipy_stats.norm.cdf(4 / sqrt(2)) + 0.3 * scipy_stats.norm.cdf(-1 / sqrt(2)),
}


@pytest.mark.parametrize(
    ("positives", "negatives"), [(2, 50), (3, 300), (5, 50), (10, 10), (20, 200)]
)
@pytest.mark.parametrize("kind", AREAS)
def test_areas_with_few_and_many_positives(kind, positives, negatives):
    labels = np.repeat([1, 0], [positives, negatives])
    assert (
        coverage(
            lambda rng: stats.auc(two_classes(kind, rng, positives, negatives), labels), AREAS[kind]
        )
        >= LEAST
    )


@pytest.mark.parametrize("positives", [5, 10, 40])
def test_differences_of_areas(positives):
    labels = np.repeat([1, 0], [positives, 60])

    def make(rng: np.random.Generator) -> Reading:
        shared = labels + rng.normal(size=positives + 60)
        one, other = (shared + 0.7 * rng.normal(size=positives + 60) for _ in range(2))
        return stats.auc_difference(one, other, labels)

    assert coverage(make, 0.0) >= LEAST


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_areas_over_seeds_that_differ(seeds):
    labels = np.repeat([1, 0], [60, 60])
    rng = np.random.default_rng(5)
    strengths = 1 + 0.5 * rng.normal(size=100_000)
    truth = float(scipy_stats.norm.cdf(strengths / sqrt(2)).mean())

    def make(rng: np.random.Generator) -> Reading:
        strength = 1 + 0.5 * rng.normal(size=(seeds, 1))
        return stats.crossed_auc(strength * labels + rng.normal(size=(1, 120)), labels)

    assert coverage(make, truth) >= LEAST


@pytest.mark.parametrize(
    ("groups", "size", "spread"), [(2, 50, 0.0), (12, 50, 0.0), (12, 50, 0.05), (30, 20, 0.1)]
)
def test_the_lowest_of_groups(groups, size, spread):
    def make(rng: np.random.Generator) -> tuple[Reading, float]:
        truth = np.clip(0.7 + spread * rng.normal(size=groups), 0.05, 0.95)
        hits = rng.binomial(size, truth)
        reading = stats.lowest(
            lambda level: [stats.proportion(int(k), size, level=level) for k in hits]
        )
        return reading, float(truth.min())

    rng = np.random.default_rng(0)
    pairs = [make(rng) for _ in range(REPEATS)]
    assert np.mean([reading.low <= truth <= reading.high for reading, truth in pairs]) >= LEAST


def test_independent_differences():
    def make(rng: np.random.Generator) -> Reading:
        return stats.independent_difference(
            stats.proportion(int(rng.binomial(20, 0.8)), 20),
            stats.proportion(int(rng.binomial(30, 0.6)), 30),
        )

    assert coverage(make, 0.2) >= LEAST


@pytest.mark.parametrize(("groups", "size", "spread"), [(4, 100, 0.0), (12, 50, 0.05)])
def test_the_lowest_of_readings(groups, size, spread):
    """As above where only the 95 % intervals are kept."""

    def make(rng: np.random.Generator) -> tuple[Reading, float]:
        truth = np.clip(0.8 + spread * rng.normal(size=groups), 0.05, 0.95)
        hits = rng.binomial(size, truth)
        reading = stats.lowest_of([stats.proportion(int(k), size) for k in hits])
        return reading, float(truth.min())

    rng = np.random.default_rng(0)
    pairs = [make(rng) for _ in range(REPEATS)]
    assert np.mean([reading.low <= truth <= reading.high for reading, truth in pairs]) >= LEAST


@pytest.mark.parametrize("sites", [1, 4])
def test_six_differences_that_are_zero_are_rarely_clear(sites):
    """Changes by another training: of few seeds, at fixed examples, against one baseline; averaged
    over sites and widened for the six."""
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(REPEATS):
        right = rng.normal(0, 1, (sites, 7, 3, 1)) + 2 * rng.normal(size=(sites, 7, 3, 60)) > -1
        changes = [
            stats.average(
                [stats.crossed_mean(right[s, k] - 1.0 * right[s, 0]) for s in range(sites)]
            )
            for k in range(1, 7)
        ]
        wide = [stats.widen(change, 6) for change in changes]
        alarms += any(r.low > 0 or r.high < 0 for r in wide)
    assert stats.proportion(alarms, REPEATS).low < 0.05


def autocorrelated(rng: np.random.Generator, blocks: int, seeds: int = 1) -> tuple[np.ndarray, ...]:
    """Rows of months of 5 to 15 days: what a month has in common, an AR(1) process over the days
    and noise of their own; (values [seed, row], month of each row). The true mean is 0.
    """
    sizes = rng.integers(5, 16, blocks)
    month = np.repeat(np.arange(blocks), sizes)
    weather = np.zeros(month.size)
    for k in range(1, month.size):
        weather[k] = 0.7 * weather[k - 1] + rng.normal(0, 0.7)
    shared = rng.normal(0, 1, blocks)[month] + weather + rng.normal(0, 0.5, month.size)
    return shared + rng.normal(0, 0.3, (seeds, month.size)), month


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("blocks", [3, 5, 10, 50])
def test_means_over_blocks_of_autocorrelated_rows(blocks, seeds):
    def make(rng: np.random.Generator) -> Reading:
        values, month = autocorrelated(rng, blocks, seeds)
        return stats.over_blocks(stats.mean_score(values), values, month)

    def make_alone(rng: np.random.Generator) -> Reading:
        return stats.mean_score(autocorrelated(rng, blocks, seeds)[0])

    # days of neighbouring months are alike, too, which blocks of one month leave out: at most 3 %
    assert coverage(make, 0.0) >= LEAST - 0.03
    assert coverage(make_alone, 0.0) < 0.7


@pytest.mark.parametrize("blocks", [10, 50])
def test_shares_and_areas_over_blocks(blocks):
    def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        values, month = autocorrelated(rng, blocks)
        own = rng.normal(0, 1, month.size)
        labels = own + values[0] > 0
        return labels, (own + rng.normal(0, 1, month.size))[None], month

    def share(rng: np.random.Generator) -> Reading:
        labels, _, month = draw(rng)
        right = labels[None].astype(float)
        return stats.over_blocks(stats.mean_score(right), right, month, (0.0, 1.0))

    def area(rng: np.random.Generator) -> Reading:
        labels, score, month = draw(rng)
        alone = stats.crossed_auc(score, labels)
        return stats.over_blocks(alone, stats.auc_shares(score, labels), month, (0.0, 1.0))

    assert coverage(share, 0.5) >= LEAST - 0.03
    many = [draw(np.random.default_rng([9, k])) for k in range(400)]
    truth = float(np.mean([stats.crossed_auc(s, y).value for y, s, _ in many if 0 < y.mean() < 1]))
    assert coverage(area, truth) >= LEAST - 0.03
