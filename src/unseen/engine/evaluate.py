"""Scores of a model on every split, with intervals."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import Dataset

from unseen import stats
from unseen.engine.batches import Columns, once
from unseen.engine.example_values import example_values
from unseen.engine.labels import drop_unlabelled
from unseen.lab import Lab
from unseen.method import Trained
from unseen.reading import Reading
from unseen.task import PerExample, Split, Task


@torch.no_grad()
def per_example(
    model: nn.Module, data: Dataset[Any], f: PerExample, lab: Lab, batch_size: int = 1024
) -> Float[Tensor, " n"]:
    """f of every example, in order, on the CPU. The model runs in evaluation mode and gets its mode
    back.
    """
    was_training = model.training
    model.eval()
    try:
        return torch.cat(
            [example_values(f, model, batch).cpu() for batch in once(data, batch_size, lab)]
        )
    finally:
        model.train(was_training)


@torch.no_grad()
def outputs(
    model: nn.Module, data: Dataset[Any], lab: Lab, key: str = "x", batch_size: int = 1024
) -> Tensor:
    """The model's outputs for every example, in order, on the CPU."""
    was_training = model.training
    model.eval()
    try:
        return torch.cat([model(batch[key]).cpu() for batch in once(data, batch_size, lab)])
    finally:
        model.train(was_training)


def score(model: nn.Module, task: Task, split: Split, lab: Lab) -> Reading:
    """Mean score on one split with its interval over examples; `detail` holds the score of each
    example that has a label.
    """
    data = split.data
    if isinstance(data, Columns):  # other data would be read twice
        data, _ = drop_unlabelled(data, task.objective)
    values = per_example(model, data, task.objective.score, lab)
    reading = stats.of_scores(values.double().numpy())
    return Reading(reading.value, reading.low, reading.high, reading.n, reading.unit, values)


def scores(
    trained: Trained, lab: Lab, splits: Mapping[str, Split] | None = None
) -> dict[str, Reading]:
    """`score` of every split of the task (or of the given ones)."""
    chosen = trained.task.splits if splits is None else splits
    return {name: score(trained.model, trained.task, split, lab) for name, split in chosen.items()}
