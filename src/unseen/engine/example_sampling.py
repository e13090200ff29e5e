"""Which examples a minibatch holds: drawn by their weights, or from a part of the data that grows.

Both are `Columns` that form their batches themselves, which `forever` asks for.
"""

import math
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unseen.engine.batches import Columns, to_device
from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.lab import Lab
from unseen.task import Batch

Fraction = Callable[[int], float]
"""From the number of batches drawn before to the share of the data that may be drawn."""


class WeightedColumns(Columns):
    """Examples drawn with replacement, as often as their weights say."""

    def __init__(self, weights: Float[Tensor, " n"], columns: Columns) -> None:
        super().__init__(**columns.columns)
        if weights.shape != (len(columns),) or not bool((weights >= 0).all()) or weights.sum() <= 0:
            raise InvalidData(
                f"{len(columns)} examples got weights of shape {tuple(weights.shape)}, the least "
                f"{float(weights.min()) if len(weights) else math.nan:g}.",
                why="every example has a weight of at least 0, and one is positive.",
                fix="give one weight per example.",
            )
        self.weights = weights.double()

    def batches(self, batch_size: int, lab: Lab) -> Iterator[Batch]:
        generator = lab.generator()
        while True:
            index = torch.multinomial(self.weights, batch_size, True, generator=generator)
            yield to_device(self[index], lab)


class GrowingColumns(Columns):
    """Examples of the first part of a fixed order, with replacement; the part grows.

    `rank` numbers the examples: those with the lowest rank come first, and equal ranks together.
    """

    def __init__(self, rank: Int[Tensor, " n"], fraction: Fraction, columns: Columns) -> None:
        super().__init__(**columns.columns)
        if rank.shape != (len(columns),):
            raise InvalidData(
                f"{len(columns)} examples got ranks of shape {tuple(rank.shape)}.",
                why="every example has its turn.",
                fix="give one rank per example.",
            )
        classes, at = rank.unique(return_inverse=True)
        self.order, self.fraction = at.argsort(stable=True), fraction
        self.ends = torch.bincount(at, minlength=len(classes)).cumsum(0)
        """How many examples the first k classes hold."""

    def visible(self, step: int) -> int:
        """Examples that may be drawn after so many batches."""
        share = self.fraction(step)
        if not 0 <= share <= 1:
            raise InvalidConfig(
                f"A share of {share} after {step} batches.", why="it is one.", fix="0 to 1."
            )
        classes = max(1, math.ceil(share * len(self.ends) - 1e-9))
        return int(self.ends[classes - 1])

    def batches(self, batch_size: int, lab: Lab) -> Iterator[Batch]:
        generator = lab.generator()
        step = 0
        while True:
            drawn = torch.randint(self.visible(step), (batch_size,), generator=generator)
            yield to_device(self[self.order[drawn]], lab)
            step += 1


def growing_fraction(first: float, end: float, steps: int) -> Fraction:
    """max(first, min(1, t / (end · steps))) of batch t."""
    if not (0 < first <= 1 and 0 < end <= 1 and steps > 0):
        raise InvalidConfig(
            f"A share from {first} that is whole after {end} of {steps} steps.",
            why="training starts with some examples and sees all of them before it ends.",
            fix="choose both in (0, 1], for example 0.2 and 0.9.",
        )
    return lambda step: max(first, min(1.0, step / (end * steps)))


def zipf_weights(rank: Int[Tensor, " n"], exponent: float) -> Float[Tensor, " n"]:
    """r^(−exponent) for the r-th lowest rank, divided equally inside a rank; they sum to 1."""
    if exponent < 0 or not len(rank):
        raise InvalidConfig(
            f"Zipf weights of {len(rank)} examples with exponent {exponent}.",
            why="frequencies fall with the rank, and there is one rank at least.",
            fix="0 weighs all ranks equally, 1 is Zipf's law.",
        )
    _, at, counts = rank.unique(return_inverse=True, return_counts=True)
    weights = (at + 1.0).double() ** -exponent / counts[at]
    return weights / weights.sum()


def order_ranks(data: Columns, column: str, lab: Lab) -> Int[Tensor, " n"]:
    """A number per example: its turn in a shuffle, or the value of a column."""
    if not column:
        return torch.randperm(len(data), generator=lab.generator())
    if column not in data.columns:
        raise UnknownName.near("column", column, data.columns)
    values = data.columns[column]
    if values.dim() != 1:
        raise InvalidData(
            f"Column `{column}` has {values.dim()} axes.",
            why="examples are ordered by one number each.",
            fix="name a column of numbers, such as `length`.",
        )
    return values.unique(return_inverse=True)[1]
