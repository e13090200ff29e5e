"""Slopes and rank correlations of two columns."""

from math import atanh, sqrt, tanh

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats as scipy_stats

from unseen.errors import InvalidData
from unseen.reading import Reading
from unseen.stats.quantiles import _finite, t_quantile


def slope(x: ArrayLike, y: ArrayLike, unit: str = "") -> Reading:
    """Least-squares slope of y on x; the interval allows each point its own noise.

    Variance HC3 (MacKinnon & White, 1985) with the degrees of freedom of Bell & McCaffrey (2002):
    where the noise grows with x, the textbook interval holds the slope in 10 to 90 %. Two points
    far from the rest leave one degree of freedom, hence a wide interval.
    """
    a, b = _finite("slope", x, 3), _finite("slope", y, 3)
    if np.ptp(a) == 0:
        raise InvalidData(
            "slope got one x value only.", why="a vertical line has no slope.", fix="vary x."
        )
    n, centred = a.size, a - a.mean()
    square = float(centred @ centred)
    value = float(centred @ b / square)
    residual = b - b.mean() - value * centred
    leverage = 1 / n + centred**2 / square
    if (leverage > 1 - 1e-9).any():  # the line passes through that point whatever its noise
        return Reading(value, n=n, unit=unit)
    weights = centred**2 / (1 - leverage) ** 2
    error = sqrt(float(weights @ residual**2)) / square
    annihilator = np.eye(n) - 1 / n - np.outer(centred, centred) / square
    product = annihilator * weights  # M diag(w): its traces are those of M diag(w) M
    freedom = float(np.trace(product)) ** 2 / float((product * product.T).sum())
    half = t_quantile(freedom) * error
    return Reading(value, value - half, value + half, n, unit)


def rank_correlation(x: ArrayLike, y: ArrayLike) -> Reading:
    """Spearman's ρ with Fisher's z interval (variance of Bonett & Wright, 2000) and Student's
    quantile.

    Perfect agreement of n ranks is no perfect correlation: ρ enters as half a step below it, where
    one step is the exchange of two neighbours. Of the limit away from zero the wider is taken of ρ
    and of its unbiased estimate ((n + 1) ρ − 3 τ) / (n − 2), since ρ of few ranks is too small
    where the truth is near 1.
    """
    a, b = _finite("rank_correlation", x, 4), _finite("rank_correlation", y, 4)
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        raise InvalidData(
            "rank_correlation got a constant variable.",
            why="its ranks are all tied.",
            fix="leave this pair out.",
        )
    n = a.size
    rho, tau = (
        float(scipy_stats.spearmanr(a, b).statistic),
        float(scipy_stats.kendalltau(a, b).statistic),
    )
    rho = min(1.0, max(-1.0, rho))
    low, high = _fisher_limits(rho, n)
    low_unbiased, high_unbiased = _fisher_limits(((n + 1) * rho - 3 * tau) / (n - 2), n)
    if rho >= 0:
        high = max(high, high_unbiased)
    else:
        low = min(low, low_unbiased)
    return Reading(rho, min(low, rho), max(high, rho), n)


def _fisher_limits(rho: float, n: int) -> tuple[float, float]:
    most = 1 - 6 / (n * (n**2 - 1))
    inside = min(most, max(-most, rho))
    half = t_quantile(n - 2) * sqrt((1 + inside**2 / 2) / (n - 3))
    low, high = tanh(atanh(inside) - half), tanh(atanh(inside) + half)
    return (-1.0 if rho <= -most else low), (1.0 if rho >= most else high)
