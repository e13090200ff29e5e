"""Sites exchanged between rows at random: what a comparison of one site with all others shows where
they do not differ.

The largest statistic of all features in every draw gives p-values that hold for all of them
together, whatever depends on what (Westfall & Young, 1993). Studentised statistics keep the level
for large samples also where the sites differ in something else (Chung & Romano, 2013).
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from unseen.errors import InvalidData

DRAWS = 999
MOST_ROWS = 5_000
"""More rows are drawn at random, in equal shares of both sides."""
BLOCK = 1 << 24
"""Entries of one block of draws (64 MiB in float32)."""
EXTREMES = (0.005, 0.995)
"""Values beyond these quantiles count as the quantiles: a few wild cells must not decide."""


def refuse_invalid(x: np.ndarray, here: np.ndarray, features: Mapping[str, Sequence[int]]) -> None:
    """Refuses rows without a comparison, and features that are not among the inputs."""
    if x.ndim != 2 or len(x) != len(here) or not np.isfinite(x).all():
        raise InvalidData(
            f"A site got inputs of shape {x.shape}, {int((~np.isfinite(x)).sum())} values not "
            f"finite, and {len(here)} marks of who is there.",
            why="every row has finite inputs and is at the site or elsewhere.",
            fix="fill in missing values, and mark every row.",
        )
    if not 1 < here.sum() < len(here) - 1:
        raise InvalidData(
            f"{int(here.sum())} of {len(here)} rows are at the site.",
            why="it is compared with the others; both need two rows.",
            fix="give rows of the site and of others.",
        )
    if any(not 0 <= k < x.shape[1] for positions in features.values() for k in positions):
        raise InvalidData(
            f"A feature lies outside the {x.shape[1]} inputs.",
            why="features name positions along the input.",
            fix="count positions from 0.",
        )


def draw_rows(here: Bool[np.ndarray, " row"], rng: np.random.Generator) -> Int[np.ndarray, " kept"]:
    """All rows, or at most `MOST_ROWS` drawn at random, the smaller side as far as it goes."""
    sides = [np.flatnonzero(here), np.flatnonzero(~here)]
    least = min(len(side) for side in sides)
    most = [min(len(side), max(MOST_ROWS // 2, MOST_ROWS - least)) for side in sides]
    drawn = [rng.choice(side, size, False) for side, size in zip(sides, most, strict=True)]
    return np.sort(np.concatenate(drawn))


def common_scale(x: Float[np.ndarray, "row input"]) -> Float[np.ndarray, "row input"]:
    """Columns cut to their extreme quantiles, with mean 0 and deviation 1; constant ones are 0."""
    low, high = np.quantile(x, EXTREMES, axis=0)
    # of a rare 0/1 column both quantiles are 0: it stays as it is
    x = np.where(high > low, np.clip(x, low, high), x)
    spread = x.std(0)
    return np.where(spread > 0, (x - x.mean(0)) / np.where(spread > 0, spread, 1.0), 0.0)


def permuted_sites(
    here: Bool[np.ndarray, " row"],
    strata: Int[np.ndarray, " row"],
    draws: int,
    rng: np.random.Generator,
) -> Bool[np.ndarray, "draw row"]:
    """As many rows of every stratum as truly are at the site, chosen anew in every draw; the first
    row is the truth.
    """
    found = np.zeros((draws + 1, len(here)), dtype=bool)
    for stratum in np.unique(strata):
        rows = np.flatnonzero(strata == stratum)
        count = int(here[rows].sum())
        if 0 < count < len(rows):
            order = np.argpartition(rng.random((draws, len(rows))), count, axis=1)[:, :count]
            found[np.arange(1, draws + 1)[:, None], rows[order]] = True
        elif count:
            found[1:, rows] = True
    found[0] = here
    return found


def sums(
    chosen: Bool[np.ndarray, "draw row"], values: Float[np.ndarray, "row input"]
) -> Float[np.ndarray, "draw input"]:
    """Σ of the values over the rows that each draw chooses."""
    # float32: sums of a few thousand standardised values, compared with each other only
    rows = values.astype(np.float32)
    block = max(1, BLOCK // max(1, len(rows)))
    parts = [chosen[k : k + block].astype(np.float32) @ rows for k in range(0, len(chosen), block)]
    return np.concatenate(parts).astype(np.float64)


def simultaneous_p(statistics: Float[np.ndarray, "draw input"]) -> Float[np.ndarray, " input"]:
    """For each input how often the largest |statistic| of a draw reaches that of the truth, which
    is row 0.
    """
    size = np.abs(statistics)
    largest = np.sort(size[1:].max(1)) if size.shape[1] else np.zeros(len(size) - 1)
    # 1e-6: float32 sums of equal draws differ by rounding
    reached = len(largest) - np.searchsorted(largest, size[0] * (1 - 1e-6), "left")
    return (1 + reached) / (len(largest) + 1)
