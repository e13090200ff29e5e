"""A trial: the same untrained model trained by every arm on one task, read into rows."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from torch import nn

from unseen.lab import Lab
from unseen.method import Method, Trained
from unseen.study import Row, Value
from unseen.task import Batch, Task, Use

Model = TypeVar("Model", bound=nn.Module)
Arm = TypeVar("Arm", bound=Value)


def example(task: Task) -> Batch:
    """The first training example: its tensors have the shapes that a model must take."""
    return next(iter(task.of(Use.TRAIN).values())).data[0]


def untrained_model(build: Callable[[], Model], lab: Lab, stream: str = "init") -> Model:
    """A new model whose weights depend on the lab and the stream's name alone."""
    with lab.child(stream).seeded():
        return build()


def label(rows: Iterable[Mapping[str, Value]], **facts: Value) -> Iterator[Row]:
    """Rows behind the facts that they share."""
    for row in rows:
        yield {**facts, **row}


def trial(
    arms: Mapping[Arm, Method],
    task: Task,
    build: Callable[[], nn.Module],
    reads: Callable[[Trained, Lab], Iterable[Mapping[str, Value]]],
    lab: Lab,
    *,
    column: str = "arm",
    **facts: Value,
) -> Iterator[Row]:
    """Rows {…facts, arm, …reads}: arms share the data, the first weights and the minibatches.

    `column` names the column that holds the arms: their names, or the numbers that are varied.
    """
    for name, method in arms.items():
        trained = method.fit(untrained_model(build, lab), task, lab.child("fit"))
        yield from label(reads(trained, lab), **facts, **{column: name})
