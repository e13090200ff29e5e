"""Influence by its definition: dense curvature matrices of flattened gradients. Imports nothing
from unseen.engine.
"""

import torch
from torch import Tensor


def scores(queries: Tensor, examples: Tensor, curvature: Tensor, damping: float) -> Tensor:
    """−(1/N) Qᵀ (G + λ)⁻¹ L with λ = damping · mean eigenvalue of G; rows are gradients."""
    mean = float(curvature.diagonal().mean())
    inverse = torch.linalg.inv(
        curvature + damping * mean * torch.eye(len(curvature), dtype=curvature.dtype)
    )
    return -queries @ inverse @ examples.T / len(examples)


def ekfac(a: Tensor, g: Tensor) -> Tensor:
    """The EK-FAC matrix `[o·i, o·i]` of one layer from positions `a [n s i]` and `g [n s o]`."""
    n, s = a.shape[:2]
    basis = torch.kron(
        torch.linalg.eigh(torch.einsum("nso,nsp->op", g, g) / (n * s))[1],
        torch.linalg.eigh(torch.einsum("nsi,nsj->ij", a, a) / (n * s))[1],
    )
    rows = torch.einsum("nso,nsi->noi", g, a).flatten(1)
    return basis @ torch.diag((rows @ basis).square().mean(0)) @ basis.T


def kfac(a: Tensor, g: Tensor) -> Tensor:
    """s · S ⊗ A, the K-FAC matrix of one layer."""
    n, s = a.shape[:2]
    return (
        s
        * torch.kron(torch.einsum("nso,nsp->op", g, g), torch.einsum("nsi,nsj->ij", a, a))
        / (n * s) ** 2
    )
