"""How many labels are wrong, where, and which: from probabilities of models that never saw them.

An honest hard problem has surprising labels, too, so their number is no noise rate. It is estimated
by likelihood: with the true probabilities q (the out-of-fold ones, sharpened by one exponent b), a
label k is written with probability (1 − ρ) q_k + ρ (1 − q_k) / (K − 1), where ρ is the rate of
wrong labels at the example's site. Labels of one site that surprise more often than q allows raise
its ρ; labels that are uncertain everywhere lower b instead. By Bayes' rule each label then has a
probability to be wrong, a threshold that adapts to the site and to how sure the model is, and the
mean of it over the suspects is the precision to expect.

The class-conditional thresholds of confident learning (Northcutt, Jiang & Chuang, 2021,
arXiv:1911.00068), tried first, found 20 of 30 flipped labels of 900 rows in 40 % of draws, this in
90 to 100 % (`tests/measures/test_label_noise.py`).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import optimize
from scipy import stats as scipy_stats
from scipy.special import logsumexp

from unseen.engine.stratified_sample import stratified_sample
from unseen.errors import InvalidData
from unseen.reading import Reading

MOST_NOISE = 0.45
"""At half of the labels wrong nothing could be told."""
LEAST_BELIEF = 0.2
"""A suspect is listed from this probability to be wrong on."""
FEWEST = 50
MOST_RATED = 20_000
"""Rows from which rates are estimated: of more drawn at random within site and label."""


@dataclass(frozen=True)
class LabelNoise:
    """Wrong labels by site, and example by example."""

    rates: tuple[Reading, ...]
    """Share of wrong labels at each site (profile likelihood)."""
    p_values: tuple[float, ...]
    """Of "no label is wrong there" (likelihood ratio, one-sided)."""
    wrong: Float[np.ndarray, " row"]
    """Probability of each label to be wrong."""
    suspects: Int[np.ndarray, " suspect"]
    """Rows, likeliest first."""
    precision: float
    """Share of the suspects that are wrong, as the model expects; NaN without suspects."""


def label_noise(
    p: Float[np.ndarray, "row label"],
    y: Int[np.ndarray, " row"],
    site: Int[np.ndarray, " row"],
    rng: np.random.Generator,
) -> LabelNoise:
    """Rates at every site (codes 0, 1, …), and the suspects among all rows."""
    _validate(p, y, site)
    count, labels = int(site.max()) + 1, p.shape[1]
    log_p = np.log(np.clip(p, 1e-6, 1.0))
    drawn = stratified_sample(site * labels + y, MOST_RATED, rng)
    shift = _site_constants(log_p[drawn], y[drawn], site[drawn], count)
    log_p = log_p + shift[site]
    of_drawn = log_p[drawn], y[drawn], site[drawn]
    fit = _fit(*of_drawn, count)
    rates, p_values = [], []
    for k in range(count):
        low, high, value = _profile(*of_drawn, fit, k)
        rates.append(Reading(float(fit.rates[k]), low, high, int((site[drawn] == k).sum())))
        p_values.append(value)
    q = _label_probability(log_p, y, fit.sharpness)
    rate, others = fit.rates[site], p.shape[1] - 1
    flipped = rate * (1 - q) / others
    wrong = flipped / ((1 - rate) * q + flipped)
    listed = wrong >= LEAST_BELIEF
    order = np.flatnonzero(listed)[np.argsort(-wrong[listed], kind="stable")]
    precision = float(wrong[order].mean()) if order.size else float("nan")
    return LabelNoise(tuple(rates), tuple(p_values), wrong, order, precision)


@dataclass(frozen=True)
class _Fit:
    sharpness: float
    rates: Float[np.ndarray, " site"]
    cost: float


RIDGE = 0.1
"""Of the constants per site and class, in units of one label: a class that a site does not have."""


def _site_constants(
    log_p: Float[np.ndarray, "row label"],
    y: Int[np.ndarray, " row"],
    site: Int[np.ndarray, " row"],
    count: int,
) -> Float[np.ndarray, "site label"]:
    """What to add to the log-probabilities of each site and class, the likeliest beside one
    exponent: a class that is rarer at a site by its own nature is no wrong label there.
    """
    labels = log_p.shape[1]
    is_label = np.eye(labels)[y]

    def cost(w: Float[np.ndarray, " weight"]) -> tuple[float, Float[np.ndarray, " weight"]]:
        sharpness, shift = w[0], w[1:].reshape(count, labels)
        z = sharpness * log_p + shift[site]
        log_q = z - logsumexp(z, axis=1, keepdims=True)
        residual = np.exp(log_q) - is_label
        by_site = np.stack([np.bincount(site, column, count) for column in residual.T], 1)
        slope = np.append((residual * log_p).sum(), (by_site + RIDGE * shift).ravel())
        return float(-log_q[is_label > 0].sum() + RIDGE * (shift**2).sum() / 2), slope

    start = np.append(1.0, np.zeros(count * labels))
    bounds = [(0.2, 10.0), *[(None, None)] * (count * labels)]
    w = optimize.minimize(cost, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    return w[1:].reshape(count, labels) / w[0]


def _label_probability(
    log_p: Float[np.ndarray, "row label"], y: Int[np.ndarray, " row"], sharpness: float
) -> Float[np.ndarray, " row"]:
    """The sharpened probability of the own label."""
    z = sharpness * log_p
    z = z - z.max(1, keepdims=True)
    e = np.exp(z)
    return e[np.arange(len(y)), y] / e.sum(1)


def _cost(
    log_p: Float[np.ndarray, "row label"],
    y: Int[np.ndarray, " row"],
    site: Int[np.ndarray, " row"],
    sharpness: float,
    rates: Float[np.ndarray, " site"],
) -> float:
    """Minus the log-likelihood."""
    q, rate = _label_probability(log_p, y, sharpness), rates[site]
    written = (1 - rate) * q + rate * (1 - q) / (log_p.shape[1] - 1)
    return -float(np.log(np.maximum(written, 1e-12)).sum())


def _fit(
    log_p: Float[np.ndarray, "row label"],
    y: Int[np.ndarray, " row"],
    site: Int[np.ndarray, " row"],
    count: int,
    fixed: tuple[int, float] | None = None,
) -> _Fit:
    """The likeliest exponent and rates; `fixed` holds one rate at a value. For a given exponent
    each site's rate is a problem of its own, and concave: so a search over one number.
    """
    members = [np.flatnonzero(site == k) for k in range(count)]
    others = log_p.shape[1] - 1

    def rates_at(sharpness: float) -> Float[np.ndarray, " site"]:
        q = _label_probability(log_p, y, sharpness)
        return np.array(
            [
                fixed[1] if fixed is not None and k == fixed[0] else _rate(q[rows], others)
                for k, rows in enumerate(members)
            ]
        )

    def cost(log_sharpness: float) -> float:
        sharpness = float(np.exp(log_sharpness))
        return _cost(log_p, y, site, sharpness, rates_at(sharpness))

    found = optimize.minimize_scalar(cost, bounds=(-1.6, 2.3), method="bounded")
    sharpness = float(np.exp(found.x))
    return _Fit(sharpness, rates_at(sharpness), float(found.fun))


def _rate(q: Float[np.ndarray, " row"], others: int) -> float:
    """The likeliest ρ of Σ log((1 − ρ) q + ρ (1 − q) / others), which is concave in ρ."""
    step = (1 - q) / others - q

    def slope(rate: float) -> float:
        return float((step / np.maximum(q + rate * step, 1e-12)).sum())

    if slope(0.0) <= 0:
        return 0.0
    if slope(MOST_NOISE) >= 0:
        return MOST_NOISE
    return float(optimize.brentq(slope, 0.0, MOST_NOISE, xtol=1e-5))


def _profile(
    log_p: Float[np.ndarray, "row label"],
    y: Int[np.ndarray, " row"],
    site: Int[np.ndarray, " row"],
    fit: _Fit,
    k: int,
) -> tuple[float, float, float]:
    """Limits of a site's rate where the log-likelihood has fallen by χ²/2, and p of a rate of 0."""
    allowed = float(scipy_stats.chi2.ppf(0.95, 1)) / 2

    def fall(rate: float) -> float:
        return _fit(log_p, y, site, len(fit.rates), (k, rate)).cost - fit.cost

    def excess(rate: float) -> float:
        return fall(rate) - allowed

    best, at_zero = float(fit.rates[k]), fall(0.0)
    low = 0.0 if at_zero <= allowed else float(optimize.brentq(excess, 0.0, best, xtol=1e-3))
    is_open = excess(MOST_NOISE) <= 0
    high = MOST_NOISE if is_open else float(optimize.brentq(excess, best, MOST_NOISE, xtol=1e-3))
    # at the edge of the range: half of a χ² (Self & Liang, 1987)
    return low, high, float(scipy_stats.chi2.sf(max(0.0, 2 * at_zero), 1)) / 2


def _validate(
    p: Float[np.ndarray, "row label"], y: Int[np.ndarray, " row"], site: Int[np.ndarray, " row"]
) -> None:
    if len(y) < FEWEST or p.shape[1] < 2:
        raise InvalidData(
            f"{len(y)} examples of {p.shape[1]} classes have no rate of wrong labels.",
            why=f"{FEWEST} examples of two classes are needed.",
            fix="use more examples.",
        )
    if not np.isfinite(p).all() or (p < 0).any():
        raise InvalidData(
            "Some probabilities are negative or not finite.",
            why="labels are compared with them.",
            fix="look at the examples that produced them.",
        )
