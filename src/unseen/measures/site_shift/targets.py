"""A target as classes of rows: what sites are compared within."""

import numpy as np
from jaxtyping import Bool, Int, Shaped

from unseen.errors import InvalidData

BANDS = 4
MOST_CLASSES = 5
"""Of more classes the commonest are held against the rest."""
FEWEST_OF_A_CLASS = 8
"""Rows of each side that a relation needs at the site and elsewhere."""


def strata_of(y: Shaped[np.ndarray, " row"]) -> Int[np.ndarray, " row"]:
    """The class of every row; of a number its quarter among all rows."""
    if not len(y) or (np.issubdtype(y.dtype, np.floating) and not np.isfinite(y).all()):
        raise InvalidData(
            f"A target has {len(y)} values, some of them not finite.",
            why="sites are compared among rows of like target.",
            fix="leave rows without a target out.",
        )
    if np.issubdtype(y.dtype, np.floating) and len(np.unique(y)) > 2:
        edges = np.unique(np.quantile(y, np.linspace(0, 1, BANDS + 1)[1:-1]))
        return np.searchsorted(edges, y, "right")
    return np.unique(y, return_inverse=True)[1].ravel()


def contrasts(y: Shaped[np.ndarray, " row"]) -> list[Bool[np.ndarray, " row"]]:
    """Rows against rows: the higher of two classes, each of several, the upper half of a number."""
    if np.issubdtype(y.dtype, np.floating) and len(np.unique(y)) > 2:
        return [y > np.median(y)]
    classes, counts = np.unique(y, return_counts=True)
    if len(classes) <= 2:
        return [y == classes[-1]] if len(classes) == 2 else []
    commonest = classes[np.argsort(-counts, kind="stable")[:MOST_CLASSES]]
    return [y == one for one in commonest]
