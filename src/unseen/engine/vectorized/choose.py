"""Joint training of many models of one shape: the loop's result, for all of them at once.

`train_many` equals `[train(model, task, step, budget, lab) for …]`: the same minibatches in the same order, the same
updates, the same curves. A short probe measures both ways and checks that they agree; the faster one trains.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from statistics import median
from typing import Any

import torch
from torch import nn

from unseen.engine import parameters
from unseen.engine.batches import Columns
from unseen.engine.loop import Budget, Step, Watch
from unseen.engine.vectorized.loop import Jobs, stacked
from unseen.engine.vectorized.steps import Stackable, stackable
from unseen.errors import Diverged, InvalidData
from unseen.lab import Lab, Silent, T
from unseen.method import Trained
from unseen.task import Task, Use

GAIN = 1.15
"""Smallest speed-up in the probe for which models are stacked: below it the difference is noise."""
TOLERANCE = 1e-4
"""Largest relative difference between stacked and looped weights after the probe's few steps (float32 rounding)."""


@dataclass(frozen=True)
class Plan:
    """How an ensemble is trained, and why."""

    stacked: bool
    why: str
    speedup: float = math.nan
    """Loop time over stacked time in the probe."""


def train_many(
    models: Sequence[nn.Module],
    task: Task | Sequence[Task],
    step: Step | Sequence[Step],
    budget: Budget | Sequence[Budget],
    labs: Sequence[Lab],
    watch: Mapping[str, Watch] | None = None,
) -> list[Trained]:
    """Trains every model in place as `loop.train` would, with its own lab (its own order of minibatches).

    Task, step and budget are shared or one per model; budgets may differ in learning rate, weight decay and clip norm,
    `Stackable` steps in their settings. `curves["stacked"]` says whether the models were stacked (1) or looped (0).
    Raises `Diverged` if any model did; `outcomes` returns the others.
    """
    results = outcomes(models, task, step, budget, labs, watch)
    for k, result in enumerate(results):
        if isinstance(result, Diverged):
            raise Diverged(f"Model {k} of {len(results)}: {result.what}", result.why, result.fix)
    return [result for result in results if isinstance(result, Trained)]


def outcomes(
    models: Sequence[nn.Module],
    task: Task | Sequence[Task],
    step: Step | Sequence[Step],
    budget: Budget | Sequence[Budget],
    labs: Sequence[Lab],
    watch: Mapping[str, Watch] | None = None,
) -> list[Trained | Diverged]:
    """`train_many` in which a model that diverges is returned as its error and does not stop the others."""
    k = len(models)
    jobs = Jobs(models, _each(task, k, "task"), _each(step, k, "step"), _each(budget, k, "budget"), labs, watch)
    _each(labs, k, "lab")
    chosen = plan(jobs)
    logging.getLogger("unseen").info("%d models %s: %s", k, "stacked" if chosen.stacked else "looped", chosen.why)
    labs[0].log(stacked=float(chosen.stacked), **({} if math.isnan(chosen.speedup) else {"speedup": chosen.speedup}))
    results = stacked(jobs) if chosen.stacked else looped(jobs)
    for result in results:
        if isinstance(result, Trained):
            result.curves["stacked"] = [float(chosen.stacked)]  # type: ignore[index]
    return results


def _each(item: Any, k: int, kind: str) -> Sequence[Any]:
    if not isinstance(item, Sequence):
        return [item] * k
    if len(item) != k or not k:
        raise InvalidData(
            f"train_many got {k} models and {len(item)} {kind}s.",
            why=f"model k is trained with {kind} k.",
            fix=f"give one {kind} per model" + ("." if kind == "lab" else ", or a single one for all."),
        )
    return item


def looped(jobs: Jobs) -> list[Trained | Diverged]:
    """One model after the other through `loop.train`."""
    results: list[Trained | Diverged] = []
    for k in range(len(jobs.models)):
        try:
            results.append(jobs.alone(k))
        except Diverged as error:
            results.append(error)
    return results


def plan(jobs: Jobs) -> Plan:
    """Stack or loop: what cannot be stacked is looped, everything else is decided by a probe of a few steps."""
    reason = _obstacle(jobs)
    if reason:
        return Plan(False, reason)
    n = min(8, jobs.budgets[0].steps // 10)
    if n < 4:
        return Plan(False, "too few steps to be worth a probe")
    try:
        many, together = _probed(jobs, n, lambda short: stacked(short)[0])
    except RuntimeError as error:  # vmap's refusals: randomness, in-place updates, data-dependent control flow
        return Plan(False, f"vmap refuses: {str(error).splitlines()[0][:160]}")
    single, alone = _probed(replace(jobs, models=jobs.models[:1]), n, lambda short: short.alone(0))
    if isinstance(together, Diverged) or isinstance(alone, Diverged) or not _agree(together.model, alone.model):
        return Plan(False, "the stacked step does not give the loop's weights")
    speedup = single * len(jobs.models) / many
    return Plan(speedup >= GAIN, f"a stacked step is {speedup:.2f} times as fast in the probe", speedup)


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
        return median(b - a for a, b in pairwise(self.marks[2:]))


def _probed(jobs: Jobs, n: int, run: Callable[[Jobs], Trained | Diverged]) -> tuple[float, Trained | Diverged]:
    watch = _Stopwatch(jobs.labs[0].device.type == "cuda")
    result = run(jobs.shortened(n, watch))
    return max(watch.step, 1e-9), result


def _agree(a: nn.Module, b: nn.Module) -> bool:
    x, y = parameters.state(a), parameters.state(b)
    return all(torch.allclose(x[n].double(), y[n].double(), rtol=TOLERANCE, atol=TOLERANCE) for n in x)


def _obstacle(jobs: Jobs) -> str:
    """Why these models cannot be trained as one, or nothing."""
    steps, budgets, labs = jobs.steps, jobs.budgets, jobs.labs
    first = stackable(steps[0])
    fixed = {replace(b, lr=1.0, weight_decay=0.0, clip=1.0) for b in budgets}
    data = [{name: s.data for name, s in t.splits.items() if s.use is not Use.JUDGE} for t in jobs.tasks]
    if len(jobs.models) == 1:
        return "one model"
    if first is None or any(not _alike(first, stackable(step)) for step in steps):
        return "the step has no stacked form"
    if len(fixed) > 1 or budgets[0].bfloat16:
        return "the budgets differ in more than learning rate, weight decay and clip norm, or use autocast"
    if len({(lab.device, lab.dtype) for lab in labs}) > 1:
        return "the models live in different places"
    if any(
        t.objective != jobs.tasks[0].objective or d.keys() != data[0].keys()
        for t, d in zip(jobs.tasks, data, strict=True)
    ):
        return "the tasks differ in more than their data"
    if not all(isinstance(columns, Columns) for d in data for columns in d.values()):
        return "the data are not columns in memory"
    if any(len(d[n]) != len(data[0][n]) for d in data for n in d):  # type: ignore[arg-type]
        return "the tasks have different numbers of examples"
    if any(isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0 for m in jobs.models[0].modules()):
        return "dropout draws from one stream per model"
    return ""


def _alike(a: Stackable, b: Stackable | None) -> bool:
    def kind(step: Stackable) -> tuple[Any, ...]:
        return (
            step.criterion,
            step.of_risks,
            step.gradient,
            step.losses,
            step.noise,
            step.state,
            step.settings.keys(),
            step.fixed,
        )

    return b is not None and kind(a) == kind(b)
