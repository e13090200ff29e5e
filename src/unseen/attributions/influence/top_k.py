"""The strongest of a long row of scores: kept while they stream by, merged over processes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unseen.lab import Lab

Extremes = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(products, rows) of the smallest and of the largest, [query, k] each."""


@dataclass(frozen=True)
class Top:
    """The k most helpful and most harmful examples of each query, strongest first."""

    scores: Float[Tensor, "q k"]
    index: Int[Tensor, "q k"]
    worst_scores: Float[Tensor, "q k"]
    worst_index: Int[Tensor, "q k"]


def each_once(rows: Int[Tensor, " n"]) -> Int[Tensor, " m"]:
    """The rows in their order, or sorted without repetition if one is given twice."""
    distinct = rows.unique()
    return rows if len(distinct) == len(rows) else distinct


def merge_extremes(parts: Sequence[Extremes], k: int) -> Extremes:
    """The k smallest and the k largest of all parts; rows below 0 are empty places."""
    made = []
    for side, largest in ((0, False), (1, True)):
        values = torch.cat([part[side][0] for part in parts], 1)
        index = torch.cat([part[side][1] for part in parts], 1)
        values = values.masked_fill(index < 0, -torch.inf if largest else torch.inf)
        best, at = values.topk(min(k, values.shape[1]), 1, largest=largest)
        made.append((best, index.gather(1, at)))
    return made[0], made[1]


def update_extremes(
    ends: Extremes | None, rows: Int[Tensor, " b"], values: Float[Tensor, "q b"], k: int
) -> Extremes:
    """The ends after further columns."""
    new = (values, rows.to(values.device).expand(len(values), -1))
    return merge_extremes([(new, new)] if ends is None else [ends, (new, new)], k)


def no_extremes(queries: int, device: torch.device) -> Extremes:
    """Of a process that scored nothing."""
    values = torch.zeros(queries, 0, device=device)
    return (values, values.long()), (values, values.long())


def streaming_extremes(columns: Iterator[tuple[Tensor, Tensor]], k: int) -> Extremes | None:
    """The k smallest and largest of each query over a stream of (rows, products); None of an empty
    one.
    """
    ends: Extremes | None = None
    for rows, values in columns:
        ends = update_extremes(ends, rows, values, k)
    return ends


def top_of(ends: Extremes, k: int, n: int, lab: Lab) -> Top:
    """From −N times the scores of this process's examples to the strongest of all processes'; N
    examples in all.
    """
    (best, at), (worst, where) = (
        merge_extremes([ends], k) if lab.ranks.size == 1 else _over_ranks(ends, min(k, n), k, lab)
    )
    return Top(-best / n, at, -worst / n, where)


def _over_ranks(found: Extremes, width: int, k: int, lab: Lab) -> Extremes:
    """Each process writes its ends into its own rows of a table; the sum over processes has them
    all.
    """
    ranks, every = lab.ranks, []
    for values, index in found:
        table = values.new_zeros(ranks.size, len(values), width, dtype=torch.float64)
        places = torch.zeros_like(table)  # 0: empty, so rows count from 1
        table[ranks.rank, :, : values.shape[1]] = values.double()
        places[ranks.rank, :, : values.shape[1]] = index.double() + 1
        every.append((lab.sum(table), lab.sum(places).long() - 1))
    (low, low_at), (high, high_at) = every
    made = merge_extremes(
        [((low[r], low_at[r]), (high[r], high_at[r])) for r in range(ranks.size)], k
    )
    # places stay empty where all processes together have fewer rows than k
    (best, at), (worst, where) = made
    taken, held = (at >= 0).any(0), (where >= 0).any(0)
    return (best[:, taken], at[:, taken]), (worst[:, held], where[:, held])
