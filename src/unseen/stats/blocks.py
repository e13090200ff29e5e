"""Intervals for examples that hang together in blocks: rows of a month, visits of a person."""

from dataclasses import replace
from math import inf

import numpy as np
from numpy.typing import NDArray

from unseen.reading import Reading
from unseen.stats.means import crossed_mean


def over_blocks(
    alone: Reading,
    values: NDArray[np.float64],
    block: NDArray[np.int64],
    within: tuple[float, float] = (-inf, inf),
) -> Reading:
    """A mean of values [seed, example] with an interval for examples that hang together in blocks
    (the rows of a month, the visits of a person): whole blocks are drawn anew, and seeds.

    Block b counts as one observation m + B Σ_b(x − m)/n, whose mean is m and whose variance over B
    is that of the mean with its errors added up by block (Liang & Zeger, 1986), also of blocks of
    unequal size. `alone` is the reading as of independent examples: the interval is never
    narrower. A single block says nothing of others: no interval.
    """
    codes, number = np.unique(block, return_inverse=True)
    blocks, n = len(codes), values.shape[1]
    if blocks < 2:
        return Reading(alone.value, n=alone.n, unit=alone.unit)
    centre = values.mean(1, keepdims=True)
    sums = np.stack([np.bincount(number, row, blocks) for row in values - centre])
    found = crossed_mean(centre + blocks * sums / n)
    low, high = min(alone.low, found.low), max(alone.high, found.high)
    return replace(
        alone,
        low=max(within[0], low),
        high=min(within[1], high),
        freedom=min(alone.freedom, found.freedom),
    )
