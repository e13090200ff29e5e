"""The methods of each part, with the controls that carry most of the effect, and what is read from a trained model."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

import torch
from torch import nn

from unseen import stats
from unseen.engine.batches import whole
from unseen.engine.evaluate import score
from unseen.engine.loop import Budget
from unseen.lab import Lab
from unseen.measures.sharpness import SAMSharpness
from unseen.method import Method, Trained
from unseen.methods.erm import ERM
from unseen.methods.group_reweighting import DomainDRO
from unseen.methods.sam import SAM
from unseen.methods.udim import UDIM, Perturbation
from unseen.models.mlp import mlp
from unseen.study import Row
from unseen.task import Split, Task, TaskSpec, Use


class Part(StrEnum):
    """Which domains are unknown."""

    SOURCES = "digit sources"
    """One of three collections, from the two others."""
    LONGER = "digit sources, longer"
    """The same with 2.5 times the steps for every method."""
    ROTATION = "rotation"
    """Turned digits, from upright ones."""
    CORRUPTION = "corruption"
    """Corrupted articles of clothing, from clean ones."""


class Variant(StrEnum):
    """A way to train. x̃ are the moved inputs, λ₂ the weight of their gradient variances."""

    ERM = "ERM"
    DRO = "group DRO"
    SAM = "SAM"
    RANDOM = "SAM + random x̃"
    LOUD = "SAM + random x̃, 4 × as far"
    WORST = "SAM + worst x̃ (λ₂ = 0)"
    UDIM = "UDIM"
    HEAVY = "UDIM, λ₂ = 10"
    LONG_ERM = "ERM, 5 × the steps"
    """As many passes as UDIM, which has five per step (and takes the time of six steps of ERM or three of SAM)."""
    LONG_SAM = "SAM, 2.5 × the steps"


@dataclass(frozen=True)
class Setting:
    """One part: its tasks and how they are trained."""

    part: Part
    specs: tuple[TaskSpec, ...]
    hidden: tuple[int, ...]
    budget: Budget
    radius: float
    """ρ_x in units of the inputs, which lie between 0 and 1."""
    variance_weight: float
    variants: tuple[Variant, ...]
    seeds: int


def method_of(variant: Variant, setting: Setting) -> Method:
    """Radius 0.05 in the weights, weight 1 of the moved inputs' loss, as everywhere in the paper's laptop version."""
    budget = setting.budget
    whole = UDIM(radius=setting.radius, variance_weight=setting.variance_weight, low=0, high=1, budget=budget)
    random = replace(whole, perturbation=Perturbation.RANDOM, variance_weight=0)
    made: Mapping[Variant, Method] = {
        Variant.ERM: ERM(budget),
        Variant.DRO: DomainDRO(budget=budget),
        Variant.SAM: SAM(budget=budget),
        Variant.RANDOM: random,
        Variant.LOUD: replace(random, radius=4 * setting.radius),
        Variant.WORST: replace(whole, variance_weight=0),
        Variant.UDIM: whole,
        Variant.HEAVY: replace(whole, variance_weight=10),
        Variant.LONG_ERM: ERM(replace(budget, steps=5 * budget.steps)),
        Variant.LONG_SAM: SAM(budget=replace(budget, steps=5 * budget.steps // 2)),
    }
    return made[variant]


def fresh(task: Task, hidden: tuple[int, ...], lab: Lab) -> nn.Module:
    """An untrained network for the task's inputs and ten classes."""
    example = next(iter(task.of(Use.FIT).values())).data[0]["x"]
    with lab.child("init").seeded():
        return mlp([example.numel(), *hidden, 10])


def sources(task: Task) -> dict[str, Split]:
    """Judged examples of the fitted domains."""
    return {name: split for name, split in task.of(Use.JUDGE).items() if name not in task.unseen}


def read(trained: Trained, sharpness: SAMSharpness, lab: Lab) -> Iterator[Row]:
    """Accuracy and sharpness on every unknown domain, beside their means over the known ones."""
    task = trained.task

    def of(name: str) -> dict[str, float]:
        rise = replace(sharpness, split=name)(trained, lab).value
        return {"accuracy": score(trained.model, task, task.split(name), lab).value, "sharpness": rise}

    known = [of(name) for name in sources(task)]
    means = {f"source_{key}": stats.mean([each[key] for each in known]).value for key in ("accuracy", "sharpness")}
    for name, split in task.unseen.items():
        yield {"target": str(split.at), **of(name), **means}


def mean_norm(task: Task, lab: Lab) -> float:
    """Mean ‖x‖₂ of the fitted inputs: what ρ_x is measured against."""
    inputs = [whole(split.data, lab)["x"].flatten(1) for split in task.of(Use.FIT).values()]
    return float(torch.cat(inputs).norm(dim=1).mean())
