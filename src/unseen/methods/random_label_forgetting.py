"""Forgetting a task by training on random labels (Zhang, Choshen & Andreas, 2024,
arXiv:2409.02228): the inputs stay, their answers are drawn anew.

Drawn once, the labels are memorised one by one; drawn for every step, they push towards the uniform
answer. A control trains equally long on the true labels: what it loses, random labels did not take.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor, nn

from unseen.engine.batches import Columns
from unseen.engine.loop import Budget, Draw, mean_loss, train
from unseen.engine.responses import Exchange
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.task import Batch, Objective, Split, Task, Use


class LabelDraw(StrEnum):
    """How random labels relate to the true ones."""

    STRATIFIED = "stratified"
    """Of each true label's examples every label gets the same number, to within one: labels agree
    with the truth in 1 of |C| cases, with less variance, but are not independent of it.
    """
    INDEPENDENT = "independent"
    """Uniform, whatever the truth; depends on nothing but the seed and the example's name."""


def draw_labels(
    truth: Sequence[int],
    choices: Sequence[int],
    names: Sequence[str],
    draw: LabelDraw,
    lab: Lab,
) -> list[int]:
    """A random label for each example, among as many as it has choices.

    Stratified labels depend on the seed and the set of names, independent ones on the seed and the
    own name: never on the order.
    """
    refuse_unfit_labels(truth, choices, names)
    if draw is LabelDraw.INDEPENDENT:
        return [
            int(lab.child("label", name).numpy().integers(count))
            for name, count in zip(names, choices, strict=True)
        ]
    drawn = [0] * len(truth)
    strata: dict[tuple[int, int], list[int]] = {}
    for k in sorted(range(len(truth)), key=lambda k: names[k]):
        strata.setdefault((truth[k], choices[k]), []).append(k)
    for (label, count), members in sorted(strata.items()):
        rng = lab.child("stratum", label, count).numpy()
        # a random first label: those that one stratum has more of are not those of the next
        dealt = (np.arange(len(members)) + rng.integers(count)) % count
        for k, new in zip(members, rng.permutation(dealt), strict=True):
            drawn[k] = int(new)
    return drawn


def refuse_unfit_labels(truth: Sequence[int], choices: Sequence[int], names: Sequence[str]) -> None:
    """Raises where there is nothing to forget, or a name is not one example's."""
    if len(set(truth)) < 2:
        label = f"label {truth[0]} alone" if len(truth) else "no example"
        raise InvalidData(
            f"The examples to forget have {label}.",
            why="a model that always gives it is right, so nothing shows what was forgotten.",
            fix="give examples of at least two labels.",
        )
    if len(set(names)) < len(names):
        twice = next(name for k, name in enumerate(names) if name in names[:k])
        raise InvalidData(
            f"Two examples are called `{twice}`.",
            why="a random label belongs to a name.",
            fix="give each example a name of its own.",
        )
    if min(choices) < 2:
        raise InvalidData(
            f"Example `{names[int(np.argmin(choices))]}` has {min(choices)} choices.",
            why="its label cannot be another one.",
            fix="leave it out.",
        )


@dataclass(frozen=True)
class RandomLabelForgetting:
    """Trains on the TRAIN splits with their labels `y` drawn anew.

    Training ends early, and the weights stay, once `stop_at` of the examples of a step have their
    drawn label: count whole passes only with a batch of the whole set. `curves["fit"]` holds that
    share at every step.
    """

    budget: Budget = Budget(steps=150, batch_size=128, lr=1e-4)
    draw: LabelDraw = LabelDraw.STRATIFIED
    redraw: bool = False
    """Labels drawn for every step, independent of the truth."""
    true_labels: bool = False
    """The control: labels stay, all else is equal. Give it the steps that forgetting took."""
    stop_at: float = 0.9

    def __post_init__(self) -> None:
        if not 0 < self.stop_at <= 1:
            raise InvalidConfig(
                f"RandomLabelForgetting stops at a fit of {self.stop_at}.",
                why="a share of the examples is above 0 and at most 1.",
                fix="use 0.9, or 1 to train all steps.",
            )

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        changed = task if self.true_labels else relabel_task(task, self.draw, lab.child("labels"))
        fits: list[float] = []
        count = number_of_classes(task) if self.redraw and not self.true_labels else 0
        stop = 2.0 if self.true_labels else self.stop_at
        step = partial(forget_step, count=count, stop_at=stop, fits=fits)
        trained = train(model, changed, step, self.budget, lab)
        return replace(trained, task=task, curves={**trained.curves, "fit": fits})


def forget_step(
    model: nn.Module,
    draw: Draw,
    objective: Objective,
    *,
    count: int,
    stop_at: float,
    fits: list[float],
) -> Tensor:
    """Leaves the gradient of the mean loss on the given labels, or none where the fit is reached:
    a parameter without gradient is not updated. With a `count` the labels are drawn here.
    """
    batches = dict(draw.fit)
    if count:
        batches = {
            name: uniform_labels(one, count, draw.generator) for name, one in batches.items()
        }
    with torch.no_grad():
        right = torch.cat([objective.score(model, one) for one in batches.values()])
    fits.append(right.double().mean().item())
    loss = mean_loss(model, batches, objective)
    if max(fits) < stop_at:
        loss.backward()
    return loss.detach()


def uniform_labels(batch: Batch, count: int, generator: torch.Generator | None) -> Batch:
    """The batch with labels drawn anew."""
    y = torch.randint(count, batch["y"].shape, generator=generator)
    return {**batch, "y": y.to(batch["y"])}


def updates(curve: Sequence[float], stop_at: float) -> int:
    """The steps that changed weights: those before the fit was reached."""
    return next((k for k, fit in enumerate(curve) if fit >= stop_at), len(curve))


def number_of_classes(task: Task) -> int:
    """Of the TRAIN splits' labels, counted from 0."""
    return 1 + max(
        int(_columns(name, split)["y"].max()) for name, split in task.of(Use.TRAIN).items()
    )


def relabel_task(task: Task, draw: LabelDraw, lab: Lab) -> Task:
    """The task with TRAIN labels drawn anew: of examples with the column `choices`, among so many,
    else among the classes. Examples are named by the column `id`, else by their row.
    """
    classes = number_of_classes(task)
    splits = dict(task.splits)
    for name, split in task.of(Use.TRAIN).items():
        columns = _columns(name, split)
        n = len(columns["y"])
        counts = columns["choices"].tolist() if "choices" in columns else [classes] * n
        ids = columns["id"].tolist() if "id" in columns else range(n)
        drawn = draw_labels(
            columns["y"].tolist(), counts, [str(one) for one in ids], draw, lab.child(name)
        )
        y = torch.tensor(drawn).to(columns["y"])
        splits[name] = replace(split, data=Columns(**{**columns, "y": y}))
    return replace(task, splits=splits)


def _columns(name: str, split: Split) -> dict[str, Tensor]:
    columns = dict(split.data.columns) if isinstance(split.data, Columns) else {}
    if "y" not in columns or columns["y"].dtype.is_floating_point:
        raise InvalidData(
            f"The split `{name}` has no column `y` of classes.",
            why="labels are drawn anew.",
            fix="give Columns with `y` as whole numbers; for items use exchanges_of.",
        )
    return columns


@runtime_checkable
class ChoiceItem(Protocol):
    """A question with choices, as `tasks.graded_questions.Item`."""

    @property
    def prompt(self) -> str: ...
    @property
    def continuations(self) -> tuple[str, ...]: ...
    @property
    def answer(self) -> int: ...
    @property
    def name(self) -> str: ...


def item_labels(items: Sequence[ChoiceItem], draw: LabelDraw, lab: Lab) -> list[int]:
    """A random choice for each item."""
    return draw_labels(
        [item.answer for item in items],
        [len(item.continuations) for item in items],
        [item.name or item.prompt for item in items],
        draw,
        lab,
    )


def exchanges_of(items: Sequence[ChoiceItem], labels: Sequence[int]) -> list[Exchange]:
    """Each item's prompt with the choice of that label as response."""
    return [
        Exchange(item.prompt, item.continuations[label])
        for item, label in zip(items, labels, strict=True)
    ]


def agreement(truth: Int[Tensor, " n"] | Sequence[int], labels: Sequence[int]) -> float:
    """The share of labels that are the true ones."""
    a: NDArray[np.int64] = np.asarray(truth)
    return float((a == np.asarray(labels)).mean())


def example() -> RandomLabelForgetting:
    return RandomLabelForgetting(Budget(steps=20, batch_size=32, lr=1e-2))
