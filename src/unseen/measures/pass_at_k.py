"""How often one of k samples is right, from n ≥ k samples of each problem."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from unseen import stats
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.reading import Reading


@dataclass(frozen=True)
class PassAtK:
    """Mean over problems of 1 − C(n − c, k) / C(n, k): the unbiased estimate (Chen et al., 2021,
    arXiv:2107.03374) from n samples of which c are right. Problems are the unit of the interval.

    The subject says which samples are right, [problem, sample].
    """

    k: int = 1

    def __post_init__(self) -> None:
        if self.k < 1:
            raise InvalidConfig(
                f"PassAtK(k={self.k}).", why="one of k samples counts.", fix="use k ≥ 1."
            )

    def __call__(self, subject: Bool[Tensor, "problem sample"], lab: Lab) -> Reading:
        problems, n = subject.shape
        if not problems or self.k > n:
            raise InvalidConfig(
                f"pass@{self.k} of {n} samples of {problems} problems.",
                why="k samples are chosen among n.",
                fix="draw at least k samples of at least one problem, better 2 k.",
            )
        values = _chances(subject.sum(1).numpy(), n, self.k)
        if problems == 1:
            return Reading(float(values[0]), n=1, unit="fraction", detail=torch.from_numpy(values))
        found = stats.of_scores(values)
        return Reading(
            found.value,
            max(0.0, found.low),
            min(1.0, found.high),
            problems,
            "fraction",
            torch.from_numpy(values),
            found.freedom,
        )


def _chances(right: np.ndarray, n: int, k: int) -> np.ndarray:
    """1 − Π_{i<k} (n − c − i) / (n − i)."""
    steps = np.arange(k)
    factors = np.clip(n - right[:, None] - steps, 0, None) / (n - steps)
    return np.asarray(1 - factors.prod(1), dtype=np.float64)


def example() -> tuple[PassAtK, Tensor]:
    """Forty problems with five samples each."""
    generator = Lab().generator()
    return PassAtK(3), torch.rand(40, 5, generator=generator) < torch.rand(
        40, 1, generator=generator
    )
