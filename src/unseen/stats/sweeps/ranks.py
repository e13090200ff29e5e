"""Kendall's τ of a measure and the gap, over all models and granulated along each hyperparameter.

Jiang et al. (2020), arXiv:1912.02178. τ is the mean of sign(μ − μ′) · sign(g − g′) over pairs whose
gaps differ: a pair without an order cannot be foretold, one that μ ties is not.

    ψ_i = mean over the lines along axis i (all other hyperparameters equal) of τ within the line
    Ψ = mean of ψ_i over the axes

A line in which μ or the gap never changes has no τ: it is left out and counted.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats as scipy_stats

from unseen.errors import InvalidConfig
from unseen.stats.sweeps.table import Outcome, Pairs, Sweep

Array = NDArray[np.float64]


def kendall(values: Array, gap: Array) -> Outcome:
    """τ over all pairs of models."""
    n = len(gap)
    pairs = n * (n - 1) // 2
    ordered = pairs - _tie_count(gap)
    untied = pairs - _tie_count(values)
    if not ordered or not untied:
        what = "gap" if not ordered else "measure"
        return Outcome(np.nan, pairs, f"all {n} models have the same {what}")
    tau_b = float(scipy_stats.kendalltau(values, gap).statistic)
    return Outcome(tau_b * float(np.sqrt(untied / ordered)), ordered)


def _tie_count(x: Array) -> int:
    counts = np.unique(x, return_counts=True)[1].astype(np.int64)
    return int((counts * (counts - 1) // 2).sum())


@dataclass(frozen=True)
class GranulatedCorrelation:
    """ψ along every axis and their mean, of one measure."""

    axes: dict[str, Outcome]
    total: Outcome
    """Ψ over the axes along which the measure changes; `n` counts them."""
    p: float
    """Two-sided, against models whose gaps are exchanged at random."""
    p_family: float
    """The same for the largest |Ψ| of all measures (Westfall & Young, 1993)."""


def granulated_correlations(
    sweep: Sweep, *, permutations: int = 199, seed: int = 0
) -> list[GranulatedCorrelation]:
    """ψ and Ψ of every measure with permutation p values.

    The hypothesis is that gaps belong to models by chance. It is no statement about axes that were
    not varied: a measure that orders one axis rightly throughout has a small p from one fact.
    """
    if permutations < 0:
        raise InvalidConfig(
            f"granulated_correlations got permutations={permutations}.",
            why="a p value counts them.",
            fix="set 0 for none, or at least 19.",
        )
    rng = np.random.default_rng(seed)
    draws = [np.arange(sweep.n), *(rng.permutation(sweep.n) for _ in range(permutations))]
    gaps = np.stack([sweep.gap[draw] for draw in draws], 1)
    per_axis = [line_correlations(pairs, sweep.values, gaps) for pairs in sweep.pairs.values()]
    psi = np.stack([found.psi for found in per_axis])  # axis, measure, draw
    there = np.isfinite(psi)
    with np.errstate(invalid="ignore"):
        total = np.where(there, psi, 0.0).sum(0) / there.sum(0)
    sizes = np.nan_to_num(np.abs(total), nan=-1.0)
    largest = sizes.max(0)
    results = []
    for k in range(len(sweep.measures)):
        axes = {found.axis: found.outcome(k) for found in per_axis}
        value, known = float(total[k, 0]), int(there[:, k, 0].sum())
        reason = "" if known else "; ".join(sorted({one.reason for one in axes.values()}))
        has_p = bool(known and permutations)
        p, family = (
            (float((against >= sizes[k, 0] - 1e-12).mean()) if has_p else np.nan)
            for against in (sizes[k], largest)
        )
        results.append(GranulatedCorrelation(axes, Outcome(value, known, reason), p, family))
    return results


@dataclass(frozen=True)
class LineCorrelations:
    """ψ [measure, draw] along one axis, and how many lines were there and counted."""

    axis: str
    psi: Array
    lines: int
    counted: NDArray[np.int64]

    def outcome(self, k: int) -> Outcome:
        """ψ of measure k without permutation."""
        n = int(self.counted[k])
        if not self.lines:
            reason = f"no two models differ in `{self.axis}` alone"
        elif not n:
            reason = f"measure or gap never changes along `{self.axis}` ({self.lines} lines)"
        else:
            left = self.lines - n
            reason = f"{left} of {self.lines} lines without any change left out" if left else ""
        return Outcome(float(self.psi[k, 0]), n, reason)


def line_correlations(pairs: Pairs, values: Array, gaps: Array) -> LineCorrelations:
    """Mean τ over lines, for every measure [model, measure] and every version of the gaps [model,
    draw], as two matrix products.
    """
    if not pairs.lines:
        nothing = np.full((values.shape[1], gaps.shape[1]), np.nan)
        return LineCorrelations(pairs.axis, nothing, 0, np.zeros(values.shape[1], dtype=np.int64))
    mu, g = (signs(columns, pairs) for columns in (values, gaps))
    ordered = np.add.reduceat(np.abs(g), pairs.starts, axis=0)
    changes = np.add.reduceat(np.abs(mu), pairs.starts, axis=0) > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        g /= ordered[pairs.line]
        np.nan_to_num(g, copy=False)
        lines = changes.T.astype(np.float64) @ (ordered > 0).astype(np.float64)
        psi = (mu.T @ g) / lines
    return LineCorrelations(pairs.axis, psi, pairs.lines, lines[:, 0].astype(np.int64))


def signs(columns: Array, pairs: Pairs) -> Array:
    """The sign of each pair's difference in each column."""
    # compared, not subtracted: differences of large numbers may vanish
    first, second = columns[pairs.first], columns[pairs.second]
    return (first > second).astype(np.float64) - (first < second)
