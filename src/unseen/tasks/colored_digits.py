"""Coloured digits: colour predicts the label better than shape does, but not everywhere (Arjovsky
et al., 2019, arXiv:1907.02893, section 5.1)."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unseen.engine.batches import Columns
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.task import Task
from unseen.tasks.digit_sources import area, load_part, sample_rows
from unseen.tasks.domains import Division, assemble_task, examples_of
from unseen.tasks.images import Collection


@dataclass(frozen=True)
class ColoredDigits:
    """Is the digit at least 5, from red or green images? `x` is [2, side, side]: the digit in its
    colour's channel.

    The label is wrong with probability `label_noise`; the colour equals the label with the domain's
    probability. The best rule by shape scores 1 − label_noise everywhere, the rule by colour a =
    the domain's agreement. Columns also: `colour` (0 or 1) and `group` = 2 y + colour.
    """

    held_out: str | None = None
    agreements: tuple[float, ...] = (0.9, 0.8, 0.1)
    label_noise: float = 0.25
    collection: Collection = Collection.MNIST
    n: int = 9_000
    """Images in all domains together."""
    side: int = 14
    division: Division = Division()

    def __post_init__(self) -> None:
        shares = (self.label_noise, *self.agreements)
        distinct = len(set(self.agreements)) == len(self.agreements)
        if (
            self.n < len(self.agreements)
            or self.side < 1
            or not distinct
            or not all(0 <= p <= 1 for p in shares)
        ):
            raise InvalidConfig(
                f"ColoredDigits(agreements={self.agreements}, label_noise={self.label_noise}, "
                f"n={self.n}, "
                f"side={self.side}) is out of range.",
                why="agreements and noise are probabilities, and each agreement is one domain.",
                fix="name each agreement once, from 0 to 1; use 0 ≤ label_noise ≤ 1.",
            )

    def domains(self) -> tuple[str, ...]:
        return tuple(f"{agreement:g}" for agreement in self.agreements)

    def build(self, lab: Lab) -> Task:
        held = load_part(self.collection, "train")
        rows = sample_rows(held, self.n, lab.child("rows"))
        parts = {}
        for k, (name, agreement) in enumerate(zip(self.domains(), self.agreements, strict=True)):
            own = rows[k :: len(self.agreements)]
            y = (held.labels[own] >= 5) ^ chance(
                len(own), self.label_noise, lab.child("noise", name)
            )
            colour = y ^ ~chance(len(own), agreement, lab.child("colour", name))
            columns = Columns(
                x=colour_images(area(held.pixels(own), self.side), colour.long()),
                y=y.long(),
                index=own,
                colour=colour.long(),
                group=2 * y.long() + colour.long(),
            )
            parts[name] = examples_of(columns, k)
        return assemble_task(
            f"coloured {self.collection}", parts, self.held_out, self.division, lab
        )


def chance(n: int, probability: float, lab: Lab) -> Bool[Tensor, " n"]:
    """Independently true with this probability; where true for a smaller one, also for a larger
    one.
    """
    return torch.rand(n, generator=lab.generator(), dtype=torch.float64) < probability


def colour_images(
    images: Float[Tensor, "n 1 h w"], colour: Int[Tensor, " n"]
) -> Float[Tensor, "n 2 h w"]:
    """The image in the channel `colour`, nothing in the other."""
    return images * torch.eye(2)[colour][:, :, None, None]


def example() -> ColoredDigits:
    return ColoredDigits(collection=Collection.OPTDIGITS, n=900, side=8)
