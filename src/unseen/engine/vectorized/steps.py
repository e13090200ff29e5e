"""Training steps in three hooks, for one model and for many models at once.

Methods change the minibatch (mixup, adversarial inputs), how its losses become one number (group
DRO, V-REx) or where in the space of weights the gradient is read (SAM). Each change is a hook, a
function written once; `VectorizedStep` applies hooks to one model, `StackedGradient` to many.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unseen.engine import parameters
from unseen.engine.domain_risks import losses_by_domain, merge_batches, mergeable
from unseen.engine.loop import Draw, Step, erm_step
from unseen.engine.vectorized.ensemble import Ensemble, RowModel, expand
from unseen.engine.vectorized.mlp import BatchedMLP
from unseen.lab import Lab
from unseen.task import Objective

Stacks: TypeAlias = Mapping[str, Mapping[str, Tensor]]
"""Minibatches of all models by split and column, [model, batch, …]."""
Values: TypeAlias = Mapping[str, Tensor]
"""Tensors by name that hooks are given beside the settings."""


def mean(losses: Sequence[Float[Tensor, "*models batch"]], step: int = 0, **unused: Any) -> Tensor:
    """The mean over the examples of all domains."""
    return (losses[0] if len(losses) == 1 else torch.cat(list(losses), -1)).mean(-1)


def norms_of_models(stacks: parameters.Parameters) -> Float[Tensor, " model"]:
    """`parameters.norm` of every model, to the last bit; under `vmap` it takes five times as
    long, which small models notice.
    """
    squares = [t.detach().reshape(len(t), -1).square().sum(1) for t in stacks.values()]
    return torch.stack(squares, 1).sum(1).sqrt()


@dataclass(frozen=True)
class VectorizedStep:
    """A training step, written for one model, that many models can take at once.

    The gradient is that of `reduction`, at the weights or where `ascent` leads from them, plus that
    of `criterion`. All hooks get the settings, the noise and what is carried over as keywords.
    """

    reduction: Callable[..., Any] | None = None
    """`reduction(losses, step, **given)`: a scalar of the losses [example] of every domain, or the
    scalar and a dictionary of tensors that the next step's hooks are given (`None` or a default
    value at the first step)."""
    transform: Callable[..., Any] | None = None
    """`transform(model, batch, objective, **given)`: the minibatch of all domains as it is trained
    on, and the function (model, batch) of its losses. For many models it is called once with the
    rows of all: settings come as one number per row, and the integers among the noise number rows.
    """
    ascent: Callable[..., Tensor] | None = None
    """`ascent(norm, **given)`: this many gradients, whose norm is given, are added to the weights
    before the gradient is read."""
    criterion: Callable[..., Tensor] | None = None
    """`criterion(model, draw, objective, **given)`: a scalar of one model that is no reduction of
    its losses, for vmap."""
    settings: Mapping[str, float] = field(default_factory=dict)
    """They may differ between the models of one ensemble."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """They may not."""
    noise: Callable[..., Values] | None = None
    """`noise(draw, **settings, **fixed)`: the step's random numbers, from `draw.generator`."""
    _carried: dict[str, Tensor] = field(default_factory=dict, compare=False, repr=False)

    def __call__(self, model: nn.Module, draw: Draw, objective: Objective) -> Tensor:
        if draw.step == 0:  # a new run
            self._carried.clear()
        given = {**self.settings, **self.fixed, **self.draw_noise(draw), **self._carried}
        values, dropout_mask = [], torch.get_rng_state()
        if self.reduction is not None:
            values.append(self._descend(model, draw, objective, given, dropout_mask))
        if self.criterion is not None:
            torch.set_rng_state(dropout_mask)  # all passes of a step see one dropout mask
            with preserve_buffers(model) if values else contextlib.nullcontext():
                value = self.criterion(model, draw, objective, **given)
                value.backward()
            values.append(value.detach())
        return values[0]

    def draw_noise(self, draw: Draw) -> Values:
        """This step's random numbers."""
        return {} if self.noise is None else self.noise(draw, **self.settings, **self.fixed)

    def reduce(
        self, losses: Sequence[Tensor], step: int, given: Mapping[str, Any]
    ) -> tuple[Tensor, Values]:
        """The scalar and what is carried over to the next step."""
        assert self.reduction is not None
        result = self.reduction(losses, step, **given)
        return result if isinstance(result, tuple) else (result, {})

    def _descend(
        self,
        model: nn.Module,
        draw: Draw,
        objective: Objective,
        given: Mapping[str, Any],
        dropout_mask: Tensor,
    ) -> Tensor:
        """Leaves the gradient of the reduction in `.grad`; returns its value at the weights."""
        losses = self._losses(model, list(draw.fit.values()), objective, given)
        value, carried = self.reduce(losses(), draw.step, given)
        if self.ascent is None:
            value.backward()
        else:
            params = parameters.trainable(model)
            gradient = torch.autograd.grad(value, list(params.values()), materialize_grads=True)
            norm = parameters.norm(dict(zip(params, gradient, strict=True)))
            scale = self.ascent(norm, **given)
            torch.set_rng_state(dropout_mask)  # L(w + ε) and L(w) are one function
            with (
                parameters.shift_parameters(list(params.values()), [scale * g for g in gradient]),
                preserve_buffers(model),
            ):
                self.reduce(losses(), draw.step, given)[0].backward()
        self._carried.update({name: tensor.detach() for name, tensor in carried.items()})
        return value.detach()

    def _losses(
        self,
        model: nn.Module,
        batches: Sequence[Mapping[str, Tensor]],
        objective: Objective,
        given: Mapping[str, Any],
    ) -> Callable[[], list[Tensor]]:
        """Evaluates the losses by domain; a transform is applied once, here."""
        if self.transform is not None:
            batch, loss = self.transform(model, merge_batches(batches), objective, **given)
            return lambda: [loss(model, batch)]
        if self.reduction is mean:  # a pass per domain, which rounds as `erm_step` does
            return lambda: [objective.loss(model, batch) for batch in batches]
        return lambda: losses_by_domain(model, batches, objective)


@contextlib.contextmanager
def preserve_buffers(model: nn.Module) -> Iterator[None]:
    """Buffers keep their values: batch normalisation counts a minibatch once, at w, not at w +
    ε.
    """
    before = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for buffer, value in before:
            buffer.copy_(value)


@contextlib.contextmanager
def freeze_parameters(model: nn.Module) -> Iterator[None]:
    """Passes for the sake of the inputs: parameters get no gradient, buffers keep their values."""
    params = parameters.trainable(model).values()
    try:
        for p in params:
            p.requires_grad_(False)
        with preserve_buffers(model):
            yield
    finally:
        for p in params:
            p.requires_grad_(True)


ERM_STEP = VectorizedStep(mean)


def as_vectorized(step: Step) -> VectorizedStep | None:
    """The step in hooks, where it has them."""
    if step is erm_step:
        return ERM_STEP
    return step if isinstance(step, VectorizedStep) else None


class StackedGradient:
    """Leaves every model's gradient of one step in the stacked `.grad` and returns the K losses."""

    def __init__(
        self,
        ensemble: Ensemble,
        steps: Sequence[Step],
        objective: Objective,
        labs: Sequence[Lab] = (),
    ) -> None:
        # `choose_backend` has looked: all of them have hooks, the same ones
        self.steps = [step for step in map(as_vectorized, steps) if step is not None]
        self.hooks = self.steps[0]
        self.ensemble, self.objective = ensemble, objective
        self.generators = [lab.child("step").generator() for lab in labs]
        chain = BatchedMLP.fits(ensemble.template)
        self.model = BatchedMLP(ensemble) if chain else RowModel(ensemble)
        self.shared: dict[str, Any] = dict(self.hooks.fixed)
        self.per_model: dict[str, Tensor] = {}
        self.carried: Values = {}
        like = next(ensemble.parameters())
        for name, value in self.hooks.settings.items():
            values = [step.settings[name] for step in self.steps]
            if all(v == value for v in values):
                self.shared[name] = value
            else:
                self.per_model[name] = like.new_tensor(values)

    def __call__(self, fit: Stacks, adapt: Stacks, step: int) -> Tensor:
        given = {**self.per_model, **self._noise(fit, adapt, step), **self.carried}
        values = []
        if self.hooks.reduction is not None:
            self.model.empty_gradients()
            values.append(self._descend(fit, step, given))
        else:
            for p in self.ensemble.parameters():
                p.grad = None
        if self.hooks.criterion is not None:
            values.append(self._descend_criterion(fit, adapt, step, given, counted=bool(values)))
        return values[0]

    def _noise(self, fit: Stacks, adapt: Stacks, step: int) -> Values:
        """Random numbers of every model, each from its own generator, [model, …]."""
        if self.hooks.noise is None:
            return {}
        drawn = []
        for k, hooks in enumerate(self.steps):
            generator = self.generators[k] if self.generators else None
            drawn.append(
                hooks.draw_noise(
                    Draw(_minibatches_of(fit, k), _minibatches_of(adapt, k), step, generator)
                )
            )
        return {name: torch.stack([values[name] for values in drawn]) for name in drawn[0]}

    def _descend(self, fit: Stacks, step: int, given: Values) -> Float[Tensor, " model"]:
        losses = self._losses(fit, given)
        values, carried = self._reduce(losses(), step, given)
        values.sum().backward()  # the models share nothing: its gradient is every model's own
        if self.hooks.ascent is not None:
            params = self.ensemble.trainable
            gradient = {name: p.grad for name, p in params.items() if p.grad is not None}
            norms = norms_of_models(gradient)
            scales = self.hooks.ascent(norms, **self.shared, **given)
            ways = [g.mul_(expand(scales, g)) for g in gradient.values()]
            with (
                parameters.shift_parameters([params[name] for name in gradient], ways),
                preserve_buffers(self.model),
            ):
                self.model.empty_gradients()
                self._reduce(losses(), step, given)[0].sum().backward()
        self.carried = {name: tensor.detach() for name, tensor in carried.items()}
        return values.detach()

    def _losses(
        self, fit: Stacks, given: Values
    ) -> Callable[[], Sequence[Float[Tensor, "model batch"]]]:
        """Evaluates the losses of all models by domain, in one pass where that makes no
        difference.
        """
        k, batches, transform = self.ensemble.n, list(fit.values()), self.hooks.transform
        sizes = [next(iter(batch.values())).shape[1] for batch in batches]
        if transform is not None or mergeable(
            self.ensemble.template, list(_minibatches_of(fit, 0).values())
        ):
            batches = [merge_batches(batches, axis=1)]
        rows = [{key: t.flatten(0, 1) for key, t in batch.items()} for batch in batches]
        if transform is not None:
            settings = {key: _by_row(t, sum(sizes)) for key, t in given.items()}
            batch, loss = transform(self.model, rows[0], self.objective, **self.shared, **settings)
            return lambda: [loss(self.model, batch).unflatten(0, (k, -1))]

        def losses() -> Sequence[Tensor]:
            found = [self.objective.loss(self.model, b).unflatten(0, (k, -1)) for b in rows]
            return found[0].split(sizes, 1) if len(found) < len(sizes) else found

        return losses

    def _reduce(
        self, losses: Sequence[Float[Tensor, "model batch"]], step: int, given: Values
    ) -> tuple[Float[Tensor, " model"], Values]:
        if self.hooks.reduction is mean:  # spares vmap
            return mean(losses), {}

        def reduce(losses: Sequence[Tensor], given: Values) -> tuple[Tensor, Values]:
            return self.hooks.reduce(losses, step, {**self.shared, **given})

        return torch.func.vmap(reduce)(list(losses), dict(given))

    def _descend_criterion(
        self, fit: Stacks, adapt: Stacks, step: int, given: Values, counted: bool
    ) -> Float[Tensor, " model"]:
        criterion, shared = self.hooks.criterion, self.shared
        assert criterion is not None

        def value(model: nn.Module, fit: Stacks, adapt: Stacks, **given: Tensor) -> Tensor:
            return criterion(model, Draw(fit, adapt, step), self.objective, **shared, **given)

        with preserve_buffers(self.model) if counted else contextlib.nullcontext():
            values: Tensor = self.ensemble.evaluate(value, fit, adapt, also=given)
            values.sum().backward()
        return values.detach()


def _minibatches_of(stacks: Stacks, k: int) -> dict[str, dict[str, Tensor]]:
    """The minibatches of model k."""
    return {name: {key: t[k] for key, t in batch.items()} for name, batch in stacks.items()}


def _by_row(values: Tensor, n: int) -> Tensor:
    """What every model is given, [model, …], with one entry per row of all models' minibatches of n
    rows.
    """
    if values.dim() == 1:
        return values.repeat_interleave(n)
    if values.is_floating_point():
        return values.flatten(0, 1)
    firsts = torch.arange(0, n * len(values), n, device=values.device)
    return (values + firsts[:, None]).flatten(0, 1)
