"""Quantiles, degrees of freedom, and what every statistic asks of its values."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats as scipy_stats

from unseen.errors import InvalidData

LEVEL = 0.95


@lru_cache(maxsize=256)
def z_quantile(level: float = LEVEL) -> float:
    """Half-width of a two-sided normal interval in standard errors: 1.96."""
    return float(scipy_stats.norm.ppf(0.5 + level / 2))


@lru_cache(maxsize=4096)  # scipy takes longer for a quantile than the rest of a mean
def t_quantile(freedom: float, level: float = LEVEL) -> float:
    """The same for Student's t: 4.30 for three seeds."""
    return float(scipy_stats.t.ppf(0.5 + level / 2, freedom))


def _finite(name: str, values: ArrayLike, least: int = 1) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64).ravel()
    if array.size < least:
        raise InvalidData(
            f"{name} needs at least {least} value{'s' * (least > 1)}, got {array.size}.",
            why="a statistic of too few values does not exist.",
            fix="give more seeds or examples, or leave this quantity out.",
        )
    if not np.isfinite(array).all():
        raise InvalidData(
            f"{name} got {int((~np.isfinite(array)).sum())} of {array.size} values that are NaN or "
            "infinite.",
            why="one of them would make the result meaningless.",
            fix="look at the cells that produced them; a diverged run is a result of its own.",
        )
    return array


def _satterthwaite(variances: Sequence[float], sizes: Sequence[int]) -> float:
    """Degrees of freedom of a sum of independent variance estimates; those of no width do not
    count.
    """
    total = sum(v**2 / (size - 1) for v, size in zip(variances, sizes, strict=True) if v > 0)
    return sum(variances) ** 2 / total if total > 0 else float(min(sizes[:2]) - 1)
