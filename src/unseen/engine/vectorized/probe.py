"""How much faster models train as a stack than one after the other: a few steps of both ways,
measured once for models, steps and minibatches of one kind.

What was measured is remembered by the process, and by the lab's keeper where it has room for such
numbers: an interrupted computation goes on the way it began, and the last digits with it.
"""

import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import isfinite
from statistics import median
from types import MethodType
from typing import Any
from weakref import WeakMethod, ref

import torch
from torch import Tensor

from unseen.engine import parameters
from unseen.engine.batches import Columns
from unseen.engine.vectorized.loop import StackedTraining, TrainingRuns
from unseen.engine.vectorized.steps import as_vectorized
from unseen.engine.vectorized.structure import is_known, structure
from unseen.errors import Divergence
from unseen.lab import Silent, T
from unseen.task import Task, Use

TOLERANCE = 1e-4
"""Largest relative difference between stacked and looped weights after the probe's few steps
(float32 rounding).
"""
MOST_REMEMBERED = 256
"""Speed-ups that a process remembers; the oldest are measured again."""


class Refusal(Exception):
    """Why models have to be trained one after the other; no error of the user's."""


def speedup(runs: TrainingRuns, n: int) -> float:
    """The loop's time for a step of all models over the stack's, from `n` steps of each the first
    time. Raises `Refusal` where vmap refuses, or where the two do not give the same weights.
    """
    parts, model = decisive_parts(runs), runs.models[0]

    def measure() -> float:
        shape = structure(model)
        if is_known(shape):
            return _remember((*parts.items(), *shape), lambda: _measure(runs, n))
        return _measure(runs, n)

    # by name: keepers need not have it
    keep = getattr(runs.labs[0].keeper, "number", None)
    if keep is None:
        return measure()
    return float(keep("speed-up of stacked training", {"model": model, **parts}, measure))


def forget_speedups() -> None:
    """The next run of every kind begins with a probe."""
    _remembered.clear()


_remembered: dict[Hashable, float] = {}


def _remember(key: tuple[Any, ...], measure: Callable[[], float]) -> float:
    try:
        key = _weakly(key)
        found = _remembered.get(key)
    except TypeError:  # a setting that has no hash, as a list
        return measure()
    if found is None:
        found = measure()
        while len(_remembered) >= MOST_REMEMBERED:
            del _remembered[next(iter(_remembered))]
        _remembered[key] = found
    return found


def _weakly(value: Any) -> Any:
    """The value with weak references to its functions: a closure may hold a whole data set."""
    if isinstance(value, tuple):
        return tuple(map(_weakly, value))
    if isinstance(value, MethodType):
        return WeakMethod(value)
    return ref(value) if callable(value) and not isinstance(value, type) else value


def decisive_parts(runs: TrainingRuns) -> dict[str, Any]:
    """What decides, beside the model's structure, which way is faster and whether both give the
    same weights. Values of weights and data, rates and the number of steps do not.
    """
    budget, lab, objective = runs.budgets[0], runs.labs[0], runs.tasks[0].objective
    hooks = as_vectorized(runs.steps[0])
    settings = [step.settings for step in map(as_vectorized, runs.steps) if step is not None]
    return {
        "models": len(runs.models),
        "threads": torch.get_num_threads(),
        "place": (str(lab.device), str(lab.dtype)),
        "objective": (objective.loss, objective.score),
        "step": hooks
        and (hooks.reduction, hooks.transform, hooks.ascent, hooks.criterion, hooks.noise),
        "fixed": hooks and tuple(hooks.fixed.items()),
        "settings": hooks
        and tuple((name, len({s[name] for s in settings}) > 1) for name in hooks.settings),
        "rates": len({(b.lr, b.weight_decay) for b in runs.budgets}) > 1,
        "optimizer": (
            budget.optimizer,
            budget.momentum,
            budget.betas,
            any(b.weight_decay for b in runs.budgets),
            budget.decay_vectors,
            any(isfinite(b.clip) for b in runs.budgets),
        ),
        "batches": tuple(
            (split.use, *_minibatch(split.data, budget.batch_size))
            for split in runs.tasks[0].splits.values()
            if isinstance(split.data, Columns) and split.use in (Use.TRAIN, Use.ADAPT)
        ),
        "tables": len({_tables(task) for task in runs.tasks}) > 1,
    }


def _minibatch(data: Columns, batch_size: int) -> tuple[Hashable, ...]:
    columns = ((name, str(t.dtype), tuple(t.shape[1:])) for name, t in data.columns.items())
    return min(batch_size, len(data)), *columns


def _tables(task: Task) -> tuple[int, ...]:
    return tuple(id(split.data) for split in task.of(Use.TRAIN).values())


def _measure(runs: TrainingRuns, n: int) -> float:
    try:
        together, weights = _time_stack(runs, n)
    # vmap's refusals: randomness, in-place updates, data-dependent control flow; a loss that asks
    # the model for more than outputs; a column that is missing, which the loop says by its name
    except (RuntimeError, AttributeError, TypeError, LookupError) as error:
        raise Refusal(f"vmap refuses: {str(error).splitlines()[0][:160]}") from error
    try:
        alone, reference = _time_one(runs, n)
    except Divergence as error:
        raise Refusal("the loop diverges within the first steps") from error
    if not _agree(weights, reference):
        raise Refusal("the stacked step does not give the loop's weights")
    return alone * len(runs.models) / together


def _time_stack(runs: TrainingRuns, n: int) -> tuple[float, dict[str, Tensor]]:
    """Seconds of a stacked step, and the first model's weights and buffers after `n` of them."""
    training = StackedTraining(runs)
    watch = _Stopwatch(runs.labs[0].device.type == "cuda")
    for step in watch.track((), range(n), n):
        training(step)
    return watch.step, {name: stack[0] for name, stack in training.ensemble.values.items()}


def _time_one(runs: TrainingRuns, n: int) -> tuple[float, dict[str, Tensor]]:
    """The same of `loop.train` and the first model."""
    watch = _Stopwatch(runs.labs[0].device.type == "cuda")
    trained = replace(runs, models=runs.models[:1]).shorten(n, watch).train_one(0)
    return watch.step, parameters.state(trained.model)


def _agree(stacked: Mapping[str, Tensor], looped: Mapping[str, Tensor]) -> bool:
    # a tied weight has one name in the stack, and a buffer that is not stored none in the state
    return all(
        torch.allclose(x.double(), stacked[name].double(), rtol=TOLERANCE, atol=TOLERANCE)
        for name, x in looped.items()
        if name in stacked
    )


@dataclass(frozen=True)
class _Stopwatch(Silent):
    """A sink that notes when each step starts."""

    cuda: bool = False
    marks: list[float] = field(default_factory=list)

    def track(self, path: tuple[str, ...], items: Iterable[T], total: int | None) -> Iterator[T]:
        for item in items:
            self._mark()
            yield item
        self._mark()

    def _mark(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()
        # CPU time where the CPU works: other processes do not decide
        self.marks.append(time.perf_counter() if self.cuda else time.process_time())

    @property
    def step(self) -> float:
        """Median seconds of a step, the first two (allocation, lazy initialisation) left out."""
        return max(median(b - a for a, b in pairwise(self.marks[2:])), 1e-9)
