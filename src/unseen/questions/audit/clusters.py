"""Examples that stay together when some are labelled and others evaluated: those of one entity (a
person, a device) and of one block.
"""

import numpy as np
from jaxtyping import Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from unseen.task import Batch

TOGETHER = ("entity", "block")
"""Columns of an example whose equal values hang together."""


def clusters(batch: Batch) -> Int[np.ndarray, " example"]:
    """The cluster of every example: linked by an entity or a block, also by a chain of both. Each
    is one of its own where the examples have neither column.
    """
    n = len(next(iter(batch.values())))
    found = np.arange(n)
    for column in TOGETHER:
        if column in batch:
            codes = np.unique(batch[column].flatten().cpu().numpy(), return_inverse=True)[1]
            found = _merge(found, codes.ravel())
    return found


def _merge(
    a: Int[np.ndarray, " example"], b: Int[np.ndarray, " example"]
) -> Int[np.ndarray, " example"]:
    """The finest clusters that both partitions are within."""
    left, right = int(a.max()) + 1, int(b.max()) + 1
    edges = coo_matrix((np.ones(len(a)), (a, left + b)), shape=(left + right, left + right))
    nodes = connected_components(edges, directed=False)[1]
    return np.unique(nodes[a], return_inverse=True)[1].ravel()


def largest(cluster: Int[np.ndarray, " example"]) -> int:
    """The most examples of one cluster."""
    return int(np.bincount(cluster).max())


def in_order(
    cluster: Int[np.ndarray, " example"], order: Int[np.ndarray, " cluster"]
) -> Int[np.ndarray, " example"]:
    """The examples, cluster after cluster in this order."""
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return np.argsort(rank[cluster], kind="stable")


def whole_clusters(cluster_of_ordered: Int[np.ndarray, " example"], most: int) -> int:
    """How many of the first examples are whole clusters, at most so many."""
    ends = np.flatnonzero(np.diff(cluster_of_ordered, append=-1)) + 1
    within = ends[ends <= most]
    return int(within[-1]) if len(within) else 0
