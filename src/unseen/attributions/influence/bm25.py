"""Candidate examples by the words that they share with a query, before any gradient (Grosse et al.,
2023, section 3.2.1).

A BM25-like score over tokens,

    score(q, x) = Σ over distinct tokens t of q of  (k + 1) n_tx / (k + n_tx) · log((C + 1) / (n_t +
    ½)),

where t stands n_tx times in x and in n_t of the C examples. Tokens that no query has are never
counted: memory is distinct query tokens × batch, whatever the corpus.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unseen.attributions.influence.stream import Stream
from unseen.engine.batches import size
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.task import Batch, Task

SATURATION = 1.5
"""k: how soon further copies of a token stop counting."""


@dataclass(frozen=True)
class Candidates:
    """The m best-matching examples of each query, best first."""

    scores: Float[Tensor, "q m"]
    index: Int[Tensor, "q m"]

    @property
    def union(self) -> Int[Tensor, " n"]:
        """Every example that is a candidate of some query, in order."""
        return self.index.unique()


@dataclass(frozen=True, eq=False)
class Words:
    """The distinct tokens of some queries, and which query has which."""

    index: Int[Tensor, " vocabulary"]
    """Token → its column, or the last column, which is thrown away."""
    has: Bool[Tensor, "q t"]

    @classmethod
    def of(cls, queries: Batch) -> "Words":
        """Of all tokens of the queries that are no padding."""
        tokens = queries["tokens"]
        real = _real(queries)
        known, where = tokens[real].unique(return_inverse=True)
        rows = torch.arange(len(tokens), device=tokens.device)[:, None].expand_as(tokens)[real]
        place = torch.full((int(known.max()) + 2,), len(known), device=tokens.device)
        place[known] = torch.arange(len(known), device=tokens.device)
        has = torch.zeros(len(tokens), len(known), dtype=torch.bool, device=tokens.device)
        has[rows, where] = True
        return cls(place, has)

    def counts(self, batch: Batch) -> Float[Tensor, "b t"]:
        """n_tx."""
        tokens = batch["tokens"].clamp_max(len(self.index) - 1)  # no query has the last one
        at = self.index[tokens].masked_fill(~_real(batch), self.has.shape[1])
        counts = torch.zeros(len(at), self.has.shape[1] + 1, dtype=torch.float64, device=at.device)
        return counts.scatter_add_(1, at, torch.ones_like(at, dtype=torch.float64))[:, :-1]


def _real(batch: Batch) -> Bool[Tensor, "b s"]:
    mask = batch.get("attention_mask")
    return torch.ones_like(batch["tokens"], dtype=torch.bool) if mask is None else mask.bool()


def matches(
    counts: Float[Tensor, "b t"], has: Bool[Tensor, "q t"], found: Float[Tensor, " t"], n: int
) -> Float[Tensor, "q b"]:
    """The score of every query and example; `found` holds n_t, `n` is C."""
    rarity = ((n + 1) / (found + 0.5)).log()
    weight = (SATURATION + 1) * counts / (SATURATION + counts)
    return (has.to(counts) * rarity) @ weight.T


def candidates(queries: Batch, task: Task, m: int, lab: Lab, batch_size: int = 256) -> Candidates:
    """The m examples of the TRAIN splits that match each query best; of equals the earlier. Two
    passes, no gradients.
    """
    if m < 1:
        raise InvalidConfig(
            f"candidates={m}.", why="at least one example per query is kept.", fix="use 1000."
        )
    stream = Stream(task, batch_size, lab)
    if "tokens" not in queries or "tokens" not in next(stream.iterate())[2]:
        raise InvalidData(
            "Candidates are found by tokens, and the examples have none.",
            why="the filter counts the tokens that a query and an example share.",
            fix="leave candidates out: every example is then scored.",
        )
    words = Words.of(queries)
    found, n = torch.zeros(words.has.shape[1], dtype=torch.float64, device=words.has.device), 0
    for _, batch in _local_batches(stream):
        found += (words.counts(batch) > 0).sum(0)
        n += size(batch)
    found, n = lab.sum(found), int(lab.sum(torch.tensor(n)))
    best: Tensor | None = None
    at = torch.zeros(len(words.has), 0, dtype=torch.int64, device=words.has.device)
    for start, batch in _local_batches(stream):
        new = matches(words.counts(batch), words.has, found, n)
        rows = torch.arange(start, start + size(batch), device=new.device).expand(len(new), -1)
        best, at = _best_rows(
            new if best is None else torch.cat([best, new], 1), torch.cat([at, rows], 1), m
        )
    if best is None:  # a process without a batch
        best = torch.zeros(len(words.has), 0, dtype=torch.float64, device=words.has.device)
    best, at = _over_ranks(best, at, min(m, n), lab)
    return Candidates(best, at)


def _local_batches(stream: Stream) -> Iterator[tuple[int, Batch]]:
    """First row and batch of this process's batches."""
    ranks = stream.lab.ranks
    for number, start, batch in stream.lab.track(stream.iterate(), stream.batches):
        if number % ranks.size == ranks.rank:
            yield start, batch


def _best_rows(values: Tensor, rows: Tensor, m: int) -> tuple[Tensor, Tensor]:
    order = values.sort(dim=1, descending=True, stable=True).indices[
        :, :m
    ]  # stable: of equals the earlier row
    return values.gather(1, order), rows.gather(1, order)


def _over_ranks(best: Tensor, at: Tensor, m: int, lab: Lab) -> tuple[Tensor, Tensor]:
    if lab.ranks.size == 1:
        return best, at
    values = best.new_zeros(lab.ranks.size, len(best), m)
    rows = torch.zeros(values.shape, dtype=torch.int64, device=best.device)
    values[lab.ranks.rank, :, : best.shape[1]] = best
    rows[lab.ranks.rank, :, : best.shape[1]] = at + 1  # 0: nothing there
    values, rows = lab.sum(values), lab.sum(rows)
    values, rows = values.transpose(0, 1).flatten(1), rows.transpose(0, 1).flatten(1) - 1
    order = rows.masked_fill(rows < 0, torch.iinfo(torch.int64).max).argsort(1)
    values, rows = values.gather(1, order), rows.gather(1, order)
    return _best_rows(values.masked_fill(rows < 0, -torch.inf), rows, m)
