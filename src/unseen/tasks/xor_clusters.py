"""XOR cluster data with flipped training labels (Xu, Wang, Frei, Vardi & Hu, 2024,
arXiv:2310.02541).
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from math import erfc, sqrt

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unseen.engine.batches import Columns
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.objectives import binary
from unseen.task import Axis, Split, Task, Use

CLEAN = (1, 1, 0, 0)
"""Clean label of the clusters +μ₁, −μ₁, +μ₂, −μ₂: no linear function separates them."""


@dataclass(frozen=True)
class XorClusters:
    """x = centre + N(0, I) with the centre uniform over ±μ₁ (label 1) and ±μ₂ (label 0), μ₁ ⊥ μ₂,
    ‖μ‖² = `mean_norm2`.

    Training labels are flipped with probability `noise`; evaluated labels are clean. Columns: `x`,
    `y` (0 or 1), `flipped`, `cluster` (index into +μ₁, −μ₁, +μ₂, −μ₂). The split `centres` holds
    the four noiseless centres. By default the means lie on the first two axes: isotropic noise and
    initialisation make every rotation equivalent.
    """

    n: int = 400
    dim: int = 40_000
    mean_norm2: float = 800.0
    noise: float = 0.1
    n_evaluate: int = 1_000
    means: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """Own μ₁ and μ₂ (orthogonal, of norm² `mean_norm2`, in `dim` dimensions)."""

    def __post_init__(self) -> None:
        if (
            self.dim < 2
            or self.n < 1
            or self.n_evaluate < 1
            or not self.mean_norm2 > 0
            or not 0 <= self.noise < 0.5
        ):
            raise InvalidConfig(
                f"XorClusters(n={self.n}, dim={self.dim}, mean_norm2={self.mean_norm2}, "
                f"noise={self.noise}, "
                f"n_evaluate={self.n_evaluate}) is out of range.",
                why="two orthogonal means need two dimensions, and labels flipped half the time "
                "carry no signal.",
                fix="use n ≥ 1, dim ≥ 2, mean_norm2 > 0, 0 ≤ noise < 0.5.",
            )
        if self.means is not None:
            _refuse_oblique_means(self.means, self.dim, self.mean_norm2)
        if self.dim < self.n:
            warnings.warn(
                f"XorClusters has dim={self.dim} < n={self.n}: the samples are not nearly "
                "orthogonal, so one step of "
                "gradient descent is not expected to fit flipped labels.",
                stacklevel=3,
            )

    @property
    def signal(self) -> float:
        """n‖μ‖⁴/p, the exponent (up to a constant) of the paper's bound on the test error."""
        return self.n * self.mean_norm2**2 / self.dim

    def build(self, lab: Lab) -> Task:
        centres = cluster_means(self.dim, self.mean_norm2, self.means)

        def split(name: str, n: int, noise: float, use: Use) -> Split:
            return Split(_sample(centres, n, noise, lab.child(name).numpy()), use)

        noiseless = Columns(
            x=centres,
            y=torch.tensor(CLEAN),
            flipped=torch.zeros(4, dtype=torch.bool),
            cluster=torch.arange(4),
        )
        return Task(
            name="xor_clusters",
            axis=Axis.IID,
            objective=binary,
            splits={
                "train": split("train", self.n, self.noise, Use.TRAIN),
                "test": split("test", self.n_evaluate, 0.0, Use.EVALUATE),
                "centres": Split(noiseless, Use.EVALUATE, at="centre"),
            },
        )


def cluster_means(
    dim: int, mean_norm2: float, means: Sequence[Sequence[float]] | None = None
) -> Float[Tensor, "4 dim"]:
    """+μ₁, −μ₁, +μ₂, −μ₂ as rows."""
    if means is None:
        first, second = sqrt(mean_norm2) * torch.eye(2, dim)
    else:
        first, second = torch.tensor(means, dtype=torch.float32)
    return torch.stack([first, -first, second, -second])


def bayes_error(mean_norm2: float) -> float:
    """Smallest possible clean error: 2q(1 − q) with q = Φ(−‖μ‖/√2).

    The best rule compares |⟨x, μ₁⟩| with |⟨x, μ₂⟩|. With u, v the two projections in units of ‖μ‖,
    |u| > |v| where (u + v)(u − v) > 0, and (u ± v)/√2 are independent N(‖μ‖/√2, 1).
    """
    q = erfc(sqrt(mean_norm2) / 2) / 2
    return 2 * q * (1 - q)


def _sample(
    centres: Float[Tensor, "4 dim"], n: int, noise: float, rng: np.random.Generator
) -> Columns:
    cluster = torch.from_numpy(rng.integers(4, size=n))
    flipped = torch.from_numpy(rng.random(n) < noise)
    x = torch.from_numpy(rng.standard_normal((n, centres.shape[1]), dtype=np.float32))
    x += centres[cluster]
    return Columns(
        x=x, y=torch.tensor(CLEAN)[cluster] ^ flipped.long(), flipped=flipped, cluster=cluster
    )


def _refuse_oblique_means(means: Sequence[Sequence[float]], dim: int, mean_norm2: float) -> None:
    if len(means) != 2 or any(len(mean) != dim for mean in means):
        raise InvalidData(
            f"XorClusters got {len(means)} means of lengths {[len(mean) for mean in means]}.",
            why=f"it needs two means in dim={dim} dimensions.",
            fix="give means=(μ₁, μ₂) with `dim` numbers each.",
        )
    first, second = np.asarray(means, dtype=np.float64)
    product, norms2 = float(first @ second), (float(first @ first), float(second @ second))
    # 1e-6: means read from float32 tensors are orthogonal to about 1e-7 only
    if not abs(product) <= 1e-6 * mean_norm2 or not np.allclose(
        norms2, mean_norm2, rtol=1e-6, atol=0
    ):
        raise InvalidData(
            f"XorClusters got means with ⟨μ₁, μ₂⟩ = {product:.4g} and norms² {norms2[0]:.4g}, "
            f"{norms2[1]:.4g}.",
            why=f"the XOR problem needs orthogonal means of equal norm² mean_norm2={mean_norm2:g}.",
            fix="orthogonalise and rescale them, for example with numpy.linalg.qr.",
        )


def example() -> XorClusters:
    """One cell of the smoke study, smaller."""
    return XorClusters(n=60, dim=600, mean_norm2=60.0, n_evaluate=100)
