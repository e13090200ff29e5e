"""Rows that stand at several sites: counted as rows, whatever is held out in turn."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float, Int, Shaped

from unseen.errors import InvalidData
from unseen.measures.duplicates import fingerprints
from unseen.measures.site_shift.permutations import DRAWS

DECIMALS = 6
LEVEL = 0.01
UNLIKELY = 1e-3
"""Pairs that unrelated columns would let expect; below it no coincidence explains one."""


@dataclass(frozen=True)
class Copies:
    """Rows whose inputs another row has, too."""

    rows: Int[np.ndarray, " copy"]
    """Rows with a copy at another site."""
    within: int
    """Further rows with a copy at their own site."""
    by_sites: Mapping[tuple[int, int], int]
    """Distinct inputs that two sites share."""
    same_target: float
    """Share of the rows with a copy elsewhere that has the same target."""
    expected: float
    """Pairs of rows if the columns were unrelated."""
    p: float
    """How often exchanged sites have as many: small where copies stand across sites only."""

    @property
    def are_coincidences(self) -> bool:
        """Whether coarse columns explain them: expected, and as common within sites as across."""
        return self.expected > UNLIKELY and self.p > LEVEL


def copies_across_sites(
    x: Float[np.ndarray, "row input"],
    y: Shaped[np.ndarray, " row"],
    site: Int[np.ndarray, " row"],
    rng: np.random.Generator,
    draws: int = DRAWS,
) -> Copies:
    """Rows that agree in every input, rounded to six decimals, with a row of another site."""
    if x.ndim != 2 or not len(x) == len(y) == len(site) or not np.isfinite(x).all():
        raise InvalidData(
            f"Copies got inputs of shape {x.shape}, {len(y)} targets and {len(site)} sites.",
            why="every row has finite inputs, a target and a site.",
            fix="fill in missing values.",
        )
    inputs = _codes(x)
    counts = np.bincount(inputs)
    repeated = np.flatnonzero(counts[inputs] > 1)
    rows = repeated[_crosses(inputs[repeated], site[repeated])]
    targets = np.unique(y, return_inverse=True)[1].ravel()
    full = inputs.astype(np.int64) * (int(targets.max(initial=0)) + 1) + targets
    same = np.isin(full[rows], _crossing_codes(full[repeated], site[repeated]))
    alone = len(repeated) - len(rows)
    return Copies(
        rows,
        alone,
        _by_sites(inputs[rows], site[rows]),
        float(same.mean()) if len(rows) else 0.0,
        _coincidences(x),
        _p(inputs[repeated], site, len(rows), rng, draws) if len(rows) else 1.0,
    )


def _codes(x: Float[np.ndarray, "row input"]) -> Int[np.ndarray, " row"]:
    """The same number for equal rows."""
    rounded = np.ascontiguousarray(np.round(x, DECIMALS).astype(np.float64) + 0.0)  # −0 is 0
    sums, times = np.unique(fingerprints(rounded), return_inverse=True, return_counts=True)[1:]
    # whole rows are slow to sort, and few are like another: only these are compared
    alike = times[sums] > 1
    cells = rounded[alike].view(np.dtype((np.void, rounded.dtype.itemsize * rounded.shape[1])))
    codes = np.empty(len(x), np.int64)
    codes[alike] = np.unique(cells, return_inverse=True)[1].ravel()
    codes[~alike] = int(alike.sum()) + np.arange(int((~alike).sum()))
    return codes


def _crossing_codes(
    codes: Int[np.ndarray, " row"], site: Int[np.ndarray, " row"]
) -> Int[np.ndarray, " code"]:
    """Codes that rows of several sites have."""
    found, sites = np.unique(_pairs(codes, site)[0], return_counts=True)
    return found[sites > 1]


def _pairs(
    codes: Int[np.ndarray, " row"], site: Int[np.ndarray, " row"]
) -> tuple[Int[np.ndarray, " pair"], Int[np.ndarray, " pair"]]:
    """The different pairs of code and site, in order; as one number each, which is sorted ten times
    as fast as a pair.
    """
    least = int(site.min(initial=0))
    width = int(site.max(initial=0)) - least + 1
    both = np.unique(codes.astype(np.int64) * width + (site - least))
    return both // width, both % width + least


def _crosses(codes: Int[np.ndarray, " row"], site: Int[np.ndarray, " row"]) -> np.ndarray:
    return np.isin(codes, _crossing_codes(codes, site))


def _by_sites(
    codes: Int[np.ndarray, " row"], site: Int[np.ndarray, " row"]
) -> dict[tuple[int, int], int]:
    counted: Counter[tuple[int, int]] = Counter()
    found, sites = _pairs(codes, site)
    for same in np.split(sites, np.flatnonzero(np.diff(found)) + 1):
        counted.update(combinations(same.tolist(), 2))
    return dict(counted)


def _coincidences(x: Float[np.ndarray, "row input"]) -> float:
    """Pairs of rows times the chance that all columns agree, were they unrelated."""
    n = len(x)
    chance = 1.0
    for column in x.T:
        shares = np.unique(np.round(column, DECIMALS), return_counts=True)[1] / n
        # less what a row has in common with itself: of n different values none is expected
        chance *= max(0.0, (n * float((shares**2).sum()) - 1) / (n - 1)) if n > 1 else 0.0
    return n * (n - 1) / 2 * chance


def _p(
    codes: Int[np.ndarray, " repeated"],
    site: Int[np.ndarray, " row"],
    seen: int,
    rng: np.random.Generator,
    draws: int,
) -> float:
    reached = 0
    for _ in range(draws):
        drawn = rng.choice(site, len(codes), replace=False)
        reached += int(_crosses(codes, drawn).sum()) >= seen
    return (1 + reached) / (draws + 1)
