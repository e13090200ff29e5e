"""Unlabelled inputs as a matrix."""

import torch
from jaxtyping import Float
from torch import Tensor

from unseen.errors import InvalidData
from unseen.task import Batch


def flat_inputs(batch: Batch, column: str = "x") -> Float[Tensor, "n d"]:
    """One row per example in float64 on the CPU, where factors and components are computed."""
    x = batch[column]
    if not x.is_floating_point():
        raise InvalidData(
            f"The inputs are {x.dtype}.",
            why="densities are fitted to numbers.",
            fix="give real numbers as inputs, for example embeddings of tokens.",
        )
    flat = x.detach().flatten(1).double().cpu()
    bad = int((~torch.isfinite(flat)).any(1).sum())
    if bad:
        raise InvalidData(
            f"{bad} of {len(flat)} unlabelled inputs hold NaN or infinite numbers.",
            why="they have no likelihood.",
            fix="fill or leave out these examples.",
        )
    return flat
