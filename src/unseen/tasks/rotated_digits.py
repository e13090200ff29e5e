"""Rotated digits: each domain turns its digits by another angle (Ghifary et al., 2015,
arXiv:1508.07680).
"""

import math
from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from unseen.engine.batches import Columns
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.task import Task
from unseen.tasks.digit_sources import area, load_part, sample_rows
from unseen.tasks.domains import Division, assemble_task, examples_of
from unseen.tasks.images import Collection


@dataclass(frozen=True)
class RotatedDigits:
    """Which class is it, at an angle left out? No image occurs in two domains. `x` is [1, side,
    side] in [0, 1].

    The digits of all domains are one random draw, divided evenly: domain k has the rows k, k + K, k
    + 2K, … of it.
    """

    held_out: str | None = None
    angles: tuple[float, ...] = (0, 15, 30, 45, 60, 75)
    """Degrees, counter-clockwise."""
    collection: Collection = Collection.MNIST
    n: int = 9_000
    """Images in all domains together."""
    side: int = 14
    division: Division = Division()

    def __post_init__(self) -> None:
        if self.n < len(self.angles) or self.side < 1 or len(set(self.angles)) < len(self.angles):
            raise InvalidConfig(
                f"RotatedDigits(angles={self.angles}, n={self.n}, side={self.side}) is out of "
                "range.",
                why="each angle is one domain, with at least one image of at least one pixel.",
                fix="name each angle once; use n ≥ number of angles and side ≥ 1.",
            )

    def domains(self) -> tuple[str, ...]:
        return tuple(f"{angle:g}" for angle in self.angles)

    def build(self, lab: Lab) -> Task:
        held = load_part(self.collection, "train")
        rows = sample_rows(held, self.n, lab.child("rows"))
        parts = {}
        for k, (name, angle) in enumerate(zip(self.domains(), self.angles, strict=True)):
            own = rows[k :: len(self.angles)]
            turned = area(rotate(held.pixels(own), angle), self.side)
            parts[name] = examples_of(Columns(x=turned, y=held.labels[own], index=own), k)
        return assemble_task(f"rotated {self.collection}", parts, self.held_out, self.division, lab)


def rotate(images: Float[Tensor, "n c h w"], degrees: float) -> Float[Tensor, "n c h w"]:
    """Turned counter-clockwise about the centre: bilinear, black where the image does not reach."""
    if degrees % 360 == 0:
        return images
    angle = math.radians(degrees)
    turn = images.new_tensor(
        [[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0]]
    )
    grid = F.affine_grid(turn.expand(1, 2, 3), [1, *images.shape[1:]], align_corners=False)
    return F.grid_sample(images, grid.expand(len(images), -1, -1, -1), align_corners=False)


def example() -> RotatedDigits:
    return RotatedDigits(angles=(0, 30, 60), collection=Collection.OPTDIGITS, n=600, side=8)
