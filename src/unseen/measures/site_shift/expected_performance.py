"""What a model will reach at a site without labels, from its own calibrated confidence.

A class k is the right answer for x with probability p_k(x). Where the probabilities are calibrated,
and the target depends on the inputs at the site as it did where they were calibrated (no concept
shift), averages of p over the site's inputs are the averages that its labels would give, whatever
inputs the site has:

    accuracy = mean of p at the predicted class,
    AUC = Σ_{i≠j} p_i (1 − p_j) ([s_i > s_j] + ½ [s_i = s_j]) / Σ_{i≠j} p_i (1 − p_j)

for scores s. (NannyML calls it confidence-based performance estimation.) Probabilities are
calibrated first, as P(y = 1) = σ(a log odds + b), on labelled examples that the model was not
trained on; a weak prior around a = 1 and b = 0 keeps both finite where the classes are separable.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats as scipy_stats
from scipy.special import expit

from unseen.errors import InvalidData
from unseen.reading import Reading
from unseen.stats import LEVEL, z_quantile

Numbers = Float[np.ndarray, " n"]
Weights = Float[np.ndarray, "draw n"]
FEWEST_OF_A_CLASS, FEWEST_ROWS = 20, 50
"""Below, the interval holds the truth in fewer than 93 % of samples."""
MOST = 5_000
"""More rows are drawn at random."""
DRAWS, STEPS = 400, 25
PRIOR = np.array([2.0, 4.0])
"""Standard deviations of a and b."""
CALIBRATED = np.array([1.0, 0.0])


@dataclass(frozen=True)
class KnownScores:
    """Log odds of y = 1 on labelled examples that the model was not trained on."""

    log_odds: Numbers
    y: Numbers


def expected_performance(
    known: KnownScores, log_odds: Numbers, rng: np.random.Generator, *, is_ranking: bool = True
) -> dict[str, Reading]:
    """Expected accuracy, and AUC where the log odds are those of the second of two classes, at the
    site that these log odds come from.

    Of more classes `log_odds` are those of the predicted class, and y is whether it is right. The
    limits are quantiles over resamples of the labelled examples and of the site's rows.
    """
    _refuse_few(known, log_odds)
    known, log_odds = _thin(known, log_odds, rng)
    fewest = int(min(known.y.sum(), len(known.y) - known.y.sum(), len(log_odds)))
    wider = float(scipy_stats.t.ppf(0.5 + LEVEL / 2, fewest // 2)) / z_quantile()
    weights_known = _resample(len(known.y), rng)
    weights = _resample(len(log_odds), rng)
    p = calibrate(known, log_odds, weights_known)
    right = np.where(log_odds > 0, p, 1 - p) if is_ranking else p
    accuracies = (weights * right).sum(1) / weights.sum(1)
    found = {"accuracy": _reading(accuracies, len(log_odds), wider)}
    if is_ranking:
        found["AUC"] = _reading(expected_auc(log_odds, p, weights), len(log_odds), wider)
    return found


def calibrate(
    known: KnownScores, log_odds: Float[np.ndarray, " row"], weights: Weights
) -> Float[np.ndarray, "draw row"]:
    """Calibrated probabilities of y = 1, one row per weighting of the labelled examples."""
    design = np.stack([known.log_odds, np.ones_like(known.log_odds)], 1)
    found = np.zeros((len(weights), 2))  # from where Newton steps do not overshoot
    for _ in range(STEPS):
        p = expit(found @ design.T)
        gradient = (weights * (known.y - p)) @ design - (found - CALIBRATED) / PRIOR**2
        curvature = np.einsum("bn,ni,nj->bij", weights * p * (1 - p), design, design)
        curvature += np.diag(1 / PRIOR**2)
        step = np.linalg.solve(curvature, gradient[..., None])[..., 0]
        found = found + np.clip(step, -2.0, 2.0)
        if np.abs(step).max() < 1e-8:
            break
    return expit(found[:, :1] * log_odds + found[:, 1:])


def expected_auc(
    score: Numbers, p: Float[np.ndarray, "draw n"], weights: Weights
) -> Float[np.ndarray, " draw"]:
    """The expected area of each draw: ordered pairs of different rows, by their probabilities of
    being a positive above a negative.
    """
    _, group = np.unique(score, return_inverse=True)
    order = np.argsort(group, kind="stable")
    p, weights, group = p[:, order], weights[:, order], group[order]
    positive, negative = weights * p, weights * (1 - p)
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    tied = np.add.reduceat(negative, starts, axis=1)
    below = np.cumsum(tied, axis=1) - tied
    won = (positive * (below + tied / 2)[:, group]).sum(1)
    itself = (weights * p * (1 - p)).sum(1)  # a row is no pair with itself
    pairs = positive.sum(1) * negative.sum(1) - itself
    return (won - itself / 2) / pairs


def _reading(draws: Float[np.ndarray, " draw"], n: int, wider: float) -> Reading:
    """The first draw is the sample itself; limits are so much farther from it than the quantiles,
    as those of a t distribution are.
    """
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(draws[1:], [tail, 1 - tail])
    value = float(draws[0])
    below, above = max(0.0, value - float(low)), max(0.0, float(high) - value)
    return Reading(value, max(0.0, value - wider * below), min(1.0, value + wider * above), n)


def _resample(n: int, rng: np.random.Generator) -> Weights:
    """Ones, then how often each row is drawn in each resample."""
    drawn = rng.multinomial(n, np.full(n, 1 / n), DRAWS).astype(float)
    return np.concatenate([np.ones((1, n)), drawn])


def _thin(
    known: KnownScores, log_odds: Numbers, rng: np.random.Generator
) -> tuple[KnownScores, Numbers]:
    rows, others = (
        rng.permutation(n)[:MOST] if n > MOST else np.arange(n)
        for n in (len(known.y), len(log_odds))
    )
    return KnownScores(known.log_odds[rows], known.y[rows]), log_odds[others]


def _refuse_few(known: KnownScores, log_odds: Numbers) -> None:
    fewest = int(min(known.y.sum(), len(known.y) - known.y.sum()))
    if fewest < FEWEST_OF_A_CLASS:
        raise InvalidData(
            f"The held-out examples of known sites have {fewest} of the rarer outcome.",
            why=f"with fewer than {FEWEST_OF_A_CLASS} probabilities cannot be calibrated well "
            "enough to foretell anything.",
            fix="give more labelled rows.",
        )
    if len(log_odds) < FEWEST_ROWS:
        raise InvalidData(
            f"The new site has {len(log_odds)} rows.",
            why=f"an expectation needs {FEWEST_ROWS}.",
            fix="give more rows; they need no labels.",
        )
