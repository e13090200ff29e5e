"""1/(Λ + λ) as a sum of Kronecker products Σ_r u_r ⊗ w_r: of as many terms as it takes, or of the
leading ones.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from unseen.engine.kron import KroneckerBlock

EVERYWHERE = 1e-5
"""Relative residual that the terms may leave at any entry that gradients reach: what is exact on
average need not be where one example far larger than the others rules the average.
"""
EXTRA = 8
"""Directions beyond the leading terms that the iteration for them carries along."""
ROUNDS = 3
"""Of that iteration: its terms need not be the best ones, only good."""


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
        # sums of squares, which one large example does not round away as it does a covariance's
        # small eigenvalues
        error = error[block.values > 1e-28 * block.values.max()]
    return bool((error <= EVERYWHERE).all())


def leading_terms(
    block: KroneckerBlock, r: int
) -> tuple[Float[Tensor, "r o"], Float[Tensor, "r i"]]:
    """u, w with 1/(Λ + λ) ≈ Σ_r u_r ⊗ w_r, as `kronecker_terms` has them but for the last digits:
    a few rounds of orthogonal iteration instead of all eigenvectors.
    """
    inverse, scale = scale_to_one(block.inverse.double(), (0, 1))
    if block.spread is None:
        row, column = inverse.new_ones(len(inverse)), inverse.new_ones(inverse.shape[1])
    else:
        row, column = (scale_to_one(x.double(), (0,))[0].clamp_min(1e-12) for x in block.spread)
    weighted = row[:, None] * inverse * column
    width = min(r + EXTRA, *weighted.shape)
    basis = weighted[:, weighted.square().sum(0).topk(width).indices]
    for _ in range(ROUNDS):
        basis = torch.linalg.qr(weighted @ (weighted.T @ torch.linalg.qr(basis)[0]))[0]
    left, sizes, right = torch.linalg.svd(basis.T @ weighted, full_matrices=False)
    u, w = (basis @ left[:, :r]).T * sizes[:r, None] / row * scale, right[:r] / column
    return u.to(block.values), w.to(block.values)


def scale_to_one(x: Tensor, over: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """x with a largest entry of 1 over these axes, and what it was divided by: bfloat16 ends where
    float32 does, and products of numbers near its ends do not.
    """
    size = x.abs().amax(over, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    return x / size, size
