"""Steps that many models take at once: losses, penalties and two-pass rules in their stacked form."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unseen.engine import parameters
from unseen.engine.domain_risks import merge_batches, risks
from unseen.engine.loop import Draw, Step, erm_step, mean_loss
from unseen.engine.vectorized.ensemble import Ensemble, Evaluated
from unseen.engine.vectorized.mlp import Rows
from unseen.lab import Lab
from unseen.task import Objective

Stacks = Mapping[str, Mapping[str, Tensor]]
"""Minibatches of all models by split and column, [model, batch, …]."""


Values = Mapping[str, Tensor]
"""Tensors by name that a step is given beside its settings."""


SMALLEST = 1e-12
"""Norms below it count as this much: at a stationary point there is no ascent direction, and none is taken."""


@dataclass(frozen=True)
class Stackable:
    """A step for one model that also exists as a pure function, so that many models can take it at once.

    Exactly one of `criterion(model, draw, objective, **given)` (a differentiable scalar: losses and penalties),
    `of_risks(risks, step, **given)` (a scalar of the mean losses of the FIT minibatches) and
    `gradient(at, parameters, draw, objective, **given)` (returns gradients and loss: two-pass rules, written for
    one model with torch.func). Scalar `settings` may differ between the models of one ensemble, `fixed` may not.
    Random numbers come from `noise`, drawn before the function, and what a step hands on to the next one is `state`:
    the function is given it by name and returns it anew beside its result. All of them arrive as keywords.
    """

    step: Callable[..., Tensor] | None = None
    """An equal step for one model, where it can be had for less than the pure function."""
    criterion: Callable[..., Any] | None = None
    of_risks: Callable[..., Any] | None = None
    gradient: Callable[..., Any] | None = None
    settings: Mapping[str, float] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    noise: Callable[..., Values] | None = None
    """`noise(draw, **settings, **fixed)`: the step's random numbers from `draw.generator`."""
    state: Callable[[Draw], Values] | None = None
    """What the first step is given, from its draw."""
    ascends: str = ""
    """Name of a setting ρ, if the gradient rule is: ∇L(w + ρ ∇L(w)/‖∇L(w)‖) of the mean loss L, and L(w). Chains of linear
    layers then take two plain passes in place of the rule."""
    losses: Callable[..., Tensor] | None = None
    """`losses(model, batch, objective, **given)`, if the step lowers the mean of these: one per example, each from its own
    settings, random numbers and rows of the joined minibatch (whose numbers are the only integers that `noise` may draw).
    One model, and chains of linear layers, take it in place of the rule: plain autograd on the rows of all models."""
    _carried: dict[str, Tensor] = field(default_factory=dict, compare=False, repr=False)

    def __call__(self, model: nn.Module, draw: Draw, objective: Objective) -> Tensor:
        if self.step is not None:
            return self.step(model, draw, objective, **self.settings, **self.fixed)
        if self.state is not None and draw.step == 0:  # a new run
            self._carried.update(self.state(draw))
        given = {**self.settings, **self.fixed, **self.drawn(draw), **self._carried}
        if self.losses is not None:
            loss, state = self.losses(model, merge_batches(draw.fit.values()), objective, **given).mean(), {}
            loss.backward()
        elif self.gradient is None:
            loss, state = self.parts(self.scalar(model, draw, objective, **given))
            loss.backward()
        else:
            gradients, loss, state = self._alone(model, draw, objective, given)
            for name, p in parameters.trainable(model).items():
                p.grad = gradients[name].detach()
        self._carried.update({name: tensor.detach() for name, tensor in state.items()})
        return loss.detach()

    def scalar(self, model: nn.Module, draw: Draw, objective: Objective, **given: Any) -> Any:
        """What a step without a gradient rule lowers, and its state."""
        if self.of_risks is not None:
            return self.of_risks(risks(model, draw, objective), draw.step, **given)
        assert self.criterion is not None
        return self.criterion(model, draw, objective, **given)

    def drawn(self, draw: Draw) -> Values:
        """This step's random numbers."""
        return {} if self.noise is None else self.noise(draw, **self.settings, **self.fixed)

    def parts(self, result: Any) -> tuple[Any, ...]:
        """The function's result, ending with the state for the next step."""
        items = result if isinstance(result, tuple) else (result,)
        return items if self.state is not None else (*items, {})

    def _alone(self, model: nn.Module, draw: Draw, objective: Objective, given: Mapping[str, Any]) -> tuple[Any, ...]:
        """The gradient rule on one model. All its passes see one dropout mask, and only the first moves the buffers."""
        assert self.gradient is not None
        calls, mask = [0], torch.get_rng_state()
        asked = Evaluated(model)

        def at(values: Mapping[str, Tensor], f: Callable[..., Any], *rest: Any) -> Any:
            named = {f"model.{name}": tensor for name, tensor in values.items()}
            calls[0] += 1
            torch.set_rng_state(mask)
            with unmoved(model) if calls[0] > 1 else contextlib.nullcontext():
                return torch.func.functional_call(asked, named, (f, *rest))

        own = {name: p.detach() for name, p in parameters.trainable(model).items()}
        with torch.no_grad():
            return self.parts(self.gradient(at, own, draw, objective, **given))


@contextlib.contextmanager
def unmoved(model: nn.Module) -> Iterator[None]:
    """Buffers keep their values: batch normalisation counts a minibatch once, at w and not at w + ε."""
    before = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for buffer, value in before:
            buffer.copy_(value)


@contextlib.contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Passes for the sake of the inputs: parameters get no gradient, buffers keep their values."""
    params = parameters.trainable(model).values()
    try:
        for p in params:
            p.requires_grad_(False)
        with unmoved(model):
            yield
    finally:
        for p in params:
            p.requires_grad_(True)


def mean_criterion(model: nn.Module, draw: Draw, objective: Objective) -> Tensor:
    """The mean loss over the FIT minibatches."""
    return mean_loss(model, draw.fit, objective)


ERM_STEP = Stackable(erm_step, mean_criterion)


def stackable(step: Step) -> Stackable | None:
    """The stacked form of a step, where it has one."""
    if step is erm_step:
        return ERM_STEP
    return step if isinstance(step, Stackable) else None


class Lower:
    """Leaves every model's gradient of one step in the stacked `.grad` and returns the K losses."""

    def __init__(
        self, ensemble: Ensemble, given: Sequence[Step], objective: Objective, labs: Sequence[Lab] = ()
    ) -> None:
        self.steps = [step for step in map(stackable, given) if step is not None]  # `together.plan` has looked
        self.ensemble, self.objective = ensemble, objective
        self.generators = [lab.child("step").generator() for lab in labs]
        first = self.steps[0]
        self.form, self.shared, self.own = first, dict(first.fixed), {}
        self.state: dict[str, Tensor] = {}
        by_rows = first.criterion is mean_criterion or first.ascends or first.losses or first.of_risks
        self.rows = Rows(ensemble) if by_rows and Rows.fits(ensemble.template) else None
        like = next(ensemble.parameters())
        for name, value in first.settings.items():
            values = [step.settings[name] for step in self.steps]
            if all(v == value for v in values):
                self.shared[name] = value
            else:
                self.own[name] = like.new_tensor(values)

    def __call__(self, fit: Stacks, adapt: Stacks, step: int) -> Tensor:
        form = self.form
        if self.rows is not None and form.ascends:
            return self._ascended(self.rows, fit)
        if self.rows is not None and form.criterion is mean_criterion:
            return self._by_rows(self.rows, fit)
        given = {**self.own, **self._prepared(fit, adapt, step)}
        if self.rows is not None and form.losses is not None:
            return self._by_losses(self.rows, fit, given)
        if self.rows is not None and form.of_risks is not None:
            values, state = self._by_risks(self.rows, fit, given, step)
        else:
            for p in self.ensemble.parameters():
                p.grad = None
            values, state = (self._by_gradient if form.gradient else self._by_scalar)(given, fit, adapt, step)
        self.state = {name: tensor.detach() for name, tensor in state.items()}
        return values.detach()

    def _prepared(self, fit: Stacks, adapt: Stacks, step: int) -> dict[str, Tensor]:
        """State and random numbers of every model, each from its own generator, [model, …]."""
        if self.form.noise is None and (self.form.state is None or step):
            return self.state
        drawn = []
        for k, own in enumerate(self.steps):
            draw = Draw(_of(fit, k), _of(adapt, k), step, self.generators[k] if self.generators else None)
            start = own.state(draw) if own.state is not None and step == 0 else {}
            drawn.append({**start, **own.drawn(draw)})
        return {**self.state, **{name: torch.stack([each[name] for each in drawn]) for name in drawn[0]}}

    def _each(self, model: Rows, fit: Stacks) -> list[Float[Tensor, "model batch"]]:
        """The losses of every minibatch's examples: of all in one pass where they have the same columns."""
        sizes = [next(iter(batch.values())).shape[1] for batch in fit.values()]
        rows = [{key: tensor.flatten(0, 1) for key, tensor in batch.items()} for batch in _merged(fit)]
        each = [self.objective.loss(model, batch).unflatten(0, (self.ensemble.n, -1)) for batch in rows]
        return list(each[0].split(sizes, 1)) if len(each) < len(sizes) else each

    def _by_rows(self, model: Rows, fit: Stacks) -> Tensor:
        model.empty_gradients()
        each = self._each(model, fit)
        means = (each[0] if len(each) == 1 else torch.cat(each, 1)).mean(1)
        means.sum().backward()
        return means.detach()

    def _by_risks(self, model: Rows, fit: Stacks, given: Values, step: int) -> tuple[Tensor, Values]:
        model.empty_gradients()
        each = torch.stack([losses.mean(1) for losses in self._each(model, fit)], 1)

        def lowered(own: Tensor, given: dict[str, Tensor]) -> tuple[Any, ...]:
            return self.form.parts(self.form.of_risks(own, step, **self.shared, **given))  # type: ignore[misc]

        values, state = torch.func.vmap(lowered)(each, dict(given))
        values.sum().backward()
        return values, state

    def _by_losses(self, model: Rows, fit: Stacks, given: Values) -> Tensor:
        """Settings [model] and random numbers [model, batch, …] are handed on with one entry per row."""
        model.empty_gradients()
        (batch,) = _merged(fit, must=True)
        n = next(iter(batch.values())).shape[1]
        firsts = torch.arange(0, n * self.ensemble.n, n, device=next(iter(batch.values())).device)[:, None]
        rows = {
            key: t.repeat_interleave(n) if t.dim() == 1 else (t if t.is_floating_point() else t + firsts).flatten(0, 1)
            for key, t in given.items()
        }
        flat_batch = {key: tensor.flatten(0, 1) for key, tensor in batch.items()}
        losses = self.form.losses(model, flat_batch, self.objective, **self.shared, **rows)  # type: ignore[misc]
        means = losses.unflatten(0, (self.ensemble.n, n)).mean(1)
        means.sum().backward()
        return means.detach()

    def _ascended(self, model: Rows, fit: Stacks) -> Tensor:
        """Gradients at w + ρ g/‖g‖ with each model's own g and ρ, and the losses at w."""
        losses, params = self._by_rows(model, fit), list(self.ensemble.trainable.values())
        with torch.no_grad():
            grads = [p.grad.flatten(1) for p in params if p.grad is not None]
            norms = torch.stack([g.square().sum(1) for g in grads]).sum(0).sqrt()
            scales = (self.own | self.shared)[self.form.ascends] / norms.clamp_min(SMALLEST)
            before = [p.detach().clone() for p in params]
            for p in params:
                if p.grad is not None:
                    p.addcmul_(p.grad, scales.view(-1, *[1] * (p.dim() - 1)))
        try:
            self._by_rows(model, fit)
        finally:
            with torch.no_grad():
                for p, w in zip(params, before, strict=True):
                    p.copy_(w)
        return losses

    def _by_scalar(self, given: Values, fit: Stacks, adapt: Stacks, step: int) -> tuple[Tensor, Values]:
        form = self.form

        def lowered(model: nn.Module, fit: Stacks, adapt: Stacks, **given: Tensor) -> tuple[Any, ...]:
            return form.parts(form.scalar(model, Draw(fit, adapt, step), self.objective, **self.shared, **given))

        values, state = self.ensemble.each(lowered, fit, adapt, also=given)
        values.sum().backward()  # the models share nothing: the gradient of the sum is every model's own gradient
        return values, state

    @torch.no_grad()
    def _by_gradient(self, given: Values, fit: Stacks, adapt: Stacks, step: int) -> tuple[Tensor, Values]:
        form, ensemble = self.form, self.ensemble
        trainable = {name: p.detach() for name, p in ensemble.trainable.items()}
        fixed = {name: tensor for name, tensor in ensemble.values.items() if name not in trainable}

        def taken(own: dict, rest: dict, given: dict, fit: Stacks, adapt: Stacks) -> tuple[Any, ...]:
            def at(values: Mapping[str, Tensor], f: Callable[..., Any], *args: object) -> Any:
                return ensemble.at({**values, **rest}, f, *args)

            draw = Draw(fit, adapt, step)
            return form.parts(form.gradient(at, own, draw, self.objective, **self.shared, **given))  # type: ignore[misc]

        gradients, values, state = torch.func.vmap(taken)(trainable, fixed, dict(given), fit, adapt)
        for name, p in ensemble.trainable.items():
            p.grad = gradients[name].contiguous()
        return values, state


def _of(stacks: Stacks, k: int) -> dict[str, dict[str, Tensor]]:
    """The minibatches of model k."""
    return {name: {key: tensor[k] for key, tensor in batch.items()} for name, batch in stacks.items()}


def _merged(stacks: Stacks, must: bool = False) -> list[Mapping[str, Tensor]]:
    """The minibatches as one per model, where they have the same columns; if they must, of the columns that all have."""
    batches = list(stacks.values())
    kinds = [{key: (t.dtype, t.shape[2:]) for key, t in batch.items()} for batch in batches]
    if len(batches) == 1 or not (must or all(kind == kinds[0] for kind in kinds)):
        return batches
    keys = [key for key in batches[0] if all(key in batch for batch in batches)]
    return [{key: torch.cat([batch[key] for batch in batches], 1) for key in keys}]
