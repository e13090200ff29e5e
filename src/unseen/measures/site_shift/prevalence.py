"""A target that is commoner (a number that is higher) at a site than its features explain."""

from dataclasses import dataclass
from math import sqrt

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy import stats as scipy_stats

from unseen import stats
from unseen.measures.site_shift.logistic import fit_logistic, screen
from unseen.measures.site_shift.permutations import refuse_invalid
from unseen.measures.site_shift.targets import MOST_CLASSES
from unseen.reading import Reading


@dataclass(frozen=True)
class PrevalenceShift:
    """The target at a site, elsewhere, and what the features at the site let expect by its relation
    to them elsewhere.
    """

    level: float
    """The class whose share is compared; NaN: the mean of a number."""
    there: Reading
    elsewhere: Reading
    expected: float
    p: float
    """The larger of two: there against elsewhere, and against what is expected there."""

    @property
    def change(self) -> Reading:
        """There − elsewhere."""
        return stats.independent_difference(self.there, self.elsewhere)


def prevalence_shift(
    x: Float[np.ndarray, "row input"],
    y: Shaped[np.ndarray, " row"],
    here: Bool[np.ndarray, " row"],
) -> PrevalenceShift:
    """Label shift at a site; of several classes the one that differs most (Bonferroni).

    Shares: Fisher's exact test, and a normal test of the outcomes against a ridge logistic
    regression fitted elsewhere, with its own error. Means of numbers: Welch's test, and the same
    of the residuals from a linear regression. Where the features carry the shift, the second test
    stays silent; for that the regression must be right.
    """
    refuse_invalid(x, here, {})
    if np.issubdtype(y.dtype, np.floating) and len(np.unique(y)) > 2:
        return _mean_shift(x, y.astype(float), here)
    classes, counts = np.unique(y, return_counts=True)
    # with two classes the share of one says all
    wanted = classes[-1:] if len(classes) <= 2 else classes[np.argsort(-counts)[:MOST_CLASSES]]
    found = [_share_shift(x, y == one, here, float(one), len(wanted)) for one in wanted]
    return min(found, key=lambda shift: shift.p)


def _share_shift(
    x: Float[np.ndarray, "row input"],
    target: Bool[np.ndarray, " row"],
    here: Bool[np.ndarray, " row"],
    level: float,
    among: int,
) -> PrevalenceShift:
    there, elsewhere = (
        stats.proportion(float(target[side].sum()), float(side.sum())) for side in (here, ~here)
    )
    table = [[(target & side).sum(), (~target & side).sum()] for side in (here, ~here)]
    p = float(scipy_stats.fisher_exact(table)[1])
    if target[~here].all() or not target[~here].any():
        return PrevalenceShift(level, there, elsewhere, elsewhere.value, min(1.0, among * p))
    fit = fit_logistic(x[~here], target[~here].astype(float))
    design, guess = fit.design(x[here]), fit(x[here])
    gradient = (design * (guess * (1 - guess))[:, None]).mean(0)
    noise = float((guess * (1 - guess)).sum()) / len(guess) ** 2
    error = sqrt(noise + float(gradient @ fit.covariance @ gradient))
    expected = float(guess.mean())
    unexplained = 2 * float(scipy_stats.norm.sf(abs(there.value - expected) / max(error, 1e-12)))
    return PrevalenceShift(level, there, elsewhere, expected, min(1.0, among * max(p, unexplained)))


def _mean_shift(
    x: Float[np.ndarray, "row input"],
    y: Float[np.ndarray, " row"],
    here: Bool[np.ndarray, " row"],
) -> PrevalenceShift:
    there, elsewhere = stats.mean(y[here]), stats.mean(y[~here])
    p = float(scipy_stats.ttest_ind(y[here], y[~here], equal_var=False).pvalue)
    inputs = screen(x[~here], y[~here])
    designs = [
        np.concatenate([np.ones((side.sum(), 1)), x[side][:, inputs]], 1) for side in (~here, here)
    ]
    gram = designs[0].T @ designs[0] + 1e-6 * np.eye(len(inputs) + 1)
    beta = np.linalg.solve(gram, designs[0].T @ y[~here])
    residual, rest = y[~here] - designs[0] @ beta, y[here] - designs[1] @ beta
    at = designs[1].mean(0)
    error = sqrt(
        float(rest.var(ddof=1)) / len(rest)
        + float(residual.var()) * float(at @ np.linalg.solve(gram, at))
    )
    unexplained = stats.two_sided_p(float(rest.mean()) / max(error, 1e-12), len(rest) - 1)
    expected = float((designs[1] @ beta).mean())
    return PrevalenceShift(float("nan"), there, elsewhere, expected, max(p, unexplained))
