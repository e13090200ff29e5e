"""People of drifting domains with and without their group among the inputs, and every model that is
trained on them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unseen.engine.batches import Columns
from unseen.engine.loop import Budget, Optimizer, erm_step
from unseen.engine.vectorized.choose import try_train_many
from unseen.errors import Divergence
from unseen.lab import Lab
from unseen.method import Trained
from unseen.methods.cdsae import CDSAE, Adversary
from unseen.models.mlp import mlp
from unseen.task import Split, Task, Use
from unseen.tasks.compas import Compas, synthetic_defendants
from unseen.tasks.drifting_fairness import DriftingFairness, World


class Where(StrEnum):
    """The worlds. Only of the generated ones is the true counterfactual known."""

    DRIFT = "plane, 10° per domain"
    GENTLE = "plane, 3° per domain"
    CIRCLE = "circle, 10° per domain"
    REAL = "COMPAS by quarter"


class Arm(StrEnum):
    """What is trained, and two rules that know the exogenous causes. CDSAE is followed by its λ_f
    and λ_tc.
    """

    FAIR = "oracle, fair"
    BIASED = "oracle, biased"
    TOLD = "ERM with a"
    HIDDEN = "ERM without a"
    CDSAE = "CDSAE"
    UNINFLUENCED = "CDSAE, adversary on uninfluenced codes"


@dataclass(frozen=True)
class Penalty:
    """Weights of the fairness loss and of the adversary."""

    fairness: float
    independence: float

    def name(self, adversary: Adversary = Adversary.SEMANTIC) -> str:
        arm = Arm.CDSAE if adversary is Adversary.SEMANTIC else Arm.UNINFLUENCED
        return f"{arm} {self.fairness:g}, {self.independence:g}"


NONE, JUDGED = Penalty(0, 0), Penalty(1, 3)
"""The autoencoder alone, and what the claims read."""
ONLY_FAIRNESS, MUCH_FAIRNESS, ONLY_ADVERSARY, BOTH = (
    Penalty(3, 0),
    Penalty(30, 0),
    Penalty(0, 3),
    Penalty(3, 2),
)


@dataclass(frozen=True)
class Setting:
    where: Where
    spec: DriftingFairness | Compas


PLANE, GENTLE, CIRCLE = (
    DriftingFairness(visible=False),
    DriftingFairness(step=3.0, visible=False),
    DriftingFairness(World.CIRCLE, visible=False),
)
REAL = Compas(held_out="2014 Q1", visible=False)


def settings(
    fitted: int, future: int, n: int, n_evaluate: int, real: Compas = REAL
) -> tuple[Setting, ...]:
    """The worlds in one size; fitted domains always span the same angle."""
    worlds = {Where.DRIFT: PLANE, Where.GENTLE: GENTLE, Where.CIRCLE: CIRCLE}
    size: dict[str, Any] = {"fitted": fitted, "future": future, "n": n, "n_evaluate": n_evaluate}
    sized = {
        where: replace(spec, step=spec.step * 10 / fitted, **size) for where, spec in worlds.items()
    }
    return (*(Setting(where, spec) for where, spec in sized.items()), Setting(Where.REAL, real))


LAPTOP = settings(fitted=10, future=3, n=600, n_evaluate=1_500)
SMALL = settings(4, 1, 60, 60, Compas(held_out="2013 Q3", visible=False, data=synthetic_defendants))


@dataclass(frozen=True)
class Config:
    settings: tuple[Setting, ...] = LAPTOP
    penalties: tuple[Penalty, ...] = (
        NONE,
        ONLY_FAIRNESS,
        MUCH_FAIRNESS,
        ONLY_ADVERSARY,
        Penalty(1, 1),
        BOTH,
        JUDGED,
        Penalty(1, 10),
    )
    method: CDSAE = CDSAE()
    width: int = 32
    budget: Budget = field(
        default_factory=lambda: Budget(
            steps=1_000, batch_size=16, lr=2e-3, optimizer=Optimizer.ADAM
        )
    )
    """`batch_size` people of every fitted domain."""
    probe: Budget = field(
        default_factory=lambda: Budget(steps=300, batch_size=256, lr=1e-2, optimizer=Optimizer.ADAM)
    )
    """Of the adversary that is trained anew on finished codes."""
    seeds: int = 6


@dataclass(frozen=True)
class Cell:
    """All seeds, `seed` and those after it, are trained together."""

    config: Config
    setting: Setting
    adversary: Adversary
    seed: int


def add_group_input(task: Task) -> Task:
    """a − ½ as the last input. Judged are FUTURE, the domains after the fitted ones, and PRESENT,
    new people of the last.
    """
    splits = {
        name: Split(_with_group(split.data[:]), Use.TRAIN)
        for name, split in task.of(Use.TRAIN).items()
    }
    later = [s for name, s in task.unseen.items() if name != "oracle"]
    last = max(float(s.data[:]["domain"].max()) for s in task.of(Use.TRAIN).values())
    now = [
        s
        for name, s in task.of(Use.EVALUATE).items()
        if name.startswith("seen") and s.data[:]["domain"].max() == last
    ]
    held_out = list(task.of(Use.SELECT).values())
    for name, parts, use in (
        (FUTURE, later, Use.EVALUATE),
        (PRESENT, now, Use.EVALUATE),
        (HELD_OUT, held_out, Use.SELECT),
    ):
        splits[name] = Split(_with_group(_concatenate(parts)), use, name)
    return replace(task, splits=splits)


FUTURE, PRESENT, HELD_OUT = "future", "present", "held out"


def _concatenate(parts: Sequence[Split]) -> dict[str, Tensor]:
    batches = [part.data[:] for part in parts]
    return {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}


def _with_group(columns: dict[str, Tensor]) -> Columns:
    """The columns that are used, with the group as the last input."""
    side = columns["a"].to(columns["x"].dtype)[:, None] - 0.5
    kept: dict[str, Tensor] = {
        key: columns[key] for key in ("y", "a", "domain", "fair", "u") if key in columns
    }
    kept["x"] = torch.cat([columns["x"], side], 1)
    if "counterfactual" in columns:
        kept["counterfactual"] = torch.cat([columns["counterfactual"], -side], 1)
    kept["outside"] = torch.cat(
        [shift_group_means(columns["x"], columns["a"], columns["domain"]), -side], 1
    )
    return Columns(**kept)


def shift_group_means(
    x: Float[Tensor, "n d"], a: Int[Tensor, " n"], domain: Int[Tensor, " n"]
) -> Float[Tensor, "n d"]:
    """x + E[x | other group] − E[x | own group], within each domain.

    The counterfactual of an additive model without confounding: no decoder takes part, and in the
    generated worlds it is the true one but for the error of the means. On real data it is
    model-based.
    """
    made = x.clone()
    for each in domain.unique():
        means = [x[(domain == each) & (a == group)].mean(0) for group in (0, 1)]
        for group in (0, 1):
            made[(domain == each) & (a == group)] += means[1 - group] - means[group]
    return made


def drop_group_input(task: Task) -> Task:
    """The same people without the last input."""

    def without(split: Split) -> Split:
        columns = split.data[:]
        return replace(
            split, data=Columns(**{k: v[:, :-1] if k in INPUTS else v for k, v in columns.items()})
        )

    return replace(task, splits={name: without(split) for name, split in task.splits.items()})


INPUTS = ("x", "counterfactual", "outside")
"""Columns that a model can be given."""

Entry = tuple[str, int, Trained | Divergence]
"""Name of the arm, number of the seed, and what became of it."""


def plain(arm: Arm, config: Config, tasks: Sequence[Task], labs: Sequence[Lab]) -> Iterator[Entry]:
    """ERM of every seed."""
    models = []
    for task, lab in zip(tasks, labs, strict=True):
        with lab.child("init").seeded():
            inputs = next(iter(task.of(Use.TRAIN).values())).data[:]["x"].shape[1]
            models.append(mlp([inputs, config.width, config.width, 2]))
    found = try_train_many(
        models, tasks, erm_step, config.budget, [lab.child("fit") for lab in labs]
    )
    yield from ((str(arm), k, result) for k, result in enumerate(found))


def autoencoders(
    penalties: Sequence[Penalty],
    adversary: Adversary,
    config: Config,
    tasks: Sequence[Task],
    labs: Sequence[Lab],
) -> Iterator[Entry]:
    """Every penalty × seed as one stack; a seed's data, first weights and random numbers are the
    same for all penalties.
    """
    jobs = [(penalty, k) for penalty in penalties for k in range(len(tasks))]
    methods = [
        replace(
            config.method,
            fairness=each.fairness,
            independence=each.independence,
            adversary=adversary,
        )
        for each, _ in jobs
    ]
    models: list[nn.Module] = []
    for method, (_, k) in zip(methods, jobs, strict=True):
        inputs = next(iter(tasks[k].of(Use.TRAIN).values())).data[:]["x"].shape[1]
        models.append(method.surgery(mlp([inputs, 2]), tasks[k], labs[k]))
    steps = [method.training for method in methods]
    fits = [labs[k].child("fit") for _, k in jobs]
    found = try_train_many(models, [tasks[k] for _, k in jobs], steps, config.budget, fits)
    yield from (
        (each.name(adversary), k, result) for (each, k), result in zip(jobs, found, strict=True)
    )
