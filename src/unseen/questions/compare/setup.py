"""What methods are compared on: one task per place left out, a fresh model, and how long it trains."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter

import numpy as np
from torch import Tensor, nn

from unseen.engine.batches import length, once
from unseen.engine.loop import Budget, Optimizer
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.models.mlp import mlp
from unseen.objectives import all_tokens_right, correct, correct_sign, negative_absolute_error
from unseen.task import Batch, Split, Task, Use
from unseen.tasks.domains import ORACLE, UNSEEN, DomainSpec, leave_one_out, unlabelled
from unseen.tasks.table import Table, opened, prepared
from unseen.tasks.table_domains import by_site

WORDS = {Optimizer.SGD: "SGD", Optimizer.ADAM: "Adam", Optimizer.ADAMW: "AdamW"}
PLACES = 12
"""At most so many sites of a table are left out in turn."""
ORACLE_SHARE = 0.2
"""Share of the site left out that is set apart for oracle selection."""


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
    groups: Mapping[str, Callable[[Batch], Tensor]] = field(default_factory=dict)
    """Subgroups by name: a function of a batch that returns an integer per example (negative: in none)."""
    levels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Names of the integers of each group."""
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
        return "accuracy" if score in (correct, correct_sign, all_tokens_right) else "score"

    @property
    def scale(self) -> float:
        """What a score is multiplied with to be in the target's own unit."""
        return self.unit if self.metric == "minus mean absolute error" else 1.0


def judged(task: Task) -> dict[str, str]:
    """The splits that are reported, by the name of their place: `unseen`, else what lies at unseen positions, else all."""
    if UNSEEN in task.of(Use.JUDGE):
        at = task.splits[UNSEEN].at
        return {UNSEEN if at is None else str(at): UNSEEN}
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


def of_task(
    task: Task, name: str = "", model: Callable[[Task], nn.Module] | None = None, budget: Budget | None = None
) -> Contest:
    """One task as it is: nothing is left out in turn."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        task = unlabelled(task)
    chosen = budget or usual(task)
    return Contest(
        name=name or task.name,
        tasks={task.name: task},
        model=model or network,
        budget=chosen,
        decisions=[] if model else [about(task, chosen)],
        warnings=[str(each.message) for each in caught],
    )


def of_table(table: Table, lab: Lab, name: str = "table") -> Contest:
    """Each site of a table left out in turn, at most twelve: the largest. A table without sites: one task as it is."""
    sheet = opened(table)
    made = {}
    if table.site:
        counts = np.bincount(sheet.site[sheet.rows], minlength=len(sheet.sites))
        kept = sorted(np.argsort(-counts, kind="stable")[:PLACES])
        for site in (sheet.sites[k] for k in kept):
            made[site] = by_site(prepared(sheet, site, lab.child("data")), ORACLE_SHARE, lab.child("data"))
    else:
        made[name] = prepared(sheet, None, lab.child("data"))
    first = next(iter(made.values()))
    few = [f"Of {len(sheet.sites)} sites the {PLACES} largest are left out in turn."] * (len(sheet.sites) > len(made))
    budget = usual(first.task)
    # what is said of columns differs a little from place to place: told once
    said = [*first.decisions, *(text for one in made.values() for text in one.decisions if text.startswith("Site "))]
    anew = ["Medians, scales and levels of columns are learned anew for every site left out; told here for the first."]
    return Contest(
        name=name,
        tasks={at: one.task for at, one in made.items()},
        model=network,
        budget=budget,
        unit=1.0 if first.target.classes else first.target.scale,
        groups={spec: itemgetter(f"group:{spec}") for spec in first.groups},
        levels=dict(first.groups),
        decisions=list(dict.fromkeys([about(first.task, budget), *few, *(anew if table.site else []), *said])),
        warnings=list(dict.fromkeys(text for one in made.values() for text in one.warnings)),
    )


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
        f"The network is a multilayer perceptron {width}-64-32-{outputs}, trained with {WORDS[budget.optimizer]} for "
        f"{budget.steps} steps with {budget.batch_size} examples{each}; its last weights are judged."
    )
