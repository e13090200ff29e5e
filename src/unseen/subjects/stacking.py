"""Runs of one method that are trained together: one stacked model where the method's step allows
it.
"""

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from unseen.engine.loop import Budget, Step
from unseen.engine.vectorized.choose import try_train_many
from unseen.errors import Divergence
from unseen.lab import Lab
from unseen.method import Method, Trained
from unseen.task import Task, Use

MOST_MODELS = 60
"""Models that are trained at once: more gain nothing, and an interruption loses at most these."""
MOST_PARAMETERS = 20_000_000
"""Of all models that are trained at once: the optimiser holds four numbers for each."""


def train_together(
    method: Method, models: Sequence[nn.Module], task: Task, labs: Sequence[Lab]
) -> list[Trained | Divergence]:
    """One run per model and lab, as the method's own `fit` gives it up to rounding; a probe decides
    whether to stack.
    """
    part, results = step_of(method), list[Trained | Divergence]()
    if part is None:
        return [
            train_alone(method, model, task, lab) for model, lab in zip(models, labs, strict=True)
        ]
    step, budget = part
    most = most_together(models[0])
    for k in range(0, len(models), most):
        chunk = slice(k, k + most)
        visible = visible_to_training(task, selects=budget.select_every > 0)
        found = try_train_many(models[chunk], visible, step, budget, labs[chunk])
        # a stacked run never sees the evaluated splits; what is trained belongs to the whole task
        # all the same
        results += [replace(one, task=task) if isinstance(one, Trained) else one for one in found]
    return results


def most_together(model: nn.Module) -> int:
    """So many models like this one are trained at once."""
    parameters = sum(p.numel() for p in model.parameters())
    return max(1, min(MOST_MODELS, MOST_PARAMETERS // max(1, parameters)))


def visible_to_training(task: Task, *, selects: bool = False) -> Task:
    """The task with what a step may see, and what its weights are selected on if they are."""
    selection = task.of(Use.SELECT) if selects else {}
    return replace(task, splits={**task.of(Use.TRAIN), **task.of(Use.ADAPT), **selection})


def step_of(method: Method) -> tuple[Step, Budget] | None:
    """Step and budget of a method whose `fit` is `loop.train` with them; such methods have a
    property `step`.
    """
    if not isinstance(getattr(type(method), "step", None), property):
        return None
    step, budget = getattr(method, "step", None), getattr(method, "budget", None)
    return (step, budget) if step is not None and isinstance(budget, Budget) else None


def train_alone(method: Method, model: nn.Module, task: Task, lab: Lab) -> Trained | Divergence:
    """One model by its method's own `fit`."""
    try:
        return method.fit(model, task, lab)
    except Divergence as error:
        return error
