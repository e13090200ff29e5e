"""What broad general data are worth beside few examples of a target: the gain at equal target
updates, and how much target data they replace (after Shi et al., 2023, arXiv:2310.15326).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unseen import stats
from unseen.errors import InvalidData, UnknownName
from unseen.lab import Lab
from unseen.reading import Reading


@dataclass(frozen=True)
class LearningCurves:
    """Scores of the same test items by the number of target examples, without and with general
    data.
    """

    sizes: tuple[int, ...]
    specialist: Float[Tensor, "size item"]
    mixed: Float[Tensor, "size item"]

    def row(self, n: int) -> int:
        """The row of a size; refuses curves that are none."""
        shapes = [tuple(one.shape) for one in (self.specialist, self.mixed)]
        rising = list(self.sizes) == sorted(set(self.sizes)) and min(self.sizes, default=0) > 0
        if shapes[0] != shapes[1] or shapes[0][:1] != (len(self.sizes),) or not rising:
            raise InvalidData(
                f"Curves of shape {shapes[0]} and {shapes[1]} for sizes {self.sizes}.",
                why="both have a row for every size, and sizes rise.",
                fix="give scores [size, item] of the same items.",
            )
        if n not in self.sizes:
            raise UnknownName.near("size", str(n), map(str, self.sizes))
        return self.sizes.index(n)


@dataclass(frozen=True)
class GeneralistGain:
    """mixed(n) − specialist(n), paired over test items."""

    n: int

    def __call__(self, subject: LearningCurves, lab: Lab) -> Reading:
        k = subject.row(self.n)
        return stats.difference(
            subject.mixed[k].numpy(), subject.specialist[k].numpy(), unit="fraction"
        )


@dataclass(frozen=True)
class DataRatio:
    """n′ / n with specialist(n′) = mixed(n): 2 where general data are worth as much as twice the
    target data, 1 where both curves coincide. No interval: it is read off a curve of few points.
    """

    n: int

    def __call__(self, subject: LearningCurves, lab: Lab) -> Reading:
        k = subject.row(self.n)
        reached = float(subject.mixed.double().mean(1)[k])
        curve = [float(one) for one in subject.specialist.double().mean(1)]
        if reached == curve[k]:  # on a curve that falls here, too
            return Reading(1.0, n=len(curve), unit="ratio")
        own = size_at(subject.sizes, curve, curve[k])
        return Reading(size_at(subject.sizes, curve, reached) / own, n=len(curve), unit="ratio")


def size_at(sizes: Sequence[int], curve: Sequence[float], score: float) -> float:
    """The number of examples at which the curve first reaches the score, between sizes linear in
    ln n. A curve that falls somewhere counts as its highest value so far.
    """
    rising = np.maximum.accumulate(curve)
    if score > rising[-1]:
        raise InvalidData(
            f"The mixed score {score:.3f} is above all of the specialist's (at most "
            f"{rising[-1]:.3f} with {sizes[-1]} examples).",
            why="no amount of target data that was tried reaches it, so there is no ratio.",
            fix="try more target examples.",
        )
    if score < rising[0]:
        raise InvalidData(
            f"The mixed score {score:.3f} is below all of the specialist's (at least "
            f"{rising[0]:.3f} with {sizes[0]} examples).",
            why="general data replace less than the fewest examples that were tried.",
            fix="try fewer target examples.",
        )
    k = int(np.argmax(rising >= score))
    if k == 0 or rising[k] == rising[k - 1]:
        return float(sizes[k])
    part = (score - rising[k - 1]) / (rising[k] - rising[k - 1])
    return exp(log(sizes[k - 1]) + part * (log(sizes[k]) - log(sizes[k - 1])))


def example() -> tuple[GeneralistGain, LearningCurves]:
    """Ten items; general data help where there are few examples."""
    few, many = torch.tensor([[0.0] * 8 + [1.0] * 2, [0.0] * 3 + [1.0] * 7])
    return GeneralistGain(20), LearningCurves(
        (20, 80), torch.stack([few, many]), torch.stack([many.roll(1), many])
    )
