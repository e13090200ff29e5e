"""Queries made ready for a stream of examples: (G + λ)⁻¹ ∇f of each layer, in the form that costs
least per example.
"""

from collections.abc import Callable, Sequence
from enum import StrEnum

import torch
from jaxtyping import Float
from torch import Tensor

from unseen.attributions.influence.kronecker_terms import is_close, kronecker_terms
from unseen.attributions.influence.query_forms import (
    FullQueries,
    LowRankQueries,
    QueryForm,
    ScaledQueries,
    SumOfKronecker,
    low_rank,
)
from unseen.engine.factor_pairs import EmbeddingPair, FactorPair, RowBlocks
from unseen.engine.kron import KroneckerBlock


class Precision(StrEnum):
    """Of the products behind a score."""

    FULL = "full"
    """In the model's precision."""
    MIXED = "mixed"
    """Within 10⁻⁴ of float32: bfloat16 where its rounding is a small part of the score."""
    BFLOAT16 = "bfloat16"
    """Within about 1 %: ranks survive."""


ROUNDING = 3e-3
"""Relative rounding of a bfloat16 product."""
EXACT = 2e-6
"""Relative residual of the sum of terms that still counts as exact: the rounding of a float32
product of this length.
"""
LARGE = 1 << 16
"""Entries of a layer from which a mixture of precisions saves time."""


class QueryBuilder:
    """The queries of one layer on their way into the form that scores cheapest, a batch of queries
    at a time.
    """

    def __init__(
        self,
        block: KroneckerBlock,
        n: int,
        precision: Precision,
        *,
        rank: int = 0,
        examples: int = 1 << 60,
    ) -> None:
        self.block, self.n, self.precision, self.rank, self.examples = (
            block,
            n,
            precision,
            rank,
            examples,
        )
        self.scale = block.values.new_zeros(n)
        self.dtype = torch.bfloat16 if precision is Precision.BFLOAT16 else block.values.dtype
        self.held: list[FactorPair] = []
        self.matrices: RowBlocks | None = None
        self.factors: tuple[Tensor, Tensor] | None = None

    def add(self, at: int, given: FactorPair) -> None:
        """The gradients of queries from `at` on."""
        pair, scale = given.rescale()
        self.scale[at : at + len(pair)] = scale
        if self.rank:
            self._cut(at, pair)
        # outer products wait: all queries together decide how many terms they need
        elif is_single(self.block, [pair]) and min(self.block.values.shape) > 1:
            self.held.append(pair)
        else:
            self.matrices = self.matrices or self._empty()
            write_gradients(
                self.matrices, self.block, pair, self.block.inverse, at, is_back=not self._stays
            )

    def build(self) -> ScaledQueries:
        """The queries, ready to be scored."""
        if self.factors is not None:
            return ScaledQueries(LowRankQueries(*self.factors), self.scale)
        if self.held:
            return ScaledQueries(
                _single(self.block, self.held, self.precision, self._whole), self.scale
            )
        assert self.matrices is not None
        return ScaledQueries(
            FullQueries(self.matrices, self.block if self._stays else None), self.scale
        )

    def _cut(self, at: int, pair: FactorPair) -> None:
        made = low_rank(self.block.solve(pair.gradients()), self.rank)
        if self.factors is None:
            shapes = [(self.n, *side.shape[1:]) for side in (made.left, made.right)]
            left, right = (self.block.values.new_zeros(shape, dtype=self.dtype) for shape in shapes)
            self.factors = left, right
        for side, part in zip(self.factors, (made.left, made.right), strict=True):
            side[at : at + len(pair)] = part

    @property
    def _stays(self) -> bool:
        """Whether turning every example costs less than turning the queries back."""
        o, i = self.block.values.shape
        is_turned = self.block.left is not None or self.block.right is not None
        return is_turned and self.examples * self.block.positions * (
            o * o + i * i
        ) < self.n * o * i * (o + i)

    def _empty(self) -> RowBlocks:
        return RowBlocks(
            (self.n, *self.block.values.shape),
            self.block.values,
            self.dtype,
            self.block.positions == 1,
        )

    def _whole(self, pairs: Sequence[FactorPair]) -> FullQueries:
        matrices, at = self._empty(), 0
        for pair in pairs:
            write_gradients(
                matrices, self.block, pair, self.block.inverse, at, is_back=not self._stays
            )
            at += len(pair)
        return FullQueries(matrices, self.block if self._stays else None)


def build_queries(
    block: KroneckerBlock,
    given: Sequence[FactorPair],
    precision: Precision,
    *,
    rank: int = 0,
    examples: int = 1 << 60,
) -> ScaledQueries:
    """The cheapest form of these queries for a stream of so many examples."""
    asking, at = (
        QueryBuilder(block, sum(map(len, given)), precision, rank=rank, examples=examples),
        0,
    )
    for pair in given:
        asking.add(at, pair)
        at += len(pair)
    return asking.build()


def _single(
    block: KroneckerBlock,
    pairs: Sequence[FactorPair],
    precision: Precision,
    whole: Callable[[Sequence[FactorPair]], FullQueries],
) -> QueryForm:
    """Outer products: few terms alone, terms with the rest in bfloat16, or everything, whichever is
    cheapest.
    """
    o, i = block.values.shape
    # beyond so many terms the full product is cheaper
    most = o * i // (2 * (o + i))
    u, w, tail = kronecker_terms(block)
    enough = int((tail > EXACT).sum())
    if enough <= most and is_close(block, u[:enough], w[:enough]):
        return terms(block, pairs, u[:enough], w[:enough])
    allowed = (
        {Precision.BFLOAT16: 5e-4, Precision.MIXED: 6e-5}.get(precision) if o * i >= LARGE else None
    )
    r = 0 if allowed is None else int((tail * ROUNDING > allowed).sum())
    if allowed is None or r > most:
        return whole(pairs)
    rest, at = (
        RowBlocks((sum(map(len, pairs)), o, i), block.values, torch.bfloat16, is_single=True),
        0,
    )
    for pair in pairs:
        write_gradients(rest, block, pair, block.inverse - u[:r].T @ w[:r], at)
        at += len(pair)
    return terms(block, pairs, u[:r], w[:r], rest)


def scale_pairs(given: Sequence[FactorPair]) -> tuple[list[FactorPair], Float[Tensor, " q"]]:
    """Every pair with max |g| = 1, and all that they were divided by."""
    both = [pair.rescale() for pair in given]
    return [pair for pair, _ in both], torch.cat([scale for _, scale in both])


def is_single(block: KroneckerBlock, pairs: Sequence[FactorPair]) -> bool:
    """Whether gradients are outer products: one position per example on both sides."""
    return block.positions == 1 and all(
        p.sizes[1] == 1 and not isinstance(p, EmbeddingPair) for p in pairs
    )


def terms(
    block: KroneckerBlock,
    pairs: Sequence[FactorPair],
    u: Tensor,
    w: Tensor,
    rest: RowBlocks | None = None,
    dtype: torch.dtype | None = None,
) -> SumOfKronecker:
    """The queries with the factors of the inverse folded in."""
    turned = [block.rotate_pair(pair) for pair in pairs]
    g, a = torch.cat([p.g[:, 0] for p in turned]), torch.cat([p.a[:, 0] for p in turned])
    return SumOfKronecker(
        block, (u[:, None] * g).to(dtype or g.dtype), (w[:, None] * a).to(dtype or a.dtype), rest
    )


def write_gradients(
    matrices: RowBlocks,
    block: KroneckerBlock,
    pair: FactorPair,
    weights: Tensor,
    at: int,
    is_back: bool = False,
) -> None:
    """Writes `weights` · Q_Sᵀ V_q Q_A, turned back on request, a few queries at a time."""
    for part in pair.parts():
        p = block.rotate_pair(part).gradients() * weights
        matrices.put(at, block.from_basis(p) if is_back else p)
        at += len(part)
