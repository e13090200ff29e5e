"""The top k of all examples without all scores: a cheap sum of few terms finds candidates, exact scores order them.

1/(Λ + λ) is close to a sum of four Kronecker products, so an approximate score costs four pairs of inner products. The
error seen on the candidates tells whether anything outside them could still belong to the top; then more are looked at.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unseen.attributions.influence.asking import decomposed, is_single, terms
from unseen.engine.kron import Block
from unseen.engine.pairs import Pair

TERMS = 4
WIDTH = 8
"""How many times k candidates are kept from the stream, at most."""
Ends = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class Screen:
    """Queries of layers with one position each."""

    blocks: Mapping[str, Block]
    given: Mapping[str, Sequence[Pair]]

    @classmethod
    def fitting(
        cls, blocks: Mapping[str, Block], given: Mapping[str, Sequence[Pair]], k: int, n: int
    ) -> "Screen | None":
        """A screen where it can save work: single positions everywhere and far more examples than candidates."""
        is_fit = n > 4 * WIDTH * k and all(is_single(blocks[name], pairs) for name, pairs in given.items())
        return cls(blocks, given) if is_fit else None

    def top(
        self,
        stream: Iterator[tuple[int, Tensor, dict[str, Pair]]],
        k: int,
        gradients: Callable[[Int[Tensor, " n"]], dict[str, Pair]],
    ) -> Ends:
        """The k smallest and largest products of each query, exactly ordered."""
        low, high = self._candidates(stream, WIDTH * k)
        made = []
        for (values, rows), largest in ((low, False), (high, True)):
            made.append(self._settled(values, rows, k, largest, gradients))
        return made[0], made[1]

    def _candidates(self, stream: Iterator[tuple[int, Tensor, dict[str, Pair]]], width: int) -> Ends:
        ready = {}
        for name, pairs in self.given.items():
            u, w, residual = decomposed(self.blocks[name], 0.0, TERMS)
            ready[name] = terms(self.blocks[name], pairs, torch.bfloat16, u, w, residual)
        rows, parts = [], []
        for _, at, pairs in stream:
            rows.append(at)
            parts.append(torch.stack([ready[n].score(p) for n, p in pairs.items() if n in ready]).sum(0))
        values, places = torch.cat(parts, 1), torch.cat(rows)
        ends = []
        for largest in (False, True):
            best, where = values.topk(min(width, values.shape[1]), 1, largest=largest)
            ends.append((best, places.to(where.device)[where]))
        return ends[0], ends[1]

    def _settled(
        self,
        approximate: Float[Tensor, "q w"],
        rows: Int[Tensor, "q w"],
        k: int,
        largest: bool,
        gradients: Callable[[Int[Tensor, " n"]], dict[str, Pair]],
    ) -> tuple[Float[Tensor, "q k"], Int[Tensor, "q k"]]:
        """Exact scores of so many candidates that the error seen leaves no room for others."""
        sign = 1.0 if largest else -1.0
        wide = 2 * k
        exact = self._exact(rows[:, :wide], torch.arange(len(rows)), gradients)
        error = (exact - approximate[:, :wide]).abs().amax(1)
        bar = (sign * exact).topk(k, 1).values[:, -1]
        # the first candidate not yet looked at could be better than the k-th by the error seen
        open_ = (sign * approximate[:, wide] + error > bar).nonzero().flatten()
        best, at = (sign * exact).topk(k, 1)
        found = rows[:, :wide].gather(1, at)
        if len(open_):
            rest = self._exact(rows[open_, wide:], open_, gradients)
            both = torch.cat([sign * exact[open_], sign * rest], 1)
            best[open_], at = both.topk(k, 1)
            found[open_] = rows[open_].gather(1, at)
        return sign * best, found

    def _exact(
        self,
        rows: Int[Tensor, "q w"],
        queries: Int[Tensor, " q"],
        gradients: Callable[[Int[Tensor, " n"]], dict[str, Pair]],
    ) -> Float[Tensor, "q w"]:
        """Σ over entries of 1/(Λ + λ) · V_q · V_m for every query and its candidates."""
        needed, inverse = rows.unique(return_inverse=True)
        given = gradients(needed)
        total: Tensor | None = None
        for name, pairs in self.given.items():
            block, mine = self.blocks[name], [self.blocks[name].turned(p) for p in pairs]
            a, g = torch.cat([p.a[:, 0] for p in mine])[queries], torch.cat([p.g[:, 0] for p in mine])[queries]
            other = block.turned(given[name])
            parts = []
            for q in range(0, len(rows), 32):
                at = inverse[q : q + 32]
                left = other.g[:, 0][at] * g[q : q + 32, None]
                right = other.a[:, 0][at] * a[q : q + 32, None]
                parts.append(((left.flatten(0, 1) @ block.inverse).view_as(right) * right).sum(2))
            total = torch.cat(parts) if total is None else total + torch.cat(parts)
        assert total is not None
        return total
