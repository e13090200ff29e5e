"""Small convolutional networks for images `[b, channels, height, width]`."""

from collections.abc import Callable, Sequence
from enum import StrEnum
from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Norm(StrEnum):
    """How activations are normalised."""

    GROUP = "group"
    """Within each example: per-example gradients exist in training mode, too."""
    BATCH = "batch"


def norm_layer(norm: Norm, channels: int) -> nn.Module:
    """The normalisation of a map of `channels`; groups of at least four channels."""
    if norm is Norm.BATCH:
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(
        next(k for k in (8, 4, 2, 1) if channels % k == 0 and channels // k >= min(4, channels)),
        channels,
    )


def cnn(
    channels: Sequence[int] = (32, 64),
    classes: int = 10,
    *,
    in_channels: int = 1,
    hidden: int = 0,
    dropout: float = 0.0,
) -> nn.Sequential:
    """Blocks of 3 × 3 convolution, ReLU and 2 × 2 maximum, then the mean over pixels of a 3 × 3
    grid and a linear map.

    `hidden` adds a hidden linear layer before the last one.
    """
    layers: list[nn.Module] = []
    for inside, outside in pairwise([in_channels, *channels]):
        layers += [nn.Conv2d(inside, outside, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Dropout(dropout)]
    width = channels[-1] * 9
    if hidden:
        layers += [nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(hidden or width, classes))


class Block(nn.Module):
    """x + two normalised 3 × 3 convolutions of x (He et al., 2016, arXiv:1512.03385); a 1 × 1 one
    where sizes differ.
    """

    def __init__(
        self, inside: int, outside: int, stride: int, norm: Callable[[int], nn.Module]
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.norm1 = norm(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.norm2 = norm(outside)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inside != outside:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inside, outside, 1, stride, bias=False), norm(outside)
            )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


def resnet(
    widths: Sequence[int] = (16, 32, 64),
    blocks: int = 1,
    classes: int = 10,
    *,
    in_channels: int = 1,
    norm: Norm = Norm.GROUP,
) -> nn.Sequential:
    """A residual network of `blocks` per width; each width after the first halves the resolution.

    `blocks=3` is the ResNet-20 for CIFAR of He et al. (2016), with projections in place of zero
    padding.
    """

    def normal(channels: int) -> nn.Module:
        return norm_layer(norm, channels)

    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False),
        normal(widths[0]),
        nn.ReLU(),
    ]
    for stage, (inside, outside) in enumerate(pairwise([widths[0], *widths])):
        for k in range(blocks):
            layers.append(
                Block(inside if k == 0 else outside, outside, 2 if stage and k == 0 else 1, normal)
            )
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], classes)
    )
