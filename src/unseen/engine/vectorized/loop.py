"""The stacked run behind `choose.train_many`: minibatches, gradients and updates of K models at
once.
"""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unseen.engine import parameters
from unseen.engine.batches import Columns, model_to_device, once, size, to_device
from unseen.engine.loop import (
    Budget,
    Step,
    Watch,
    divergence_error,
    refuse_no_selection,
    train,
)
from unseen.engine.vectorized.ensemble import Ensemble
from unseen.engine.vectorized.optimizer import StackedOptimizer
from unseen.engine.vectorized.steps import StackedGradient
from unseen.errors import Divergence
from unseen.lab import Lab, Sink
from unseen.method import Trained
from unseen.task import Task, Use


@dataclass(frozen=True)
class TrainingRuns:
    """K models with what each of them is trained on and with."""

    models: Sequence[nn.Module]
    tasks: Sequence[Task]
    steps: Sequence[Step]
    budgets: Sequence[Budget]
    labs: Sequence[Lab]
    watch: Mapping[str, Watch] | None = None

    def shorten(self, n: int, sink: Sink) -> "TrainingRuns":
        """`n` steps on copies, without selection and watching; progress goes to `sink`."""
        budgets = [replace(b, steps=n, select_every=0, watch_at=()) for b in self.budgets]
        labs = [replace(lab, sink=sink) for lab in self.labs]
        return replace(
            self,
            models=[copy.deepcopy(m) for m in self.models],
            budgets=budgets,
            labs=labs,
            watch=None,
        )

    def train_one(self, k: int) -> Trained:
        return train(
            self.models[k], self.tasks[k], self.steps[k], self.budgets[k], self.labs[k], self.watch
        )


class StackedTraining:
    """All models as one, trained a step at a time."""

    def __init__(self, runs: TrainingRuns) -> None:
        self.budget, lab = runs.budgets[0], runs.labs[0]
        for model in runs.models:
            model_to_device(model, lab)
        self.ensemble = Ensemble(runs.models).train()
        self.update = StackedOptimizer(self.ensemble, runs.budgets)
        self.gradient = StackedGradient(
            self.ensemble, runs.steps, runs.tasks[0].objective, runs.labs
        )
        self.streams = {use: _streams(runs, use) for use in (Use.TRAIN, Use.ADAPT)}

    def __call__(self, step: int) -> Float[Tensor, " model"]:
        """One step of every model; the losses before it."""
        # reading and selecting leave the ensemble in evaluation mode
        if not self.ensemble.training:
            self.ensemble.train()
        fit, adapt = (
            {name: next(stream) for name, stream in self.streams[use].items()}
            for use in (Use.TRAIN, Use.ADAPT)
        )
        losses = self.gradient(fit, adapt, step)
        self.update(self.budget.rate(step))
        return losses


def train_stacked(runs: TrainingRuns) -> list[Trained | Divergence]:
    """Trains all models as one; results and curves as from `loop.train`."""
    models, budget, lab = runs.models, runs.budgets[0], runs.labs[0]
    for model in models:
        model_to_device(model, lab)
    starts = [parameters.copy_parameters(model) for model in models]
    training = StackedTraining(runs)
    ensemble = training.ensemble
    losses = torch.full((budget.steps, len(models)), math.nan, device=lab.device)
    watched, selected = _Watcher(runs, ensemble), _Selector(runs, ensemble)
    watched.read(0)
    for step in lab.track(range(budget.steps), budget.steps):
        losses[step] = training(step)
        if step % 100 == 99 and not torch.isfinite(losses[step]).any():
            break  # nothing is left to train
        watched.read(step + 1)
        selected.read(step + 1)
    selected.restore()
    ensemble.write(models)
    history = losses.T.double().cpu()
    return [
        _outcome(runs, k, history[k], starts[k], watched.curves[k] | selected.curves[k])
        for k in range(len(models))
    ]


def _outcome(
    runs: TrainingRuns,
    k: int,
    losses: Tensor,
    start: dict[str, Tensor],
    curves: dict[str, list[float]],
) -> Trained | Divergence:
    model = runs.models[k].eval()
    bad = ~torch.isfinite(losses)
    if bad.any():
        return divergence_error(int(bad.nonzero()[0]), runs.tasks[k], runs.labs[k])
    if not all(torch.isfinite(p).all() for p in parameters.trainable(model).values()):
        return divergence_error(runs.budgets[k].steps, runs.tasks[k], runs.labs[k])
    return Trained(model, runs.tasks[k], {"loss": losses.tolist(), **curves}, start)


GATHER_LIMIT = 2**28
"""Bytes up to which the different data of the models are copied into one table, so that one gather
serves all models.
"""


def _streams(runs: TrainingRuns, use: Use) -> dict[str, Iterator[Mapping[str, Tensor]]]:
    def stream(name: str) -> Iterator[Mapping[str, Tensor]]:
        data: list[Columns] = [task.splits[name].data for task in runs.tasks]  # type: ignore[misc]
        n, batch_size, k = len(data[0]), runs.budgets[0].batch_size, len(data)
        table, starts = _concatenate(data)
        for index in _stacked_orders(n, batch_size, [lab.child(name) for lab in runs.labs]):
            if table is not None:
                rows = index if starts is None else index + starts
                flat_batch = table[rows.flatten()]
                batch = {key: tensor.unflatten(0, (k, -1)) for key, tensor in flat_batch.items()}
            else:
                parts = [columns[i] for columns, i in zip(data, index, strict=True)]
                batch = {key: torch.stack([part[key] for part in parts]) for key in parts[0]}
            yield to_device(batch, runs.labs[0])

    return {name: stream(name) for name in runs.tasks[0].of(use)}


def _stacked_orders(
    n: int, batch_size: int, labs: Sequence[Lab]
) -> Iterator[Int[Tensor, "model batch"]]:
    """The index batches of `batches.orders` of every model, a pass over the data at a time."""
    generators = [lab.generator() for lab in labs]
    batch_size = min(batch_size, n)
    while True:
        passes = torch.stack([torch.randperm(n, generator=each) for each in generators])
        yield from passes[:, : n - n % batch_size].split(batch_size, 1)


def _concatenate(data: Sequence[Columns]) -> tuple[Columns | None, Tensor | None]:
    """The different data one after the other, and where each model's begin (None if all have the
    same); no table if it were too large.
    """
    distinct = {id(columns): columns for columns in data}
    if len(distinct) == 1:
        return data[0], None
    order = {key: number for number, key in enumerate(distinct)}
    starts = torch.tensor([[order[id(columns)] * len(columns)] for columns in data])
    tables = [columns.columns for columns in distinct.values()]
    kinds = [
        {key: (t.dtype, t.device, t.shape[1:]) for key, t in table.items()} for table in tables
    ]
    n_bytes = sum(t.numel() * t.element_size() for table in tables for t in table.values())
    if n_bytes > GATHER_LIMIT or any(kind != kinds[0] for kind in kinds):
        return None, starts
    return Columns(
        **{key: torch.cat([table[key] for table in tables]) for key in tables[0]}
    ), starts


class _Watcher:
    """What is watched, read from each model in turn."""

    def __init__(self, runs: TrainingRuns, ensemble: Ensemble) -> None:
        self.runs, self.ensemble, budget = runs, ensemble, runs.budgets[0]
        self.at = set(budget.watch_at or (budget.steps,)) if runs.watch else set()
        names = () if runs.watch is None else ("watched", *runs.watch)
        self.curves: list[dict[str, list[float]]] = [
            {name: [] for name in names} for _ in runs.models
        ]

    def read(self, done: int) -> None:
        if done not in self.at:
            return
        self.ensemble.write(self.runs.models)
        for model, curves in zip(self.runs.models, self.curves, strict=True):
            model.eval()
            curves["watched"].append(done)
            for name, quantity in (self.runs.watch or {}).items():
                curves[name].append(float(quantity(model)))


class _Selector:
    """Each model's weights with its lowest mean loss on the SELECT splits."""

    def __init__(self, runs: TrainingRuns, ensemble: Ensemble) -> None:
        self.runs, self.ensemble, self.every = runs, ensemble, runs.budgets[0].select_every
        refuse_no_selection(runs.tasks[0], runs.budgets[0])
        names = ("selected", "select_loss") if self.every else ()
        self.curves: list[dict[str, list[float]]] = [
            {name: [] for name in names} for _ in runs.models
        ]
        self.lowest = torch.full((len(runs.models),), math.inf, dtype=torch.float64)
        self.best: dict[str, Tensor] = {}

    @torch.no_grad()
    def read(self, done: int) -> None:
        if not self.every or done % self.every:
            return
        self.ensemble.eval()
        total, n = torch.zeros_like(self.lowest), 0
        for name in self.runs.tasks[0].of(Use.SELECT):
            passes = [
                once(task.splits[name].data, 1024, self.runs.labs[0]) for task in self.runs.tasks
            ]
            for batches in zip(*passes, strict=True):
                batch = {key: torch.stack([b[key] for b in batches]) for key in batches[0]}
                total += (
                    self.ensemble.evaluate(self.runs.tasks[0].objective.loss, batch)
                    .sum(1)
                    .double()
                    .cpu()
                )
                n += size(batches[0])
        means = total / n
        better = means < self.lowest
        values = self.ensemble.values
        if not self.best:
            self.best = {name: tensor.detach().clone() for name, tensor in values.items()}
        for name, tensor in values.items():
            self.best[name][better.to(tensor.device)] = tensor.detach()[better.to(tensor.device)]
        self.lowest = torch.where(better, means, self.lowest)
        for curves, value in zip(self.curves, means.tolist(), strict=True):
            curves["selected"].append(done)
            curves["select_loss"].append(value)

    @torch.no_grad()
    def restore(self) -> None:
        for name, tensor in self.ensemble.values.items():
            if self.best:
                tensor.copy_(self.best[name])
