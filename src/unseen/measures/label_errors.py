"""Which training labels are probably wrong: the loss of each example under models that have not
learned it.

Networks fit what many examples share before what single examples demand (Chatterjee & Zielinski,
2022, arXiv:2203.10036), so a wrong label costs much before it is memorised, and always under a
model that never saw it (cross-fitting; Northcutt et al., 2021, arXiv:1911.00068, rank by the same
out-of-sample probability).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unseen import stats
from unseen.engine.batches import Columns, gather, length
from unseen.engine.evaluate import per_example
from unseen.engine.loop import Budget, Schedule, erm_step, train
from unseen.engine.parameters import shares_weights
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.method import Method
from unseen.models.mlp import mlp
from unseen.reading import Reading
from unseen.task import Split, Task, Use


def out_of_fold_loss(
    make_model: Callable[[], nn.Module],
    task: Task,
    lab: Lab,
    *,
    split: str = "train",
    folds: int = 3,
    epochs: int = 8,
    batch_size: int = 64,
    lr: float = 2e-3,
    method: Method | None = None,
    most_steps: int | None = None,
) -> Float[Tensor, " n"]:
    """The loss of each example of a TRAIN split under a fresh model trained on the other folds, in
    the data's order.

    Needs nothing but the task's own loss, so it ranks regression targets and token sequences as
    well as classes. `method` trains the models (None: a network, for so many epochs but at most
    `most_steps` steps, which costs (folds − 1) · epochs passes over the split); the model under
    audit may have memorised every label.
    """
    data = task.split(split).data
    n = length(data)
    if n is None or not 2 <= folds <= n:
        raise InvalidData(
            f"out_of_fold_loss got {'a stream' if n is None else f'{n} examples'} and {folds} "
            "folds.",
            why="each example is evaluated by a model that was trained on the other folds.",
            fix="give a map-style dataset and 2 ≤ folds ≤ its length.",
        )
    if epochs < 1:
        raise InvalidConfig(
            "out_of_fold_loss got no epoch.",
            why="an untrained model knows no label.",
            fix="epochs=8.",
        )
    losses, previous = torch.zeros(n), None
    parts = torch.randperm(n, generator=lab.child("folds").generator()).tensor_split(folds)
    for k, held in enumerate(parts):
        own = lab.child("fold", k)
        rest = torch.cat([part for j, part in enumerate(parts) if j != k])
        with own.child("init").seeded():
            model = make_model()
        if previous is not None and shares_weights(model, previous):
            raise InvalidData(
                "The function returned the same model, or shared weights, for two folds.",
                why="the second would start with what the first has learned of its examples.",
                fix="make it inside the function: lambda: nn.Linear(…).",
            )
        previous = model
        fitted = Task(
            name=task.name,
            axis=task.axis,
            splits={"train": Split(_rows(data, rest), Use.TRAIN)},
            objective=task.objective,
        )
        steps = max(1, epochs * len(rest) // batch_size)
        budget = Budget(
            steps=steps if most_steps is None else min(steps, most_steps),
            batch_size=batch_size,
            lr=lr,
            schedule=Schedule.COSINE,
        )
        if method is None:
            model = train(model, fitted, erm_step, budget, own.child("fit")).model
        else:
            model = method.fit(model, fitted, own.child("fit")).model
        losses[held] = per_example(model, _rows(data, held), task.objective.loss, lab).float()
    if not losses.isfinite().all():
        raise InvalidData(
            f"{int((~losses.isfinite()).sum())} examples have a loss that is NaN or infinite.",
            why="they cannot be ranked.",
            fix="look for non-finite inputs or targets.",
        )
    return losses


def _rows(data: torch.utils.data.Dataset, rows: Tensor) -> Columns:
    return Columns(**gather(data, rows))


@dataclass(frozen=True)
class HeldOutLoss:
    """Mean loss of a TRAIN split's examples under models trained without them; `detail` holds each
    example's suspicion.
    """

    make_model: Callable[[], nn.Module]
    split: str = "train"
    folds: int = 3
    epochs: int = 8

    def __call__(self, subject: Task, lab: Lab) -> Reading:
        losses = out_of_fold_loss(
            self.make_model, subject, lab, split=self.split, folds=self.folds, epochs=self.epochs
        )
        found = stats.mean(losses.numpy())
        return Reading(found.value, found.low, found.high, found.n, "nats", losses)


def example() -> HeldOutLoss:
    """For a task with four features and two classes."""
    return HeldOutLoss(lambda: mlp([4, 16, 2]))
