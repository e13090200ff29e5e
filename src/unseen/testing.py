"""The contract battery: what every task, method, measure, attribution and study must satisfy. Public, for own plugs too.

    check_task(XorClusters(n=60))                  raises Broken with what, why and fix, or returns None
    check_method(SAM(), small_task())              a method that needs more than `x` and `y` brings its own task
    check_measure(Coherence())                     subject: see below
    check_attribution(GradientSimilarity())
    check_study(study)

**Examples.** A plug file ends with `example()`. It returns the plug alone, or a pair with what the plug is to be tried
on, when the defaults do not suit:

| room         | alone                                            | pair                                            |
|--------------|--------------------------------------------------|-------------------------------------------------|
| tasks        | the spec; `x`, `y` and `tokens` get a small model | `(spec, model)`: a function task → easy model  |
| methods      | tried on `small_task()` with a small MLP         | `(method, trained)`: its task and a fresh model |
| measures     | `__call__`'s annotation decides: `Trained` or `Task` | `(measure, subject)`                        |
| attributions | tried on `small_trained()`                       | `(attribution, trained)`                        |

A task whose judged splits repeat fitted examples on purpose (recall of facts) names them in a class variable
`recalls`. A column `index` is the number of the source example: two different people may agree in every column, so 1 %
of a judged split may look like fitted examples if their numbers differ. A measure declares what leaves its value
unchanged in a class variable `invariances`: "order" (of the examples), "repetition" (every example twice), "loss scale"
(the loss times 3).
"""

import copy
import math
import pickle
import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from itertools import islice
from typing import Any, get_type_hints

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset

from unseen.attribution import Attribution, Cause, Credits
from unseen.engine.batches import Columns, gather, length, once, size, whole
from unseen.engine.flat import state, trainable
from unseen.errors import UnseenError
from unseen.lab import Lab
from unseen.measure import Measure, Reading
from unseen.method import Method, Trained
from unseen.models.mlp import mlp
from unseen.objectives import classify
from unseen.study import Scale, Study
from unseen.task import Axis, Batch, Split, Task, TaskSpec, Use

FRESH = Callable[[Task], nn.Module]
ROWS = 2_000
"""Streams are compared over so many examples."""


class Broken(UnseenError, AssertionError):
    """A plug that does not keep the contract."""


# What plugs are tried on


def small_task(lab: Lab = Lab(), n: int = 96) -> Task:
    """Two classes of four-dimensional Gaussians that a linear model tells apart; `shifted` moves their centres.

    Columns: `x`, `y`, and `site` and `group` (0 or 1) for methods that look at them.
    """

    def split(name: str, use: Use, shift: float = 0.0, at: str = "here") -> Split:
        rng = lab.child("small_task", name).numpy()
        y = np.arange(n) % 2
        x = rng.normal(size=(n, 4)) + 1.5 * (2 * y[:, None] - 1) * np.array([1.0, -1.0, 0.5, 0.0]) + shift
        site, group = rng.integers(2, size=n), rng.integers(2, size=n)
        columns = {"x": torch.tensor(x, dtype=torch.float32), "y": torch.tensor(y)}
        return Split(Columns(**columns, site=torch.tensor(site), group=torch.tensor(group)), use, at)

    splits = {
        "train": split("train", Use.FIT),
        "select": split("select", Use.SELECT),
        "same": split("same", Use.JUDGE),
        "shifted": split("shifted", Use.JUDGE, 0.7, at="there"),
    }
    return Task(name="small", axis=Axis.DOMAIN, splits=splits, objective=classify)


def small_model(task: Task, lab: Lab = Lab()) -> nn.Module:
    """A two-layer perceptron for `x` and `y`, a bigram model for `tokens`; the same weights every time."""
    batches = [next(once(split.data, 1024, lab)) for split in task.splits.values()]
    with lab.child("small_model").seeded():
        if "tokens" in batches[0]:
            vocabulary = 1 + max(int(batch["tokens"].max()) for batch in batches)
            return nn.Sequential(nn.Embedding(vocabulary, 16), nn.Linear(16, vocabulary))
        y = torch.cat([batch["y"].reshape(size(batch), -1) for batch in batches if "y" in batch])
        width = mlp([batches[0]["x"][0].numel(), 16, y.shape[1] if y.is_floating_point() else int(y.max()) + 1])
        narrow = mlp([batches[0]["x"][0].numel(), 16, 1])
    for model in (width, narrow):  # integer targets are class indices, or bits of a model with one logit
        try:
            with torch.no_grad():
                loss = task.objective.loss(model, first(task, Use.FIT, lab, 8))
            if loss.dim() == 1:
                return model
        except (RuntimeError, IndexError, ValueError):
            continue
    raise Broken(
        f"Neither a model with {y.shape[1]} outputs nor one with a single output fits the objective of `{task.name}`.",
        why="the battery tries the loss on a small model.",
        fix="let example() return (spec, model) with a function from the task to an easy model.",
    )


def small_trained(lab: Lab = Lab()) -> Trained:
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
    """Mean losses of Adam on the first 256 examples of the first FIT split."""
    batch = first(task, Use.FIT, lab, 256)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = task.objective.loss(model, batch).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


# Tasks


def check_task(spec: TaskSpec, model: FRESH | None = None, lab: Lab = Lab()) -> None:
    """Same lab, same data; FIT and JUDGE share no example; shapes per example; the loss falls for an easy model."""
    _check_plug(spec, "build")
    with _untouched("build"):
        task = spec.build(lab)
    with _elsewhere():
        again = spec.build(lab)
    _require(isinstance(task, Task), f"{_name(spec)}.build returned a {type(task).__name__}.", "a spec builds a Task.")
    for name, split in task.splits.items():
        _check_examples(name, split, again.splits[name], lab)
    _check_disjoint(task, getattr(spec, "recalls", ()), lab)
    keys = set(first(task, Use.FIT, lab, 2))
    if model is None and not keys >= {"x", "y"} and "tokens" not in keys:
        raise Broken(
            f"`{task.name}` has columns {sorted(keys)}, for which the battery has no model.",
            why="the loss of a task must fall for an easy model.",
            fix="let example() return (spec, model) with a function from the task to an easy model.",
        )
    _check_objective(task, (model or small_model)(task), lab)


def _check_examples(name: str, split: Split, again: Split, lab: Lab) -> None:
    examples, repeated = _all(split, lab), _all(again, lab)
    for key, column in examples.items():
        finite = not column.is_floating_point() or bool(torch.isfinite(column).all())
        _require(finite, f"Column `{key}` of split `{name}` holds NaN or infinite values.", "no model can use them.")
    same = examples.keys() == repeated.keys() and all(_equal(examples[key], repeated[key]) for key in examples)
    _require(
        same,
        f"Split `{name}` differs between two builds with the same lab.",
        "results could not be repeated.",
        "draw from lab.child(…).numpy() or .generator(), never from a global generator.",
    )
    if (n := length(split.data)) is not None:
        few = gather(split.data, torch.arange(min(3, n)))
        for key, column in few.items():
            _require(
                column.dim() > 0 and len(column) == min(3, n) and _equal(column, examples[key][:3]),
                f"Three examples of `{name}` have `{key}` of shape {tuple(column.shape)}, all have "
                f"{tuple(examples[key].shape)}.",
                "the example axis comes first in every tensor, and an index means the same example every time.",
            )


def _check_disjoint(task: Task, recalls: Collection[str], lab: Lab) -> None:
    for fitted_name, fitted in task.of(Use.FIT).items():
        known = _all(fitted, lab)
        for name, split in task.of(Use.JUDGE).items():
            judged = _all(split, lab)
            numbered = "index" in known and "index" in judged
            same = _rows(known) & _rows(judged)
            alike = _rows(known, without="index") & _rows(judged, without="index")
            tolerated = math.ceil(size(judged) / 100) if numbered else 0
            _require(
                name in recalls or (not (numbered and same) and len(alike) <= tolerated),
                f"{len(alike)} examples of the judged split `{name}` are also in `{fitted_name}`, which is fitted.",
                "a score on fitted examples says nothing about unseen ones.",
                f"remove them, or if recall is what is judged: recalls: ClassVar = frozenset({{{name!r}}}).",
            )


def _check_objective(task: Task, model: nn.Module, lab: Lab) -> None:
    batch = first(task, Use.FIT, lab, 5)
    model.eval()
    for kind, f in (("loss", task.objective.loss), ("score", task.objective.score)):
        with torch.no_grad():
            together = f(model, batch)
            shape = tuple(together.shape)
            _require(
                shape == (size(batch),),
                f"The {kind} of `{task.name}` has shape {shape} for {size(batch)} examples.",
                "loss and score return one number per example.",
                'drop the mean: reduction="none".',
            )
            alone = torch.cat([f(model, {k: v[i : i + 1] for k, v in batch.items()}) for i in range(size(batch))])
        _require(
            torch.allclose(together, alone, rtol=1e-4, atol=1e-5),
            f"The {kind} of an example of `{task.name}` depends on the other examples of its batch.",
            "it is one number per example.",
        )
    losses = descend(model, task, lab, steps=100)
    _require(
        math.isfinite(losses[-1]) and min(losses[-10:]) < losses[0],
        f"The loss of `{task.name}` went from {losses[0]:.4g} to {losses[-1]:.4g} in 100 steps of Adam on an easy model.",
        "a task that nothing can learn judges nothing.",
        "check that inputs and targets belong together; let example() return (spec, model) with a fitting model.",
    )


# Methods


class Tripwire(Dataset[Any]):
    """A judged split during training: any look at it raises."""

    def __init__(self, name: str) -> None:
        self.split_name = name

    def __len__(self) -> int:
        raise self._caught()

    def __getitem__(self, index: object) -> Any:
        raise self._caught()

    def __iter__(self) -> Iterator[Any]:
        raise self._caught()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise self._caught()

    def _caught(self) -> Broken:
        return Broken(
            f"The judged split `{self.__dict__.get('split_name')}` was read during training.",
            why="what is judged must stay unseen, also for early stopping.",
            fix="read FIT, ADAPT and SELECT splits only.",
        )


def check_method(method: Method, subject: Trained | None = None, lab: Lab = Lab()) -> None:
    """Judged splits raise when read; the same lab gives the same weights, whatever the global generators hold; the loss
    is finite. `subject` brings another task and a fresh model for it."""
    _check_plug(method, "fit")
    task = subject.task if subject else small_task(lab)
    model = subject.model if subject else small_model(task, lab)
    wired = {n: replace(s, data=Tripwire(n)) if s.use is Use.JUDGE else s for n, s in task.splits.items()}
    guarded = replace(task, splits=wired)
    with _untouched("fit"):
        trained = method.fit(copy.deepcopy(model), guarded, lab.child("fit"))
    _require(
        isinstance(trained, Trained),
        f"{_name(method)}.fit returned a {type(trained).__name__}.",
        "fit returns Trained.",
    )
    with _elsewhere():
        again = method.fit(copy.deepcopy(model), guarded, lab.child("fit"))
    _require(
        _same_state(state(trained.model), state(again.model)),
        f"{_name(method)} gave different weights for the same model, task and lab.",
        "paired comparisons and the store rest on repeatable training.",
        "draw from the lab or the draw's generator; wrap dropout and initialisation in lab.seeded().",
    )
    for name in task.of(Use.FIT):
        with torch.no_grad():
            losses = [task.objective.loss(trained.model, batch) for batch in once(task.split(name).data, 256, lab)]
        _require(
            bool(torch.isfinite(torch.cat(losses)).all()),
            f"The loss on `{name}` is not finite after {_name(method)}.",
            "a diverged run must raise Diverged.",
        )


# Measures


def check_measure(measure: Measure[Any], subject: Any = None, lab: Lab = Lab()) -> None:
    """Repeatable; model, mode and gradients unchanged; independent of `batch_size`; invariant where it declares so;
    a degenerate subject raises an `UnseenError` (or does not matter to the value)."""
    _check_plug(measure, "__call__")
    subject = _double(_subject_of(measure) if subject is None else subject)
    lab = replace(lab, dtype=torch.float64).child("measure")
    if isinstance(subject, Trained):
        _check_model_unchanged(measure, subject, lab)
    with _untouched("the measure"):
        value = _reading(measure, subject, lab)
    with _elsewhere():
        again = _reading(measure, subject, lab)
    _require(
        again == value,
        f"{_name(measure)} gave {value:.17g}, then {again:.17g}.",
        "the same lab gives the same reading.",
    )
    for batch_size in (1, 7, 10_000) if _has_field(measure, "batch_size") else ():
        _check_same(measure, replace(measure, batch_size=batch_size), subject, lab, value, f"batch_size={batch_size}")  # type: ignore[type-var]
    for invariance in getattr(measure, "invariances", ()):
        _check_same(measure, measure, _changed(subject, invariance), lab, value, invariance)
    _check_refusals(measure, subject, lab, value)


def _subject_of(measure: Measure[Any]) -> Any:
    hints = [kind for name, kind in get_type_hints(type(measure).__call__).items() if name not in ("lab", "return")]
    if hints and hints[0] is Trained:
        return small_trained()
    if hints and hints[0] is Task:
        return small_task()
    raise Broken(
        f"The battery cannot make a subject for {_name(measure)}: {hints[0] if hints else 'no annotation'}.",
        why="only Trained and Task have a small stand-in.",
        fix="let example() return (measure, subject).",
    )


def _reading(measure: Measure[Any], subject: Any, lab: Lab) -> float:
    reading = measure(subject, lab)
    _require(
        isinstance(reading, Reading), f"{_name(measure)} returned a {type(reading).__name__}.", "it gives a Reading."
    )
    _require(
        math.isfinite(reading.value) and reading.n >= 1,
        f"{_name(measure)} gave value {reading.value} from n={reading.n}.",
        "a value that does not exist raises; it never becomes a number.",
    )
    slack = 1e-9 * (1 + abs(reading.value))
    inside = not (reading.value < reading.low - slack or reading.value > reading.high + slack)
    _require(inside, f"{_name(measure)} gave {reading}: the value lies outside its interval.", "they contradict.")
    return reading.value


def _check_model_unchanged(measure: Measure[Any], subject: Trained, lab: Lab) -> None:
    for training in (True, False):
        model = copy.deepcopy(subject.model).train(training)
        before, modes = state(model), _modes(model)
        try:
            measure(replace(subject, model=model), lab)
        except UnseenError:
            if not training:
                raise
        _require(
            _same_state(before, state(model)) and modes == _modes(model),
            f"{_name(measure)} left the model changed (weights, mode, requires_grad, gradients or hooks).",
            "measures are read in the middle of training.",
            "restore in a `finally` block; take gradients with torch.autograd.grad.",
        )


def _modes(model: nn.Module) -> list[object]:
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()]
    params = [(p.requires_grad, p.grad is None) for p in model.parameters()]
    return [[m.training for m in model.modules()], params, hooks]


def _check_same(measure: Measure[Any], other: Measure[Any], subject: Any, lab: Lab, value: float, change: str) -> None:
    now = _reading(other, subject, lab)
    _require(
        math.isclose(now, value, rel_tol=1e-6, abs_tol=1e-9),
        f"{_name(measure)} is {value:.8g}, but {now:.8g} with {change}.",
        "the value must not depend on it.",
        "sum over examples and divide at the end.",
    )


def _changed(subject: Any, invariance: str) -> Any:
    """The subject after a change that the measure declares irrelevant."""
    task = subject.task if isinstance(subject, Trained) else subject

    def columns(change: Callable[[Dataset[Any]], Dataset[Any]]) -> Task:
        return replace(task, splits={name: replace(s, data=change(s.data)) for name, s in task.splits.items()})

    if invariance == "order":
        task = columns(lambda data: _picked(data, torch.randperm(_length(data), generator=Lab(seed=1).generator())))
    elif invariance == "repetition":
        task = columns(lambda data: _picked(data, torch.arange(_length(data)).repeat(2)))
    elif invariance == "loss scale":
        loss = task.objective.loss
        task = replace(task, objective=replace(task.objective, loss=lambda model, batch: 3 * loss(model, batch)))
    else:
        raise Broken(
            f"There is no invariance `{invariance}`.",
            why="the battery must know how to try it.",
            fix='declare "order", "repetition" or "loss scale"; test others in the measure\'s own test file.',
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
        _require(
            now == value,  # a measure of weights does not look at the data, and the reverse
            f"{_name(measure)} gave {now} for a subject with {kind}.",
            "a value that does not exist ends up in a table as a result.",
            "raise InvalidData with what, why and fix.",
        )
    _require(
        bool(refused),
        f"{_name(measure)} refused no degenerate subject ({', '.join(_degenerate(subject))}).",
        "one of them must matter to it.",
    )


def _degenerate(subject: Any) -> dict[str, Any]:
    """Empty, NaN inputs, NaN weights: as far as the subject has them."""
    if isinstance(subject, Trained):
        inside = {kind: replace(subject, task=task) for kind, task in _degenerate(subject.task).items()}
        model = copy.deepcopy(subject.model)
        with torch.no_grad():
            for p in model.parameters():
                p.fill_(math.nan)
        return {**inside, "weights that are NaN": replace(subject, model=model)}
    if isinstance(subject, Task):
        return {kind: _with_data(subject, change) for kind, change in (("no examples", _emptied), ("NaN inputs", _nan))}
    if isinstance(subject, Mapping):
        return {"nothing in it": {key: value[:0] for key, value in subject.items()}}
    return {"nothing in it": subject[:0]}


def _with_data(task: Task, change: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]) -> Task:
    lab = Lab(dtype=torch.float64)
    bad = {name: replace(s, data=Columns(**change(whole(s.data, lab)))) for name, s in task.splits.items()}
    return replace(task, splits=bad)


def _emptied(columns: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: column[:0] for key, column in columns.items()}


def _nan(columns: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k: torch.full_like(c, math.nan) if c.is_floating_point() else c for k, c in columns.items()}


# Attributions


def check_attribution(attribution: Attribution, trained: Trained | None = None, lab: Lab = Lab()) -> None:
    """Scores [query, cause], finite; the same lab gives the same scores; the model is left as it was; a behaviour that
    is zero everywhere gets zero credit."""
    _check_plug(attribution, "prepare")
    trained = trained or small_trained(lab)
    before, modes = state(trained.model), _modes(trained.model)
    queries = first(trained.task, Use.JUDGE, lab, 3)
    loss = trained.task.objective.loss

    def credits(behaviour: Callable[[nn.Module, Batch], Tensor] = loss) -> Credits:
        found = attribution.prepare(trained, lab.child("attribution"))(queries, behaviour)
        _require(
            isinstance(found, Credits), f"{_name(attribution)} answered a {type(found).__name__}.", "it gives Credits."
        )
        return found

    with _untouched("the attribution"):
        found = credits()
    scores = found.scores
    _require(
        scores.dim() == 2 and len(scores) == size(queries) and scores.shape[1] > 0,
        f"{_name(attribution)} gave scores of shape {tuple(scores.shape)} for {size(queries)} queries.",
        "scores are [query, cause].",
    )
    _require(
        bool(torch.isfinite(scores).all()),
        f"{_name(attribution)} gave scores that are not finite.",
        "nobody can rank them.",
    )
    labels, n = len(found.labels), sum(length(s.data) or 0 for s in trained.task.of(Use.FIT).values())
    _require(
        labels in (0, scores.shape[1]), f"{labels} labels name {scores.shape[1]} causes.", "each cause has one label."
    )
    if found.cause is Cause.EXAMPLE:
        _require(scores.shape[1] == n or labels > 0, f"{scores.shape[1]} scores for {n} fitted examples.",
                 "unnamed causes are all the fitted examples, in order.")  # fmt: skip
    with _elsewhere():
        again = credits().scores
    _require(
        torch.equal(again, scores), f"{_name(attribution)} gave other scores the second time.", "draw from the lab."
    )
    nothing = credits(lambda model, batch: 0 * loss(model, batch)).scores
    _require(
        not nothing.any(), f"{_name(attribution)} credits causes for a behaviour that is always 0.", "0 has no causes."
    )
    _require(
        _same_state(before, state(trained.model)) and modes == _modes(trained.model),
        f"{_name(attribution)} left the model changed (weights, mode, requires_grad, gradients or hooks).",
        "the next question would be asked of another model.",
    )


# Studies


def check_study(study: Study[Any, Any], seconds: float = 5.0) -> None:
    """The smoke scale runs within `seconds`; cells pickle and carry a seed; rows are flat finite scalars and pure; every
    claim, figure and table can be made from them."""
    for scale in (Scale.SMOKE, Scale.LAPTOP):
        _require(
            scale in study.scales, f"Study `{study.name}` has no {scale} scale.", "CI runs smoke, people run laptop."
        )
    cells = list(study.cells(study.scales[Scale.SMOKE]))
    _require(bool(cells), f"Study `{study.name}` has no cells at smoke scale.", "nothing would run.")
    for cell in cells:
        _require(
            pickle.loads(pickle.dumps(cell)) == cell, f"Cell {cell} changes when pickled.", "cells travel to workers."
        )
        hash(cell)
        _require(hasattr(cell, "seed"), f"Cell {cell} has no `seed`.", "differences are paired by seed.")
    wall, cpu = time.perf_counter(), time.process_time()
    rows = [dict(row) for cell in cells for row in study.run(cell, Lab(seed=cell.seed))]
    took = min(time.perf_counter() - wall, time.process_time() - cpu)  # neither a busy machine nor two threads count
    _require(took <= seconds, f"The smoke scale of `{study.name}` took {took:.1f} s.", f"{seconds:g} s are allowed.")
    for row in rows:
        for name, value in row.items():
            flat = isinstance(value, float | int | str | bool) and not (
                isinstance(value, float) and not math.isfinite(value)
            )
            _require(flat, f"`{study.name}` has {name}={value!r} ({type(value).__name__}) in a row.",
                     "rows are flat scalars; what does not exist is left out.", "use .item(), or leave the key out.")  # fmt: skip
    with _elsewhere():
        again = [dict(row) for row in study.run(cells[0], Lab(seed=cells[0].seed))]
    _require(
        again == rows[: len(again)],
        f"The first cell of `{study.name}` gave other rows the second time.",
        "run is pure.",
    )
    _require(bool(study.claims), f"Study `{study.name}` claims nothing.", "a study tests claims.")
    for claim in study.claims:
        reading = claim.effect(rows)
        _require(isinstance(reading, Reading), f"“{claim.says}” has no reading at smoke scale.", "claims are effects.")
        claim.judge(rows, Scale.SMOKE)
        told = claim.above > -math.inf or claim.below < math.inf
        _require(told, f"“{claim.says}” has no margin.", "it could not be refuted.", "set `above`, `below` or both.")
    for figure in study.figures:
        figure(rows)
    if study.table:
        study.table(rows)


# Tools of the checks


def _require(holds: bool, what: str, why: str, fix: str = "") -> None:
    if not holds:
        raise Broken(what, why, fix)


def _name(plug: object) -> str:
    return type(plug).__name__


def _check_plug(plug: object, verb: str) -> None:
    settings = getattr(type(plug), "__dataclass_params__", None)
    frozen = settings is not None and settings.frozen
    _require(
        frozen,
        f"{_name(plug)} is not a frozen dataclass.",
        "it is a cell's field: compared, hashed, stored.",
        "@dataclass(frozen=True)",
    )
    _require(callable(getattr(plug, verb, None)), f"{_name(plug)} has no `{verb}`.", "that is its one verb.")
    try:
        hash(plug)
    except TypeError as error:
        raise Broken(
            f"{_name(plug)} cannot be hashed: {error}.", "it is a cell's field.", "use tuples, not lists."
        ) from None


@contextmanager
def _untouched(what: str) -> Iterator[None]:
    """Inside the block the global generators of torch and numpy must not move (beartype itself draws from `random`)."""
    before = _global_states()
    yield
    _require(
        _global_states() == before,
        f"{what} drew from a global random generator.",
        "results would depend on what ran before.",
        "use lab.generator() or lab.numpy(), or wrap the code in lab.seeded().",
    )


def _global_states() -> tuple[bytes, ...]:
    legacy = np.random.get_state(legacy=False)  # noqa: NPY002 - the global generator is what this is about
    return torch.get_rng_state().numpy().tobytes(), pickle.dumps(legacy)


@contextmanager
def _elsewhere() -> Iterator[None]:
    """Another state of the global generators, put back afterwards."""
    old = np.random.get_state(legacy=False), random.getstate()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(20_231_017)
        np.random.seed(17)  # noqa: NPY002
        random.seed(17)
        try:
            yield
        finally:
            np.random.set_state(old[0])  # noqa: NPY002
            random.setstate(old[1])


def _all(split: Split, lab: Lab) -> Batch:
    """All examples; of a stream the first."""
    if not isinstance(split.data, IterableDataset):
        return whole(split.data, lab)
    batches = list(islice(once(split.data, 100, lab), ROWS // 100))
    return {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}


def _rows(batch: Batch, without: str = "") -> set[bytes]:
    """Examples by content."""
    columns = [column.reshape(size(batch), -1).numpy() for key, column in sorted(batch.items()) if key != without]
    return {b"|".join(column[i].tobytes() for column in columns) for i in range(size(batch))}


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and bool(torch.equal(a, b))


def _same_state(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name].nan_to_num(), b[name].nan_to_num()) for name in a)


def _has_field(plug: Any, name: str) -> bool:
    return any(field.name == name for field in fields(plug))


def _double(subject: Any) -> Any:
    """The model in float64, where equal values differ by rounding in the last digits only."""
    if isinstance(subject, Trained):
        start = None if subject.start is None else {name: p.double() for name, p in subject.start.items()}
        return replace(subject, model=copy.deepcopy(subject.model).double(), start=start)
    return subject


def _length(data: Dataset[Any]) -> int:
    return length(data) or 0


def _picked(data: Dataset[Any], index: Tensor) -> Columns:
    return Columns(**gather(data, index))
