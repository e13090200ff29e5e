"""Queries made ready for a stream of examples: (G + λ)⁻¹ ∇f of each layer, in the form that costs least per example.

Three forms give ⟨(G + λ)⁻¹ V_q, V_m⟩; with q queries, s positions and a layer of o × i:

    whole     2 q o i per example        P_q against gradients made a few rows at a time
    low rank  2 q s k (o + i)            P_q ≈ L_q R_q, rank k (Grosse et al., 2023, section 3.2.2)
    terms     2 q r (o + i)              one position on both sides, 1/(Λ + λ) = Σ_r u_r ⊗ w_r: a score is a sum of r
                                         products of two inner products
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from unseen.engine.kron import Block
from unseen.engine.pairs import Blocked, Pair, Table

EXACT = 2e-6
"""Relative residual of the sum of terms that still counts as exact: the rounding of a float32 product of this length."""
SLAB = 1 << 10
"""Examples whose two tables of inner products stay in the cache while the terms are summed."""


@runtime_checkable
class Asked(Protocol):
    """The queries of one layer."""

    @property
    def dtype(self) -> torch.dtype:
        """In which the products are made."""
        ...

    def score(self, pair: Pair) -> Float[Tensor, "q b"]:
        """⟨(G + λ)⁻¹ V_q, V_b⟩."""
        ...


@dataclass(frozen=True, eq=False)
class Whole:
    """P_q as matrices; in the eigenbasis of `basis`, if given."""

    blocks: Blocked
    basis: Block | None

    @property
    def dtype(self) -> torch.dtype:
        return self.blocks.blocks[0].dtype

    def score(self, pair: Pair) -> Float[Tensor, "q b"]:
        return (pair if self.basis is None else self.basis.turned(pair)).against(self.blocks)


@dataclass(frozen=True, eq=False)
class LowRank:
    """P_q ≈ L_q R_q."""

    left: Float[Tensor, "q o k"]
    right: Float[Tensor, "q k i"]

    @property
    def dtype(self) -> torch.dtype:
        return self.left.dtype

    def score(self, pair: Pair) -> Float[Tensor, "q b"]:
        return pair.through(self.left, self.right)


@dataclass(frozen=True, eq=False)
class Terms:
    """Σ_r ⟨u_r ∘ g_q, g_m⟩ ⟨w_r ∘ a_q, a_m⟩ in the eigenbasis; exact to `residual`."""

    block: Block
    g: Float[Tensor, "r q o"]
    a: Float[Tensor, "r q i"]
    residual: float

    @property
    def dtype(self) -> torch.dtype:
        return self.a.dtype

    def score(self, pair: Pair) -> Float[Tensor, "q b"]:
        turned = self.block.turned(pair.to(self.a.dtype))
        a, g = turned.a[:, 0], turned.g[:, 0]
        total = a.new_empty(self.g.shape[1], len(a), dtype=torch.promote_types(a.dtype, torch.float32))
        for at in range(0, len(a), SLAB):
            near, far = a[at : at + SLAB].T, g[at : at + SLAB].T
            slab = torch.zeros(len(total), near.shape[1], dtype=total.dtype, device=total.device)
            for k in range(len(self.g)):
                slab.addcmul_(self.g[k] @ far, self.a[k] @ near)
            total[:, at : at + SLAB] = slab
        return total


def decomposed(block: Block, tolerance: float, most: int) -> tuple[Float[Tensor, "r o"], Float[Tensor, "r i"], float]:
    """u, w and relative residual with 1/(Λ + λ) ≈ Σ_r u_r ⊗ w_r, by the SVD that weighs entries as scores do.

    A score multiplies entry (j, k) with g_q g_m a_q a_m, of standard deviation E g_j² · E a_k²: the residual is the
    expected relative error of independent scores. Stops at `most` terms.
    """
    inverse = block.inverse.double()
    if block.spread is None:
        row, column = inverse.new_ones(len(inverse)), inverse.new_ones(inverse.shape[1])
    else:
        row, column = (x.double().clamp_min(1e-30 + 1e-12 * float(x.max())) for x in block.spread)
    weighted = row[:, None] * inverse * column
    is_wide = weighted.shape[0] <= weighted.shape[1]
    gram = weighted @ weighted.T if is_wide else weighted.T @ weighted
    energy, vectors = torch.linalg.eigh(gram)
    tail = (energy.clamp_min(0).cumsum(0) / energy.sum()).sqrt().flip(0)  # tail[r]: what r terms leave
    enough = (tail[1:] <= tolerance).nonzero()
    r = min(most, int(enough[0]) + 1 if len(enough) else len(energy))
    top = vectors.flip(1)[:, :r]
    if is_wide:
        u, w = top.T / row, (top.T @ weighted) / column
    else:
        u, w = (weighted @ top).T / row, top.T / column
    return u.to(block.values), w.to(block.values), float(tail[r]) if r < len(tail) else 0.0


def low_rank(p: Float[Tensor, "q o i"], k: int) -> LowRank:
    """The best approximation of rank k of each matrix, by the eigenvectors of its smaller Gram matrix."""
    if k >= min(p.shape[1:]):
        is_wide = p.shape[1] <= p.shape[2]
        eye = torch.eye(min(p.shape[1:]), dtype=p.dtype, device=p.device).expand(len(p), -1, -1)
        return LowRank(eye, p) if is_wide else LowRank(p, eye)
    if p.shape[1] <= p.shape[2]:
        left = torch.linalg.eigh(p @ p.mT)[1][..., -k:]
        return LowRank(left, left.mT @ p)
    right = torch.linalg.eigh(p.mT @ p)[1][..., -k:]
    return LowRank(p @ right, right.mT)


def asked(block: Block, pairs: Sequence[Pair], dtype: torch.dtype, *, rank: int = 0, examples: int = 1) -> Asked:
    """The cheapest form of these queries for a stream of so many examples."""
    if rank:
        parts = [low_rank(block.solved(pair.gradients()), rank) for pair in pairs]
        left, right = (torch.cat([getattr(part, side) for part in parts]).to(dtype) for side in ("left", "right"))
        return LowRank(left, right)
    o, i = block.values.shape
    if is_single(block, pairs) and o * i // (2 * (o + i)):
        u, w, residual = decomposed(block, EXACT, o * i // (2 * (o + i)))
        if residual <= EXACT:
            return terms(block, pairs, dtype, u, w, residual)
    return whole(block, pairs, dtype, examples)


def is_single(block: Block, pairs: Sequence[Pair]) -> bool:
    """Whether gradients are outer products: one position per example on both sides."""
    return block.positions == 1 and all(p.sizes[1] == 1 and not isinstance(p, Table) for p in pairs)


def terms(block: Block, pairs: Sequence[Pair], dtype: torch.dtype, u: Tensor, w: Tensor, residual: float) -> Terms:
    """The queries with the factors of the inverse folded in."""
    turned = [block.turned(pair) for pair in pairs]
    g, a = torch.cat([p.g[:, 0] for p in turned]), torch.cat([p.a[:, 0] for p in turned])
    return Terms(block, (u[:, None] * g).to(dtype), (w[:, None] * a).to(dtype), residual)


def whole(block: Block, pairs: Sequence[Pair], dtype: torch.dtype, examples: int) -> Whole:
    """P_q by rows, turned back into the layer's coordinates where that is cheaper than turning every example."""
    o, i = block.values.shape
    n = sum(map(len, pairs))
    stays = examples * block.positions * (o * o + i * i) < n * o * i * (o + i)
    if block.left is None and block.right is None:
        stays = False
    blocks, at = Blocked((n, o, i), block.values, dtype), 0
    for pair in pairs:
        for part in pair.parts():
            p = block.turned(part).gradients() * block.inverse
            blocks.put(at, p if stays else block.back(p))
            at += len(part)
    return Whole(blocks, block if stays else None)
