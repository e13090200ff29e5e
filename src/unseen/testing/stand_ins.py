"""What plugs are tried on: a small task, model and trained model."""

import numpy as np
import torch
from torch import nn

from unseen.engine.batches import Columns, once, size
from unseen.engine.parameters import trainable
from unseen.lab import Lab
from unseen.method import Trained
from unseen.models.mlp import mlp
from unseen.objectives import classify
from unseen.task import Axis, Batch, Split, Task, Use
from unseen.testing.contract import ContractViolation


def small_task(lab: Lab = Lab(), n: int = 96) -> Task:
    """Two classes of four-dimensional Gaussians that a linear model tells apart; `shifted` moves
    their centres.

    Columns: `x`, `y`, and `site` and `group` (0 or 1) for methods that look at them.
    """

    def split(name: str, use: Use, shift: float = 0.0, at: str = "here") -> Split:
        rng = lab.child("small_task", name).numpy()
        y = np.arange(n) % 2
        x = (
            rng.normal(size=(n, 4))
            + 1.5 * (2 * y[:, None] - 1) * np.array([1.0, -1.0, 0.5, 0.0])
            + shift
        )
        site, group = rng.integers(2, size=n), rng.integers(2, size=n)
        columns = {"x": torch.tensor(x, dtype=torch.float32), "y": torch.tensor(y)}
        return Split(
            Columns(**columns, site=torch.tensor(site), group=torch.tensor(group)), use, at
        )

    splits = {
        "train": split("train", Use.TRAIN),
        "select": split("select", Use.SELECT),
        "same": split("same", Use.EVALUATE),
        "shifted": split("shifted", Use.EVALUATE, 0.7, at="there"),
    }
    return Task(name="small", axis=Axis.DOMAIN, splits=splits, objective=classify)


def small_model(task: Task, lab: Lab = Lab()) -> nn.Module:
    """A two-layer perceptron for `x` and `y`, a bigram model for `tokens`; the same weights every
    time.
    """
    batches = [next(once(split.data, 1024, lab)) for split in task.splits.values()]
    with lab.child("small_model").seeded():
        if "tokens" in batches[0]:
            vocabulary = 1 + max(int(batch["tokens"].max()) for batch in batches)
            return nn.Sequential(nn.Embedding(vocabulary, 16), nn.Linear(16, vocabulary))
        y = torch.cat([batch["y"].reshape(size(batch), -1) for batch in batches if "y" in batch])
        width = mlp(
            [
                batches[0]["x"][0].numel(),
                16,
                y.shape[1] if y.is_floating_point() else int(y.max()) + 1,
            ]
        )
        narrow = mlp([batches[0]["x"][0].numel(), 16, 1])
    for model in (
        width,
        narrow,
    ):  # integer targets are class indices, or bits of a model with one logit
        try:
            with torch.no_grad():
                loss = task.objective.loss(model, first(task, Use.TRAIN, lab, 8))
            if loss.dim() == 1:
                return model
        except (RuntimeError, IndexError, ValueError):
            continue
    raise ContractViolation(
        f"Neither a model with {y.shape[1]} outputs nor one with a single output fits the "
        f"objective of `{task.name}`.",
        why="the battery tries the loss on a small model.",
        fix="let example() return (spec, model) with a function from the task to an easy model.",
    )


def small_subject(lab: Lab = Lab()) -> Trained:
    """`small_model` after forty steps on `small_task`, good but not perfect."""
    task = small_task(lab)
    model = small_model(task, lab)
    start = {name: p.detach().clone() for name, p in trainable(model).items()}
    losses = descend(model, task, lab, steps=40)
    return Trained(model.eval(), task, {"loss": losses}, start)


def first(task: Task, use: Use, lab: Lab, n: int) -> Batch:
    """The first examples of the task's first split of this use."""
    return next(once(next(iter(task.of(use).values())).data, n, lab))


def descend(model: nn.Module, task: Task, lab: Lab, steps: int) -> list[float]:
    """Mean losses of Adam on the first 256 examples of the first TRAIN split."""
    batch = first(task, Use.TRAIN, lab, 256)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = task.objective.loss(model, batch).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
