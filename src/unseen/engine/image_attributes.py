"""What a grey or colour image is like, by exact formulas: light, wide, tall, low, in two legs.

x ≥ 0 are pixels, p_c and p_r the shares of the light in column c and row r, counted from 0 to 1.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Attribute = Callable[[Float[Tensor, "n c h w"]], Float[Tensor, " n"]]
"""One number per image."""


def brightness(images: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
    """Mean pixel."""
    return images.flatten(1).mean(1)


def width(images: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
    """Standard deviation of the column under p_c."""
    return _spread(_shares(images, axis=-1))


def height(images: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
    """Standard deviation of the row under p_r."""
    return _spread(_shares(images, axis=-2))


def low(images: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
    """Mean row under p_r: 0 at the top, 1 at the bottom."""
    shares = _shares(images, axis=-2)
    return shares @ _positions(shares)


def gap(images: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
    """How much lighter two legs are than what lies between, in the lower half: columns 6–9 and
    18–21 against 12–15 of 28, rows 14–27.
    """
    rows, columns = images.shape[-2:]
    light = images.mean(1)[:, rows // 2 :]

    def stripe(first: int, last: int) -> Tensor:
        return light[..., round(first * columns / 28) : round((last + 1) * columns / 28)]

    legs = torch.cat([stripe(6, 9), stripe(18, 21)], -1)
    return legs.flatten(1).mean(1) - stripe(12, 15).flatten(1).mean(1)


def _shares(images: Float[Tensor, "n c h w"], axis: int) -> Float[Tensor, "n s"]:
    """Share of the light at each position along an axis; even where an image is black."""
    light = images.mean(1).clamp_min(0) + 1e-6
    mass = light.sum(-2 if axis == -1 else -1)
    return mass / mass.sum(1, keepdim=True)


def _positions(shares: Float[Tensor, "n s"]) -> Float[Tensor, " s"]:
    return torch.linspace(0, 1, shares.shape[1]).to(shares)


def _spread(shares: Float[Tensor, "n s"]) -> Float[Tensor, " n"]:
    position = _positions(shares)
    return (shares @ position.square() - (shares @ position).square()).clamp_min(0).sqrt()


ATTRIBUTES: dict[str, Attribute] = {
    "brightness": brightness,
    "width": width,
    "height": height,
    "low": low,
    "gap": gap,
}
