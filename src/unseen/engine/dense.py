"""Dense prediction: a logit per pixel and channel, labels in [0, 1], pixels that are not known."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from unseen.errors import InvalidData
from unseen.task import Batch, Objective


def known_pixels(batch: Batch) -> Bool[Tensor, "n c y x"]:
    """Where the labels hold: the column `known`, or everywhere."""
    if "known" in batch:
        return batch["known"].bool()
    return torch.ones_like(batch["y"], dtype=torch.bool)


def pixel_loss(
    logits: Float[Tensor, "n c y x"],
    labels: Float[Tensor, "n c y x"],
    known: Bool[Tensor, "n c y x"],
) -> Float[Tensor, " n"]:
    """Mean binary cross-entropy over the known pixels of an image, in nats; targets may be soft.

    L1 collapses to zero on maps that are mostly empty.
    """
    safe = torch.where(known, labels, torch.zeros_like(labels))
    losses = F.binary_cross_entropy_with_logits(logits, safe, reduction="none")
    weights = known.to(losses)
    return (losses * weights).flatten(1).sum(1) / weights.flatten(1).sum(1).clamp_min(1)


def dense_loss(model: nn.Module, batch: Batch) -> Float[Tensor, " n"]:
    return pixel_loss(model(batch["x"]), batch["y"], known_pixels(batch))


def negative_rmse(model: nn.Module, batch: Batch) -> Float[Tensor, " n"]:
    """−√ of the mean squared error of an image over its known pixels and channels."""
    return -rmse(model(batch["x"]).sigmoid(), batch["y"], known_pixels(batch))


def rmse(
    maps: Float[Tensor, "n c y x"],
    labels: Float[Tensor, "n c y x"],
    known: Bool[Tensor, "n c y x"],
) -> Float[Tensor, " n"]:
    """√ of the mean squared error of every image over its known pixels and channels."""
    errors = torch.where(known, (maps - labels).square(), torch.zeros_like(maps)).flatten(1)
    return (errors.sum(1) / known.flatten(1).sum(1)).sqrt()


dense = Objective(loss=dense_loss, score=negative_rmse)
"""Binary cross-entropy of every pixel; the score is −RMSE."""


def check_labels(
    images: Tensor, labels: Tensor, known: Tensor | None = None
) -> Bool[Tensor, "n c y x"]:
    """Where the labels hold, after what cannot be learned from was refused."""
    if images.shape[0] != labels.shape[0] or images.shape[-2:] != labels.shape[-2:]:
        raise InvalidData(
            f"Images of shape {tuple(images.shape)} and labels of shape {tuple(labels.shape)}.",
            why="every image needs a label of its height and width.",
            fix="give labels [n, channel, height, width], resized to their images.",
        )
    if not torch.isfinite(images).all():
        raise InvalidData(
            "The images hold NaN or infinite values.",
            why="no model can use them.",
            fix="replace them, or leave these images out.",
        )
    if known is None:
        known = torch.ones_like(labels, dtype=torch.bool)
        if not torch.isfinite(labels).all():
            raise InvalidData(
                f"{int((~torch.isfinite(labels)).sum())} label values are NaN or infinite.",
                why="unknown pixels are left out only where a mask says so.",
                fix='add the column known=torch.isfinite(labels) ("--unknown nan" on the command '
                "line).",
            )
    known = known.bool().expand(labels.shape)
    inside = labels[known]
    if not len(inside):
        raise InvalidData(
            "No label pixel is known.", why="nothing can be learned.", fix="check the mask."
        )
    if not torch.isfinite(inside).all() or inside.min() < 0 or inside.max() > 1:
        raise InvalidData(
            f"Labels run from {float(inside.min()):.4g} to {float(inside.max()):.4g}.",
            why="they are read as values in [0, 1].",
            fix="divide masks by 255 and scale maps by their largest possible value.",
        )
    return known


Change = Callable[[Tensor], Tensor]


def label_filter(generator: torch.Generator) -> Change:
    """A random change of label maps that makes another task of them: jitter, a polynomial, a
    sigmoid and a blur in random order, each with probability ½; the same for every map it is given.
    """
    filters = [make(generator) for make in (_jitter, _polynomial, _sigmoid, _blur)]
    chosen = torch.rand(len(filters), generator=generator) < 0.5
    order = [k for k in torch.randperm(len(filters), generator=generator).tolist() if chosen[k]]

    def change(labels: Tensor) -> Tensor:
        for k in order:
            labels = filters[k](labels)
        return labels.clamp(0, 1)

    return change


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _jitter(generator: torch.Generator) -> Change:
    gain, shift = _uniform(0.5, 1, generator), _uniform(0, 1, generator)
    return lambda y: gain * y + shift * (1 - gain)


def _polynomial(generator: torch.Generator) -> Change:
    power = 2 ** _uniform(-1, 1, generator)
    return lambda y: y.clamp_min(1e-4) ** power


def _sigmoid(generator: torch.Generator) -> Change:
    steep, middle = _uniform(4, 12, generator), _uniform(0.3, 0.7, generator)
    sign = 1 if _uniform(0, 1, generator) < 0.5 else -1  # also the complement of a map
    return lambda y: torch.sigmoid(sign * steep * (y - middle))


def _blur(generator: torch.Generator) -> Change:
    sd = _uniform(0.5, 2, generator)
    offsets = torch.arange(-4, 5)
    weights = torch.exp(-offsets.square() / (2 * sd**2))
    weights = weights / weights.sum()

    def change(y: Tensor) -> Tensor:
        kernel = weights.to(y)
        maps = F.pad(y.flatten(0, -3)[:, None], (4, 4, 4, 4), mode="replicate")
        maps = F.conv2d(F.conv2d(maps, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))
        return maps.view_as(y)

    return change


def mirror(
    images: Tensor, labels: Tensor, negated: Bool[Tensor, " c"] | None = None
) -> tuple[Tensor, Tensor]:
    """Both mirrored left to right. Channels that are a component along x (½ is none) change sign:
    y → 1 − y.
    """
    images, labels = images.flip(-1), labels.flip(-1)
    if negated is not None:
        labels = torch.where(negated[:, None, None], 1 - labels, labels)
    return images, labels


class UNet(nn.Module):
    """Three levels of convolutions with skips (Ronneberger et al., 2015, arXiv:1505.04597)."""

    def __init__(self, inputs: int = 3, outputs: int = 1, width: int = 16) -> None:
        super().__init__()
        self.first = _convolutions(inputs, width)
        self.second = _convolutions(width, 2 * width)
        self.third = _convolutions(2 * width, 4 * width)
        self.up_second = _convolutions(6 * width, 2 * width)
        self.up_first = _convolutions(3 * width, width)
        self.head = nn.Conv2d(width, outputs, 1)

    def forward(self, x: Float[Tensor, "n i y x"]) -> Float[Tensor, "n c y x"]:
        first = self.first(x)
        second = self.second(F.max_pool2d(first, 2))
        third = self.third(F.max_pool2d(second, 2))
        up = self.up_second(torch.cat([_resize(third, second), second], 1))
        return self.head(self.up_first(torch.cat([_resize(up, first), first], 1)))


def _convolutions(inside: int, outside: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, padding=1),
        nn.GroupNorm(4, outside),
        nn.ReLU(),
        nn.Conv2d(outside, outside, 3, padding=1),
        nn.ReLU(),
    )


def _resize(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear")


def tile_starts(length: int, side: int) -> list[int]:
    """Where tiles of `side` begin so that they cover `length` evenly; they may overlap."""
    count = -(-length // side)
    if count == 1:
        return [0]
    return [round(k * (length - side) / (count - 1)) for k in range(count)]


def cut_tiles(maps: Float[Tensor, "*n y x"], side: int) -> Float[Tensor, "tile *n side side"]:
    """Square tiles that cover the maps, which are at least as large as one."""
    height, width = maps.shape[-2:]
    if height < side or width < side:
        raise InvalidData(
            f"A map of {height} × {width} pixels is smaller than a tile of {side} × {side}.",
            why="it is cut into tiles.",
            fix="enlarge the images, or pad them.",
        )
    return torch.stack(
        [
            maps[..., y : y + side, x : x + side]
            for y in tile_starts(height, side)
            for x in tile_starts(width, side)
        ]
    )


def join_tiles(
    tiles: Float[Tensor, "tile *n side side"], height: int, width: int
) -> Float[Tensor, "*n y x"]:
    """The maps that the tiles were cut from; where tiles overlap, their mean."""
    side = tiles.shape[-1]
    total = torch.zeros(*tiles.shape[1:-2], height, width, dtype=tiles.dtype)
    count = torch.zeros(height, width, dtype=tiles.dtype)
    corners = [(y, x) for y in tile_starts(height, side) for x in tile_starts(width, side)]
    for tile, (y, x) in zip(tiles, corners, strict=True):
        total[..., y : y + side, x : x + side] += tile
        count[y : y + side, x : x + side] += 1
    return total / count
