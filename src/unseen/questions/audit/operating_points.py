"""What a decision threshold does among some examples: whom it calls, and how often rightly.

An example is called where its log odds are above the threshold. Intervals are over models, and
examples or clusters of them; the threshold counts as fixed, since it is fixed where it is used.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, sqrt

import numpy as np
from jaxtyping import Bool, Float, Int

from unseen import stats
from unseen.errors import InvalidData
from unseen.reading import Reading

FOLDS = 5
FEWEST = 10
"""Examples of either class that a threshold is chosen on."""

Margins = Float[np.ndarray, "model example"]
Calls = Bool[np.ndarray, "model example"]


@dataclass(frozen=True, eq=False)
class ScoredExamples:
    """What models say of some examples, and what is true."""

    margin: Margins
    """Log odds of the positive class."""
    is_positive: Bool[np.ndarray, " example"]
    cluster: Int[np.ndarray, " example"]
    """Examples with the same number hang together."""


def youden_threshold(margin: Margins, is_positive: Bool[np.ndarray, " example"]) -> float:
    """The threshold with the largest sensitivity + specificity − 1 (Youden, 1950), mean over the
    models; of equals the one in the middle.
    """
    y = np.tile(is_positive, len(margin))
    if not 0 < y.sum() < y.size:
        raise InvalidData(
            "All examples are of one class.",
            why="a threshold is chosen between two.",
            fix="name it: --threshold 0.5.",
        )
    m = margin.ravel()
    order = np.argsort(m, kind="stable")
    m, y = m[order], y[order]
    # the threshold lies above the first k examples: those positives are missed
    gained = np.cumsum(~y) / (~y).sum() - np.cumsum(y) / y.sum()
    is_cut = np.append(m[1:] > m[:-1], False)
    if not is_cut.any():
        return float(m[0])
    best = np.flatnonzero(is_cut & (gained == gained[is_cut].max()))
    k = best[(len(best) - 1) // 2]
    return float((m[k] + m[k + 1]) / 2)


@dataclass(frozen=True, eq=False)
class CrossFit:
    """Whom thresholds call that were chosen on the other examples."""

    called: Calls
    thresholds: Sequence[float]
    """One per part."""


def cross_fit(known: ScoredExamples, rng: np.random.Generator) -> CrossFit:
    """In five parts: whole clusters, with like shares of positives."""
    clusters = int(known.cluster.max()) + 1
    size = np.bincount(known.cluster, minlength=clusters)
    share = np.bincount(known.cluster, known.is_positive, clusters) / np.maximum(size, 1)
    order = rng.permutation(clusters)
    order = order[np.argsort(share[order], kind="stable")]
    fold = np.empty(clusters, dtype=np.int64)
    fold[order] = np.arange(clusters) % FOLDS
    called, cuts = np.zeros(known.margin.shape, dtype=bool), list[float]()
    for k in range(FOLDS):
        held = fold[known.cluster] == k
        cuts.append(youden_threshold(known.margin[:, ~held], known.is_positive[~held]))
        called[:, held] = known.margin[:, held] > cuts[-1]
    return CrossFit(called, cuts)


def rates_below(
    known: Mapping[str, Reading], there: ScoredExamples, thresholds: Sequence[float]
) -> dict[str, Reading]:
    """By how much sensitivity and specificity are lower than at known sites, by the same
    thresholds: a threshold is noisy, and one chosen on other examples than those that the known
    rates are of would be called worse in 14 % of audits with 10 % positives.
    """
    called = np.mean([there.margin > cut for cut in thresholds], axis=0)
    y, cluster = there.is_positive, there.cluster
    rates = {
        "sensitivity": _share(called[:, y], cluster[y]),
        "specificity": _share(1 - called[:, ~y], cluster[~y]),
    }
    return {
        name: stats.independent_difference(known[name], rate)
        for name, rate in rates.items()
        if rate is not None and name in known
    }


def operating_point(called: Calls, there: ScoredExamples, threshold: float) -> dict[str, Reading]:
    """Prevalence, sensitivity, specificity, positive predictive value and net benefit; without
    those that need a class or a call of which there is none.

    Net benefit = (true positives − w · false positives) / n, where w = p/(1 − p) are the odds of
    the threshold: what a false positive costs in true positives, if the threshold was chosen so
    (Vickers & Elkin, 2006).
    """
    y, cluster, weight = there.is_positive, there.cluster, exp(threshold)
    found = {
        "prevalence": _share(y[None], cluster),
        "sensitivity": _share(called[:, y], cluster[y]),
        "specificity": _share(~called[:, ~y], cluster[~y]),
        "PPV": _predictive_value(called, there),
        "net benefit": _net_benefit(called, there, weight),
    }
    return {name: reading for name, reading in found.items() if reading is not None}


def benefit_of_calling_all(points: Mapping[str, Reading], threshold: float) -> float:
    """The net benefit where every example is called: prevalence − w (1 − prevalence)."""
    prevalence = points["prevalence"].value
    return prevalence - exp(threshold) * (1 - prevalence)


def _share(
    values: Bool[np.ndarray, "model example"] | Float[np.ndarray, "model example"],
    cluster: Int[np.ndarray, " example"],
) -> Reading | None:
    if values.shape[1] < 2:
        return None
    x = values.astype(np.float64)
    return _over_clusters(stats.mean_score(x), x, cluster, (0.0, 1.0))


def _predictive_value(called: Calls, there: ScoredExamples) -> Reading | None:
    """Positives among the called, r = Σ c y / Σ c; to first order (delta method) the mean of
    r + c (y − r) / c̄, never narrower than Wilson's interval for as many calls.
    """
    calls = called.astype(np.float64)
    count = calls.sum(1, keepdims=True)
    if called.shape[1] < 2 or (count < 1).any():
        return None
    ratio = (calls * there.is_positive).sum(1, keepdims=True) / count
    values = ratio + calls * (there.is_positive - ratio) * called.shape[1] / count
    alone = stats.crossed_mean(values)
    n = float(count.mean())
    wilson = stats.proportion(alone.value * n, n)
    wider = Reading(
        alone.value,
        min(alone.low, wilson.low),
        max(alone.high, wilson.high),
        alone.n,
        "fraction",
        freedom=alone.freedom,
    )
    found = _over_clusters(wider, values, there.cluster, (0.0, 1.0))
    return Reading(
        found.value,
        max(0.0, found.low),
        min(1.0, found.high),
        found.n,
        found.unit,
        freedom=found.freedom,
    )


def _net_benefit(called: Calls, there: ScoredExamples, weight: float) -> Reading | None:
    """The mean of c (y − w (1 − y)), never narrower than the two shares with Wilson's intervals
    combined by the squares of their distances: few calls show no spread.
    """
    if called.shape[1] < 2:
        return None
    n, y = called.shape[1], there.is_positive
    values = called * (y - weight * ~y)
    alone = stats.crossed_mean(values)
    true, false = ((called & which).sum(1).mean() for which in (y, ~y))
    t, f = stats.proportion(float(true), n), stats.proportion(float(false), n)
    down = sqrt((t.value - t.low) ** 2 + (weight * (f.high - f.value)) ** 2)
    up = sqrt((t.high - t.value) ** 2 + (weight * (f.value - f.low)) ** 2)
    wider = Reading(
        alone.value,
        min(alone.low, alone.value - down),
        max(alone.high, alone.value + up),
        n,
        freedom=alone.freedom,
    )
    return _over_clusters(wider, values, there.cluster)


def _over_clusters(
    alone: Reading,
    values: Float[np.ndarray, "model example"],
    cluster: Int[np.ndarray, " example"],
    within: tuple[float, float] = (-np.inf, np.inf),
) -> Reading:
    """The interval as it is where every example stands alone, else that of whole clusters."""
    if len(np.unique(cluster)) == len(cluster):
        return alone
    return stats.over_blocks(alone, values, cluster, within)
