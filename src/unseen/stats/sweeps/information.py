"""Conditional mutual information of a measure and the gap (Jiang et al., 2020, arXiv:1912.02178).

V_μ and V_g are the signs of a pair's differences in the measure and the gap, U_S the values of both
models on the hyperparameters S.

    𝒦(μ) = min over S, |S| ≤ 2, of I(V_μ; V_g | U_S) / H(V_g | U_S)

1 if the measure decides which of any two models has the larger gap, 0 if what it says is known from
some pair of hyperparameters. Over all ordered pairs whose gaps differ; a measure may tie. Counted,
not corrected: few models per cell make it too large.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr

from unseen.stats.sweeps.table import Outcome, Sweep

ROWS = 512
"""Models whose pairs with all others are held at a time."""
Counts = NDArray[np.float64]


@dataclass(frozen=True)
class Information:
    """𝒦 and the hyperparameters that explain most of what the measure says."""

    total: Outcome
    given: tuple[str, ...]


@dataclass(frozen=True)
class _Cells:
    """Models sorted by configuration, and which configurations have which value on which axes."""

    order: NDArray[np.int64]
    starts: NDArray[np.int64]
    member: NDArray[np.float32]
    """[configuration, value of a set of axes]."""
    sets: tuple[tuple[tuple[str, ...], slice], ...]


def conditional_information(sweep: Sweep, *, most: int = 2) -> list[Information]:
    """𝒦 of every measure over all sets of at most `most` hyperparameters.

    Pairs are counted per pair of configurations, then summed to the sets' values: 10,000 models
    take a fraction of a second per measure.
    """
    cells = _cells(sweep, most)
    gap = _ranks(sweep.gap[cells.order])
    higher_gap = gap[:, None] > gap[None, :]
    pairs = int(higher_gap.sum())
    if not pairs:
        nothing = Outcome(np.nan, 0, f"all {sweep.n} models have the same gap")
        return [Information(nothing, ())] * len(sweep.measures)
    positive = _pair_counts(gap, higher_gap, cells)
    results = []
    for k in range(len(sweep.measures)):
        mu = _ranks(sweep.values[cells.order, k])
        if mu.max() == 0:
            reason = f"all {sweep.n} models have the same measure"
            results.append(Information(Outcome(np.nan, pairs, reason), ()))
            continue
        agree = _pair_counts(mu, higher_gap, cells)
        untied = mu.max() == len(mu) - 1
        oppose = positive - agree if untied else _pair_counts(-mu, higher_gap, cells)
        results.append(_weakest(agree, oppose, positive, cells, pairs))
    return results


def _cells(sweep: Sweep, most: int) -> _Cells:
    order = np.argsort(sweep.configuration, kind="stable")
    configuration = sweep.configuration[order]
    starts = np.flatnonzero(np.diff(configuration, prepend=-1))
    codes = sweep.codes[order][starts]
    columns, sets, at = [], [], 0
    for size in range(most + 1):
        for chosen in combinations(range(len(sweep.axes)), size):
            part = codes[:, list(chosen)]
            value = np.unique(part, axis=0, return_inverse=True)[1].reshape(-1)
            value = value if size else np.zeros(len(codes), dtype=np.int64)
            columns.append(np.eye(value.max() + 1, dtype=np.float32)[value])
            names = tuple(sweep.axes[axis] for axis in chosen)
            sets.append((names, slice(at, at := at + columns[-1].shape[1])))
    return _Cells(order, starts, np.concatenate(columns, 1), tuple(sets))


def _ranks(x: NDArray[np.float64]) -> NDArray[np.int32]:
    """Numbers 0, 1, … in the order of x, equal for equal ones: integers compare fast."""
    return np.unique(x, return_inverse=True)[1].reshape(-1).astype(np.int32)


def _pair_counts(values: NDArray[np.int32], higher_gap: NDArray[np.bool_], cells: _Cells) -> Counts:
    """Pairs (i, j) with values_i > values_j and gap_i > gap_j, by the values of i and of j on every
    set of axes.
    """
    sums = np.zeros((cells.member.shape[1], len(cells.starts)), dtype=np.float64)
    for first, last in _blocks(cells.starts, len(values)):
        rows = slice(cells.starts[first], cells.starts[last] if last < len(cells.starts) else None)
        both = (values[rows, None] > values[None, :]) & higher_gap[rows]
        by_row = _sum_groups(both.view(np.uint8), cells.starts[first:last] - cells.starts[first])
        by_both = _sum_groups(np.ascontiguousarray(by_row.T), cells.starts)
        sums += cells.member[first:last].T @ by_both.T.astype(np.float32)
    return sums @ cells.member


def _blocks(starts: NDArray[np.int64], n: int) -> Iterator[tuple[int, int]]:
    """Ranges of configurations of about `ROWS` models."""
    bounds = np.searchsorted(starts, np.arange(0, n, ROWS))
    bounds = np.unique(np.append(bounds, len(starts)))
    yield from zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)


def _sum_groups(x: NDArray[np.generic], starts: NDArray[np.int64]) -> NDArray[np.generic]:
    """Sums over rows from each start to the next."""
    if len(starts) == len(x):
        return x
    longest = int(np.diff(np.append(starts, len(x))).max())
    # the smallest integers that hold the sums: memory is what takes the time
    wide = np.result_type(np.min_scalar_type(longest * int(x.max(initial=1))), np.uint8)
    return np.add.reduceat(x.astype(wide, copy=False), starts, axis=0)


def _weakest(
    agree: Counts, oppose: Counts, positive: Counts, cells: _Cells, pairs: int
) -> Information:
    best, given = np.inf, cells.sets[0][0]
    for names, values in cells.sets:
        share = _share(*(counts[values, values] for counts in (agree, oppose, positive)))
        if share < best:
            best, given = share, names
    return Information(Outcome(float(best), pairs), given)


def _share(agree: Counts, oppose: Counts, positive: Counts) -> float:
    """I(V_μ; V_g | U)/H(V_g | U) from counts of pairs with the larger gap in the first model.

    Exchanging the two models of a pair changes both signs and transposes the cell. NaN where U
    decides V_g.
    """
    higher = np.stack([agree, oppose, positive - agree - oppose])  # μ higher, lower, tied
    lower = higher[[1, 0, 2]].swapaxes(1, 2)
    joint = np.stack([higher, lower])  # sign of g, sign of μ, cell of the first, of the second
    joint = np.maximum(joint, 0) / joint.sum()
    cell, by_gap, by_measure = joint.sum((0, 1)), joint.sum(1), joint.sum(0)
    uncertainty = entr(by_gap).sum() - entr(cell).sum()
    shared = entr(by_gap).sum() + entr(by_measure).sum() - entr(joint).sum() - entr(cell).sum()
    # 1e-9: below it the entropy is rounding of counts that add up to one
    return float(np.clip(shared / uncertainty, 0, 1)) if uncertainty > 1e-9 else np.nan
