"""The contract of measures."""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, get_type_hints

import torch
from torch import Tensor
from torch.utils.data import Dataset

from unseen.engine.batches import Columns, gather, length, whole
from unseen.engine.parameters import state
from unseen.errors import UnseenError
from unseen.lab import Lab
from unseen.method import Trained
from unseen.reading import Measure, Reading
from unseen.task import Task
from unseen.testing.contract import (
    ContractViolation,
    check_plug,
    forbid_global_randomness,
    modes_of,
    name_of,
    require,
    same_state,
    scramble_global_rng,
)
from unseen.testing.stand_ins import small_subject, small_task


def check_measure(measure: Measure[Any], subject: Any = None, lab: Lab = Lab()) -> None:
    """Repeatable; model, mode and gradients unchanged; independent of `batch_size`; invariant where
    it declares so; a degenerate subject raises an `UnseenError` (or does not matter to the
    value)."""
    check_plug(measure, "__call__")
    subject = _double(_subject_of(measure) if subject is None else subject)
    lab = replace(lab, dtype=torch.float64).child("measure")
    if isinstance(subject, Trained):
        _check_model_unchanged(measure, subject, lab)
    with forbid_global_randomness("the measure"):
        value = _reading(measure, subject, lab)
    with scramble_global_rng():
        again = _reading(measure, subject, lab)
    require(
        again == value,
        f"{name_of(measure)} gave {value:.17g}, then {again:.17g}.",
        "the same lab gives the same reading.",
    )
    for batch_size in (1, 7, 10_000) if _has_field(measure, "batch_size") else ():
        other = replace(measure, batch_size=batch_size)  # type: ignore[type-var]
        _check_invariance(measure, other, subject, lab, value, f"batch_size={batch_size}")
    for invariance in getattr(measure, "invariances", ()):
        _check_invariance(
            measure, measure, _apply_invariance(subject, invariance), lab, value, invariance
        )
    _check_refusals(measure, subject, lab, value)


def _subject_of(measure: Measure[Any]) -> Any:
    hints = [
        kind
        for name, kind in get_type_hints(type(measure).__call__).items()
        if name not in ("lab", "return")
    ]
    if hints and hints[0] is Trained:
        return small_subject()
    if hints and hints[0] is Task:
        return small_task()
    raise ContractViolation(
        f"The battery cannot make a subject for {name_of(measure)}: "
        f"{hints[0] if hints else 'no annotation'}.",
        why="only Trained and Task have a small stand-in.",
        fix="let example() return (measure, subject).",
    )


def _reading(measure: Measure[Any], subject: Any, lab: Lab) -> float:
    reading = measure(subject, lab)
    require(
        isinstance(reading, Reading),
        f"{name_of(measure)} returned a {type(reading).__name__}.",
        "it gives a Reading.",
    )
    require(
        math.isfinite(reading.value) and reading.n >= 1,
        f"{name_of(measure)} gave value {reading.value} from n={reading.n}.",
        "a value that does not exist raises; it never becomes a number.",
    )
    slack = 1e-9 * (1 + abs(reading.value))
    inside = not (reading.value < reading.low - slack or reading.value > reading.high + slack)
    require(
        inside,
        f"{name_of(measure)} gave {reading}: the value lies outside its interval.",
        "they contradict.",
    )
    return reading.value


def _check_model_unchanged(measure: Measure[Any], subject: Trained, lab: Lab) -> None:
    for training in (True, False):
        model = copy.deepcopy(subject.model).train(training)
        before, modes = state(model), modes_of(model)
        try:
            measure(replace(subject, model=model), lab)
        except UnseenError:
            if not training:
                raise
        require(
            same_state(before, state(model)) and modes == modes_of(model),
            f"{name_of(measure)} left the model changed (weights, mode, requires_grad, gradients "
            "or hooks).",
            "measures are read in the middle of training.",
            "restore in a `finally` block; take gradients with torch.autograd.grad.",
        )


def _check_invariance(
    measure: Measure[Any], other: Measure[Any], subject: Any, lab: Lab, value: float, change: str
) -> None:
    now = _reading(other, subject, lab)
    require(
        math.isclose(now, value, rel_tol=1e-6, abs_tol=1e-9),
        f"{name_of(measure)} is {value:.8g}, but {now:.8g} with {change}.",
        "the value must not depend on it.",
        "sum over examples and divide at the end.",
    )


def _apply_invariance(subject: Any, invariance: str) -> Any:
    """The subject after a change that the measure declares irrelevant."""
    task = subject.task if isinstance(subject, Trained) else subject

    def columns(change: Callable[[Dataset[Any]], Dataset[Any]]) -> Task:
        return replace(
            task, splits={name: replace(s, data=change(s.data)) for name, s in task.splits.items()}
        )

    if invariance == "order":
        task = columns(
            lambda data: _take(
                data, torch.randperm(_length(data), generator=Lab(seed=1).generator())
            )
        )
    elif invariance == "repetition":
        task = columns(lambda data: _take(data, torch.arange(_length(data)).repeat(2)))
    elif invariance == "loss scale":
        loss = task.objective.loss
        task = replace(
            task,
            objective=replace(task.objective, loss=lambda model, batch: 3 * loss(model, batch)),
        )
    else:
        raise ContractViolation(
            f"There is no invariance `{invariance}`.",
            why="the battery must know how to try it.",
            fix='declare "order", "repetition" or "loss scale"; test others in the measure\'s own '
            "test file.",
        )
    return replace(subject, task=task) if isinstance(subject, Trained) else task


def _check_refusals(measure: Measure[Any], subject: Any, lab: Lab, value: float) -> None:
    refused = []
    for kind, bad in _degenerate(subject).items():
        try:
            now = measure(bad, lab).value
        except UnseenError:
            refused.append(kind)
            continue
        require(
            now == value,  # a measure of weights does not look at the data, and the reverse
            f"{name_of(measure)} gave {now} for a subject with {kind}.",
            "a value that does not exist ends up in a table as a result.",
            "raise InvalidData with what, why and fix.",
        )
    require(
        bool(refused),
        f"{name_of(measure)} refused no degenerate subject ({', '.join(_degenerate(subject))}).",
        "one of them must matter to it.",
    )


def _degenerate(subject: Any) -> dict[str, Any]:
    """Empty, NaN inputs, NaN weights: as far as the subject has them."""
    if isinstance(subject, Trained):
        inside = {
            kind: replace(subject, task=task) for kind, task in _degenerate(subject.task).items()
        }
        model = copy.deepcopy(subject.model)
        with torch.no_grad():
            for p in model.parameters():
                p.fill_(math.nan)
        return {**inside, "weights that are NaN": replace(subject, model=model)}
    if isinstance(subject, Task):
        return {
            kind: _with_data(subject, change)
            for kind, change in (("no examples", _without_rows), ("NaN inputs", _nan))
        }
    if isinstance(subject, Mapping):
        return {"nothing in it": {key: value[:0] for key, value in subject.items()}}
    if is_dataclass(subject) and not isinstance(subject, type):
        empty = {name: value[:0] for name, value in vars(subject).items()}
        return {"nothing in it": replace(subject, **empty)}
    return {"nothing in it": subject[:0]}


def _with_data(task: Task, change: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]) -> Task:
    lab = Lab(dtype=torch.float64)
    bad = {
        name: replace(s, data=Columns(**change(whole(s.data, lab))))
        for name, s in task.splits.items()
    }
    return replace(task, splits=bad)


def _without_rows(columns: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: column[:0] for key, column in columns.items()}


def _nan(columns: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        k: torch.full_like(c, math.nan) if c.is_floating_point() else c for k, c in columns.items()
    }


def _has_field(plug: Any, name: str) -> bool:
    return any(field.name == name for field in fields(plug))


def _double(subject: Any) -> Any:
    """The model in float64, where equal values differ by rounding in the last digits only."""
    if isinstance(subject, Trained):
        start = (
            None
            if subject.start is None
            else {name: p.double() for name, p in subject.start.items()}
        )
        return replace(subject, model=copy.deepcopy(subject.model).double(), start=start)
    return subject


def _length(data: Dataset[Any]) -> int:
    return length(data) or 0


def _take(data: Dataset[Any], index: Tensor) -> Columns:
    return Columns(**gather(data, index))
