"""Curvature of layers in their eigenbases: (G + λ)⁻¹ V = Q_S [(Q_Sᵀ V Q_A) / (Λ + λ)] Q_Aᵀ.

K-FAC: Martens & Grosse, 2015, arXiv:1503.05671. Eigenvalue correction (EK-FAC): George et al.,
2018, arXiv:1806.03884; as used for influence: Grosse et al., 2023, arXiv:2308.03296, section 3.2.
With V_b the pseudo-gradient of example b:

    A = mean over positions of a aᵀ,  S = mean over positions of g gᵀ,  Λ = mean over examples of
    (Q_Sᵀ V_b Q_A)²
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from unseen.engine.factor_pairs import EmbeddingPair, FactorPair, SumSoFar
from unseen.errors import CorruptFile, InvalidData

log = logging.getLogger("unseen.kron")
FULL = 1024
"""A layer that is no map (a norm's gain) gets its dense Fisher matrix up to so many parameters, its
diagonal beyond.
"""


@dataclass(frozen=True, eq=False)
class KroneckerBlock:
    """The damped curvature of one layer: eigenvectors of both sides (None: the coordinates
    themselves) and eigenvalues.
    """

    left: Float[Tensor, "o o"] | None
    right: Float[Tensor, "i i"] | None
    values: Float[Tensor, "o i"]
    spread: tuple[Float[Tensor, " o"], Float[Tensor, " i"]] | None = None
    """Mean squares of g and a in the eigenbasis, where the curvature is a corrected Kronecker
    product.
    """
    positions: float = 1.0
    """Mean positions per example."""
    damping: float = 0.0

    @property
    def inverse(self) -> Float[Tensor, "o i"]:
        """1 / (Λ + λ)."""
        return 1 / (self.values + self.damping)

    def sum_over(self, over: Callable[[Tensor], Tensor]) -> "KroneckerBlock":
        """With the tensors of all processes added up."""
        left, right = (x if x is None else over(x) for x in (self.left, self.right))
        spread = None if self.spread is None else (over(self.spread[0]), over(self.spread[1]))
        return replace(self, left=left, right=right, values=over(self.values), spread=spread)

    def rotate_pair(self, pair: FactorPair) -> FactorPair:
        """The pair in the eigenbasis."""
        return pair.times(self.left, self.right)

    def solve(self, v: Float[Tensor, "q o i"]) -> Float[Tensor, "q o i"]:
        """(G + λ)⁻¹ V, for V in the coordinates of the parameter."""
        return self.from_basis(self.to_basis(v) * self.inverse)

    def to_basis(self, v: Float[Tensor, "q o i"]) -> Float[Tensor, "q o i"]:
        """Q_Sᵀ V Q_A."""
        v = v if self.left is None else self.left.T @ v
        return v if self.right is None else v @ self.right

    def from_basis(self, v: Float[Tensor, "q o i"]) -> Float[Tensor, "q o i"]:
        """Q_S V Q_Aᵀ."""
        v = v if self.left is None else self.left @ v
        return v if self.right is None else v @ self.right.T

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The block as named tensors, for a file."""
        row, column = self.spread or (None, None)
        parts = {
            "left": self.left,
            "right": self.right,
            "values": self.values,
            "row": row,
            "column": column,
        }
        # a file holds tensors only: what is absent is left out, and numbers travel as a tensor
        made = {f"{name}/{part}": tensor for part, tensor in parts.items() if tensor is not None}
        return made | {
            f"{name}/scalars": torch.tensor([self.positions, self.damping], dtype=torch.float64)
        }


def blocks_of(tensors: Mapping[str, Tensor]) -> dict[str, KroneckerBlock]:
    """The blocks that `Block.tensors` wrote."""
    names = list(dict.fromkeys(key.rpartition("/")[0] for key in tensors))

    def block(name: str) -> KroneckerBlock:
        row, column = tensors.get(f"{name}/row"), tensors.get(f"{name}/column")
        spread = None if row is None or column is None else (row, column)
        positions, damping = tensors[f"{name}/scalars"].tolist()
        left, right = tensors.get(f"{name}/left"), tensors.get(f"{name}/right")
        return KroneckerBlock(left, right, tensors[f"{name}/values"], spread, positions, damping)

    try:
        return {name: block(name) for name in names}
    except (KeyError, ValueError) as error:
        raise CorruptFile(
            f"The factors are not whole ({error}).",
            "the file was not written by Unseen.",
            "fit the factors again.",
        ) from error


@dataclass(eq=False)
class Covariances:
    """Running sums over a stream of pseudo-gradients, for one layer."""

    right: Tensor | None = None
    left: Tensor | None = None
    counts: Tensor | None = None
    """Of a table: how often each row was read, its covariance of one-hot inputs."""
    positions: float = 0.0
    examples: float = 0.0

    def add(self, pair: FactorPair, real: Tensor | None, share: float = 1.0) -> None:
        """One more batch; `real` marks the positions that are no padding.

        `share` is the part of an example that the batch stands for: 1/C where all C classes are
        visited, each with its gradient already weighted by √p.
        """
        # a layer with other positions than the tokens (one per example, shared) has no padding
        real = real if real is not None and real.shape == pair.a.shape[:2] else None
        count = pair.a.shape[:2].numel() if real is None else int(real.sum())
        right, left = pair.covariances(real, self._so_far(pair, count, share))
        self.right = _plus(self.right, right * share)
        # no share here: weighting by √p has already scaled the outer product of g
        self.left = _plus(self.left, left)
        if isinstance(pair, EmbeddingPair):
            read = pair.g.flatten() if real is None else pair.g[real]
            self.counts = _plus(
                self.counts, torch.bincount(read, minlength=pair.v).to(right.dtype) * share
            )
        self.positions += share * count
        self.examples += share * len(pair)

    def _so_far(
        self, pair: FactorPair, positions: int, share: float
    ) -> tuple[SumSoFar, SumSoFar] | None:
        """Both sums for a pair in half precision of so many positions."""
        if not self.positions or pair.a.dtype not in (torch.bfloat16, torch.float16):
            return None
        batches = self.positions / max(1, positions)
        return SumSoFar(self.right, batches), SumSoFar(self.left, batches / share)

    def sum_over(self, over: Callable[[Tensor], Tensor]) -> "Covariances":
        """Over all processes."""
        right, left, counts = (
            tensor if tensor is None else over(tensor)
            for tensor in (self.right, self.left, self.counts)
        )
        assert self.right is not None
        count = over(self.right.new_tensor([self.positions, self.examples], dtype=torch.float64))
        positions, examples = count.tolist()
        return Covariances(right, left, counts, positions, examples)

    def basis(self, layer: str) -> KroneckerBlock:
        """Eigenvectors, and the eigenvalues of K-FAC: mean positions per example times those of S ⊗
        A.
        """
        assert self.right is not None
        n = max(1.0, self.positions)
        a, right = _eigen(self.right / n, layer)
        if self.left is not None:
            s, left = _eigen(self.left / n, layer)
        else:
            assert self.counts is not None
            # inputs of a table are one-hot: their covariance is diagonal, and no rotation is needed
            s, left = self.counts / n, None
        each = self.positions / max(1.0, self.examples)
        return KroneckerBlock(left, right, torch.outer(s, a) * each, (s, a), each)

    def zero_basis(self, layer: str) -> KroneckerBlock:
        """The shapes of `basis`, which another process finds; it raises what `basis` would."""
        assert self.right is not None
        outer = self.left if self.left is not None else self.counts
        assert outer is not None
        if not (torch.isfinite(self.right).all() and torch.isfinite(outer).all()):
            raise _not_finite(layer)
        a, s = self.right.new_zeros(len(self.right)), self.right.new_zeros(len(outer))
        left = None if self.left is None else torch.zeros_like(self.left)
        each = self.positions / max(1.0, self.examples)
        return KroneckerBlock(left, torch.zeros_like(self.right), torch.outer(s, a), (s, a), each)


def damp(block: KroneckerBlock, values: Tensor, damping: float, layer: str) -> KroneckerBlock:
    """The block with these eigenvalues and λ = `damping` times their mean."""
    if not torch.isfinite(values).all():
        raise _not_finite(layer)
    mean = float(values.double().mean())
    if mean <= 0:
        raise InvalidData(
            f"Layer `{layer}` has no curvature: every pseudo-gradient is zero.",
            why="the influence of an example through it would be 0/0.",
            fix="leave it out with layers=(…), or use a model whose loss depends on it.",
        )
    if damping == 0 and bool((values <= 0).any()):
        raise InvalidData(
            f"Layer `{layer}` has a singular curvature and damping is 0.",
            why="its inverse does not exist.",
            fix="set damping > 0, for example 0.1.",
        )
    return replace(block, values=values, damping=damping * mean)


def _plus(total: Tensor | None, part: Tensor | None) -> Tensor | None:
    if part is None:
        return total
    # a running sum in half precision stops growing after about a thousand terms
    part = part.float() if part.dtype in (torch.bfloat16, torch.float16) else part
    return part.clone() if total is None else total.add_(part)


def _eigen(
    matrix: Float[Tensor, "d d"], layer: str
) -> tuple[Float[Tensor, " d"], Float[Tensor, "d d"]]:
    """Eigenvalues (not below zero) and eigenvectors of a covariance, in its dtype."""
    if not torch.isfinite(matrix).all():
        raise _not_finite(layer)
    # float64: in float32 the small directions, which damping keeps relevant, are noise
    # symmetrised, because sums over processes round differently on both sides of the diagonal
    values, vectors = torch.linalg.eigh((matrix.double() + matrix.double().T) / 2)
    below = int((values < -1e-9 * values.abs().max()).sum())
    if below:
        log.info("%s: %d negative eigenvalues of a covariance set to 0 (rounding)", layer, below)
    return values.clamp_min(0).to(matrix.dtype), vectors.to(matrix.dtype)


def _not_finite(layer: str) -> InvalidData:
    return InvalidData(
        f"The curvature of layer `{layer}` is not finite.",
        why="an activation or gradient overflows or is NaN.",
        fix="check the inputs for extreme values and the weights for NaN, or use float64.",
    )
