"""Steps that many models take at once: losses, penalties and two-pass rules in their stacked form."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from unseen.engine import flat
from unseen.engine.ensemble import Ensemble, Evaluated
from unseen.engine.loop import Draw, Step, erm_step, mean_loss
from unseen.engine.rows import Rows
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

    Exactly one of `criterion(model, draw, objective, **given)` (a differentiable scalar: losses and penalties) and
    `gradient(at, parameters, draw, objective, **given)` (returns gradients and loss: two-pass rules, written for
    one model with torch.func). Scalar `settings` may differ between the models of one ensemble, `fixed` may not.
    Random numbers come from `noise`, drawn before the function, and what a step hands on to the next one is `state`:
    the function is given it by name and returns it anew beside its result. All of them arrive as keywords.
    """

    step: Callable[..., Tensor] | None = None
    """An equal step for one model, where it can be had for less than the pure function."""
    criterion: Callable[..., Any] | None = None
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
    _carried: dict[str, Tensor] = field(default_factory=dict, compare=False, repr=False)

    def __call__(self, model: nn.Module, draw: Draw, objective: Objective) -> Tensor:
        if self.step is not None:
            return self.step(model, draw, objective, **self.settings, **self.fixed)
        if self.state is not None and draw.step == 0:  # a new run
            self._carried.update(self.state(draw))
        given = {**self.settings, **self.fixed, **self.drawn(draw), **self._carried}
        if self.criterion is not None:
            loss, state = self.parts(self.criterion(model, draw, objective, **given))
            loss.backward()
        else:
            gradients, loss, state = self._alone(model, draw, objective, given)
            for name, p in flat.trainable(model).items():
                p.grad = gradients[name].detach()
        self._carried.update({name: tensor.detach() for name, tensor in state.items()})
        return loss.detach()

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

        own = {name: p.detach() for name, p in flat.trainable(model).items()}
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
        is_mean = first.criterion is mean_criterion or bool(first.ascends)
        self.rows = Rows(ensemble) if is_mean and Rows.fits(ensemble.template) else None
        like = next(ensemble.parameters())
        for name, value in first.settings.items():
            values = [step.settings[name] for step in self.steps]
            if all(v == value for v in values):
                self.shared[name] = value
            else:
                self.own[name] = like.new_tensor(values)

    def __call__(self, fit: Stacks, adapt: Stacks, step: int) -> Tensor:
        if self.rows is not None:
            return self._by_rows(self.rows, fit) if not self.form.ascends else self._ascended(self.rows, fit)
        for p in self.ensemble.parameters():
            p.grad = None
        given = {**self.own, **self._prepared(fit, adapt, step)}
        values, state = (self._by_criterion if self.form.criterion else self._by_gradient)(given, fit, adapt, step)
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

    def _by_rows(self, model: Rows, fit: Stacks) -> Tensor:
        model.empty_gradients()
        rows = [{key: tensor.flatten(0, 1) for key, tensor in batch.items()} for batch in fit.values()]
        each = [self.objective.loss(model, batch).unflatten(0, (self.ensemble.n, -1)) for batch in rows]
        means = torch.cat(each, 1).mean(1)
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

    def _by_criterion(self, given: Values, fit: Stacks, adapt: Stacks, step: int) -> tuple[Tensor, Values]:
        form = self.form

        def lowered(model: nn.Module, fit: Stacks, adapt: Stacks, **given: Tensor) -> tuple[Any, ...]:
            return form.parts(form.criterion(model, Draw(fit, adapt, step), self.objective, **self.shared, **given))  # type: ignore[misc]

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
