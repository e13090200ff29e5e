"""The same model trained again on parts of its data, or with other weights of its examples, all at
once: the truth that attributions are evaluated by.

Subsets of equal size become one stacked model (`engine/vectorized`). Datamodels (Ilyas et al.,
2022, arXiv:2202.00622), leave-one-out and counterfactual removal are subsets of different kinds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.data import Dataset

from unseen.engine.batches import Columns, gather, length
from unseen.engine.evaluate import per_example
from unseen.engine.loop import Budget, Step, erm_step
from unseen.engine.vectorized.choose import train_many
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.task import Batch, PerExample, Split, Task, Use

WEIGHT = "example weight"
"""The column that says how often an example counts."""


def retrain(
    make_model: Callable[[], nn.Module],
    task: Task,
    masks: Bool[Tensor, "subset example"],
    budget: Budget,
    lab: Lab,
    *,
    repeats: int = 1,
    step: Step = erm_step,
) -> list[list[Trained]]:
    """`repeats` fresh models per subset, one list of repeats for each; examples are those of the
    TRAIN splits, in the task's order.

    Repeat r starts from the same weights and draws the same stream of minibatch positions in every
    subset, so that two subsets differ in their data and not in their luck.
    """
    parts = [restrict_task(task, rows) for rows in validate_masks(masks, examples(task))]
    if repeats < 1:
        raise InvalidConfig(
            f"retrain got repeats={repeats}.", why="nothing would be trained.", fix="repeats=1."
        )
    models, labs = [], []
    for _ in parts:
        for r in range(repeats):
            with lab.child("init", r).seeded():
                models.append(make_model())
            labs.append(lab.child("fit", r))
    tasks = [part for part in parts for _ in range(repeats)]
    trained = train_many(models, tasks, step, budget, labs)
    return [trained[k : k + repeats] for k in range(0, len(trained), repeats)]


@dataclass(frozen=True)
class WeightedLoss:
    """The loss of every example times its weight, where the batch holds weights."""

    loss: PerExample

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        losses = self.loss(model, batch)
        return losses * batch[WEIGHT] if WEIGHT in batch else losses


def retrain_reweighted(
    make_model: Callable[[], nn.Module],
    task: Task,
    weights: Float[Tensor, "set example"],
    budget: Budget,
    lab: Lab,
    *,
    seeds: Sequence[int],
    step: Step = erm_step,
) -> list[list[Trained]]:
    """One model per set of weights and seed: weight 2 is an added copy, weight 0 an example left
    out.

    All sets draw the same minibatches from the same initial weights, so that two of them differ in
    nothing but how often an example counts. Models left without an example keep its draws empty
    instead of drawing others, which would be another training run.
    """
    tasks = [reweight_task(task, row) for row in validate_masks(weights, examples(task))]
    models, labs = [], []
    for _ in tasks:
        for seed in seeds:
            with lab.child("init", seed).seeded():
                models.append(make_model())
            labs.append(lab.child("fit", seed))
    trained = train_many(models, [one for one in tasks for _ in seeds], step, budget, labs)
    return [trained[k : k + len(seeds)] for k in range(0, len(trained), len(seeds))]


def reweight_task(task: Task, weights: Float[Tensor, " example"]) -> Task:
    """The task whose training examples count by these weights, in the order of its TRAIN splits.

    Within a split the weights are scaled to a mean of 1: a mean over the rows that are left, not a
    smaller learning rate, which would move a model that is not at an optimum by itself.
    """
    splits, start = dict(task.splits), 0
    for name, split in task.of(Use.TRAIN).items():
        n = length(split.data) or 0
        columns = dict(_subset(split, torch.arange(n)).columns)
        own = weights[start : start + n]
        own = own / own.mean() if own.any() else own
        splits[name] = replace(split, data=Columns(**columns, **{WEIGHT: own}))
        start += n
    return replace(
        task,
        splits=splits,
        objective=replace(task.objective, loss=WeightedLoss(task.objective.loss)),
    )


def examples(task: Task) -> int:
    """The number of examples in the TRAIN splits."""
    sizes = {name: length(split.data) for name, split in task.of(Use.TRAIN).items()}
    for name, n in sizes.items():
        if n is None:
            raise InvalidData(
                f"The TRAIN split `{name}` is a stream.",
                why="subsets of a stream have no fixed members.",
                fix="give a map-style dataset.",
            )
    return sum(n for n in sizes.values() if n is not None)


def restrict_task(task: Task, rows: Bool[Tensor, " example"]) -> Task:
    """The task with these examples of its TRAIN splits only."""
    splits, start = dict(task.splits), 0
    for name, split in task.of(Use.TRAIN).items():
        n = length(split.data) or 0
        chosen = rows[start : start + n].nonzero().squeeze(1)
        start += n
        if not len(chosen):
            raise InvalidData(
                f"A subset holds no example of the TRAIN split `{name}`.",
                why="a step draws from every TRAIN split.",
                fix="keep at least one example of each.",
            )
        splits[name] = replace(split, data=_subset(split, chosen))
    return replace(task, splits=splits)


def query_outputs(
    retrained: Sequence[Sequence[Trained]], queries: Dataset[Any], behaviour: PerExample, lab: Lab
) -> Float[Tensor, "subset repeat query"]:
    """The behaviour of every retrained model on every query, in float64."""
    return torch.stack(
        [
            torch.stack(
                [per_example(each.model, queries, behaviour, lab).double() for each in repeats]
            )
            for repeats in retrained
        ]
    )


def _subset(split: Split, rows: Tensor) -> Columns:
    data = split.data
    return data.subset(rows) if isinstance(data, Columns) else Columns(**gather(data, rows))


def validate_masks(masks: Tensor, n: int) -> Tensor:
    """The subsets or weights, unless there are none or they belong to other data."""
    if not len(masks) or masks.shape[1] != n:
        raise InvalidData(
            f"retrain got subsets of shape {tuple(masks.shape)} for {n} examples.",
            why="every subset says of every training example whether it is kept.",
            fix=f"give a boolean tensor [subsets, {n}].",
        )
    return masks
