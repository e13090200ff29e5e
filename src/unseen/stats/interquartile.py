"""Interquartile mean over runs, the aggregate that few runs of reinforcement learning bear (Agarwal
et al., 2021, arXiv:2108.13264).
"""

import numpy as np
from numpy.typing import ArrayLike

from unseen.errors import InvalidData
from unseen.reading import Reading
from unseen.stats.means import bootstrap, mean
from unseen.stats.quantiles import _finite

SHARE = 0.25
"""What is left out at either end."""


def interquartile(scores: ArrayLike) -> float:
    """Mean of the middle half of all scores: of 0, 1, …, 7 that of 2, 3, 4, 5."""
    x = np.sort(np.asarray(scores, dtype=np.float64), axis=None)
    cut = int(SHARE * x.size)
    return float(x[cut : x.size - cut].mean())


def interquartile_mean(
    scores: ArrayLike, rng: np.random.Generator, unit: str = "", *, draws: int = 1_000
) -> Reading:
    """`interquartile` of scores [run] or [run, task] with an interval from resampled runs.

    Of up to three scores nothing is left out: their mean with Student's t. One run has no interval.
    """
    x = np.asarray(scores, dtype=np.float64)
    _finite("interquartile_mean", x)
    if x.ndim not in (1, 2):
        raise InvalidData(
            f"interquartile_mean got scores of shape {x.shape}.",
            why="they are of runs, or of runs on tasks.",
            fix="give [run] or [run, task].",
        )
    if int(SHARE * x.size) == 0:
        return mean(x.reshape(len(x), -1).mean(1), unit=unit)
    if len(x) == 1:
        return Reading(interquartile(x), n=1, unit=unit)
    return bootstrap(interquartile, x, rng=rng, draws=draws, unit=unit)
