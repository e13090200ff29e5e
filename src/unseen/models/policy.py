"""Small networks from observations to one output per action."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unseen.models.mlp import mlp

SMALL = 16
"""A side up to which images keep their size in all layers but one."""
CHANNELS = (1, 3, 4)
"""Sizes of a last axis that is taken for colours."""


class Observation(nn.Module):
    """Observations as floating numbers with channels first; bytes up to 255 are divided by it."""

    scale: Tensor

    def __init__(self, *, scale: float = 1.0, channels_last: bool = False) -> None:
        super().__init__()
        self.channels_last = channels_last
        self.register_buffer("scale", torch.tensor(scale))

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.scale.dtype) * self.scale
        return x.movedim(-1, 1) if self.channels_last else x


def policy_network(
    shape: Sequence[int],
    actions: int,
    *,
    most: float = 1.0,
    channels: Sequence[int] = (16, 16, 16),
    hidden: int = 128,
) -> nn.Sequential:
    """3 × 3 convolutions and a hidden layer for images, two hidden layers for vectors.

    `shape` is that of one observation, [channels, height, width], [height, width, colours] or
    [features]; `most` its largest number, by which it is divided. The second convolution halves the
    sides; of images larger than 16 every one does.
    """
    if len(shape) != 3:
        features = int(torch.tensor(shape).prod())
        head = mlp([features, hidden, hidden, actions])
        return nn.Sequential(Observation(scale=1 / most), nn.Flatten(), head)
    last = shape[-1] in CHANNELS and shape[0] not in CHANNELS
    inside = shape[-1] if last else shape[0]
    sides = list(shape[:2] if last else shape[1:])
    layers: list[nn.Module] = [Observation(scale=1 / most, channels_last=last)]
    for k, width in enumerate(channels):
        stride = 2 if k == 1 or max(sides) > SMALL else 1
        layers += [nn.Conv2d(inside, width, 3, stride, 1), nn.ReLU()]
        inside, sides = width, [-(-side // stride) for side in sides]
    features = inside * sides[0] * sides[1]
    layers += [nn.Flatten(), nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, actions)]
    return nn.Sequential(*layers)
