"""What of an input is explained: its features, their names, and what a removed one becomes."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Int
from torch import Tensor

from unseen.errors import InvalidConfig, InvalidData


@dataclass(frozen=True, eq=False)
class FeatureSpec:
    """What of a batch is explained, what a removed feature becomes, and which entries form one
    feature.
    """

    column: str = "x"
    baseline: float | Tensor = 0.0
    """A number, a tensor like one input or like all of them; for tokens the number of the token
    that stands for none.
    """
    mask: Tensor | None = None
    """Integers like one input: entries with the same number, from 0 on without gaps, are one
    feature. Without it every entry (every token) is one."""
    names: Sequence[str] = ()
    """Of the features."""
    chunk: int = 2**18
    """Numbers in the perturbed inputs of one forward pass; larger on a GPU."""


def patches(shape: Sequence[int], size: int) -> Int[Tensor, "*shape"]:
    """The mask of images [.., height, width] whose squares of `size` pixels, over all channels, are
    the features.
    """
    height, width = shape[-2:]
    if size < 1 or len(shape) < 2:
        raise InvalidConfig(
            f"patches got shape {tuple(shape)} and size={size}.",
            "a patch is a square of pixels.",
            "give [.., height, width] and size ≥ 1.",
        )
    rows, columns = torch.arange(height) // size, torch.arange(width) // size
    return (rows[:, None] * (int(columns[-1]) + 1) + columns).expand(*shape)


def refuse_mask(inputs: FeatureSpec, shape: Sequence[int]) -> None:
    """Raises where the mask does not number the features of inputs of this shape, or names do not
    fit.
    """
    mask = inputs.mask
    if mask is None:
        d = prod(shape)
    else:
        numbers = mask.unique()
        if (
            mask.is_floating_point()
            or tuple(mask.shape) != tuple(shape)
            or not torch.equal(
                numbers, torch.arange(len(numbers), device=numbers.device, dtype=numbers.dtype)
            )
        ):
            raise InvalidData(
                f"mask has shape {tuple(mask.shape)} and numbers {numbers[:3].tolist()} … "
                f"{numbers[-1:].tolist()}.",
                why=f"it numbers the features of one input {tuple(shape)} from 0 on, without gaps.",
                fix="renumber it, for example with mask.unique(return_inverse=True)[1].",
            )
        d = len(numbers)
    if inputs.names and len(inputs.names) != d:
        raise InvalidConfig(
            f"{len(inputs.names)} names for {d} features.",
            "each feature has one.",
            "correct `names`.",
        )


def is_finite(x: Tensor) -> bool:
    """Whether no entry is NaN or infinite; one sum says so for most, entry by entry only where the
    sum overflows.
    """
    return bool(torch.isfinite(x.detach().sum())) or bool(torch.isfinite(x).all())
