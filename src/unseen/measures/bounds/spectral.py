"""Largest singular values: of a matrix, from an earlier vector, and of a circular convolution.

A circular convolution is diagonal in the Fourier basis: its singular values are those of the
matrices [out, in] of the kernel's discrete Fourier transform at each frequency (Sedghi, Gupta &
Long, 2019, arXiv:1805.10408). With zero padding the map is another one: a little on maps of 8 × 8
positions, by factors on a single one, and its norm may lie above the circular one or below.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import pi, sqrt

import torch
from jaxtyping import Float
from torch import Tensor

from unseen.errors import InvalidData

DENSE = 256
"""Up to this many rows or columns every singular value is computed."""
CHUNK = 1 << 20
"""Complex numbers in memory at a time."""


@dataclass(frozen=True)
class TopSingular:
    """‖W‖₂ with its right singular vector, from which the norm of a similar matrix is quickly
    found.
    """

    value: float
    vector: Float[Tensor, " columns"]
    products: int
    """Products with WᵀW that it took."""


def top_singular(
    matrix: Float[Tensor, "rows columns"],
    vector: Float[Tensor, " columns"] | None = None,
    *,
    tolerance: float = 1e-7,
    most: int = 300,
) -> TopSingular:
    """‖W‖₂ by Lanczos' method on WᵀW, begun at `vector` or at a fixed random one.

    Stops when a singular value squared lies within `tolerance` of it (relative); the error is about
    the square of that, in units of the gap to the next one. Where `most` products do not suffice
    the singular values are computed directly.
    """
    columns = matrix.shape[1]
    if vector is None:
        generator = torch.Generator().manual_seed(columns)
        vector = torch.randn(columns, generator=generator, dtype=matrix.dtype)
    basis = [vector / vector.norm()]
    alpha: list[float] = []
    beta: list[float] = []
    while True:
        w = matrix.T @ (matrix @ basis[-1])
        alpha.append(float(w @ basis[-1]))
        stacked = torch.stack(basis)
        for _ in range(2):  # twice is enough (Parlett, 1980)
            w = w - stacked.T @ (stacked @ w)
        beta.append(float(w.norm()))
        last = len(basis) in (columns, most)
        if len(basis) % 4 and not last and beta[-1] > 0:  # an eigenproblem costs a few products
            basis.append(w / beta[-1])
            continue
        diagonal, side = torch.tensor(alpha), torch.tensor(beta[:-1])
        tridiagonal = torch.diag(diagonal.double()) + torch.diag(side.double(), 1)
        values, rotations = torch.linalg.eigh(tridiagonal, UPLO="U")
        value = max(float(values[-1]), 0.0)
        residual = beta[-1] * abs(float(rotations[-1, -1]))
        if residual <= tolerance * value or len(basis) == columns:
            top = rotations[:, -1].to(matrix) @ stacked
            return TopSingular(sqrt(value), top, len(basis))
        if len(basis) == most:
            _, exact, right = torch.linalg.svd(matrix, full_matrices=False)
            return TopSingular(float(exact[0]), right[0], most)
        basis.append(w / beta[-1])


def spectral_norm(
    matrix: Float[Tensor, "rows columns"], vector: Float[Tensor, " columns"] | None = None
) -> TopSingular:
    """‖W‖₂: all singular values of a small matrix, Lanczos' method for a large one or from an
    earlier vector.
    """
    if not torch.isfinite(matrix).all():
        raise InvalidData(
            "A weight is NaN or infinite.",
            why="its matrix has no norm.",
            fix="lower the learning rate, or look at the checkpoint.",
        )
    if vector is None and min(matrix.shape) <= DENSE:
        _, values, right = torch.linalg.svd(matrix, full_matrices=False)
        return TopSingular(float(values[0]), right[0], 0)
    return top_singular(matrix, vector)


def convolution_norm(
    kernel: Float[Tensor, "out in *kernel"],
    sizes: Sequence[int],
    *,
    stride: Sequence[int] = (),
    dilation: Sequence[int] = (),
    groups: int = 1,
) -> float:
    """‖·‖₂ of the circular convolution with a kernel on inputs of these spatial sizes.

    A stride s cannot tell s frequencies apart: they share one matrix, divided by √s. Sizes are
    rounded up to multiples of the stride.
    """
    taps = kernel.detach().double().cpu().flatten(2)
    phases = _phases(kernel.shape[2:], sizes, stride or [1] * len(sizes), dilation)
    flat = taps.flatten(0, 1)
    gram = (flat.T @ flat).to(phases.dtype)
    # ‖A‖₂ ≤ ‖A‖_F: a frequency whose Frobenius norm is below a norm that was found needs no look
    bounds = ((phases @ gram) * phases.conj()).real.sum((1, 2)).clamp_min(0).sqrt()
    order, largest = bounds.argsort(descending=True), 0.0
    for chunk in order.split(max(1, CHUNK // (flat.shape[0] * phases.shape[1]))):
        if float(bounds[chunk[0]]) <= largest:
            break
        block = torch.einsum("oit,fat->foia", taps.to(phases.dtype), phases[chunk])
        blocks = block.reshape(-1, kernel.shape[0] // groups, kernel.shape[1] * phases.shape[1])
        largest = max(largest, _largest_singular_value(blocks))
    return largest / sqrt(phases.shape[1])


def _phases(
    shape: Sequence[int], sizes: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Tensor:
    """exp(−2πi ⟨k, t⟩/size) as [coarse frequency, alias, position t in the kernel]; of a frequency
    and its negative, which a real kernel maps to conjugates, one.
    """
    coarse = [-(-size // step) for size, step in zip(sizes, stride, strict=True)]
    half = [*coarse[:-1], coarse[-1] // 2 + 1]
    offsets = _grid(shape) * torch.tensor(list(dilation) or [1] * len(shape))
    periods = torch.tensor(coarse)
    frequencies = _grid(half)[:, None] + (_grid(stride) * periods)[None]
    turns = frequencies.double() / (periods * torch.tensor(list(stride)))
    angles = -2 * pi * (turns @ offsets.double().T)
    return torch.polar(torch.ones_like(angles), angles)


def _grid(sizes: Sequence[int]) -> Tensor:
    """All index tuples of an array of these sizes, as rows."""
    return torch.cartesian_prod(*(torch.arange(size) for size in sizes)).reshape(-1, len(sizes))


def _largest_singular_value(matrices: Tensor) -> float:
    """The largest singular value of any of these complex matrices."""
    wide = matrices.shape[1] <= matrices.shape[2]
    gram = matrices @ matrices.mH if wide else matrices.mH @ matrices
    return sqrt(max(0.0, float(torch.linalg.eigvalsh(gram)[:, -1].max())))
