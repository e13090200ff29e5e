"""The forms in which the queries of a layer meet a stream of examples.

Three forms give ⟨(G + λ)⁻¹ V_q, V_m⟩; with q queries, s positions and a layer of o × i:

    whole     2 q o i per example    P_q against gradients made a few rows at a time
    low rank  2 q s k (o + i)        P_q ≈ L_q R_q, rank k (Grosse et al., 2023, section 3.2.2)
    terms     2 q r (o + i)          one position on both sides, 1/(Λ + λ) = Σ_r u_r ⊗ w_r: a score
                                     is a sum of r products of two inner products
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from unseen.engine.factor_pairs import FactorPair, RowBlocks
from unseen.engine.kron import KroneckerBlock

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


def low_rank(p: Float[Tensor, "q o i"], k: int) -> LowRankQueries:
    """The best approximation of rank k of each matrix, by the eigenvectors of its smaller Gram
    matrix.
    """
    # nothing to cut: the matrix times an identity, in the same form
    if k >= min(p.shape[1:]):
        is_wide = p.shape[1] <= p.shape[2]
        eye = torch.eye(min(p.shape[1:]), dtype=p.dtype, device=p.device).expand(len(p), -1, -1)
        return LowRankQueries(eye, p) if is_wide else LowRankQueries(p, eye)
    # entries of any size: their squares may lie beyond the ends of float32
    unit = p / p.abs().amax((1, 2), keepdim=True).clamp_min(torch.finfo(p.dtype).tiny)
    if p.shape[1] <= p.shape[2]:
        left = torch.linalg.eigh(unit @ unit.mT)[1][..., -k:]
        return LowRankQueries(left, left.mT @ p)
    right = torch.linalg.eigh(unit.mT @ unit)[1][..., -k:]
    return LowRankQueries(p @ right, right.mT)


def matrix_queries(p: Float[Tensor, "q o i"], rank: int = 0) -> ScaledQueries:
    """Queries that are solved already, cut to a rank if it is positive."""
    ones = p.new_ones(len(p))
    if rank:
        return ScaledQueries(low_rank(p, rank), ones)
    blocks = RowBlocks(p.shape, p, p.dtype)
    blocks.put(0, p)
    return ScaledQueries(FullQueries(blocks, None), ones)
