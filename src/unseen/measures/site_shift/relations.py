"""Features whose relation to the target is another one at a site (concept shift, by feature)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from unseen import stats
from unseen.measures.site_shift.permutations import (
    DRAWS,
    common_scale,
    draw_rows,
    permuted_sites,
    refuse_invalid,
    simultaneous_p,
    sums,
)
from unseen.measures.site_shift.targets import FEWEST_OF_A_CLASS, contrasts, strata_of
from unseen.reading import Reading

MOST_CHANGES = 3
"""Features that are looked for at a site, one after the other."""
PRIOR = 5
"""Rows with which the variance of all sites enters that of a class at one of them."""
LEVEL = 0.02
"""Chance of a finding in an audit where no relation differs."""


@dataclass(frozen=True)
class RelationChange:
    """How well one feature alone tells the target, at a site and elsewhere."""

    feature: str
    position: int
    there: Reading
    """AUC of the input alone for the target (a number: for its upper half) at the site …"""
    elsewhere: Reading
    """… and elsewhere."""
    p: float
    """For all features together."""

    @property
    def is_reversed(self) -> bool:
        """Whether the two lie clearly on different sides of 0.5."""
        down, up = sorted((self.there, self.elsewhere), key=lambda reading: reading.value)
        return down.high < 0.5 < up.low

    @property
    def change(self) -> Reading:
        """AUC there − AUC elsewhere."""
        return stats.independent_difference(self.there, self.elsewhere)


def relation_changes(
    x: Float[np.ndarray, "row input"],
    y: Shaped[np.ndarray, " row"],
    here: Bool[np.ndarray, " row"],
    features: Mapping[str, Sequence[int]],
    rng: np.random.Generator,
    draws: int = DRAWS,
) -> list[RelationChange]:
    """Features whose slope on the target's log odds differs between the site and elsewhere, the
    clearest first; where none does, the nearest to it. Empty where a side has too few rows.

    The slope is that of a linear discriminant, (mean in the class − mean outside)/variance within:
    the logistic slope, unmoved by the feature's mean and by the prevalence. Sites are exchanged
    among rows of one class. After a find the other features are looked at with it held fixed, so
    that one correlated with it is not named in its stead.
    """
    refuse_invalid(x, here, features)
    rows = draw_rows(here, rng)
    x, y, here = x[rows], y[rows], here[rows]
    targets = [t for t in contrasts(y) if _fewest(t, here) >= FEWEST_OF_A_CLASS]
    left = {name: list(positions) for name, positions in features.items() if len(positions)}
    if not targets or not left:
        return []
    z = common_scale(x)
    chosen = permuted_sites(here, strata_of(y), draws, rng)
    found: list[RelationChange] = []
    while left and len(found) < MOST_CHANGES:
        t = np.stack([_slope_difference(z, target, chosen) for target in targets], 1)
        inputs = [k for positions in left.values() for k in positions]
        used = t[:, :, inputs].reshape(len(t), -1)
        p = simultaneous_p(used)
        best = int(np.argmax(np.abs(used[0])))
        position, target = inputs[best % len(inputs)], targets[best // len(inputs)]
        name = next(name for name, positions in left.items() if position in positions)
        if found and p[best] > LEVEL:
            break
        found.append(_change(name, position, x[:, position], target, here, float(p[best])))
        if p[best] > LEVEL:
            break
        for other in left.pop(name):
            z = _residual(z, other, strata_of(y), here)
    return found


def _fewest(target: Bool[np.ndarray, " row"], here: Bool[np.ndarray, " row"]) -> int:
    return min(int((side & group).sum()) for side in (here, ~here) for group in (target, ~target))


def _slope_difference(
    z: Float[np.ndarray, "row input"],
    target: Bool[np.ndarray, " row"],
    chosen: Bool[np.ndarray, "draw row"],
) -> Float[np.ndarray, "draw input"]:
    """(slope there − slope elsewhere) / its standard error, for every draw."""
    means, variances, counts = [], [], []
    for group in (target, ~target):
        rows = np.flatnonzero(group)
        block, mine = z[rows], chosen[:, rows]
        total, square = block.sum(0), (block**2).sum(0)
        first, second = sums(mine, block), sums(mine, block**2)
        # draws within strata of several classes hold as many rows of the group as the truth
        count = int(mine[0].sum())
        pooled = block.var(0)
        for n, s1, s2 in (
            (count, first, second),
            (len(rows) - count, total - first, square - second),
        ):
            mean = s1 / n
            variance = np.maximum(s2 - n * mean**2, 0.0)
            means.append(mean)
            variances.append((variance + PRIOR * pooled) / (n - 1 + PRIOR))
            counts.append(n)
    slopes = []
    for side in (0, 1):  # the order of the lists: in the class there, elsewhere; outside it …
        n1, n0 = counts[side], counts[2 + side]
        v1, v0 = variances[side], variances[2 + side]
        within = np.maximum((n1 * v1 + n0 * v0) / (n1 + n0), 1e-12)
        slope = (means[side] - means[2 + side]) / within
        error = (v1 / n1 + v0 / n0) / within**2 + 2 * slope**2 / (n1 + n0)
        slopes.append((slope, error))
    (there, error), (elsewhere, other) = slopes
    spread = error + other
    varies = (z.std(0) > 0)[None, :] & (spread > 1e-12)
    return np.where(varies, (there - elsewhere) / np.sqrt(np.maximum(spread, 1e-12)), 0.0)


def _residual(
    z: Float[np.ndarray, "row input"],
    position: int,
    strata: Int[np.ndarray, " row"],
    here: Bool[np.ndarray, " row"],
) -> Float[np.ndarray, "row input"]:
    """What is left of every input after a line in one of them, fitted within class on each side:
    where the relation of one is reversed, its correlation with others within a class is, too.
    """
    left = z.copy()
    for side in (here, ~here):
        centred = z[side].copy()
        for group in np.unique(strata[side]):
            rows = strata[side] == group
            centred[rows] -= centred[rows].mean(0)
        square = float(centred[:, position] @ centred[:, position])
        if square > 0:
            slope = centred[:, position] @ centred / square
            left[side] -= np.outer(z[side, position], slope)
    return left


def _change(
    name: str,
    position: int,
    x: Float[np.ndarray, " row"],
    target: Bool[np.ndarray, " row"],
    here: Bool[np.ndarray, " row"],
    p: float,
) -> RelationChange:
    there, elsewhere = (stats.auc(x[side], target[side]) for side in (here, ~here))
    return RelationChange(name, position, there, elsewhere, p)
