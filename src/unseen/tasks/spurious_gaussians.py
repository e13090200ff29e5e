"""Two linear cues: one that always holds, and a cleaner one that holds by chance of the place.

The two-cue world in which spurious correlation has closed forms (Sagawa et al., 2020,
arXiv:2005.04345, section 4).
"""

from dataclasses import dataclass
from math import erf, sqrt

import torch
from jaxtyping import Float
from torch import Tensor

from unseen.engine.batches import Columns
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.task import Task
from unseen.tasks.colored_digits import chance
from unseen.tasks.domains import Division, assemble_task, examples_of


@dataclass(frozen=True)
class LinearCues:
    """x = [s_y · core + N(0, I), s_c · spurious + N(0, I), N(0, I)] with s = ±1 for label y and cue
    c; P(c = y) differs by place.

    `core` and `spurious` are the strengths of the first two coordinates, in standard deviations.
    Columns also: `cue` (0 or 1) and `group` = 2 y + cue.
    """

    held_out: str | None = None
    agreements: tuple[float, ...] = (0.95, 0.85, 0.1)
    """P(cue = y), one per domain."""
    core: float = 1.0
    spurious: float = 2.0
    noise_dims: int = 18
    """Coordinates that say nothing."""
    n: int = 600
    """Examples per domain."""
    division: Division = Division()

    def __post_init__(self) -> None:
        distinct = len(set(self.agreements)) == len(self.agreements)
        if (
            self.n < 1
            or self.noise_dims < 0
            or not distinct
            or not all(0 <= p <= 1 for p in self.agreements)
        ):
            raise InvalidConfig(
                f"LinearCues(agreements={self.agreements}, noise_dims={self.noise_dims}, "
                f"n={self.n}) is out of range.",
                why="agreements are probabilities, and each is one domain.",
                fix="name each agreement once, from 0 to 1; use n ≥ 1 and noise_dims ≥ 0.",
            )

    def domains(self) -> tuple[str, ...]:
        return tuple(f"{agreement:g}" for agreement in self.agreements)

    def build(self, lab: Lab) -> Task:
        parts = {}
        for k, (name, agreement) in enumerate(zip(self.domains(), self.agreements, strict=True)):
            y = chance(self.n, 0.5, lab.child("labels", name))
            cue = y ^ ~chance(self.n, agreement, lab.child("cues", name))
            x = torch.randn(
                self.n, 2 + self.noise_dims, generator=lab.child("noise", name).generator()
            )
            x[:, 0] += self.core * signs(y)
            x[:, 1] += self.spurious * signs(cue)
            columns = Columns(x=x, y=y.long(), cue=cue.long(), group=2 * y.long() + cue.long())
            parts[name] = examples_of(columns, k)
        return assemble_task("linear cues", parts, self.held_out, self.division, lab)

    def accuracy(self, weights: tuple[float, ...], agreement: float) -> float:
        """Of the rule ⟨w, x⟩ > 0: p Φ((w₀ core + w₁ spurious)/‖w‖) + (1 − p) Φ((w₀ core − w₁
        spurious)/‖w‖).
        """
        norm = sqrt(sum(w * w for w in weights))
        if not norm:
            raise InvalidConfig(
                "The rule has weights of zero.",
                why="it decides nothing.",
                fix="give a weight to a coordinate.",
            )
        own, other = weights[0] * self.core / norm, weights[1] * self.spurious / norm
        return agreement * _normal(own + other) + (1 - agreement) * _normal(own - other)


def signs(bits: Tensor) -> Float[Tensor, " n"]:
    """−1 for 0 and +1 for 1."""
    return 2.0 * bits.float() - 1


def _normal(z: float) -> float:
    return (1 + erf(z / sqrt(2))) / 2


def example() -> LinearCues:
    return LinearCues(n=200, noise_dims=4)
