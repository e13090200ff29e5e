"""Features that are distributed otherwise at a site, and not only because its target is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from unseen.measures.feature_reliance import standardised_difference
from unseen.measures.site_shift.permutations import (
    DRAWS,
    common_scale,
    draw_rows,
    permuted_sites,
    refuse_invalid,
    simultaneous_p,
    sums,
)
from unseen.measures.site_shift.targets import strata_of
from unseen.reading import Reading


@dataclass(frozen=True)
class FeatureShift:
    """How far one feature's mean at a site lies from the others'."""

    feature: str
    position: int
    """The input of the feature that moved most."""
    difference: Reading
    """(mean there − mean elsewhere) in standard deviations."""
    p: float
    """Of the larger of two tests, for all features together: sites exchanged at random, and sites
    exchanged among rows of one target.
    """


def feature_shifts(
    x: Float[np.ndarray, "row input"],
    y: Shaped[np.ndarray, " row"],
    here: Bool[np.ndarray, " row"],
    features: Mapping[str, Sequence[int]],
    rng: np.random.Generator,
    draws: int = DRAWS,
) -> list[FeatureShift]:
    """Every feature, the clearest first.

    Two statistics: t of the means, which a change of prevalence moves with the target, and t within
    the classes of the target, which a shift of another feature moves ("explained away"). A feature
    has shifted where both say so in the same direction.
    """
    refuse_invalid(x, here, features)
    rows = draw_rows(here, rng)
    x, y, here = x[rows], y[rows], here[rows]
    z = common_scale(x)
    together = np.zeros(len(here), dtype=np.int64)
    statistics = [_t(z, s, permuted_sites(here, s, draws, rng)) for s in (together, strata_of(y))]
    p = np.maximum(*(simultaneous_p(t) for t in statistics))
    same_sign = np.sign(statistics[0][0]) == np.sign(statistics[1][0])
    p = np.where(same_sign, p, 1.0)
    size = np.minimum(*(np.abs(t[0]) for t in statistics))
    found = []
    for name, positions in features.items():
        if not len(positions):
            continue
        best = min(positions, key=lambda k: (p[k], -size[k]))
        difference = standardised_difference(x[~here, best], x[here, best])
        found.append(FeatureShift(name, best, difference, float(p[best])))
    return sorted(found, key=lambda shift: (shift.p, -abs(shift.difference.value)))


def _t(
    z: Float[np.ndarray, "row input"],
    strata: Int[np.ndarray, " row"],
    chosen: Bool[np.ndarray, "draw row"],
) -> Float[np.ndarray, "draw input"]:
    """Σ w (mean there − mean elsewhere) / its standard error, w = n there · n elsewhere / n."""
    top = np.zeros((len(chosen), z.shape[1]))
    variance = np.zeros(z.shape[1])
    for stratum in np.unique(strata):
        rows = np.flatnonzero(strata == stratum)
        n, count = len(rows), int(chosen[0, rows].sum())
        if not 0 < count < n:
            continue
        # n there · n elsewhere / n times the difference of means is Σ there − its expectation
        top += sums(chosen[:, rows], z[rows]) - count * z[rows].mean(0)
        variance += z[rows].var(0) * count * (n - count) / max(1, n - 1)
    return np.where(variance > 1e-12, top / np.sqrt(np.maximum(variance, 1e-12)), 0.0)
