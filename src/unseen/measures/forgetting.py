"""How much of a task a model has forgotten, and what might predict it (Zhang, Choshen & Andreas,
2024, arXiv:2409.02228).

Ratios compare accuracies on the same examples before and after; their intervals are over examples.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor

from unseen import stats
from unseen.engine.batches import Columns
from unseen.engine.evaluate import per_example
from unseen.engine.loop import Budget, erm_step, train
from unseen.engine.parameters import load
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.models.mlp import mlp
from unseen.objectives import classify
from unseen.reading import Reading
from unseen.stats import t_quantile
from unseen.task import Axis, Split, Task, Use


def forget_gap(before: ArrayLike, after: ArrayLike) -> Reading:
    """Accuracy before − after, paired over examples."""
    return stats.difference(before, after, "fraction")


def forget_ratio(before: ArrayLike, after: ArrayLike, chance: ArrayLike) -> Reading:
    """(accuracy before − after) / (before − chance): 0 nothing is forgotten, 1 all of it.

    `before` and `after` hold 1 where an example is answered rightly; `chance` is a number, or one
    per example. Fieller's interval (1954) over examples: numerator and denominator are paired
    means, and it is infinite where the denominator may be 0. A model that is not above chance by
    one standard error has nothing to forget, and is refused.
    """
    right, left = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if right.ndim != 1 or right.shape != left.shape or len(right) < 2:
        raise InvalidData(
            f"There are {right.shape} answers before and {left.shape} after.",
            why="they are compared example by example.",
            fix="evaluate the same two or more examples twice.",
        )
    if not (np.isfinite(right).all() and np.isfinite(left).all()):
        raise InvalidData(
            "A score is not finite.", why="it is neither right nor wrong.", fix="check the model."
        )
    lost, above = right - left, right - np.broadcast_to(np.asarray(chance, float), right.shape)
    n = len(right)
    error = float(above.std(ddof=1)) / sqrt(n)
    if above.mean() <= error:
        raise InvalidData(
            f"Accuracy before was {right.mean():.3g}, at most one standard error above chance "
            f"({right.mean() - above.mean():.3g}, n = {n}).",
            why="a model that does not know a task cannot forget it.",
            fix="train it on the task first (`learn`), or evaluate more examples.",
        )
    low, high = fieller_limits(lost, above)
    return Reading(float(lost.mean() / above.mean()), low, high, n, "fraction", freedom=n - 1)


def fieller_limits(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """The 95 % limits of mean a / mean b of paired values; infinite where mean b may be 0."""
    n = len(a)
    (s_aa, s_ab), (_, s_bb) = np.cov(a, b) / n
    t, ratio = t_quantile(n - 1), a.mean() / b.mean()
    g = t**2 * s_bb / b.mean() ** 2
    if g >= 1:
        return -inf, inf
    if s_bb == 0:
        half = t * sqrt(s_aa) / abs(b.mean())
        return float(ratio - half), float(ratio + half)
    inside = s_aa - 2 * ratio * s_ab + ratio**2 * s_bb - g * (s_aa - s_ab**2 / s_bb)
    centre = (ratio - g * s_ab / s_bb) / (1 - g)
    half = t / abs(b.mean()) * sqrt(max(0.0, inside)) / (1 - g)
    return float(centre - half), float(centre + half)


@dataclass(frozen=True)
class ForgetRatio:
    """What training took from a split: (before − after) / (before − chance), of `Trained.start`
    and the trained weights.
    """

    split: str
    chance: float
    """Accuracy of guessing: 1 / number of choices."""
    batch_size: int = 256

    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        task, model = subject.task, copy.deepcopy(subject.model)
        if subject.start is None:
            raise InvalidData(
                "The weights before training are not known.",
                why="what was forgotten is a difference from them.",
                fix="give Trained with `start`, as methods of the house return it.",
            )
        data = task.split(self.split).data
        after = per_example(model, data, task.objective.score, lab, self.batch_size)
        load(model, subject.start)
        before = per_example(model, data, task.objective.score, lab, self.batch_size)
        return forget_ratio(before.numpy(), after.numpy(), self.chance)


def choice_confidence(log_likelihoods: Sequence[Float[Tensor, " choice"]]) -> Reading:
    """Mean over items of max_c p(c | item), p the softmax over the choices' log-likelihoods: 1/|C|
    where all are alike, 1 where one is certain.
    """
    if not log_likelihoods:
        raise InvalidData("There are no items.", why="a mean of nothing.", fix="give items.")
    return stats.mean(
        [float(one.double().softmax(0).max()) for one in log_likelihoods],
        within=(0.0, 1.0),
        unit="fraction",
    )


def representation_variability(states: Float[Tensor, "n d"]) -> float:
    """tr Cov(h) / mean ‖h‖²: 0 where all examples have one state, near 1 where states have no
    common part. Neither scale nor rotation changes it.
    """
    h = states.double()
    if len(h) < 2 or not torch.isfinite(h).all() or not h.any():
        raise InvalidData(
            f"The variability of {len(h)} states is not defined.",
            why="it needs two finite states that are not all zero.",
            fix="give the states of more examples.",
        )
    return float(h.var(0).sum() / h.square().sum(1).mean())


FEWEST_TASKS = 8
"""Fewer say nothing about what predicts forgetting over tasks."""


def predict_forgetting(predictor: Sequence[float], ratios: Sequence[float]) -> Reading | None:
    """Spearman's ρ over tasks; None with fewer than eight: underpowered."""
    return stats.rank_correlation(predictor, ratios) if len(ratios) >= FEWEST_TASKS else None


def example() -> tuple[ForgetRatio, Trained]:
    """A perceptron that knew the sign of a sum is trained on its opposite."""
    x = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    y = (x.sum(1) > 0).long()

    def task(labels: Tensor) -> Task:
        splits = {
            "train": Split(Columns(x=x, y=labels), Use.TRAIN, "seen"),
            "held out": Split(Columns(x=x, y=y), Use.EVALUATE, "unseen"),
        }
        return Task(name="signs", axis=Axis.TASK, splits=splits, objective=classify)

    with Lab().child("init").seeded():
        model = mlp([2, 8, 2])
    train(model, task(y), erm_step, Budget(steps=100, batch_size=64, lr=1e-2), Lab())
    trained = train(model, task(1 - y), erm_step, Budget(steps=40, batch_size=64, lr=1e-2), Lab())
    return ForgetRatio("held out", chance=0.5), trained
