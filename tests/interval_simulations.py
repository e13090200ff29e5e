"""Situations in which intervals of `unseen.stats` and of a study's effects are drawn many times.

`tests/test_stats_coverage.py` asks how often each holds the truth; `benchmarks/coverage.py` prints
the table.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import asin, pi, sqrt

import numpy as np
from scipy import stats as scipy_stats

from unseen import stats
from unseen.reading import Reading
from unseen.study import average, effects, gap, rate

SIZES = (3, 5, 10, 50)
NOMINAL = 0.93
"""What a nominal 95 % interval must hold at least."""
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
MIDDLE = {"normal": 0.0, "skewed": 1.6783, "bounded": 0.5 ** (1 / 4)}


@dataclass(frozen=True)
class Simulation:
    """A function in a situation with n units: one draw gives its reading and the truth."""

    function: str
    situation: str
    n: int
    draw: Callable[[np.random.Generator], tuple[Reading, float]]
    least: float = NOMINAL
    """Lower only where the function's docstring names the case."""

    def coverage(self, repeats: int, seed: int = 0) -> float:
        """The share of draws whose interval holds the truth."""
        rng = np.random.default_rng(seed)
        pairs = [self.draw(rng) for _ in range(repeats)]
        return float(np.mean([r.low - 1e-12 <= truth <= r.high + 1e-12 for r, truth in pairs]))


def case(function, situation, n, make, truth, least=NOMINAL) -> Simulation:
    """A simulation with one truth."""
    return Simulation(function, situation, n, lambda rng: (make(rng), truth), least)


def means() -> Iterator[Simulation]:
    for kind, (draw, truth) in DRAWS.items():
        for n in SIZES:
            # 91 % stands in the docstring
            least = 0.90 if kind != "normal" and n <= 5 else NOMINAL
            yield case(
                "mean", kind, n, lambda rng, d=draw, n=n: stats.mean(d(rng, n)), truth, least
            )
            for two in (stats.difference, stats.welch):
                yield case(
                    two.__name__,
                    kind,
                    n,
                    lambda rng, f=two, d=draw, n=n: f(d(rng, n), d(rng, n)),
                    0.0,
                )
        for n in (6, 10, 50):  # infinite limits below six
            make = lambda rng, d=draw, n=n: stats.median(d(rng, n))  # noqa: E731
            yield case("median", kind, n, make, MIDDLE[kind])
        middle = stats.interquartile(draw(np.random.default_rng(1), 200_000))
        for n in (5, 10, 50):

            def make(rng, d=draw, n=n):
                return stats.interquartile_mean(d(rng, n), rng, draws=100)

            yield case("interquartile_mean", kind, n, make, middle)
    draw, truth = FAILING
    # what the docstring says: no interval of so few values can do much
    for n, least in zip(SIZES, (0.27, 0.40, 0.65, 0.90), strict=True):
        make = lambda rng, n=n: stats.mean(draw(rng, n))  # noqa: E731
        yield case("mean", "one seed in ten fails", n, make, truth, least)
        both = lambda rng, n=n: stats.difference(draw(rng, n), draw(rng, n))  # noqa: E731
        yield case("difference", "one seed in ten fails", n, both, 0.0)


def proportions() -> Iterator[Simulation]:
    for p in (0.5, 0.8, 0.95):
        for n in SIZES:
            # 95 % on average over p, single points of a discrete count dip below
            least = NOMINAL - (0.15 if n == 3 else 0.09)
            wilson = lambda rng, p=p, n=n: stats.proportion(int(rng.binomial(n, p)), n)  # noqa: E731
            yield case("proportion (Wilson)", f"p = {p:g}", n, wilson, p, least)

            def exact(rng, p=p, n=n):
                return stats.proportion(int(rng.binomial(n, p)), n, exact=True)

            yield case("proportion (exact)", f"p = {p:g}", n, exact, p)
    for n in SIZES:

        def drawn(rng, n=n):
            p = float(rng.uniform(0.02, 0.98))
            return stats.proportion(int(rng.binomial(n, p)), n), p

        yield Simulation("proportion (Wilson)", "p between 0.02 and 0.98", n, drawn)
    for sizes in ((50, 50, 50), (1000, 10, 10), (5,) * 5, (400, 40, 4, 400, 40), (50,) * 10):
        for p, spread in ((0.5, 0.0), (0.9, 0.0), (0.98, 0.0), (0.9, 0.05)):
            yield _mean_proportion(np.array(sizes), p, spread)


def _mean_proportion(n: np.ndarray, p: float, spread: float) -> Simulation:
    def make(rng: np.random.Generator) -> Reading:
        scale = (1 - spread) / spread if spread else 0.0
        truth = rng.beta(p * scale, (1 - p) * scale, size=n.size) if spread else p
        return stats.mean_proportion(rng.binomial(n, truth), n)

    even = "even" if len(set(n.tolist())) == 1 else "uneven"
    situation = f"{even} seeds of {n.min()} to {n.max()}, p = {p:g}, spread {spread:g}"
    return case("mean_proportion", situation, n.size, make, p)


def tables() -> Iterator[Simulation]:
    """Seeds × examples, both samples."""
    for seeds in (2, 3, 5, 10):
        for n in (10, 50):
            for between in (0.0, 0.3, 1.0):

                def draw(rng, seeds=seeds, n=n, between=between):
                    return (
                        between * rng.normal(size=(seeds, 1))
                        + rng.normal(size=(1, n))
                        + rng.normal(size=(seeds, n))
                    )

                situation = f"× {n} examples, seeds differ by {between:g}"
                make = lambda rng, d=draw: stats.crossed_mean(d(rng))  # noqa: E731
                yield case("crossed_mean", situation, seeds, make, 0.0)
                if n == 50:
                    score = lambda rng, d=draw: stats.mean_score(d(rng))  # noqa: E731
                    yield case("mean_score", situation, seeds, score, 0.0)
        rare = lambda rng, s=seeds: stats.mean_score(_answers(rng, s))  # noqa: E731
        yield case("mean_score", "× 50 answers, 9 in 10 right", seeds, rare, 0.9)


def _answers(rng: np.random.Generator, seeds: int) -> np.ndarray:
    """Right and wrong answers of seeds that agree on half of the 50 examples."""
    shared, own = rng.random((1, 50)) < 0.9, rng.random((seeds, 50)) < 0.9
    return np.where(rng.random((1, 50)) < 0.5, shared, own).astype(float)


def bootstraps() -> Iterator[Simulation]:
    for kind, (draw, truth) in DRAWS.items():
        for n in SIZES:
            # 91 % stands in the docstring
            least = 0.90 if n == 3 or (n == 5 and kind == "skewed") else NOMINAL

            def mean(rng, d=draw, n=n):
                return stats.bootstrap(np.mean, d(rng, n), rng=rng, draws=100)

            def ratio(rng, d=draw, n=n):
                pair = 5 + d(rng, n), 5 + rng.normal(size=n)
                return stats.bootstrap(lambda a, b: a.sum() / b.sum(), *pair, rng=rng, draws=100)

            yield case("bootstrap of a mean", kind, n, mean, truth, least)
            yield case("bootstrap of a ratio", kind, n, ratio, (5 + truth) / 5, least)


def relations() -> Iterator[Simulation]:
    for n in (4, 5, 10, 50):
        for rho in (0.0, 0.6, 0.9, 0.97, 0.995):

            def ranks(rng, n=n, rho=rho):
                pair = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], size=n).T
                return stats.rank_correlation(*pair)

            # Spearman's ρ of the bivariate normal
            yield case("rank_correlation", f"r = {rho:g}", n, ranks, 6 / pi * asin(rho / 2))
        for noise in ("equal", "ends", "far point", "grows"):
            x, sd = _line(noise, n)
            make = lambda rng, x=x, sd=sd: stats.slope(x, sd * rng.normal(size=x.size))  # noqa: E731
            yield case("slope", f"noise: {noise}", n, make, 0.0)


def _line(noise: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    x = np.linspace(0, 1, n)
    if noise == "ends":
        return x, 0.1 + 8 * (x - 0.5) ** 2
    if noise == "far point":
        return np.r_[x[:-1], 4.0], np.r_[np.full(n - 1, 0.1), 2.0]
    if noise == "grows":
        return np.arange(n) ** 3.0, np.arange(1, n + 1) ** 2.0
    return x, np.ones(n)


def two_classes(kind: str, rng: np.random.Generator, positives: int, negatives: int) -> np.ndarray:
    """Scores of the positives, then of the negatives."""
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


def areas() -> Iterator[Simulation]:
    for positives, negatives in ((2, 50), (3, 300), (5, 50), (10, 10), (20, 200)):
        labels = np.repeat([1, 0], [positives, negatives])
        for kind, area in AREAS.items():

            def make(rng, kind=kind, p=positives, n=negatives, labels=labels):
                return stats.auc(two_classes(kind, rng, p, n), labels)

            yield case("auc", f"{kind}, {negatives} negatives", positives, make, float(area))
    for positives in (5, 10, 40):
        labels = np.repeat([1, 0], [positives, 60])

        def two(rng, labels=labels):
            shared = labels + rng.normal(size=labels.size)
            one, other = (shared + 0.7 * rng.normal(size=labels.size) for _ in range(2))
            return stats.auc_difference(one, other, labels)

        yield case("auc_difference", "60 negatives", positives, two, 0.0)
    labels = np.repeat([1, 0], [60, 60])
    strengths = 1 + 0.5 * np.random.default_rng(5).normal(size=100_000)
    truth = float(scipy_stats.norm.cdf(strengths / sqrt(2)).mean())
    for seeds in (2, 3, 5, 10):

        def over_seeds(rng, seeds=seeds):
            strength = 1 + 0.5 * rng.normal(size=(seeds, 1))
            return stats.crossed_auc(strength * labels + rng.normal(size=(1, 120)), labels)

        yield case("crossed_auc", "seeds that differ, 60 + 60", seeds, over_seeds, truth)


def groups() -> Iterator[Simulation]:
    """The lowest of groups, and readings made of readings."""
    for count, size, spread in ((2, 50, 0.0), (12, 50, 0.0), (12, 50, 0.05), (30, 20, 0.1)):

        def lowest(rng, count=count, size=size, spread=spread):
            truth = np.clip(0.7 + spread * rng.normal(size=count), 0.05, 0.95)
            hits = rng.binomial(size, truth)
            reading = stats.lowest(
                lambda level: [stats.proportion(int(k), size, level=level) for k in hits]
            )
            return reading, float(truth.min())

        yield Simulation("lowest", f"groups of {size} that differ by {spread:g}", count, lowest)
    for count, size, spread in ((4, 100, 0.0), (12, 50, 0.05)):

        def lowest_of(rng, count=count, size=size, spread=spread):
            truth = np.clip(0.8 + spread * rng.normal(size=count), 0.05, 0.95)
            readings = [stats.proportion(int(k), size) for k in rng.binomial(size, truth)]
            return stats.lowest_of(readings), float(truth.min())

        yield Simulation(
            "lowest_of", f"groups of {size} that differ by {spread:g}", count, lowest_of
        )

    def apart(rng):
        return stats.independent_difference(
            stats.proportion(int(rng.binomial(20, 0.8)), 20),
            stats.proportion(int(rng.binomial(30, 0.6)), 30),
        )

    yield case("independent_difference", "proportions of 20 and 30", 20, apart, 0.2)
    for n in SIZES:

        def sites(rng, n=n):
            return stats.average([stats.mean(k + rng.normal(size=n)) for k in range(4)])

        yield case("average", "four sites' means", n, sites, 1.5)


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


def _labelled(rng: np.random.Generator, blocks: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    values, month = autocorrelated(rng, blocks)
    own = rng.normal(0, 1, month.size)
    return own + values[0] > 0, (own + rng.normal(0, 1, month.size))[None], month


def dependent_rows() -> Iterator[Simulation]:
    # days of neighbouring months are alike, too, which blocks of one month leave out: at most 3 %
    least = NOMINAL - 0.03
    for seeds in (1, 3):
        for blocks in SIZES:

            def make(rng, blocks=blocks, seeds=seeds):
                values, month = autocorrelated(rng, blocks, seeds)
                return stats.over_blocks(stats.mean_score(values), values, month)

            yield case(
                "over_blocks", f"mean of {seeds} seeds over months", blocks, make, 0.0, least
            )
    for blocks in (10, 50):

        def share(rng, blocks=blocks):
            labels, _, month = _labelled(rng, blocks)
            right = labels[None].astype(float)
            return stats.over_blocks(stats.mean_score(right), right, month, (0.0, 1.0))

        def area(rng, blocks=blocks):
            labels, score, month = _labelled(rng, blocks)
            alone = stats.crossed_auc(score, labels)
            return stats.over_blocks(alone, stats.auc_shares(score, labels), month, (0.0, 1.0))

        yield case("over_blocks", "share over months", blocks, share, 0.5, least)
        many = [_labelled(np.random.default_rng([9, k]), blocks) for k in range(400)]
        found = [stats.crossed_auc(s, y).value for y, s, _ in many if 0 < y.mean() < 1]
        yield case("over_blocks", "AUC over months", blocks, area, float(np.mean(found)), least)


def rows_of(values: dict[str, np.ndarray]) -> list[dict]:
    """Rows of a study: a seed, an arm and a value."""
    return [
        {"seed": seed, "arm": arm, "value": float(value), "n": 40}
        for arm, column in values.items()
        for seed, value in enumerate(column)
    ]


def study_effects() -> Iterator[Simulation]:
    A, B = {"arm": "a"}, {"arm": "b"}
    for kind, (draw, truth) in DRAWS.items():
        for n in SIZES:
            least = 0.90 if kind != "normal" and n <= 5 else NOMINAL
            one = lambda rng, d=draw, n=n: average("value", A)(rows_of({"a": d(rng, n)}))  # noqa: E731
            yield case("effects: average", kind, n, one, truth, least)

            def pairs(rng, d=draw, n=n):
                return rows_of({"a": d(rng, n), "b": d(rng, n)})

            paired = lambda rng, p=pairs: gap("value", A, B)(p(rng))  # noqa: E731
            yield case("effects: gap", kind, n, paired, 0.0)
            logs = lambda rng, p=pairs: effects.ratio("value", A, B)(p(rng))  # noqa: E731
            yield case("effects: ratio", kind, n, logs, 1.0)
    for n in SIZES:
        for p, spread in ((0.9, 0.0), (0.9, 0.05)):

            def share(rng, n=n, p=p, spread=spread):
                scale = (1 - spread) / spread if spread else 0.0
                truth = rng.beta(p * scale, (1 - p) * scale, size=n) if spread else p
                rows = rows_of({"a": rng.binomial(40, truth, size=n)})
                return effects.share("value", "n", A)(rows)

            yield case("effects: share", f"p = {p:g}, seeds differ by {spread:g}", n, share, p)

        def pooled(rng, n=n):
            return rate("value", "n", A)(rows_of({"a": rng.binomial(40, 0.8, size=n)}))

        yield case("effects: rate", "p = 0.8, seeds alike", n, pooled, 0.8)

        def overlapping(rng, n=n):
            # one sample of 100 examples that all seeds judge, and the seeds' spread
            sample = 0.1 * rng.normal()
            values = 0.5 + sample + 0.05 * rng.normal(size=n)
            return effects.overlapping(values.tolist(), [0.01] * n)

        yield case("effects: overlapping", "seeds' spread half the sample's", n, overlapping, 0.5)

        def alone(rng, n=n):
            values = 0.01 * rng.normal() + 0.1 * rng.normal(size=n)
            return effects.overlapping(values.tolist(), [1e-4] * n)

        yield case("effects: overlapping", "seeds' spread ten times it", n, alone, 0.0)

        def crossed(rng, n=n):
            one, other = (
                rng.normal(size=(n, 1)) + rng.normal(size=(1, 20)) + rng.normal(size=(n, 20))
                for _ in range(2)
            )
            return effects.crossed_gap(one, other)

        yield case("effects: crossed_gap", "seeds × 20 sites", n, crossed, 0.0)
        for means in ((0.0, 0.0, 0.0), (0.0, 0.5, 1.0)):

            def least_of(rng, n=n, means=means):
                values = {str(k): mean + rng.normal(size=n) for k, mean in enumerate(means)}
                read = effects.minimum(*(average("value", {"arm": arm}) for arm in values))
                return read(rows_of(values))

            situation = "three equal" if means[2] == 0 else "three that differ"
            yield case("effects: minimum", situation, n, least_of, 0.0)


def grids() -> Iterator[Simulation]:
    for runs in (3, 5, 10):
        for items, spread in ((1.0, 0.0), (1.0, 0.5)):

            def make(rng, runs=runs, items=items, spread=spread):
                table = (
                    spread * rng.normal(size=(runs, 1))
                    + items * rng.normal(size=(1, 30))
                    + rng.normal(size=(runs, 30))
                )
                return stats.grid_bootstrap(np.array, table, rng=rng, draws=200)

            # 88 to 90 % of few runs that differ much stands in the docstring
            least = 0.85 if spread else NOMINAL
            yield case(
                "grid_bootstrap", f"× 30 items, runs differ by {spread:g}", runs, make, 0.0, least
            )


def simulations() -> Iterator[Simulation]:
    """All of them, by function."""
    for some in (
        means,
        proportions,
        tables,
        bootstraps,
        relations,
        areas,
        groups,
        dependent_rows,
        grids,
        study_effects,
    ):
        yield from some()
