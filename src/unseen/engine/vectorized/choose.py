"""Joint training of many models of one shape: the loop's result, for all of them at once.

`train_many` equals `[train(model, task, step, budget, lab) for …]`: the same minibatches in the
same order, the same updates, the same curves. A short probe (`probe.py`) measures both ways and
checks that they agree; the faster one trains, and the next models of this kind without a probe.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from unseen.engine.batches import Columns
from unseen.engine.loop import Budget, Step, Watch
from unseen.engine.vectorized.loop import TrainingRuns, train_stacked
from unseen.engine.vectorized.probe import Refusal, speedup
from unseen.engine.vectorized.steps import VectorizedStep, as_vectorized
from unseen.engine.vectorized.structure import structure
from unseen.errors import Divergence, InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.task import Task, Use

GAIN = 1.15
"""Smallest speed-up in the probe for which models are stacked: below it the difference is noise."""


@dataclass(frozen=True)
class Backend:
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
    """Trains every model in place as `loop.train` would, with its own lab (its own order of
    minibatches).

    Task, step and budget are shared or one per model; budgets may differ in learning rate, weight
    decay and clip norm, `VectorizedStep` steps in their settings. `curves["stacked"]` says whether
    the models were stacked (1) or looped (0). Raises `Divergence` if any model did;
    `try_train_many` returns the others.
    """
    results = try_train_many(models, task, step, budget, labs, watch)
    for k, result in enumerate(results):
        if isinstance(result, Divergence):
            raise Divergence(f"Model {k} of {len(results)}: {result.what}", result.why, result.fix)
    return [result for result in results if isinstance(result, Trained)]


def try_train_many(
    models: Sequence[nn.Module],
    task: Task | Sequence[Task],
    step: Step | Sequence[Step],
    budget: Budget | Sequence[Budget],
    labs: Sequence[Lab],
    watch: Mapping[str, Watch] | None = None,
) -> list[Trained | Divergence]:
    """`train_many` in which a model that diverges is returned as its error and does not stop the
    others.
    """
    k = len(models)
    tasks, steps = _one_per_model(task, k, "task"), _one_per_model(step, k, "step")
    runs = TrainingRuns(models, tasks, steps, _one_per_model(budget, k, "budget"), labs, watch)
    _one_per_model(labs, k, "lab")
    backend = choose_backend(runs)
    logging.getLogger("unseen").info(
        "%d models %s: %s", k, "stacked" if backend.stacked else "looped", backend.why
    )
    labs[0].log(
        stacked=float(backend.stacked),
        **({} if math.isnan(backend.speedup) else {"speedup": backend.speedup}),
    )
    results = train_stacked(runs) if backend.stacked else train_looped(runs)
    for result in results:
        if isinstance(result, Trained):
            result.curves["stacked"] = [float(backend.stacked)]  # type: ignore[index]
    return results


def _one_per_model(item: Any, k: int, kind: str) -> Sequence[Any]:
    if not isinstance(item, Sequence):
        return [item] * k
    if len(item) != k or not k:
        raise InvalidData(
            f"train_many got {k} models and {len(item)} {kind}s.",
            why=f"model k is trained with {kind} k.",
            fix=f"give one {kind} per model"
            + ("." if kind == "lab" else ", or a single one for all."),
        )
    return item


def train_looped(runs: TrainingRuns) -> list[Trained | Divergence]:
    """One model after the other through `loop.train`."""
    results: list[Trained | Divergence] = []
    for k in range(len(runs.models)):
        try:
            results.append(runs.train_one(k))
        except Divergence as error:
            results.append(error)
    return results


def choose_backend(runs: TrainingRuns) -> Backend:
    """Stack or loop: what cannot be stacked is looped, everything else is decided by a probe of a
    few steps, or by what it found before.
    """
    reason = _obstacle(runs)
    if reason:
        return Backend(False, reason)
    n = min(8, runs.budgets[0].steps // 10)
    if n < 4:
        return Backend(False, "too few steps to be worth a probe")
    try:
        speed = speedup(runs, n)
    except Refusal as refusal:
        return Backend(False, str(refusal))
    return Backend(
        speed >= GAIN, f"a stacked step is {speed:.2f} times as fast in the probe", speed
    )


def _obstacle(runs: TrainingRuns) -> str:
    """Why these models cannot be trained as one, or nothing."""
    steps, budgets, labs = runs.steps, runs.budgets, runs.labs
    first = as_vectorized(steps[0])
    fixed = {replace(b, lr=1.0, weight_decay=0.0, clip=1.0) for b in budgets}
    data = [
        {name: s.data for name, s in t.splits.items() if s.use is not Use.EVALUATE}
        for t in runs.tasks
    ]
    if len(runs.models) == 1:
        return "one model"
    if first is None or any(not _same_steps(first, as_vectorized(step)) for step in steps):
        return "the step has no stacked form"
    if len(fixed) > 1 or budgets[0].bfloat16:
        return (
            "the budgets differ in more than learning rate, weight decay and clip norm, or use "
            "autocast"
        )
    if len({(lab.device, lab.dtype) for lab in labs}) > 1:
        return "the models live in different places"
    if any(
        t.objective != runs.tasks[0].objective or d.keys() != data[0].keys()
        for t, d in zip(runs.tasks, data, strict=True)
    ):
        return "the tasks differ in more than their data"
    if not all(isinstance(columns, Columns) for d in data for columns in d.values()):
        return "the data are not columns in memory"
    if any(len(d[n]) != len(data[0][n]) for d in data for n in d):  # type: ignore[arg-type]
        return "the tasks have different numbers of examples"
    if any(
        isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0 for m in runs.models[0].modules()
    ):
        return "dropout draws from one stream per model"
    if any(m.training and not all(part.training for part in m.modules()) for m in runs.models):
        return "a part of a model stays in evaluation mode"
    if any(
        p._backward_hooks or p._post_accumulate_grad_hooks
        for model in runs.models
        for p in model.parameters()
    ):
        return "gradients of parameters pass through hooks"
    # the stack computes as the first model does
    shapes = [structure(model) for model in runs.models]
    if any(shape != shapes[0] for shape in shapes):
        return "the models differ in more than the values of their parameters and buffers"
    return ""


def _same_steps(a: VectorizedStep, b: VectorizedStep | None) -> bool:
    """Whether two steps have the same hooks and differ in scalar settings at most."""

    def kind(step: VectorizedStep) -> tuple[Any, ...]:
        hooks = (step.reduction, step.transform, step.ascent, step.criterion, step.noise)
        return (*hooks, step.settings.keys(), step.fixed)

    return b is not None and kind(a) == kind(b)
