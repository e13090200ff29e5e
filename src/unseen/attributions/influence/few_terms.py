"""Approximate scores by a sum of few Kronecker products, many times cheaper than exact ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unseen.attributions.influence.exact_products import TurnedFactors
from unseen.attributions.influence.kronecker_terms import leading_terms, scale_to_one
from unseen.engine.factor_pairs import FactorPair
from unseen.engine.kron import KroneckerBlock

TILE = 1 << 8
"""Examples whose tables of inner products stay in the cache while the terms are summed."""
ROWS = 1 << 9
"""Rows of queries, of several terms where queries are few, that one product has."""


@dataclass(frozen=True, eq=False)
class FewTerms:
    """Σ_r ⟨Q_S (u_r ∘ g_q), g_m⟩ ⟨Q_A (w_r ∘ a_q), a_m⟩, in bfloat16: queries are turned back, so
    that no example has to be turned.
    """

    g: Float[Tensor, "r q o"]
    a: Float[Tensor, "r q i"]
    scale: Float[Tensor, " q"]
    stiffness: float
    """Mean of Λ + λ."""
    typical: float
    """Mean square of a gradient over that."""

    @classmethod
    def of(cls, block: KroneckerBlock, given: Sequence[FactorPair], terms: int) -> "FewTerms":
        u, w = leading_terms(block, terms)
        near = TurnedFactors.of(block, given)
        g, size_g = scale_to_one(u[:, None] * near.g, (0, 2))
        a, size_a = scale_to_one(w[:, None] * near.a, (0, 2))
        stiffness = float(block.values.double().mean()) + block.damping
        return cls(
            _back(g, block.left),
            _back(a, block.right),
            near.scale * size_g.flatten() * size_a.flatten(),
            stiffness,
            float(block.values.double().sum()) / stiffness,
        )

    def score(self, pair: FactorPair) -> tuple[Float[Tensor, "q b"], Float[Tensor, " b"]]:
        """⟨(G + λ)⁻¹ V_q, V_b⟩, approximately, and ‖V_b‖² over the mean of Λ + λ."""
        (far_a, size_a), (far_g, size_g) = (scale_to_one(x[:, 0], (1,)) for x in (pair.a, pair.g))
        far_a, far_g = far_a.bfloat16(), far_g.bfloat16()
        total = self.scale.new_empty(len(self.scale), len(far_a))
        # terms of few queries side by side: a product of few rows is slow
        step = max(1, ROWS // max(1, len(self.scale)))
        for at in range(0, len(far_a), TILE):
            a, g = far_a[at : at + TILE].T, far_g[at : at + TILE].T
            tile = total.new_zeros(len(total), a.shape[1])
            for near_g, near_a in zip(self.g.split(step), self.a.split(step), strict=True):
                # widened first: products of mixed types leave the fast path
                left = (near_g.flatten(0, 1) @ g).to(tile.dtype).view(-1, *tile.shape)
                right = (near_a.flatten(0, 1) @ a).to(tile.dtype).view(-1, *tile.shape)
                for both in zip(left, right, strict=True):
                    tile.addcmul_(*both)
            total[:, at : at + TILE] = tile
        norms = [torch.linalg.vector_norm(x, dim=1, dtype=total.dtype) for x in (far_a, far_g)]
        sizes = size_a[:, 0].double() * size_g[:, 0].double()
        squares = (norms[0] * norms[1] * sizes).square() / self.stiffness
        return total.mul_(self.scale[:, None]).mul_(sizes.to(total)), squares


def _back(x: Float[Tensor, "r q d"], by: Float[Tensor, "d d"] | None) -> Float[Tensor, "r q d"]:
    x = x.bfloat16()
    # contiguous: products with rows of another layout take a path ten times slower
    return x.contiguous() if by is None else (x.flatten(0, 1) @ by.T.bfloat16()).view_as(x)
