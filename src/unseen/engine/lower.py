"""Steps that many models take at once: losses, penalties and two-pass rules in their stacked form."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from unseen.engine.ensemble import Ensemble
from unseen.engine.loop import Draw, Step, erm_step, mean_loss
from unseen.engine.rows import Rows
from unseen.task import Objective

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


def stackable(step: Step) -> Stackable | None:
    """The stacked form of a step, where it has one."""
    if step is erm_step:
        return ERM_STEP
    return step if isinstance(step, Stackable) else None


class Lower:
    """Leaves every model's gradient of one step in the stacked `.grad` and returns the K losses."""

    def __init__(self, ensemble: Ensemble, given: Sequence[Step], objective: Objective) -> None:
        steps = [stackable(step) for step in given]
        self.ensemble, self.objective = ensemble, objective
        first = steps[0]
        assert first is not None  # `together.plan` has looked
        self.form, self.shared, self.own = first, {}, {}
        self.rows = Rows(ensemble) if first.criterion is mean_criterion and Rows.fits(ensemble.template) else None
        like = next(ensemble.parameters())
        for name, value in first.settings.items():
            values = [step.settings[name] for step in steps if step is not None]
            if all(v == value for v in values):
                self.shared[name] = value
            else:
                self.own[name] = like.new_tensor(values)

    def __call__(self, fit: Stacks, adapt: Stacks, step: int) -> Tensor:
        if self.rows is not None:
            return self._by_rows(self.rows, fit)
        for p in self.ensemble.parameters():
            p.grad = None
        return (self._by_criterion if self.form.criterion else self._by_gradient)(fit, adapt, step)

    def _by_rows(self, model: Rows, fit: Stacks) -> Tensor:
        model.empty_gradients()
        rows = [{key: tensor.flatten(0, 1) for key, tensor in batch.items()} for batch in fit.values()]
        each = [self.objective.loss(model, batch).unflatten(0, (self.ensemble.n, -1)) for batch in rows]
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
