"""Slab data: features of any simplicity that all predict the label (Shah et al., 2020,
arXiv:2006.07710).

A linear coordinate needs one threshold, a k-slab coordinate k − 1. LMS-k is one linear and
otherwise k-slab coordinates, MS-(5,7) one 5-slab and otherwise 7-slab coordinates: `lms(5)`,
`ms57()`.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unseen.engine.batches import Columns
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.objectives import classify
from unseen.task import Axis, Split, Task, Use

RINGS: dict[int, dict[int, tuple[float, ...]]] = {
    3: {0: (1.0, 0.0), 1: (0.0, 1.0)},
    5: {0: (0.75, 0.0, 0.25), 1: (0.0, 1.0, 0.0)},
    7: {0: (0.5, 0.0, 0.5, 0.0), 1: (0.0, 0.875, 0.0, 0.125)},
}
"""P(ring | class) of k-slab data, as in the authors' code (harshays/simplicitybiaspitfalls)."""


@dataclass(frozen=True)
class Slabs:
    """Coordinate j has `blocks[j]` slabs (1: linear); given the class they are independent. x ← x
    R, R a random rotation.

    Splits: `train`, `select`, `test` (EVALUATE), and the test rows twice more: `simple randomised`
    with the coordinates of the fewest slabs exchanged between rows (one permutation for all of
    them), `complex randomised` with all others exchanged. A model at chance on the first and
    unharmed on the second uses the simplest feature only. Columns also: `noisy`, whether the
    simplest coordinates carry no label in this row.
    """

    blocks: tuple[int, ...] = (1, *[5] * 19)
    margin: float = 0.1
    """Half the gap between classes; the range is [−1, 1]."""
    noise: float = 0.0
    """Probability that the linear coordinates are drawn from [−margin, margin] whatever the
    class.
    """
    rotate: bool = True
    n: int = 20_000
    n_select: int = 2_000
    n_test: int = 5_000

    def __post_init__(self) -> None:
        known = {1, *RINGS}
        if (
            not self.blocks
            or not set(self.blocks) <= known
            or min(self.n, self.n_select, self.n_test) < 1
        ):
            raise InvalidConfig(
                f"Slabs(blocks={self.blocks}, n={self.n}, n_select={self.n_select}, "
                f"n_test={self.n_test}) is out of range.",
                why=f"a coordinate has {', '.join(map(str, sorted(known)))} slabs, and every split "
                "has examples.",
                fix="for example blocks=(1, 5, 5) with n ≥ 1.",
            )
        if self.noise and 1 not in self.blocks:
            raise InvalidConfig(
                f"Slabs(noise={self.noise}, blocks={self.blocks}) has no linear coordinate.",
                why="only linear coordinates are made noisy.",
                fix="set noise=0, or add a block of 1.",
            )
        if (
            not 0 <= self.noise <= 1
            or not self.margin > 0
            or width(max(self.blocks), self.margin) <= 0
        ):
            raise InvalidConfig(
                f"Slabs(margin={self.margin}, noise={self.noise}) is out of range for "
                f"{max(self.blocks)} slabs.",
                why="the noise is a probability, and k slabs with gaps of 2 margins must fit into "
                "[−1, 1].",
                fix="use 0 < margin < 1 / (k − 1) and 0 ≤ noise ≤ 1.",
            )

    @property
    def simple(self) -> tuple[int, ...]:
        """The coordinates with the fewest slabs, before rotation."""
        return tuple(j for j, k in enumerate(self.blocks) if k == min(self.blocks))

    def rotation(self, lab: Lab) -> Float[Tensor, "d d"]:
        """The R of the task that is built in this lab: x Rᵀ has the coordinates of `blocks`."""
        d = len(self.blocks)
        if not self.rotate:
            return torch.eye(d)
        normal = torch.randn(d, d, generator=lab.child("rotation").generator(), dtype=torch.float64)
        q, r = torch.linalg.qr(normal)
        return (q * r.diagonal().sign()).float()  # the sign makes it uniform over all rotations

    def build(self, lab: Lab) -> Task:
        turn = self.rotation(lab)
        drawn = {
            name: self._sample(n, lab.child(name))
            for name, n in (("train", self.n), ("select", self.n_select), ("test", self.n_test))
        }
        test = drawn["test"]
        mixed = torch.randperm(self.n_test, generator=lab.child("exchange").generator())
        simple = torch.zeros(len(self.blocks), dtype=torch.bool)
        simple[list(self.simple)] = True
        exchanged = {"simple randomised": simple, "complex randomised": ~simple}

        def split(columns: Columns, use: Use, at: str | None = None) -> Split:
            return Split(Columns(**{**columns.columns, "x": columns.columns["x"] @ turn}), use, at)

        splits = {
            "train": split(drawn["train"], Use.TRAIN),
            "select": split(drawn["select"], Use.SELECT),
            "test": split(test, Use.EVALUATE),
        }
        for name, which in exchanged.items():
            x = torch.where(which, test.columns["x"][mixed], test.columns["x"])
            splits[name] = split(Columns(**{**test.columns, "x": x}), Use.EVALUATE, name)
        return Task(name=f"slabs {self.title}", axis=Axis.DOMAIN, splits=splits, objective=classify)

    @property
    def title(self) -> str:
        """Slabs × coordinates: "1×1, 5×19"."""
        return ", ".join(f"{k}×{self.blocks.count(k)}" for k in sorted(set(self.blocks)))

    def _sample(self, n: int, lab: Lab) -> Columns:
        generator = lab.generator()
        y = torch.randint(2, (n,), generator=generator)
        noisy = torch.rand(n, generator=generator) < self.noise
        coordinates = [coordinate(k, y, self.margin, noisy, generator) for k in self.blocks]
        return Columns(x=torch.stack(coordinates, 1), y=y, index=torch.arange(n), noisy=noisy)


def width(k: int, margin: float) -> float:
    """Of each of k slabs between −1 and 1 with gaps of 2 margins: (2 − 2 (k − 1) margin) / k."""
    return (2 - 2 * (k - 1) * margin) / k


def coordinate(
    k: int,
    y: Int[Tensor, " n"],
    margin: float,
    noisy: Bool[Tensor, " n"],
    generator: torch.Generator,
) -> Float[Tensor, " n"]:
    """k = 1: ±(margin + (1 − margin) U), sign of the class, or margin · (2 U − 1) where noisy.

    k ≥ 3: ring r (0 is the centre slab) lies at ±[(r − ½) w + 2 r margin, (r + ½) w + 2 r margin]
    and has class r mod 2.
    """
    u = torch.rand(len(y), generator=generator)
    if k == 1:
        clean = (2 * y - 1) * (margin + (1 - margin) * u)
        return torch.where(noisy, margin * (2 * u - 1), clean)
    chances = torch.tensor([RINGS[k][0], RINGS[k][1]])[y]
    ring = torch.multinomial(chances, 1, generator=generator).squeeze(1)
    sign = 2.0 * torch.randint(2, (len(y),), generator=generator) - 1
    w = width(k, margin)
    return sign * ((ring - 0.5 + u) * w + 2 * ring * margin)


def lms(k: int, d: int = 20) -> Slabs:
    """One linear and d − 1 k-slab coordinates."""
    return Slabs(blocks=(1, *[k] * (d - 1)))


def ms57(d: int = 20) -> Slabs:
    """One 5-slab and d − 1 7-slab coordinates."""
    return Slabs(blocks=(5, *[7] * (d - 1)))


def example() -> Slabs:
    return replace(lms(5, d=5), n=600, n_select=100, n_test=300)
