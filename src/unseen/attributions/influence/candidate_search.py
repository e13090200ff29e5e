"""The top k of all examples without all scores: a cheap sum of few terms finds candidates, exact
scores order them.

1/(Λ + λ) is close to a sum of few Kronecker products, so an approximate score costs as many pairs
of inner products. The error seen on the candidates tells whether anything outside them could still
belong to the top; then more are looked at.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unseen.attributions.influence.preconditioned_queries import (
    ScaledQueries,
    is_single,
    kronecker_terms,
    scale_pairs,
    terms,
)
from unseen.attributions.influence.top_k import Extremes
from unseen.engine.factor_pairs import FactorPair
from unseen.engine.kron import KroneckerBlock

TERMS = 8
WIDTH = 8
"""How many times k candidates are kept from the stream, at most."""
FEW = 1.5
"""How many times k candidates are scored exactly at first."""
SLAB = 1 << 14
"""Examples whose approximate scores are held at a time."""


@dataclass(frozen=True, eq=False)
class Screen:
    """Queries of layers with one position each."""

    blocks: Mapping[str, KroneckerBlock]
    given: Mapping[str, Sequence[FactorPair]]

    @classmethod
    def fitting(
        cls,
        blocks: Mapping[str, KroneckerBlock],
        given: Mapping[str, Sequence[FactorPair]],
        k: int,
        n: int,
    ) -> "Screen | None":
        """A screen where it can save work: single positions everywhere and far more examples than
        candidates.
        """
        is_fit = n > 4 * WIDTH * k and all(
            is_single(blocks[name], pairs) for name, pairs in given.items()
        )
        return cls(blocks, given) if is_fit else None

    def top(
        self,
        stream: Iterator[tuple[int, Tensor, dict[str, FactorPair]]],
        k: int,
        gradients: Callable[[Int[Tensor, " n"]], dict[str, FactorPair]],
    ) -> Extremes:
        """The k smallest and largest products of each query, exactly ordered."""
        low, high = self._candidates(stream, WIDTH * k)
        # both ends share one pass over the examples that need exact gradients
        first = torch.cat([low[1][:, : int(FEW * k)], high[1][:, : int(FEW * k)]], 1)
        exact = _Exact(self.blocks, self.given, first.unique(), gradients).scores(first)
        made = []
        for (approximate, rows), mine, sign in (
            (low, exact[:, : int(FEW * k)], -1.0),
            (high, exact[:, int(FEW * k) :], 1.0),
        ):
            made.append(self._exact_top(sign * approximate, rows, sign * mine, sign, gradients, k))
        return made[0], made[1]

    def _candidates(
        self, stream: Iterator[tuple[int, Tensor, dict[str, FactorPair]]], width: int
    ) -> Extremes:
        """The `width` smallest and largest approximate products; tables of a few thousand examples
        at a time.
        """
        ready = {}
        for name, given in self.given.items():
            u, w, _ = kronecker_terms(self.blocks[name])
            unit, scale = scale_pairs(given)
            # turned in bfloat16, too: its error is a tenth of that of so few terms
            ready[name] = ScaledQueries(
                terms(self.blocks[name], unit, u[:TERMS], w[:TERMS], dtype=torch.bfloat16), scale
            )
        held: list[tuple[Tensor, Tensor]] = []
        ends: Extremes | None = None
        for _, at, pairs in stream:
            total = torch.stack(
                [ready[n].score(p.to(torch.bfloat16)) for n, p in pairs.items() if n in ready]
            ).sum(0)
            held.append((total, at.to(total.device).expand(len(total), -1)))
            if (
                sum(len(rows.T) for _, rows in held) >= SLAB
            ):  # sorting a few long tables beats many short ones
                ends, held = _keep_extremes(ends, held, width), []
        ends = _keep_extremes(ends, held, width) if held else ends
        assert ends is not None
        # the smallest were held negated, so that one routine keeps the largest of both
        return (-ends[0][0], ends[0][1]), ends[1]

    def _exact_top(
        self,
        approximate: Float[Tensor, "q w"],
        rows: Int[Tensor, "q w"],
        exact: Float[Tensor, "q few"],
        sign: float,
        gradients: Callable[[Int[Tensor, " n"]], dict[str, FactorPair]],
        k: int,
    ) -> tuple[Float[Tensor, "q k"], Int[Tensor, "q k"]]:
        """The largest exact scores, of so many candidates that the error seen leaves no room for
        others.
        """
        few = exact.shape[1]
        best, at = exact.topk(k, 1)
        found = rows.gather(1, at)
        # the first candidate not yet looked at could be better than the k-th by the largest error
        # seen
        error = (exact - approximate[:, :few]).abs().amax(1)
        open_ = (approximate[:, few] + error > best[:, -1]).nonzero().flatten()
        if len(open_):
            # only for the queries whose order is still open
            wider = rows[open_, few:]
            more = _Exact(self.blocks, self.given, wider.unique(), gradients, open_).scores(wider)
            best[open_], at = torch.cat([exact[open_], sign * more], 1).topk(k, 1)
            found[open_] = rows[open_].gather(1, at)
        return sign * best, found


def _keep_extremes(
    ends: Extremes | None, held: Sequence[tuple[Tensor, Tensor]], width: int
) -> Extremes:
    """The largest of the negated products and of the products, by now."""
    values, rows = torch.cat([v for v, _ in held], 1), torch.cat([r for _, r in held], 1)
    found = [_best(-values, rows, width), _best(values, rows, width)]
    if ends is not None:
        found = [
            _best(torch.cat([old[0], new[0]], 1), torch.cat([old[1], new[1]], 1), width)
            for old, new in zip(ends, found, strict=True)
        ]
    return found[0], found[1]


def _best(values: Float[Tensor, "q n"], rows: Int[Tensor, "q n"], k: int) -> tuple[Tensor, Tensor]:
    best, at = values.topk(min(k, values.shape[1]), 1, sorted=True)
    return best, rows.gather(1, at)


class _Exact:
    """Σ over entries of 1/(Λ + λ) · V_q · V_m for chosen pairs of a query and an example."""

    def __init__(
        self,
        blocks: Mapping[str, KroneckerBlock],
        given: Mapping[str, Sequence[FactorPair]],
        needed: Int[Tensor, " n"],
        gradients: Callable[[Int[Tensor, " n"]], dict[str, FactorPair]],
        queries: Tensor | slice = slice(None),
    ) -> None:
        self.needed = needed
        self.parts: list[tuple[Tensor, ...]] = []
        others = gradients(needed)
        for name, pairs in given.items():
            unit, scale = scale_pairs(pairs)
            mine, (other, size) = (
                [blocks[name].rotate_pair(p) for p in unit],
                others[name].rescale(),
            )
            a, g = (
                torch.cat([p.a[:, 0] for p in mine])[queries],
                torch.cat([p.g[:, 0] for p in mine])[queries],
            )
            turned = blocks[name].rotate_pair(other)
            self.parts.append(
                (blocks[name].inverse, a, g, scale[queries], turned.a[:, 0], turned.g[:, 0], size)
            )

    def scores(self, rows: Int[Tensor, "q w"]) -> Float[Tensor, "q w"]:
        """Of every query and its own candidates, in place and so few at a time that they stay in
        the cache.
        """
        width, at = rows.shape[1], torch.searchsorted(self.needed, rows)
        total = self.parts[0][1].new_zeros(rows.shape)
        step = max(1, (1 << 9) // width)
        for inverse, a, g, scale, far_a, far_g, size in self.parts:
            for q in range(0, len(rows), step):
                near = slice(q, q + step)
                chosen = at[near].flatten()
                left = far_g.index_select(0, chosen).view(-1, width, far_g.shape[1])
                right = left.mul_(g[near, None]).flatten(0, 1).mm(inverse)
                right.mul_(far_a.index_select(0, chosen))
                product = (right.view(-1, width, a.shape[1]) @ a[near, :, None])[..., 0]
                total[near] += product * scale[near, None] * size[at[near]]
        return total
