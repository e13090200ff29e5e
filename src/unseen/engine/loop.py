"""The only training loop: a budget, a step, and what is watched on the way."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from unseen.engine import parameters
from unseen.engine.batches import forever, model_to_device, once, size
from unseen.engine.example_values import check_objective, refuse_nonfinite_splits
from unseen.errors import Divergence, InvalidConfig
from unseen.lab import Lab
from unseen.method import Trained
from unseen.task import Batch, Objective, Task, Use

Option = TypeVar("Option", bound=StrEnum)

Watch = Callable[[nn.Module], float]
"""A quantity of the model during training. It must leave the model, its mode and its gradients as
they are.
"""


class Optimizer(StrEnum):
    """Update rules of torch.optim."""

    SGD = "sgd"
    ADAM = "adam"
    ADAMW = "adamw"


class Schedule(StrEnum):
    """Course of the learning rate after warm-up."""

    CONSTANT = "constant"
    COSINE = "cosine"
    """To zero at the last step."""


def _member(kind: type[Option], value: str) -> Option:
    """The member of that name."""
    if value not in list(kind):
        raise InvalidConfig(
            f"Budget got {kind.__name__.lower()}={value!r}.",
            why="nobody trains so here.",
            fix=f"choose from {', '.join(kind)}.",
        )
    return kind(value)


@dataclass(frozen=True)
class Budget:
    """How long and how fast to train."""

    steps: int = 1_000
    batch_size: int = 128
    """Examples per TRAIN split and step."""
    lr: float = 1e-3
    optimizer: Optimizer = Optimizer.ADAMW
    momentum: float = 0.0
    """For SGD."""
    betas: tuple[float, float] = (0.9, 0.999)
    """For Adam and AdamW."""
    weight_decay: float = 0.0
    decay_vectors: bool = True
    """Whether weight decay also shrinks biases and normalisation gains."""
    schedule: Schedule = Schedule.CONSTANT
    warmup: int = 0
    """Steps of linear warm-up."""
    drops: tuple[int, ...] = ()
    """Steps at which the learning rate is multiplied by `drop`."""
    drop: float = 0.1
    clip: float = math.inf
    """Largest norm of the gradient."""
    select_every: int = 0
    """If positive: the mean loss on the SELECT splits is read that often, and the best weights are
    returned.
    """
    watch_at: tuple[int, ...] = ()
    """Numbers of finished steps at which `train` reads what it watches (0: before training); empty:
    at the end.
    """
    bfloat16: bool = False
    """Autocast of the forward pass."""

    def __post_init__(self) -> None:
        # names are given as strings, too: "sgd" must not train by another rule
        object.__setattr__(self, "optimizer", _member(Optimizer, self.optimizer))
        object.__setattr__(self, "schedule", _member(Schedule, self.schedule))
        if (
            self.steps < 0
            or self.batch_size < 1
            or not self.lr > 0
            or self.weight_decay < 0
            or self.clip <= 0
        ):
            raise InvalidConfig(
                f"Budget(steps={self.steps}, batch_size={self.batch_size}, lr={self.lr}, "
                f"weight_decay={self.weight_decay}, clip={self.clip}) is out of range.",
                why="steps and weight decay are at least 0; batch size, learning rate and clip "
                "norm are positive.",
                fix="correct the value.",
            )

    def rate(self, step: int) -> float:
        """The learning rate of a step as a share of `lr`."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        # drops multiply: after the second the rate is drop²
        share = self.drop ** sum(step >= at for at in self.drops)
        if self.schedule is Schedule.COSINE:
            share *= 0.5 * (
                1 + math.cos(math.pi * (step - self.warmup) / max(1, self.steps - self.warmup))
            )
        return share

    def optimizer_of(self, model: nn.Module) -> torch.optim.Optimizer:
        """The torch optimizer over the model's trainable parameters."""
        params = list(parameters.trainable(model).values())
        groups: list[dict[str, Any]] = [{"params": params, "weight_decay": self.weight_decay}]
        if self.weight_decay and not self.decay_vectors:
            # biases and gains of normalisation are usually not decayed (decoupled weight decay in
            # GPT, LLaMA)
            groups[0]["params"] = [p for p in params if p.dim() > 1]
            groups.append({"params": [p for p in params if p.dim() <= 1], "weight_decay": 0.0})
        groups = [group for group in groups if group["params"]]
        if self.optimizer is Optimizer.SGD:
            return torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum, fused=True)
        kind = torch.optim.Adam if self.optimizer is Optimizer.ADAM else torch.optim.AdamW
        return kind(groups, lr=self.lr, betas=self.betas, fused=True)


@dataclass(frozen=True)
class Draw:
    """What a step may see: one minibatch per TRAIN and per ADAPT split. No evaluation data."""

    fit: Mapping[str, Batch]
    adapt: Mapping[str, Batch]
    step: int = 0
    generator: torch.Generator | None = None
    """For a step that draws random numbers of its own."""


Step = Callable[[nn.Module, Draw, Objective], Tensor]
"""Leaves gradients in `.grad` (they come in empty) and returns the loss, detached."""


def mean_loss(model: nn.Module, batches: Mapping[str, Batch], objective: Objective) -> Tensor:
    """Mean loss over all examples of the minibatches."""
    losses = [objective.loss(model, batch) for batch in batches.values()]
    return (losses[0] if len(losses) == 1 else torch.cat(losses)).mean()


def erm_step(model: nn.Module, draw: Draw, objective: Objective) -> Tensor:
    """Leaves in `.grad` the gradient of the mean loss."""
    loss = mean_loss(model, draw.fit, objective)
    loss.backward()
    return loss.detach()


def draws(task: Task, budget: Budget, lab: Lab) -> Iterator[Draw]:
    """Minibatches of the TRAIN and ADAPT splits, each split with its own stream; evaluation splits
    are never opened.
    """
    # streams carry the split's name, so that adding a split does not move the draws of the others
    streams = {
        use: {
            name: forever(split.data, budget.batch_size, lab.child(name))
            for name, split in task.of(use).items()
        }
        for use in (Use.TRAIN, Use.ADAPT)
    }
    generator = lab.child("step").generator()
    for step in range(budget.steps):
        fit, adapt = (
            {name: next(stream) for name, stream in streams[use].items()}
            for use in (Use.TRAIN, Use.ADAPT)
        )
        yield Draw(fit, adapt, step, generator)


def train(
    model: nn.Module,
    task: Task,
    step: Step,
    budget: Budget,
    lab: Lab,
    watch: Mapping[str, Watch] | None = None,
) -> Trained:
    """Trains `model` in place for `budget.steps` steps and returns it in evaluation mode.

    `curves` holds `loss` (every step) and, for each watched quantity, its values at the steps
    `budget_with_readings`. Raises `Divergence` when the loss or the weights stop being finite.
    """
    model_to_device(model, lab)
    start = parameters.copy_parameters(model)
    optimizer = budget.optimizer_of(model)
    losses = torch.full((budget.steps,), math.nan)
    curves: dict[str, list[float]] = {name: [] for name in ("watched", *(watch or {}))}
    watched = set(budget.watch_at or (budget.steps,)) if watch else set()
    best = _Best(task, budget, lab)

    def read(done: int) -> None:
        if done in watched:
            curves["watched"].append(done)
            model.eval()
            for name, quantity in (watch or {}).items():
                curves[name].append(float(quantity(model)))

    with lab.child("dropout").seeded():
        read(0)
        for draw in lab.track(draws(task, budget, lab), budget.steps):
            # reading and selecting leave the model in evaluation mode
            if not model.training:
                model.train()
            for group in optimizer.param_groups:
                group["lr"] = budget.lr * budget.rate(draw.step)
            # None, not zeros: a step may leave a parameter without a gradient, and weight decay
            # skips it then
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(lab.device.type, torch.bfloat16, enabled=budget.bfloat16):
                # the first step says what is wrong with a loss; later ones need not look again
                objective = task.objective if draw.step else check_objective(task.objective)
                losses[draw.step] = step(model, draw, objective)
            if budget.clip < math.inf:
                torch.nn.utils.clip_grad_norm_(model.parameters(), budget.clip)
            optimizer.step()
            # every hundred steps only: reading a loss waits for the device
            if draw.step % 100 == 99 or draw.step + 1 == budget.steps:
                _refuse_divergence(losses, draw.step, task, lab)
            read(draw.step + 1)
            best.read(model, draw.step + 1)
    best.restore(model)
    model.eval()
    if not all(torch.isfinite(p).all() for p in parameters.trainable(model).values()):
        raise divergence_error(budget.steps, task, lab)
    if watch is None:
        curves = {}
    return Trained(model, task, {"loss": losses.tolist(), **curves, **best.curves}, start)


def refuse_no_selection(task: Task, budget: Budget) -> None:
    """Refuses a budget that selects weights on splits that the task does not have."""
    if budget.select_every and not task.of(Use.SELECT):
        raise InvalidConfig(
            f"select_every={budget.select_every}, but task `{task.name}` has no SELECT split.",
            why="stopping early needs data that are neither for training nor for evaluation.",
            fix="add a split with use=Use.SELECT, or set select_every=0.",
        )


class _Best:
    """The weights with the lowest mean loss on the SELECT splits."""

    def __init__(self, task: Task, budget: Budget, lab: Lab) -> None:
        self.task, self.every, self.lab = task, budget.select_every, lab
        self.curves: dict[str, list[float]] = {}
        self.lowest = math.inf
        self.weights: dict[str, Tensor] = {}
        refuse_no_selection(task, budget)
        if self.every:
            self.curves = {"selected": [], "select_loss": []}

    @torch.no_grad()
    def read(self, model: nn.Module, done: int) -> None:
        if not self.every or done % self.every:
            return
        model.eval()
        total, n = 0.0, 0
        for split in self.task.of(Use.SELECT).values():
            for batch in once(split.data, 1024, self.lab):
                total, n = (
                    total + self.task.objective.loss(model, batch).sum().item(),
                    n + size(batch),
                )
        self.curves["selected"].append(done)
        self.curves["select_loss"].append(total / n)
        if total / n < self.lowest:
            # the whole state, buffers included: running statistics belong to the weights
            self.lowest, self.weights = total / n, parameters.state(model)

    def restore(self, model: nn.Module) -> None:
        if self.weights:
            model.load_state_dict(self.weights)


def _refuse_divergence(losses: Tensor, step: int, task: Task, lab: Lab) -> None:
    bad = ~torch.isfinite(losses[: step + 1])
    if bad.any():
        raise divergence_error(int(bad.nonzero()[0]), task, lab)


def divergence_error(step: int, task: Task, lab: Lab) -> Divergence:
    """The error for a loss or weight that stopped being finite at this step; data that are not
    finite are refused as such.
    """
    refuse_nonfinite_splits({**task.of(Use.TRAIN), **task.of(Use.ADAPT)}, lab)
    return Divergence(
        f"The loss or the weights are no longer finite at step {step}.",
        why="the learning rate is too high for this model and data, or the inputs are not scaled.",
        fix="lower `lr`, set `clip=1.0`, or standardise the inputs.",
    )
