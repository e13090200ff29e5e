"""Fitting a scikit-learn estimator through the same door as any other method."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from unseen.engine.batches import Columns, whole
from unseen.errors import UnsupportedLayer
from unseen.lab import Lab
from unseen.method import Trained
from unseen.models.estimator import Estimator
from unseen.objectives import classify
from unseen.task import Axis, Split, Task, Use


@dataclass(frozen=True)
class FitEstimator:
    """Calls `fit` of the wrapped estimator (`models/estimator.py`) once, on all TRAIN splits
    together.
    """

    group: str | None = None
    """A column of integers whose values count equally, however many examples each has (`fit` with
    `sample_weight`).
    """

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        if not isinstance(model, Estimator):
            raise UnsupportedLayer(
                f"FitEstimator got a {type(model).__name__}.",
                why="it fits scikit-learn estimators.",
                fix="wrap the estimator: Estimator(LogisticRegression(), classes=2).",
            )
        batches = [whole(split.data, lab) for split in task.of(Use.TRAIN).values()]
        model.learn(
            torch.cat([batch["x"] for batch in batches]),
            torch.cat([batch["y"] for batch in batches]),
            None if self.group is None else balance([batch[self.group] for batch in batches]),
        )
        return Trained(model, task)


def balance(groups: Sequence[Int[Tensor, " n"]]) -> Float[Tensor, " total"]:
    """Weights with mean 1 under which each of the groups has the same sum: n / (groups · size)."""
    _, place, sizes = torch.cat(list(groups)).unique(return_inverse=True, return_counts=True)
    return len(place) / (len(sizes) * sizes[place].double())


def example() -> tuple[FitEstimator, Trained]:
    """A logistic regression on two points per class; other models are refused."""
    x, y = torch.tensor([[0.0], [1.0], [4.0], [5.0]]), torch.tensor([0, 0, 1, 1])
    splits = {
        "train": Split(Columns(x=x, y=y), Use.TRAIN),
        "test": Split(Columns(x=x + 0.1, y=y), Use.EVALUATE),
    }
    task = Task(name="two heaps", axis=Axis.IID, splits=splits, objective=classify)
    return FitEstimator(), Trained(Estimator(LogisticRegression(), 2), task)
