"""The stacked run behind `together.train_many`: minibatches, gradients and updates of K models at once."""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unseen.engine import flat
from unseen.engine.batches import once, orders, place, size
from unseen.engine.ensemble import Ensemble, Rows
from unseen.engine.loop import Budget, Draw, Optimizer, Step, Watch, diverged, erm_step, mean_loss, train
from unseen.errors import Diverged
from unseen.lab import Lab, Sink
from unseen.method import Trained
from unseen.task import Objective, Task, Use

Stacks = Mapping[str, Mapping[str, Tensor]]
"""Minibatches of all models by split and column, [model, batch, …]."""


@dataclass(frozen=True)
class Stackable:
    """A step for one model that also exists as a pure function, so that many models can take it at once.

    Exactly one of `criterion(model, draw, objective, **settings)` (a differentiable scalar: losses and penalties) and
    `gradient(at, parameters, draw, objective, **settings)` (returns gradients and loss: two-pass rules, written for
    one model with torch.func). Scalar `settings` may differ between the models of one ensemble.
    """

    step: Callable[..., Tensor]
    criterion: Callable[..., Tensor] | None = None
    gradient: Callable[..., tuple[Mapping[str, Tensor], Tensor]] | None = None
    settings: Mapping[str, float] = field(default_factory=dict)

    def __call__(self, model: nn.Module, draw: Draw, objective: Objective) -> Tensor:
        return self.step(model, draw, objective, **self.settings)


def mean_criterion(model: nn.Module, draw: Draw, objective: Objective) -> Tensor:
    """The mean loss over the FIT minibatches."""
    return mean_loss(model, draw.fit, objective)


ERM_STEP = Stackable(erm_step, criterion=mean_criterion)


@dataclass(frozen=True)
class Jobs:
    """K models with what each of them is trained on and with."""

    models: Sequence[nn.Module]
    tasks: Sequence[Task]
    steps: Sequence[Step]
    budgets: Sequence[Budget]
    labs: Sequence[Lab]
    watch: Mapping[str, Watch] | None = None

    def shortened(self, n: int, sink: Sink) -> "Jobs":
        """`n` steps on copies, without selection and watching; progress goes to `sink`."""
        budgets = [replace(b, steps=n, select_every=0, watch_at=()) for b in self.budgets]
        labs = [replace(lab, sink=sink) for lab in self.labs]
        return replace(self, models=[copy.deepcopy(m) for m in self.models], budgets=budgets, labs=labs, watch=None)

    def alone(self, k: int) -> Trained:
        return train(self.models[k], self.tasks[k], self.steps[k], self.budgets[k], self.labs[k], self.watch)


def stackable(step: Step) -> Stackable | None:
    """The stacked form of a step, where it has one."""
    if step is erm_step:
        return ERM_STEP
    return step if isinstance(step, Stackable) else None


def stacked(jobs: Jobs) -> list[Trained | Diverged]:
    """Trains all models as one; results and curves as from `loop.train`."""
    models, budget, lab = jobs.models, jobs.budgets[0], jobs.labs[0]
    for model in models:
        model.to(lab.device, lab.dtype)
    starts = [flat.copied(model) for model in models]
    ensemble = Ensemble(models)
    update, lower = Update(ensemble, jobs.budgets), Lower(ensemble, jobs)
    streams = {use: _streams(jobs, use) for use in (Use.FIT, Use.ADAPT)}
    losses = torch.full((budget.steps, len(models)), math.nan, device=lab.device)
    watched, selected = _Watched(jobs, ensemble), _Selected(jobs, ensemble)
    watched.read(0)
    for step in lab.track(range(budget.steps), budget.steps):
        ensemble.train()
        fit, adapt = ({name: next(stream) for name, stream in streams[use].items()} for use in (Use.FIT, Use.ADAPT))
        losses[step] = lower(fit, adapt, step)
        update(budget.rate(step))
        if step % 100 == 99 and not torch.isfinite(losses[step]).any():
            break  # nothing is left to train
        watched.read(step + 1)
        selected.read(step + 1)
    selected.restore()
    ensemble.write(models)
    history = losses.T.double().cpu()
    return [
        _outcome(jobs, k, history[k], starts[k], watched.curves[k] | selected.curves[k]) for k in range(len(models))
    ]


def _outcome(
    jobs: Jobs, k: int, losses: Tensor, start: dict[str, Tensor], curves: dict[str, list[float]]
) -> Trained | Diverged:
    model = jobs.models[k].eval()
    bad = ~torch.isfinite(losses)
    if bad.any():
        return diverged(int(bad.nonzero()[0]))
    if not all(torch.isfinite(p).all() for p in flat.trainable(model).values()):
        return diverged(jobs.budgets[k].steps)
    return Trained(model, jobs.tasks[k], {"loss": losses.tolist(), **curves}, start)


class Lower:
    """Leaves every model's gradient of one step in the stacked `.grad` and returns the K losses."""

    def __init__(self, ensemble: Ensemble, jobs: Jobs) -> None:
        steps = [stackable(step) for step in jobs.steps]
        self.ensemble, self.objective = ensemble, jobs.tasks[0].objective
        first = steps[0]
        assert first is not None  # `together.plan` has looked
        self.form, self.shared, self.own = first, {}, {}
        self.rows = Rows(ensemble) if first.criterion is mean_criterion and Rows.fits(ensemble.template) else None
        for name, value in first.settings.items():
            values = [step.settings[name] for step in steps if step is not None]
            if all(v == value for v in values):
                self.shared[name] = value
            else:
                self.own[name] = torch.tensor(values, dtype=jobs.labs[0].dtype, device=jobs.labs[0].device)

    def __call__(self, fit: Stacks, adapt: Stacks, step: int) -> Tensor:
        for p in self.ensemble.parameters():
            p.grad = None
        if self.rows is not None:
            return self._by_rows(fit)
        return (self._by_criterion if self.form.criterion else self._by_gradient)(fit, adapt, step)

    def _by_rows(self, fit: Stacks) -> Tensor:
        rows = [{key: tensor.flatten(0, 1) for key, tensor in batch.items()} for batch in fit.values()]
        each = [self.objective.loss(self.rows, batch).unflatten(0, (self.ensemble.n, -1)) for batch in rows]  # type: ignore[arg-type]
        means = torch.cat(each, 1).mean(1)
        means.sum().backward()
        return means.detach()

    def _by_criterion(self, fit: Stacks, adapt: Stacks, step: int) -> Tensor:
        criterion = self.form.criterion

        def lowered(model: nn.Module, fit: Stacks, adapt: Stacks, **settings: Tensor) -> Tensor:
            return criterion(model, Draw(fit, adapt, step), self.objective, **self.shared, **settings)  # type: ignore[misc]

        values = self.ensemble.each(lowered, fit, adapt, also=self.own)
        values.sum().backward()  # the models share nothing: the gradient of the sum is every model's own gradient
        return values.detach()

    @torch.no_grad()
    def _by_gradient(self, fit: Stacks, adapt: Stacks, step: int) -> Tensor:
        gradient, ensemble = self.form.gradient, self.ensemble
        trainable = {name: p.detach() for name, p in ensemble.trainable.items()}
        fixed = {name: tensor for name, tensor in ensemble.values.items() if name not in trainable}

        def taken(own: dict, rest: dict, settings: dict, fit: Stacks, adapt: Stacks) -> tuple[Mapping, Tensor]:
            def at(values: Mapping[str, Tensor], f: Callable[..., Tensor], *args: object) -> Tensor:
                return ensemble.at({**values, **rest}, f, *args)

            return gradient(at, own, Draw(fit, adapt, step), self.objective, **self.shared, **settings)  # type: ignore[misc]

        gradients, values = torch.func.vmap(taken)(trainable, fixed, self.own, fit, adapt)
        for name, p in ensemble.trainable.items():
            p.grad = gradients[name].contiguous()
        return values


class Update:
    """The budget's optimiser on stacked parameters, with learning rate, weight decay and clip norm per model.

    Where they differ, the fused optimiser runs at rate 1 and the result is interpolated: every update rule here is
    linear in its learning rate, w(lr) = w + lr (w(1) − w).
    """

    def __init__(self, ensemble: Ensemble, budgets: Sequence[Budget]) -> None:
        self.params, self.budget = list(ensemble.trainable.values()), budgets[0]
        self.rates, self.decays, self.clips = (
            torch.tensor([getattr(b, name) for b in budgets], dtype=torch.float64, device=self.params[0].device)
            for name in ("lr", "weight_decay", "clip")
        )
        decay, one = self.budget.weight_decay, len({(b.lr, b.weight_decay) for b in budgets}) == 1
        self.shared = one and (self.budget.decay_vectors or not decay)
        self.optimizer = (self.budget if self.shared else replace(self.budget, lr=1.0, weight_decay=0.0)).optimizer_of(
            ensemble
        )

    @torch.no_grad()
    def __call__(self, share: float) -> None:
        if torch.isfinite(self.clips).any():
            self._clip()
        if self.shared:
            for group in self.optimizer.param_groups:
                group["lr"] = self.budget.lr * share
            self.optimizer.step()
            return
        self._decay(share)
        old = [p.detach().clone() for p in self.params]
        self.optimizer.step()
        for p, before in zip(self.params, old, strict=True):
            p.copy_(torch.lerp(before, p, self._wide(self.rates * share, p)))

    def _clip(self) -> None:
        """As `clip_grad_norm_`: gradients times min(1, clip / (norm + 1e-6)), the norm over one model's parameters."""
        grads = [p.grad for p in self.params if p.grad is not None]
        norm = torch.stack([g.flatten(1).square().sum(1) for g in grads]).sum(0).sqrt()
        share = (self.clips / (norm + 1e-6)).clamp(max=1.0)
        for g in grads:
            g.mul_(self._wide(share, g))

    def _decay(self, share: float) -> None:
        for p in self.params:
            if p.grad is None or not (self.budget.decay_vectors or p.dim() > 2):
                continue
            if self.budget.optimizer is Optimizer.ADAMW:
                p.mul_(self._wide(1 - self.rates * share * self.decays, p))
            else:
                p.grad.add_(p * self._wide(self.decays, p))

    @staticmethod
    def _wide(scalar: Float[Tensor, " model"], p: Tensor) -> Tensor:
        return scalar.to(p.dtype).view(-1, *[1] * (p.dim() - 1))


def _streams(jobs: Jobs, use: Use) -> dict[str, Iterator[Mapping[str, Tensor]]]:
    def stream(name: str) -> Iterator[Mapping[str, Tensor]]:
        data = [task.splits[name].data for task in jobs.tasks]
        n, batch_size, k = len(data[0]), jobs.budgets[0].batch_size, len(data)  # type: ignore[arg-type]
        indices = [orders(n, batch_size, lab.child(name)) for lab in jobs.labs]
        shared = all(columns is data[0] for columns in data)
        while True:
            index = torch.stack([next(order) for order in indices])
            if shared:  # one gather for all models
                flat_batch = data[0][index.flatten()]
                batch = {key: tensor.unflatten(0, (k, -1)) for key, tensor in flat_batch.items()}
            else:
                parts = [columns[i] for columns, i in zip(data, index, strict=True)]
                batch = {key: torch.stack([part[key] for part in parts]) for key in parts[0]}
            yield place(batch, jobs.labs[0])

    return {name: stream(name) for name in jobs.tasks[0].of(use)}


class _Watched:
    """What is watched, read from each model in turn."""

    def __init__(self, jobs: Jobs, ensemble: Ensemble) -> None:
        self.jobs, self.ensemble, budget = jobs, ensemble, jobs.budgets[0]
        self.at = set(budget.watch_at or (budget.steps,)) if jobs.watch else set()
        names = () if jobs.watch is None else ("watched", *jobs.watch)
        self.curves: list[dict[str, list[float]]] = [{name: [] for name in names} for _ in jobs.models]

    def read(self, done: int) -> None:
        if done not in self.at:
            return
        self.ensemble.write(self.jobs.models)
        for model, curves in zip(self.jobs.models, self.curves, strict=True):
            model.eval()
            curves["watched"].append(done)
            for name, quantity in (self.jobs.watch or {}).items():
                curves[name].append(float(quantity(model)))


class _Selected:
    """Each model's weights with its lowest mean loss on the SELECT splits."""

    def __init__(self, jobs: Jobs, ensemble: Ensemble) -> None:
        self.jobs, self.ensemble, self.every = jobs, ensemble, jobs.budgets[0].select_every
        names = ("selected", "select_loss") if self.every else ()
        self.curves: list[dict[str, list[float]]] = [{name: [] for name in names} for _ in jobs.models]
        self.lowest = torch.full((len(jobs.models),), math.inf, dtype=torch.float64)
        self.best: dict[str, Tensor] = {}

    @torch.no_grad()
    def read(self, done: int) -> None:
        if not self.every or done % self.every:
            return
        self.ensemble.eval()
        total, n = torch.zeros_like(self.lowest), 0
        for name in self.jobs.tasks[0].of(Use.SELECT):
            passes = [once(task.splits[name].data, 1024, self.jobs.labs[0]) for task in self.jobs.tasks]
            for batches in zip(*passes, strict=True):
                batch = {key: torch.stack([b[key] for b in batches]) for key in batches[0]}
                total += self.ensemble.each(self.jobs.tasks[0].objective.loss, batch).sum(1).double().cpu()
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
