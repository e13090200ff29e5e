"""Labelled sequences: position j shows the input x_j and the label before it, and asks for y_j.

A classification problem becomes one sequence of examples. A random linear map of the inputs and a
random permutation of the labels make it another problem (Kirsch et al., 2022, arXiv:2212.04458).
"""

from functools import partial
from math import nan

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from unseen.task import Batch, Objective


def label_tokens(
    x: Float[Tensor, "b n d"], y: Int[Tensor, "b n"], classes: int
) -> Float[Tensor, "b n d_and_classes"]:
    """[x_j ; onehot(y_{j−1})], with zeros before the first label: y_j itself is never shown."""
    labels = F.one_hot(y.long(), classes).to(x.dtype)
    before = torch.cat([torch.zeros_like(labels[:, :1]), labels[:, :-1]], 1)
    return torch.cat([x, before], -1)


def position_logits(model: nn.Module, batch: Batch, classes: int) -> Float[Tensor, "b n classes"]:
    """The model's logits for every label of the sequence."""
    return model(label_tokens(batch["x"], batch["y"], classes))


def mean_position_loss(model: nn.Module, batch: Batch, *, classes: int) -> Float[Tensor, " batch"]:
    """−log p(y_j | the examples before it, x_j) in nats, averaged over positions."""
    logits = position_logits(model, batch, classes)
    return F.cross_entropy(logits.mT, batch["y"].long(), reduction="none").mean(1)


def last_correct(model: nn.Module, batch: Batch, *, classes: int) -> Float[Tensor, " batch"]:
    """1 where the label of the last position, which all others explain, is the most likely one; NaN
    where a logit is.
    """
    logits = position_logits(model, batch, classes)[:, -1]
    hit = (logits.argmax(-1) == batch["y"][:, -1]).to(logits.dtype)
    return hit.masked_fill(logits.isnan().any(-1), nan)


def in_context(classes: int) -> Objective:
    """Trained at every position, scored at the last."""
    return Objective(
        partial(mean_position_loss, classes=classes), partial(last_correct, classes=classes)
    )


def random_maps(
    n: int, dim: int, width: int, generator: torch.Generator
) -> Float[Tensor, "n dim width"]:
    """Entries N(0, 1 / width): ‖A x‖² is (dim / width) ‖x‖² on average."""
    return torch.randn(n, dim, width, generator=generator) * width**-0.5


def random_permutations(
    n: int, classes: int, generator: torch.Generator
) -> Int[Tensor, "n classes"]:
    return torch.rand(n, classes, generator=generator).argsort(1)


def change_task(
    raw: Float[Tensor, "b n width"],
    label: Int[Tensor, "b n"],
    maps: Float[Tensor, "b dim width"],
    permutations: Int[Tensor, "b classes"],
) -> tuple[Float[Tensor, "b n dim"], Int[Tensor, "b n"]]:
    """Every sequence with its own map of the inputs and permutation of the labels."""
    return raw @ maps.mT, permutations.gather(1, label.long())
