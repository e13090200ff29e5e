"""The contract of tasks."""

import math
from collections.abc import Callable, Collection
from itertools import islice

import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from unseen.engine.batches import gather, length, once, size, whole
from unseen.lab import Lab
from unseen.task import Batch, Split, Task, TaskSpec, Use
from unseen.testing.contract import (
    ContractViolation,
    check_plug,
    forbid_global_randomness,
    name_of,
    require,
    scramble_global_rng,
)
from unseen.testing.stand_ins import descend, first, small_model

STREAMED = 2_000
"""Streams are compared over so many examples."""


def check_task(
    spec: TaskSpec, model: Callable[[Task], nn.Module] | None = None, lab: Lab = Lab()
) -> None:
    """Same lab, same data; TRAIN and EVALUATE share no example; shapes per example; the loss falls
    for an easy model.
    """
    check_plug(spec, "build")
    with forbid_global_randomness("build"):
        task = spec.build(lab)
    with scramble_global_rng():
        again = spec.build(lab)
    require(
        isinstance(task, Task),
        f"{name_of(spec)}.build returned a {type(task).__name__}.",
        "a spec builds a Task.",
    )
    for name, split in task.splits.items():
        _check_examples(name, split, again.splits[name], lab)
    _check_disjoint(task, getattr(spec, "recalls", ()), lab)
    keys = set(first(task, Use.TRAIN, lab, 2))
    if model is None and not keys >= {"x", "y"} and "tokens" not in keys:
        raise ContractViolation(
            f"`{task.name}` has columns {sorted(keys)}, for which the battery has no model.",
            why="the loss of a task must fall for an easy model.",
            fix="let example() return (spec, model) with a function from the task to an easy "
            "model.",
        )
    _check_objective(task, (model or small_model)(task), lab)


def _check_examples(name: str, split: Split, again: Split, lab: Lab) -> None:
    examples, repeated = _all_examples(split, lab), _all_examples(again, lab)
    for key, column in examples.items():
        finite = not column.is_floating_point() or bool(torch.isfinite(column).all())
        require(
            finite,
            f"Column `{key}` of split `{name}` holds NaN or infinite values.",
            "no model can use them.",
        )
    same = examples.keys() == repeated.keys() and all(
        _equal(examples[key], repeated[key]) for key in examples
    )
    require(
        same,
        f"Split `{name}` differs between two builds with the same lab.",
        "results could not be repeated.",
        "draw from lab.child(…).numpy() or .generator(), never from a global generator.",
    )
    if (n := length(split.data)) is not None:
        few = gather(split.data, torch.arange(min(3, n)))
        for key, column in few.items():
            require(
                column.dim() > 0 and len(column) == min(3, n) and _equal(column, examples[key][:3]),
                f"Three examples of `{name}` have `{key}` of shape {tuple(column.shape)}, all have "
                f"{tuple(examples[key].shape)}.",
                "the example axis comes first in every tensor, and an index means the same example "
                "every time.",
            )


def _check_disjoint(task: Task, recalls: Collection[str], lab: Lab) -> None:
    for fitted_name, fitted in task.of(Use.TRAIN).items():
        known = _all_examples(fitted, lab)
        for name, split in task.of(Use.EVALUATE).items():
            judged = _all_examples(split, lab)
            numbered = "index" in known and "index" in judged
            same = _rows(known) & _rows(judged)
            alike = _rows(known, without="index") & _rows(judged, without="index")
            tolerated = math.ceil(size(judged) / 100) if numbered else 0
            require(
                name in recalls or (not (numbered and same) and len(alike) <= tolerated),
                f"{len(alike)} examples of the evaluation split `{name}` are also in "
                f"`{fitted_name}`, which is fitted.",
                "a score on training examples says nothing about unseen ones.",
                "remove them, or if recall is what is evaluated: recalls: ClassVar = "
                f"frozenset({{{name!r}}}).",
            )


def _check_objective(task: Task, model: nn.Module, lab: Lab) -> None:
    batch = first(task, Use.TRAIN, lab, 5)
    model.eval()
    for kind, f in (("loss", task.objective.loss), ("score", task.objective.score)):
        with torch.no_grad():
            together = f(model, batch)
            shape = tuple(together.shape)
            require(
                shape == (size(batch),),
                f"The {kind} of `{task.name}` has shape {shape} for {size(batch)} examples.",
                "loss and score return one number per example.",
                'drop the mean: reduction="none".',
            )
            alone = torch.cat(
                [f(model, {k: v[i : i + 1] for k, v in batch.items()}) for i in range(size(batch))]
            )
        require(
            torch.allclose(together, alone, rtol=1e-4, atol=1e-5),
            f"The {kind} of an example of `{task.name}` depends on the other examples of its "
            "batch.",
            "it is one number per example.",
        )
    losses = descend(model, task, lab, steps=100)
    require(
        math.isfinite(losses[-1]) and min(losses[-10:]) < losses[0],
        f"The loss of `{task.name}` went from {losses[0]:.4g} to {losses[-1]:.4g} in 100 steps of "
        "Adam on an easy model.",
        "a task that nothing can learn judges nothing.",
        "check that inputs and targets belong together; let example() return (spec, model) with a "
        "fitting model.",
    )


def _all_examples(split: Split, lab: Lab) -> Batch:
    """All examples; of a stream the first."""
    if not isinstance(split.data, IterableDataset):
        return whole(split.data, lab)
    batches = list(islice(once(split.data, 100, lab), STREAMED // 100))
    return {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}


def _rows(batch: Batch, without: str = "") -> set[bytes]:
    """Examples by content."""
    columns = [
        column.reshape(size(batch), -1).numpy()
        for key, column in sorted(batch.items())
        if key != without
    ]
    return {b"|".join(column[i].tobytes() for column in columns) for i in range(size(batch))}


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and bool(torch.equal(a, b))
