"""The regimes, and every model that is trained in one of them."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum

from torch import nn

from unseen.engine import parameters
from unseen.engine.loop import Budget, Optimizer, erm_step, train
from unseen.lab import Lab
from unseen.methods.finetune import Finetune
from unseen.methods.levi import LEVI
from unseen.methods.weight_average import interpolate_weights
from unseen.models.ensemble_model import Committee, MeanProbability
from unseen.models.mlp import mlp
from unseen.task import Task
from unseen.tasks.images import Collection
from unseen.tasks.patch_digits import SIDE, PatchDigits, Visible

FIRST, LATER = (0, 1, 2, 3), tuple(range(24, 32))
"""Patches that tell the label in pre-training, and in fine-tuning."""
RANDOM = "shift 1"
"""The judged split in which no patch tells anything."""


class Regime(StrEnum):
    """What the pre-trained representation is worth for the new task."""

    INSUFFICIENT = "insufficient"
    STRONG = "insufficient, strong shortcut"
    USELESS = "useless, more data"
    SUFFICIENT = "sufficient"


class Arm(StrEnum):
    """What is trained on the new task. All from the same order of examples."""

    SCRATCH = "scratch"
    FULL = "full fine-tuning"
    PROBE = "linear probe"
    LPFT = "LP-FT"
    WISE = "WiSE-FT"
    SMALL = "small alone"
    TUNED_AND_SCRATCH = "outputs of FT and scratch"
    TUNED_AND_SMALL = "outputs of FT and small"
    LEVI = "LEVI"
    LEVI_TUNED = "LEVI, tuned"
    LEVI_RANDOM = "LEVI, random backbone"


SINGLES = (Arm.SCRATCH, Arm.FULL, Arm.PROBE, Arm.LPFT, Arm.WISE, Arm.SMALL)
ENSEMBLES = (Arm.TUNED_AND_SCRATCH, Arm.TUNED_AND_SMALL)


@dataclass(frozen=True)
class Setting:
    """One regime: what is pre-trained on, and what is fine-tuned on (digits of its own, the same
    colours).
    """

    regime: Regime
    seen: Collection = Collection.MNIST
    visible: Visible = Visible.ALL
    n: int = 300
    fitted_shift: float = 0.6


REGIMES = (
    Setting(Regime.INSUFFICIENT, visible=Visible.TOP),
    Setting(Regime.STRONG, visible=Visible.TOP, fitted_shift=0.2),
    Setting(Regime.USELESS, seen=Collection.FASHION_MNIST, n=2_000, fitted_shift=0.2),
    Setting(Regime.SUFFICIENT),
)


@dataclass(frozen=True)
class Config:
    settings: tuple[Setting, ...] = REGIMES
    collection: Collection = Collection.MNIST
    n_seen: int = 4_000
    n_test: int = 4_000
    widths: tuple[int, ...] = (128, 128, 128)
    hidden: int = 32
    sizes: tuple[int, ...] = (16, 64)
    """Units of the small network: our first default, and the size that is judged."""
    before: Budget = field(
        default_factory=lambda: Budget(steps=600, batch_size=100, optimizer=Optimizer.ADAM)
    )
    budget: Budget = field(
        default_factory=lambda: Budget(steps=400, batch_size=100, optimizer=Optimizer.ADAM)
    )
    seeds: int = 8


@dataclass(frozen=True)
class Cell:
    config: Config
    setting: Setting
    seed: int


def before_and_after(cell: Cell) -> tuple[PatchDigits, PatchDigits]:
    """Pre-training and fine-tuning: built in one lab they share colours and no digit."""
    config, setting = cell.config, cell.setting
    common = PatchDigits(shifts=(1.0,), n_select=1)
    before = replace(
        common,
        collection=setting.seen,
        visible=setting.visible,
        active=FIRST,
        fitted_shift=0.3,
        n=config.n_seen,
        n_test=1,
    )
    after = replace(
        common,
        collection=config.collection,
        active=LATER,
        fitted_shift=setting.fitted_shift,
        skip=config.n_seen,
        n=setting.n,
        n_test=config.n_test,
    )
    return before, after


def arms(cell: Cell, before: Task, task: Task, lab: Lab) -> Iterator[tuple[Arm, int, nn.Module]]:
    """Every model of a cell; `size` is 0 where no small network takes part."""
    config, fit = cell.config, lab.child("fit")
    inputs = 3 * SIDE**2

    def new_network(name: str, *widths: int) -> nn.Sequential:
        with lab.child(name).seeded():
            return mlp([inputs, *widths, 10])

    def finetune(model: nn.Module, *only: str) -> nn.Module:
        return Finetune(config.budget, only).fit(copy.deepcopy(model), task, fit).model

    given = train(
        new_network("given", *config.widths), before, erm_step, config.before, lab.child("before")
    ).model
    assert isinstance(given, nn.Sequential)
    with lab.child("head").seeded():
        given[-1].reset_parameters()  # type: ignore[operator]
    yield Arm.SCRATCH, 0, (scratch := finetune(new_network("scratch", *config.widths)))
    yield Arm.FULL, 0, (full := finetune(given))
    yield Arm.PROBE, 0, (probe := finetune(given, f"{len(given) - 1}."))
    yield Arm.LPFT, 0, (lpft := finetune(probe))
    wise = copy.deepcopy(lpft)
    wise.load_state_dict(interpolate_weights(parameters.state(probe), parameters.state(lpft), 0.5))
    yield Arm.WISE, 0, wise
    yield Arm.TUNED_AND_SCRATCH, 0, Committee([full, scratch], MeanProbability())
    for size in config.sizes:
        yield Arm.SMALL, size, (small := finetune(new_network("small", size)))
        yield Arm.TUNED_AND_SMALL, size, Committee([full, small], MeanProbability())
        levi = LEVI(hidden=config.hidden, small=size, budget=config.budget)
        yield Arm.LEVI, size, levi.fit(copy.deepcopy(given), task, fit).model
        yield (
            Arm.LEVI_TUNED,
            size,
            replace(levi, frozen=False).fit(copy.deepcopy(given), task, fit).model,
        )
        yield (
            Arm.LEVI_RANDOM,
            size,
            levi.fit(new_network("random", *config.widths), task, fit).model,
        )
