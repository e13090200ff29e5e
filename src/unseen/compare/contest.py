"""What methods are compared on: one task per place left out, a fresh model, and how long it trains."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor, nn

from unseen.engine.batches import length, once
from unseen.engine.loop import Budget
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.models.mlp import mlp
from unseen.objectives import negative_absolute_error
from unseen.task import Split, Task, Use
from unseen.tasks.domains import ORACLE, UNSEEN, DomainSpec, leave_one_out, unlabelled


@dataclass(frozen=True, kw_only=True)
class Contest:
    """The same question wherever it is asked: every method gets the same data, initial weights and budget."""

    name: str
    tasks: Mapping[str, Task]
    """One per place that is left out; a single one where nothing can be left out."""
    model: Callable[[Task], nn.Module]
    """A fresh model whose inputs and outputs fit the task."""
    budget: Budget
    unit: float = 1.0
    """A number as target is predicted in this unit."""
    decisions: Sequence[str] = ()
    """How the data were treated, for the report."""
    warnings: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not self.tasks:
            raise InvalidData(
                "A contest without a task.", why="nothing can be compared.", fix="give at least one task."
            )

    @property
    def metric(self) -> str:
        """What the scores are the mean of, in words; higher is better."""
        score = next(iter(self.tasks.values())).objective.score
        if score is negative_absolute_error:
            return "minus mean absolute error"
        return "accuracy" if score.__name__.startswith(("correct", "all_tokens_right")) else "score"

    @property
    def scale(self) -> float:
        """What a score is multiplied with to be in the target's own unit."""
        return self.unit if self.metric == "minus mean absolute error" else 1.0


def judged(task: Task) -> dict[str, str]:
    """The splits that are reported, by the name of their place: `unseen`, else what lies at unseen positions, else all."""
    if UNSEEN in task.of(Use.JUDGE):
        return {str(task.splits[UNSEEN].at or UNSEEN): UNSEEN}
    found = {name: split for name, split in (task.unseen or task.of(Use.JUDGE)).items() if name != ORACLE}
    if not found:
        raise InvalidData(
            f"Task `{task.name}` has no split to judge.",
            why="a comparison needs examples that no method has seen.",
            fix="add a split with use=Use.JUDGE.",
        )
    places = [str(split.at) for split in found.values()]
    unique = len(set(places)) == len(places) and None not in [split.at for split in found.values()]
    return dict(zip(places if unique else found, found, strict=True))


def seen(task: Task) -> dict[str, Split]:
    """Judged splits at positions that are fitted: what in-distribution accuracy is read from."""
    new = {*task.unseen, *judged(task).values(), ORACLE}
    return {name: split for name, split in task.of(Use.JUDGE).items() if name not in new}


def domains(task: Task) -> list[str]:
    """The positions of the FIT splits, where there are several: what leave-one-domain-out validation leaves out."""
    found = dict.fromkeys(str(split.at) for split in task.of(Use.FIT).values() if split.at is not None)
    return list(found) if len(found) > 1 else []


def of_spec(spec: DomainSpec, lab: Lab, name: str = "") -> Contest:
    """Each domain left out in turn. What the data are does not depend on the seed of a run."""
    tasks: dict[str, Task] = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        for place, one in zip(spec.domains(), leave_one_out(spec), strict=True):
            tasks[place] = unlabelled(one.build(lab.child("data")))
    first = next(iter(tasks.values()))
    said = [str(each.message) for each in caught]
    contest = Contest(name=name or first.name.split(" · ")[0], tasks=tasks, model=network, budget=usual(first))
    return replace(contest, decisions=[about(first, contest.budget)], warnings=list(dict.fromkeys(said)))


def of_task(task: Task, name: str = "") -> Contest:
    """One task as it is: nothing is left out in turn."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        task = unlabelled(task)
    said = [str(each.message) for each in caught]
    contest = Contest(name=name or task.name, tasks={task.name: task}, model=network, budget=usual(task), warnings=said)
    return replace(contest, decisions=[about(task, contest.budget)])


def network(task: Task) -> nn.Sequential:
    """A multilayer perceptron with 64 and 32 hidden units between the task's inputs and outputs."""
    width, outputs = shape(task)
    return mlp([width, 64, 32, outputs])


def shape(task: Task) -> tuple[int, int]:
    """Numbers per input, and outputs: classes, or the dimension of the target."""
    x: Tensor | None = None
    outputs = 0
    for split in task.splits.values():
        for batch in once(split.data, 4096, Lab()):
            if (
                "x" not in batch
                or not batch["x"].is_floating_point()
                or (split.use is not Use.ADAPT and "y" not in batch)
            ):
                raise InvalidData(
                    f"Task `{task.name}` has no numbers `x` with targets `y`.",
                    why="the ready network is a multilayer perceptron.",
                    fix="give a model of your own: unseen compare my_model.py:subject.",
                )
            x = batch["x"]
            if "y" in batch:
                y = batch["y"]
                outputs = max(outputs, y[0].numel() if y.is_floating_point() else int(y.max()) + 1)
    assert x is not None  # a task has a split to fit, and `once` refuses empty ones
    return x[0].numel(), outputs


def usual(task: Task) -> Budget:
    """About fifteen passes of AdamW over what is fitted, 32 examples of each domain in a step."""
    sizes = [length(split.data) or 10_000 for split in task.of(Use.FIT).values()]
    batch_size = 32 if len(sizes) > 1 else 64
    steps = int(np.clip(15 * sum(sizes) / (batch_size * len(sizes)), 100, 2_000))
    return Budget(steps=steps, batch_size=batch_size, lr=2e-3, weight_decay=1e-2)


def about(task: Task, budget: Budget) -> str:
    """How a method trains unless the search says otherwise."""
    width, outputs = shape(task)
    each = " of each domain" if len(task.of(Use.FIT)) > 1 else ""
    return (
        f"The network is a multilayer perceptron {width}-64-32-{outputs}, trained with {budget.optimizer.name.title()} for "
        f"{budget.steps} steps with {budget.batch_size} examples{each}; its last weights are judged."
    )
