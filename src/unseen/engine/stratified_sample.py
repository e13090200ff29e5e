"""A part of many rows in which every stratum has its share, and none is left out."""

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Int

from unseen.engine.batches import Columns
from unseen.errors import InvalidConfig


def stratified_sample(
    strata: Int[np.ndarray, " row"], most: int, rng: np.random.Generator
) -> Int[np.ndarray, " drawn"]:
    """At most `most` rows drawn at random, in order: of each stratum its share in whole rows, and
    one row of a stratum whose share is none (so many more may be drawn).
    """
    if most < 1:
        raise InvalidConfig(
            f"A sample of {most} rows was asked for.",
            why="it stands for all of them.",
            fix="ask for one at least.",
        )
    n = len(strata)
    if n <= most:
        return np.arange(n)
    _, stratum, sizes = np.unique(strata, return_inverse=True, return_counts=True)
    shares = sizes * (most / n)
    counts = np.floor(shares).astype(np.int64)
    # largest remainders: the sizes are whole, and `most` in all
    counts[np.argsort(counts - shares, kind="stable")[: most - counts.sum()]] += 1
    counts = np.maximum(counts, 1)
    order = rng.permutation(n)
    order = order[np.argsort(stratum[order], kind="stable")]
    place = np.arange(n) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.sort(order[place < counts[stratum[order]]])


def sample_columns(
    data: Columns, most: int, rng: np.random.Generator, names: Iterable[str] = ("site", "y")
) -> Columns:
    """The data, or a sample of them within the groups that these columns of whole numbers form."""
    if len(data) <= most:
        return data
    strata = np.zeros(len(data), dtype=np.int64)
    for name in names:
        column = data.columns.get(name)
        if column is not None and column.dim() == 1 and not column.is_floating_point():
            codes = np.unique(column.cpu().numpy(), return_inverse=True)[1]
            strata = strata * (int(codes.max()) + 1) + codes
    return data.subset(torch.from_numpy(stratified_sample(strata, most, rng)))
