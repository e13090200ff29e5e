"""A gap between known sites and a new one: covariate shift, prevalence and another relation.

Cai, Namkoong & Yadlowsky (2023, arXiv:2303.02011) compare the two on the inputs that both have:
with densities p (known) and q (the site) those are s ∝ p q/(p + q), so that every weight lies
between 0 and 1. With R_p(x) and R_q(x) the expected score of the model at x,

  E_q R_q − E_p R_p = (E_s R_p − E_p R_p) + (E_q R_q − E_s R_q)   covariate shift
                    + (E_s R_t − E_s R_p)                          prevalence
                    + (E_s R_q − E_s R_t)                          another relation.

The known rows weigh P(site|x), those of the site P(known|x), both from a logistic regression with
equal priors, out of fold. The split of the second half is ours: t is p with one constant added to
the log odds of the target at every x (a number: with its mean moved), chosen so that the shares on
s agree. What the inputs explain counts as covariate shift first; what is left after a constant is
relation, and also whatever the inputs do not hold.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import brentq
from scipy.stats import rankdata

from unseen import stats
from unseen.errors import InvalidData
from unseen.measures.site_shift.logistic import LogisticFit, fit_logistic
from unseen.reading import Reading

FEWEST_EFFECTIVE = 20.0
"""Rows of either side that the weights must leave."""
DRAWS = 40
FARTHEST = 5.0
"""Log odds by which the prevalence may be moved."""

Weights = Float[np.ndarray, " row"]
Statistic = Callable[[Int[np.ndarray, " row"], Weights], float]
"""The score of these rows with these weights."""


@dataclass(frozen=True)
class Decomposition:
    """score at the site − score at known sites, and what it is made of: the parts sum to it."""

    gap: Reading
    covariate: Reading
    prevalence: Reading
    relation: Reading
    effective: tuple[float, float]
    """Rows that the weights leave of the known sites and of the site."""


def mean_of(values: Float[np.ndarray, " row"]) -> Statistic:
    """The weighted mean of values per row."""
    return lambda rows, weights: float(weights @ values[rows] / weights.sum())


def area_of(scores: Float[np.ndarray, " row"], y: Bool[np.ndarray, " row"]) -> Statistic:
    """The weighted area under the ROC curve; NaN without both classes."""
    rank = rankdata(scores, "dense").astype(np.int64)

    def area(rows: Int[np.ndarray, " row"], weights: Weights) -> float:
        positive = np.bincount(rank[rows], weights * y[rows], rank.max() + 1)
        negative = np.bincount(rank[rows], weights * ~y[rows], rank.max() + 1)
        total = positive.sum() * negative.sum()
        below = np.cumsum(negative) - negative / 2  # ties count half
        return float(positive @ below / total) if total > 0 else float("nan")

    return area


def decompose(
    statistic: Statistic,
    x: Float[np.ndarray, "row input"],
    y: Float[np.ndarray, " row"] | None,
    here: Bool[np.ndarray, " row"],
    rng: np.random.Generator,
    draws: int = DRAWS,
) -> Decomposition:
    """Rows evaluated at known sites and at the site; `y` is 0/1 or a number, None where the
    prevalence is not to be told from the relation (several classes).

    Intervals: Student's t with the standard errors of `draws` resamples of both sides, everything
    fitted anew in each. Refused where the sites share too few inputs.
    """
    if not (np.isfinite(x).all() and min(here.sum(), (~here).sum()) >= FEWEST_EFFECTIVE):
        raise InvalidData(
            f"A gap is decomposed with {int(here.sum())} rows at the site and "
            f"{int((~here).sum())} elsewhere.",
            why=f"both need {FEWEST_EFFECTIVE:g} rows of finite inputs.",
            fix="merge small sites, or fill in missing values.",
        )
    sides = [np.flatnonzero(~here), np.flatnonzero(here)]
    parts, effective = _parts(statistic, x, y, *sides)
    if min(effective) < FEWEST_EFFECTIVE:
        raise InvalidData(
            f"Only about {min(effective):.0f} of the rows lie where both the site and the others "
            "have inputs.",
            why="without common inputs covariate shift cannot be told from another relation.",
            fix="look at the features that differ most; the gap itself stands.",
        )
    drawn = []
    for _ in range(draws):
        known, there = (side[rng.integers(len(side), size=len(side))] for side in sides)
        drawn.append(_parts(statistic, x, y, known, there)[0])
    errors = np.nanstd(np.array(drawn), axis=0, ddof=1)
    n, freedom = len(here), draws - 1
    half = stats.t_quantile(freedom) * errors
    gap, covariate, prevalence, relation = (
        Reading(float(v), float(v - h), float(v + h), n, freedom=freedom)
        for v, h in zip(parts, half, strict=True)
    )
    return Decomposition(gap, covariate, prevalence, relation, effective)


def _parts(
    statistic: Statistic,
    x: Float[np.ndarray, "row input"],
    y: Float[np.ndarray, " row"] | None,
    known: Int[np.ndarray, " known"],
    there: Int[np.ndarray, " there"],
) -> tuple[Float[np.ndarray, " part"], tuple[float, float]]:
    """Gap, covariate, prevalence, relation; and the effective numbers of rows."""
    rows = np.concatenate([known, there])
    label = np.repeat([0.0, 1.0], [len(known), len(there)])
    prior = np.where(label == 1, len(rows) / (2 * len(there)), len(rows) / (2 * len(known)))
    chance = _out_of_fold(x[rows], label, rows, prior)
    weights_known, weights_there = chance[label == 0], 1 - chance[label == 1]
    p, q = statistic(known, np.ones(len(known))), statistic(there, np.ones(len(there)))
    s_p, s_q = statistic(known, weights_known), statistic(there, weights_there)
    s_t = s_p
    if y is not None:
        tilted = _tilt(
            x, y, known, weights_known, float(weights_there @ y[there] / weights_there.sum())
        )
        s_t = statistic(known, tilted)
    parts = np.array([q - p, s_p - p + q - s_q, s_t - s_p, s_q - s_t])
    return parts, (_effective(weights_known), _effective(weights_there))


def _out_of_fold(
    x: Float[np.ndarray, "row input"],
    y: Float[np.ndarray, " row"],
    identity: Int[np.ndarray, " row"],
    weights: Weights | None = None,
) -> Float[np.ndarray, " row"]:
    """Probabilities from the other half of the rows; copies of a row in a resample share a half."""
    found = np.zeros(len(y))
    # multiplicative hashing: halves that depend on nothing but the row
    half = (identity * 2654435761 >> 7) % 2 == 0
    for fold in (half, ~half):
        rest = ~fold
        fit: LogisticFit = fit_logistic(
            x[rest], y[rest], None if weights is None else weights[rest]
        )
        found[fold] = fit(x[fold])
    return found


def _tilt(
    x: Float[np.ndarray, "row input"],
    y: Float[np.ndarray, " row"],
    known: Int[np.ndarray, " known"],
    weights: Float[np.ndarray, " known"],
    wanted: float,
) -> Float[np.ndarray, " known"]:
    """Weights of known rows under P(y|x) e^{δy}/norm(x) whose mean of y is the wanted one."""
    target = y[known]
    if not np.isin(target, (0.0, 1.0)).all():
        return _tilt_number(x, target, known, weights, wanted)
    if not 0 < target.mean() < 1:
        return weights
    guess = _out_of_fold(x[known], target, known)

    def tilt(delta: float) -> Weights:
        return weights * np.exp(delta * target) / (1 - guess + guess * np.exp(delta))

    return tilt(_match(tilt, target, wanted))


def _tilt_number(
    x: Float[np.ndarray, "row input"],
    target: Float[np.ndarray, " known"],
    known: Int[np.ndarray, " known"],
    weights: Float[np.ndarray, " known"],
    wanted: float,
) -> Float[np.ndarray, " known"]:
    """The same for a number: residuals of a line, e^{δ residual}, which moves a normal one."""
    design = np.concatenate([np.ones((len(known), 1)), x[known]], 1)
    residual = target - design @ np.linalg.lstsq(design, target, rcond=None)[0]
    unit = residual.std()
    if unit == 0:
        return weights

    def tilt(delta: float) -> Weights:
        exponent = delta * residual / unit
        return weights * np.exp(exponent - exponent.max())

    return tilt(_match(tilt, target, wanted, 2.0))


def _match(
    tilted: Callable[[float], Weights],
    target: Float[np.ndarray, " row"],
    wanted: float,
    farthest: float = FARTHEST,
) -> float:
    def excess(delta: float) -> float:
        weights = tilted(delta)
        return float(weights @ target / weights.sum()) - wanted

    if excess(-farthest) >= 0:
        return -farthest
    if excess(farthest) <= 0:
        return farthest
    return float(brentq(excess, -farthest, farthest, xtol=1e-6))


def _effective(weights: Weights) -> float:
    """(Σ w)²/Σ w², at most 2 Σ w: where nothing is in common, all weights are alike."""
    total = float(weights.sum())
    return min(total**2 / float((weights**2).sum()), 2 * total)
