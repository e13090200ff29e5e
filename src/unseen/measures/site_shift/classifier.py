"""A classifier between a site and the others: how well the inputs alone tell them apart (Lopez-Paz
& Oquab, 2017, arXiv:1610.06545).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import rankdata

from unseen import stats
from unseen.errors import InvalidData
from unseen.measures.site_shift.logistic import fit_logistic
from unseen.measures.site_shift.permutations import (
    DRAWS,
    common_scale,
    draw_rows,
    refuse_invalid,
)
from unseen.reading import Reading

FEWEST_ROWS = 10
MOST_NAMED = 3


@dataclass(frozen=True)
class SiteClassifier:
    """What a classifier between a site and the others reaches."""

    auc: Reading
    """On the half of the rows that it was not fitted on; 0.5 where nothing tells them apart."""
    p: float
    """How often rows with exchanged sites reach as much: exact."""
    features: tuple[str, ...]
    """Those that carry most of it, the strongest first."""


def site_classifier(
    x: Float[np.ndarray, "row input"],
    here: Bool[np.ndarray, " row"],
    features: Mapping[str, Sequence[int]],
    rng: np.random.Generator,
    draws: int = DRAWS,
) -> SiteClassifier:
    """A ridge logistic regression on half of the rows, judged on the other half; it reads the
    inputs of these features only.

    Sites are exchanged in that half only, which keeps the test exact: the fit knows nothing of it.
    """
    refuse_invalid(x, here, features)
    if min(here.sum(), (~here).sum()) < 2 * FEWEST_ROWS:
        raise InvalidData(
            f"{int(here.sum())} rows are at the site, {int((~here).sum())} elsewhere.",
            why=f"each half needs {FEWEST_ROWS} of both.",
            fix="merge small sites, or collect more rows.",
        )
    used = sorted({k for positions in features.values() for k in positions})
    if not used:
        raise InvalidData(
            "No feature is left to tell sites apart.",
            why="the classifier reads features.",
            fix="name features, or convert the columns that the site records otherwise.",
        )
    rows = draw_rows(here, rng)
    z, here = common_scale(x[rows][:, used]), here[rows]
    fitted = np.zeros(len(here), dtype=bool)
    for side in (here, ~here):
        order = rng.permutation(np.flatnonzero(side))
        fitted[order[: len(order) // 2]] = True
    share = here[fitted].mean()
    weights = np.where(here[fitted], 0.5 / share, 0.5 / (1 - share))  # both sides count the same
    fit = fit_logistic(z[fitted], here[fitted].astype(float), weights)
    score, truth = fit(z[~fitted]), here[~fitted]
    ranks, count = rankdata(score), int(truth.sum())
    seen = ranks[truth].sum()
    drawn = [ranks[rng.permutation(len(ranks))[:count]].sum() for _ in range(draws)]
    p = (1 + int((np.array(drawn) >= seen - 1e-9).sum())) / (draws + 1)
    strength = np.zeros(x.shape[1])
    strength[np.array(used)[fit.inputs]] = np.abs(fit.coefficients[1:])
    by_feature = {name: strength[list(at)].sum() for name, at in features.items() if len(at)}
    strongest = sorted(by_feature, key=lambda name: -by_feature[name])[:MOST_NAMED]
    named = tuple(name for name in strongest if by_feature[name] > 0)
    return SiteClassifier(stats.auc(score, truth), p, named)
