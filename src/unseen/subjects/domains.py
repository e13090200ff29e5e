"""Subjects made from tasks with domains: each domain left out of training in turn."""

import warnings
from collections.abc import Callable, Mapping

from torch import nn

from unseen.engine.loop import Budget
from unseen.lab import Lab
from unseen.subjects.networks import budget_for_domains, describe_network, sizes, small_network
from unseen.subjects.subject import Subject
from unseen.task import Task, Use
from unseen.tasks.domains import DomainSpec, drop_adapt_targets, leave_one_out


def of_domains(spec: DomainSpec, lab: Lab, name: str = "") -> list[Subject]:
    """One subject per domain left out. What the data are does not depend on the seed of a run."""
    tasks: dict[str, Task] = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        for domain, one in zip(spec.domains(), leave_one_out(spec), strict=True):
            tasks[domain] = drop_adapt_targets(one.build(lab.child("data")))
    first = next(iter(tasks.values()))
    messages = list(dict.fromkeys(str(warning.message) for warning in caught))
    return networks_on(tasks, name or first.name.split(" · ")[0], warnings=messages)


def of_task(
    task: Task,
    name: str = "",
    model: Callable[[], nn.Module] | None = None,
    budget: Budget | None = None,
) -> Subject:
    """A task as it is, with a small network unless a model is given."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        task = drop_adapt_targets(task)
    messages = [str(warning.message) for warning in caught]
    budget = budget or budget_for_domains(task)
    if model is not None:
        return Subject(
            task=task, dataset=name or task.name, model=model, budget=budget, warnings=messages
        )
    return networks_on({"": task}, name or task.name, budget, messages)[0]


def networks_on(
    tasks: Mapping[str, Task],
    dataset: str,
    budget: Budget | None = None,
    warnings: list[str] | None = None,
) -> list[Subject]:
    """A small network for each task, by the domain that it leaves out; all are trained as long as
    the first.
    """
    first = next(iter(tasks.values()))
    budget = budget or budget_for_domains(first)
    text = describe_network(*sizes(first), budget, per_domain=len(first.of(Use.TRAIN)) > 1)
    return [
        Subject(
            task=task,
            dataset=dataset,
            held_out=domain,
            model=_maker(*sizes(task)),
            budget=budget,
            decisions=[text],
            warnings=warnings or [],
        )
        for domain, task in tasks.items()
    ]


def _maker(inputs: int, outputs: int) -> Callable[[], nn.Module]:
    return lambda: small_network(inputs, outputs)
