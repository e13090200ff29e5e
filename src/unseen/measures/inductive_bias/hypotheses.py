"""Hypotheses drawn from a class of networks: trained together from random weights."""

from collections.abc import Callable
from math import nan

import torch
from torch import Tensor, nn

from unseen.engine.evaluate import per_example
from unseen.engine.loop import Budget, Step, erm_step
from unseen.engine.vectorized.choose import try_train_many
from unseen.lab import Lab
from unseen.method import Trained
from unseen.task import Task, Use

TOGETHER = 64
"""Networks trained as one: more gain nothing and need more memory."""


def sample_networks(
    build: Callable[[], nn.Module],
    task: Task,
    budget: Budget,
    n: int,
    lab: Lab,
    *,
    split: str = "test",
    step: Step = erm_step,
) -> dict[str, Tensor]:
    """Mean `loss` on a split and on the `training` examples of n networks that differ in their
    initial weights and their order of the data; NaN where training diverged.

    The table is a subject of `InductiveBias`, with `fits` as the training loss that counts as
    fitting.
    """
    readings: list[tuple[float, float]] = []
    for first in range(0, n, TOGETHER):
        labs = [lab.child("hypothesis", k) for k in range(first, min(n, first + TOGETHER))]
        models = [_network(build, one) for one in labs]
        for result in try_train_many(models, task, step, budget, labs):
            usable = isinstance(result, Trained)
            readings.append(_losses(result, split, lab) if usable else (nan, nan))  # type: ignore[arg-type]
    loss, training = torch.tensor(readings, dtype=torch.float64).T
    return {"loss": loss, "training": training}


def _network(build: Callable[[], nn.Module], lab: Lab) -> nn.Module:
    with lab.child("init").seeded():
        return build()


def _losses(trained: Trained, split: str, lab: Lab) -> tuple[float, float]:
    """Mean loss on the split and over all training examples."""
    task = trained.task

    def losses(part: str) -> Tensor:
        return per_example(trained.model, task.split(part).data, task.objective.loss, lab)

    training = torch.cat([losses(name) for name in task.of(Use.TRAIN)])
    return losses(split).double().mean().item(), training.double().mean().item()
