"""Fitting a scikit-learn estimator through the same door as any other method."""

from dataclasses import dataclass

import torch
from torch import nn

from unseen.engine.batches import whole
from unseen.errors import UnsupportedLayer
from unseen.lab import Lab
from unseen.method import Trained
from unseen.models.estimator import Estimator
from unseen.task import Task, Use


@dataclass(frozen=True)
class FitEstimator:
    """Calls `fit` of the wrapped estimator (`models/estimator.py`) once, on all FIT splits together."""

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        if not isinstance(model, Estimator):
            raise UnsupportedLayer(
                f"FitEstimator got a {type(model).__name__}.",
                why="it fits scikit-learn estimators.",
                fix="wrap the estimator: Estimator(LogisticRegression(), classes=2).",
            )
        batches = [whole(split.data, lab) for split in task.of(Use.FIT).values()]
        model.learn(torch.cat([batch["x"] for batch in batches]), torch.cat([batch["y"] for batch in batches]))
        return Trained(model, task)


def example() -> FitEstimator:
    """Fits models that are an `Estimator`; other models are refused."""
    return FitEstimator()
