"""A threshold that few of one class exceed, from a sample of that class alone."""

from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import beta, binom

from unseen.errors import InvalidConfig, InvalidData
from unseen.reading import Reading
from unseen.stats.quantiles import LEVEL, _finite


@dataclass(frozen=True)
class Threshold:
    """A score that a share `rate` of a class exceeds."""

    value: float
    """The k-th largest of n scores, k = ⌊rate · (n + 1)⌋."""
    low: float
    high: float
    """Of the score that the share exceeds in the population; ±∞ where the sample does not reach
    it."""
    rate: Reading
    """The share that exceeds `value`, with its interval: Beta(k, n + 1 − k), whatever the
    distribution."""


def fewest_scores(rate: float) -> int:
    """The smallest n with ⌊rate · (n + 1)⌋ ≥ 1: 99 for a rate of 1 %."""
    return int(np.ceil(1 / rate - 1e-9)) - 1


def threshold_at(scores: ArrayLike, rate: float = 0.01, *, level: float = LEVEL) -> Threshold:
    """The score that at most a share `rate` of a class exceeds, from n scores of the class.

    A new score of the class exceeds the k-th largest of n with probability k/(n + 1), on average
    over samples, whatever its distribution; ties make it fewer. The interval of the threshold is
    that of the quantile by order statistics.
    """
    if not 0 < rate < 1:
        raise InvalidConfig(
            f"A false-positive rate of {rate:g} was asked for.",
            why="it is a share.",
            fix="choose one between 0 and 1, for example 0.01.",
        )
    x = np.sort(_finite("threshold_at", scores))
    n = x.size
    k = int(rate * (n + 1) + 1e-9)
    if k < 1:
        raise InvalidData(
            f"{n} scores give no threshold that {rate:g} of their class exceeds.",
            why=f"even the largest of {n} is exceeded by 1 in {n + 1} new ones.",
            fix=f"give {fewest_scores(rate)} scores or more, or ask for a rate of {1 / (n + 1):.3g}"
            " or more.",
        )
    outer = (1 - level) / 2
    share = Reading(
        k / (n + 1),
        float(beta.ppf(outer, k, n + 1 - k)),
        float(beta.ppf(1 - outer, k, n + 1 - k)),
        n,
        "fraction",
    )
    below, above = _rank_below(n, rate, level), _rank_above(n, rate, level)
    low = float(x[below - 1]) if below else -inf
    high = float(x[above - 1]) if above <= n else inf
    return Threshold(float(x[n - k]), low, high, share)


def _rank_below(n: int, rate: float, level: float) -> int:
    """The largest r with P(X_(r) > quantile) ≤ (1 − level)/2; 0: none."""
    # X_(r) > quantile: fewer than r of n lie below it
    return int(binom.ppf((1 - level) / 2, n, 1 - rate))


def _rank_above(n: int, rate: float, level: float) -> int:
    """The smallest r with P(X_(r) < quantile) ≤ (1 − level)/2; n + 1: none."""
    return int(binom.ppf(1 - (1 - level) / 2, n, 1 - rate)) + 1
