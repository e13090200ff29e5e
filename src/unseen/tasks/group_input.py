"""A sensitive attribute as the last input of a task with domains in time, and what people would be
in the other group, by means alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unseen.engine.batches import Columns
from unseen.lab import Lab
from unseen.task import Split, Task, Use
from unseen.tasks.compas import Compas
from unseen.tasks.drifting_fairness import DriftingFairness

FUTURE, PRESENT, HELD_OUT = "future", "present", "held out"
COLUMNS = ("y", "a", "domain", "fair", "u")
"""Columns that are kept as they are, where a task has them."""
INPUTS = ("x", "counterfactual", "outside")
"""Columns that a model can be given."""


@dataclass(frozen=True)
class GroupInput:
    """A task with domains in time whose last input is the group, or (not `visible`) the same people
    without it.
    """

    spec: DriftingFairness | Compas
    """Of people whose own inputs do not hold their group."""
    visible: bool = True

    def build(self, lab: Lab) -> Task:
        task = add_group_input(self.spec.build(lab))
        return task if self.visible else drop_group_input(task)


def add_group_input(task: Task) -> Task:
    """a − ½ as the last input. Evaluated are FUTURE, the domains after the fitted ones, and
    PRESENT, new people of the last; HELD_OUT are those of the splits that select.
    """
    train = task.of(Use.TRAIN)
    last = max(float(split.data[:]["domain"].max()) for split in train.values())
    merged = {
        FUTURE: [split for name, split in task.unseen.items() if name != "oracle"],
        PRESENT: [
            split
            for name, split in task.of(Use.EVALUATE).items()
            if name.startswith("seen") and split.data[:]["domain"].max() == last
        ],
        HELD_OUT: list(task.of(Use.SELECT).values()),
    }
    splits = {name: Split(join_group(split.data[:]), Use.TRAIN) for name, split in train.items()}
    for name, parts in merged.items():
        use = Use.SELECT if name == HELD_OUT else Use.EVALUATE
        splits[name] = Split(join_group(concatenate(parts)), use, name)
    return replace(task, splits=splits)


def drop_group_input(task: Task) -> Task:
    """The same people without the last input."""

    def drop(split: Split) -> Split:
        columns = {
            name: values[:, :-1] if name in INPUTS else values
            for name, values in split.data[:].items()
        }
        return replace(split, data=Columns(**columns))

    return replace(task, splits={name: drop(split) for name, split in task.splits.items()})


def concatenate(parts: Sequence[Split]) -> dict[str, Tensor]:
    batches = [part.data[:] for part in parts]
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def join_group(columns: Mapping[str, Tensor]) -> Columns:
    """The columns that are used, with the group as the last input."""
    side = columns["a"].to(columns["x"].dtype)[:, None] - 0.5
    inputs = {"x": torch.cat([columns["x"], side], 1)}
    if "counterfactual" in columns:
        inputs["counterfactual"] = torch.cat([columns["counterfactual"], -side], 1)
    other = shift_group_means(columns["x"], columns["a"], columns["domain"])
    inputs["outside"] = torch.cat([other, -side], 1)
    return Columns(**{name: columns[name] for name in COLUMNS if name in columns}, **inputs)


def shift_group_means(
    x: Float[Tensor, "n d"], a: Int[Tensor, " n"], domain: Int[Tensor, " n"]
) -> Float[Tensor, "n d"]:
    """x + E[x | other group] − E[x | own group], within each domain.

    The counterfactual of an additive model without confounding: no decoder takes part, and in the
    generated worlds it is the true one but for the error of the means. On real data it is
    model-based.
    """
    shifted = x.clone()
    for one in domain.unique():
        members = [(domain == one) & (a == group) for group in (0, 1)]
        means = [x[mask].mean(0) for mask in members]
        for group, mask in enumerate(members):
            shifted[mask] += means[1 - group] - means[group]
    return shifted


def example() -> GroupInput:
    people = DriftingFairness(fitted=3, future=1, n=100, n_evaluate=100, visible=False)
    return GroupInput(people)
