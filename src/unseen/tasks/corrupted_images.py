"""Clean images are fitted, noisy, blurred, turned or otherwise corrupted ones are evaluated.

The kinds of ImageNet-C (Hendrycks & Dietterich, 2019, arXiv:1903.12261) that mean something for
small grey images; the strengths are our own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from math import ceil

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from unseen.engine.batches import Columns
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.objectives import classify
from unseen.task import Axis, Split, Task, Use
from unseen.tasks.digit_sources import area, load_part, sample_rows
from unseen.tasks.images import Collection
from unseen.tasks.rotated_digits import rotate

Pixels = Float[Tensor, "n c h w"]


class Corruption(StrEnum):
    """What is done to an image with values in [0, 1], at strength s from 0 (nothing) to 1."""

    NOISE = "noise"
    """+ N(0, (s / 2)²)."""
    SALT = "salt and pepper"
    """A share s / 2 of the pixels becomes 0 or 1."""
    BLUR = "blur"
    """Gaussian of standard deviation s · side / 10 pixels."""
    CONTRAST = "contrast"
    """m + (1 − 0.9 s) (x − m) with the image's mean m."""
    BRIGHTNESS = "brightness"
    """+ s / 2."""
    ROTATION = "rotation"
    """60 s degrees, to either side with equal chance."""


@dataclass(frozen=True)
class CorruptedImages:
    """Splits: `train` and `select` (clean), `clean` (EVALUATE), and the evaluated images under each
    corruption, all the same.

    `x` is [channel, side, side] in [0, 1].
    """

    collection: Collection = Collection.FASHION_MNIST
    corruptions: tuple[Corruption, ...] = tuple(Corruption)
    strength: float = 0.6
    n: int = 3_000
    n_select: int = 600
    n_test: int = 1_000
    side: int = 14

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1 or min(self.n, self.n_select, self.n_test, self.side) < 1:
            raise InvalidConfig(
                f"CorruptedImages(strength={self.strength}, n={self.n}, n_select={self.n_select}, "
                f"n_test={self.n_test}, "
                f"side={self.side}) is out of range.",
                why="a strength is between 0 (nothing) and 1, and every split has images.",
                fix="correct the value.",
            )

    def build(self, lab: Lab) -> Task:
        fit, test = load_part(self.collection, "train"), load_part(self.collection, "test")
        rows = sample_rows(fit, self.n + self.n_select, lab.child("train"))
        judged = sample_rows(test, self.n_test, lab.child("test"))
        known = area(fit.pixels(rows), self.side)
        clean = area(test.pixels(judged), self.side)
        y, index = fit.labels[rows], rows
        splits = {
            "train": Split(
                Columns(x=known[: self.n], y=y[: self.n], index=index[: self.n]), Use.TRAIN
            ),
            "select": Split(
                Columns(x=known[self.n :], y=y[self.n :], index=index[self.n :]), Use.SELECT
            ),
            "clean": Split(Columns(x=clean, y=test.labels[judged], index=judged), Use.EVALUATE),
        }
        for kind in self.corruptions:
            x = corrupt(clean, kind, self.strength, lab.child(kind))
            splits[kind.value] = Split(
                Columns(x=x, y=test.labels[judged], index=judged), Use.EVALUATE, kind.value
            )
        return Task(
            name=f"corrupted {self.collection}", axis=Axis.DOMAIN, splits=splits, objective=classify
        )


def corrupt(x: Pixels, kind: Corruption, strength: float, lab: Lab) -> Pixels:
    """The images at this strength, in [0, 1]; strength 0 leaves them as they are."""
    made: dict[Corruption, Callable[[], Pixels]] = {
        Corruption.NOISE: lambda: (
            x + strength / 2 * torch.randn(x.shape, generator=lab.generator())
        ),
        Corruption.SALT: lambda: _salt(x, strength / 2, lab),
        Corruption.BLUR: lambda: blur(x, strength * x.shape[-1] / 10),
        Corruption.CONTRAST: lambda: x.mean((1, 2, 3), keepdim=True).lerp(x, 1 - 0.9 * strength),
        Corruption.BRIGHTNESS: lambda: x + strength / 2,
        Corruption.ROTATION: lambda: _rotate_randomly(x, 60 * strength, lab),
    }
    return made[kind]().clamp(0, 1)


def _salt(x: Pixels, share: float, lab: Lab) -> Pixels:
    u = torch.rand(x.shape, generator=lab.child("where").generator())
    salt = torch.rand(x.shape, generator=lab.child("colour").generator()).round()
    return torch.where(u < share, salt, x)


def _rotate_randomly(x: Pixels, degrees: float, lab: Lab) -> Pixels:
    left = torch.rand(len(x), 1, 1, 1, generator=lab.generator()) < 0.5
    return torch.where(left, rotate(x, degrees), rotate(x, -degrees))


def blur(x: Pixels, deviation: float) -> Pixels:
    """Convolution with a Gaussian that is cut at three deviations and sums to 1; the border pixels
    go on outside.
    """
    reach = ceil(3 * deviation)
    if not reach:
        return x
    weight = (-(torch.arange(-reach, reach + 1.0) ** 2) / (2 * deviation**2)).exp()
    weight = (weight / weight.sum()).to(x)
    flat = F.pad(x.flatten(0, 1)[:, None], [reach] * 4, mode="replicate")
    flat = F.conv2d(F.conv2d(flat, weight[None, None, None]), weight[None, None, :, None])
    return flat.reshape(x.shape)


def example() -> CorruptedImages:
    return CorruptedImages(Collection.FASHION_MNIST_SMALL, n=200, n_select=50, n_test=100)
