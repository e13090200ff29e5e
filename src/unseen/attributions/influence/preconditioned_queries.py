"""Queries made ready for a stream of examples: (G + λ)⁻¹ ∇f of each layer, in the form that costs
least per example.

Three forms give ⟨(G + λ)⁻¹ V_q, V_m⟩; with q queries, s positions and a layer of o × i:

    whole     2 q o i per example        P_q against gradients made a few rows at a time
    low rank  2 q s k (o + i)            P_q ≈ L_q R_q, rank k (Grosse et al., 2023, section 3.2.2)
    terms     2 q r (o + i)              one position on both sides, 1/(Λ + λ) = Σ_r u_r ⊗ w_r: a
    score is a sum of r
                                         products of two inner products
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

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
EVERYWHERE = 1e-5
"""Relative residual that the terms may leave at any entry that gradients reach: what is exact on
average need not be where one example far larger than the others rules the average.
"""
LARGE = 1 << 16
"""Entries of a layer from which a mixture of precisions saves time."""
SLAB = 1 << 10
"""Examples whose two tables of inner products stay in the cache while the terms are summed."""


@runtime_checkable
class QueryForm(Protocol):
    """The queries of one layer."""

    def score(self, pair: FactorPair) -> Float[Tensor, "q b"]:
        """⟨(G + λ)⁻¹ V_q, V_b⟩."""
        ...

    def first(self, n: int) -> "QueryForm":
        """Of the first n queries."""
        ...


@dataclass(frozen=True, eq=False)
class ScaledQueries:
    """Queries of one layer, all gradients scaled to max |g| = 1 on the way in and back on the way
    out.
    """

    form: QueryForm
    scale: Float[Tensor, " q"]

    def score(self, pair: FactorPair) -> Float[Tensor, "q b"]:
        """⟨(G + λ)⁻¹ V_q, V_b⟩."""
        given, scale = pair.rescale()
        wide = self.form.score(given)
        return wide * self.scale.to(wide)[:, None] * scale.to(wide)

    def first(self, n: int) -> "ScaledQueries":
        """Of the first n queries."""
        return ScaledQueries(self.form.first(n), self.scale[:n])


@dataclass(frozen=True, eq=False)
class FullQueries:
    """P_q as matrices; in the eigenbasis of `basis`, if given."""

    blocks: RowBlocks
    basis: KroneckerBlock | None

    def score(self, pair: FactorPair) -> Float[Tensor, "q b"]:
        # turned before it is rounded: rounding noise would be spread over small directions, which
        # the inverse enlarges
        return (
            (pair if self.basis is None else self.basis.rotate_pair(pair))
            .to(self.blocks.dtype)
            .against(self.blocks)
        )

    def first(self, n: int) -> "FullQueries":
        return FullQueries(self.blocks.first(n), self.basis)


@dataclass(frozen=True, eq=False)
class LowRankQueries:
    """P_q ≈ L_q R_q."""

    left: Float[Tensor, "q o k"]
    right: Float[Tensor, "q k i"]

    def score(self, pair: FactorPair) -> Float[Tensor, "q b"]:
        return pair.to(self.left.dtype).through(self.left, self.right)

    def first(self, n: int) -> "LowRankQueries":
        return LowRankQueries(self.left[:n], self.right[:n])


@dataclass(frozen=True, eq=False)
class SumOfKronecker:
    """Σ_r ⟨u_r ∘ g_q, g_m⟩ ⟨w_r ∘ a_q, a_m⟩ in the eigenbasis, and what the terms leave, in
    bfloat16, where that counts.

    The rounding of a bfloat16 product is 0.3 % of its size; of a remainder that is 1 % of the
    score, 0.003 % of the score.
    """

    block: KroneckerBlock
    g: Float[Tensor, "r q o"]
    a: Float[Tensor, "r q i"]
    rest: RowBlocks | None = None

    def score(self, pair: FactorPair) -> Float[Tensor, "q b"]:
        turned = self.block.rotate_pair(pair)
        near, far = turned.a[:, 0].to(self.a.dtype), turned.g[:, 0].to(self.g.dtype)
        total = near.new_empty(
            self.g.shape[1], len(near), dtype=torch.promote_types(near.dtype, torch.float32)
        )
        for at in range(0, len(near), SLAB):
            a, g = near[at : at + SLAB].T, far[at : at + SLAB].T
            slab = torch.zeros(len(total), a.shape[1], dtype=total.dtype, device=total.device)
            for k in range(len(self.g)):
                # widened first: products of mixed types leave the fast path
                slab.addcmul_((self.g[k] @ g).to(slab.dtype), (self.a[k] @ a).to(slab.dtype))
            total[:, at : at + SLAB] = slab
        if self.rest is not None:
            total += turned.to(torch.bfloat16).against(self.rest)
        return total

    def first(self, n: int) -> "SumOfKronecker":
        rest = None if self.rest is None else self.rest.first(n)
        return SumOfKronecker(self.block, self.g[:, :n], self.a[:, :n], rest)


def kronecker_terms(
    block: KroneckerBlock,
) -> tuple[Float[Tensor, "r o"], Float[Tensor, "r i"], Float[Tensor, " r"]]:
    """u, w with 1/(Λ + λ) = Σ_r u_r ⊗ w_r, by the SVD that weighs entries as scores do; tail[r]:
    what r terms leave.

    A score multiplies entry (j, k) with g_q g_m a_q a_m, of standard deviation E g_j² · E a_k²: the
    tail is the expected relative error of independent scores.
    """
    inverse = block.inverse.double()
    if block.spread is None:
        row, column = inverse.new_ones(len(inverse)), inverse.new_ones(inverse.shape[1])
    else:
        row, column = (x.double().clamp_min(1e-30 + 1e-12 * float(x.max())) for x in block.spread)
    # entries that scores use most weigh most in the decomposition
    weighted = row[:, None] * inverse * column
    is_wide = weighted.shape[0] <= weighted.shape[1]
    # eigenvectors of the smaller Gram matrix: cheaper than an SVD, and only the leading terms are
    # used
    energy, vectors = torch.linalg.eigh(weighted @ weighted.T if is_wide else weighted.T @ weighted)
    tail = (energy.clamp_min(0).cumsum(0) / energy.sum()).sqrt().flip(0)
    top = vectors.flip(1)
    if is_wide:
        u, w = top.T / row, (top.T @ weighted) / column
    else:
        u, w = (weighted @ top).T / row, top.T / column
    return u.to(block.values), w.to(block.values), tail.to(block.values)


def is_close(block: KroneckerBlock, u: Float[Tensor, "r o"], w: Float[Tensor, "r i"]) -> bool:
    """Whether the terms are 1/(Λ + λ) at every entry that gradients of the training set reach."""
    inverse = block.inverse.double()
    error = (u.double().T @ w.double() / inverse - 1).abs()
    if block.spread is not None:
        row, column = (x > 1e-14 * x.max() for x in block.spread)
        error = error[row][:, column]
    return bool((error <= EVERYWHERE).all())


def low_rank(p: Float[Tensor, "q o i"], k: int) -> LowRankQueries:
    """The best approximation of rank k of each matrix, by the eigenvectors of its smaller Gram
    matrix.
    """
    # nothing to cut: the matrix times an identity, in the same form
    if k >= min(p.shape[1:]):
        is_wide = p.shape[1] <= p.shape[2]
        eye = torch.eye(min(p.shape[1:]), dtype=p.dtype, device=p.device).expand(len(p), -1, -1)
        return LowRankQueries(eye, p) if is_wide else LowRankQueries(p, eye)
    if p.shape[1] <= p.shape[2]:
        left = torch.linalg.eigh(p @ p.mT)[1][..., -k:]
        return LowRankQueries(left, left.mT @ p)
    right = torch.linalg.eigh(p.mT @ p)[1][..., -k:]
    return LowRankQueries(p @ right, right.mT)


def matrix_queries(p: Float[Tensor, "q o i"], rank: int = 0) -> ScaledQueries:
    """Queries that are solved already, cut to a rank if it is positive."""
    ones = p.new_ones(len(p))
    if rank:
        return ScaledQueries(low_rank(p, rank), ones)
    blocks = RowBlocks(p.shape, p, p.dtype)
    blocks.put(0, p)
    return ScaledQueries(FullQueries(blocks, None), ones)


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
