"""Weights diffuse with the logarithm of the updates; large batches lose by making too few of them.

Hoffer, Hubara & Soudry (2017), arXiv:1705.08741. Part "diffusion": distance from the start against
updates at several batch sizes. Part "gap": test accuracy of six ways to train with a large batch.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np
from torch import nn

from unseen import stats
from unseen.engine import parameters
from unseen.engine.evaluate import scores
from unseen.engine.loop import Budget, Optimizer, erm_step, train
from unseen.lab import Lab
from unseen.measures.weight_distance import (
    diffusion_fit,
    distance_from,
    log_steps,
    training_roughness,
)
from unseen.methods.large_batch import LargeBatch, root_lr
from unseen.models.conv import Norm, resnet
from unseen.models.mlp import mlp
from unseen.reading import Reading
from unseen.study import (
    Claim,
    Effect,
    Row,
    Rows,
    Scale,
    Study,
    Value,
    average,
    column,
    gap,
    match,
    pick,
)
from unseen.study.effects import derive, restrict, worst
from unseen.study.figures import bars, curves, stack, summary
from unseen.study.grid import Cell, Grid, interleave, resize
from unseen.study.source import reference
from unseen.study.trial import label, untrained_model
from unseen.task import Task
from unseen.tasks.images import Collection, Images


class Network(StrEnum):
    """Models with batch norm."""

    MLP = "mlp"
    """Three hidden layers of 128."""
    RESNET44 = "resnet44"
    """Seven residual blocks at each of three resolutions (He et al., 2016)."""


class Role(StrEnum):
    """What a run of the diffusion part is for."""

    SCALED = "scaled"
    """A batch size with its √-scaled learning rate, in the first phase."""
    HALF = "half"
    """The same with half of the data in a batch, where the law should break."""
    LONG = "long"
    """Far past the first phase."""
    PLAIN = "plain"
    """The same without momentum and weight decay."""


@dataclass(frozen=True)
class Diffusion:
    """One run whose distance from the start is recorded."""

    regime: str
    role: Role
    images: Images
    budget: Budget
    windows: tuple[int, ...]
    """Numbers of updates up to which the laws are fitted."""

    @property
    def is_probed(self) -> bool:
        """Whether the landscape at the start, the same for all regimes of a seed, is probed."""
        return self.role is Role.SCALED and self.budget.batch_size == REFERENCE


@dataclass(frozen=True)
class Gap:
    """One run whose test accuracy counts."""

    variant: str
    images: Images
    method: LargeBatch


REFERENCE = 128
"""The batch size at which the learning rate is `SGD.lr`."""
SGD = Budget(optimizer=Optimizer.SGD, lr=0.1, momentum=0.9, weight_decay=5e-4)
SMALL = replace(SGD, steps=2_560, batch_size=32, drops=(1_280, 2_048), clip=5.0)


@dataclass(frozen=True)
class Config:
    images: Images = Images(Collection.FASHION_MNIST, n_train=4_000, n_test=10_000, side=14)
    """For the diffusion part."""
    network: Network = Network.MLP
    batch_sizes: tuple[int, ...] = (32, 128, 512)
    half: int = 2_000
    """A batch of half the data, where the law should break."""
    steps: int = 400
    long: int = 2_000
    """Updates of the runs far past the initial phase."""
    gap_images: Images = Images(Collection.FASHION_MNIST, n_train=4_096, n_test=10_000, side=14)
    small: Budget = field(default_factory=lambda: SMALL)
    large: int = 1_024
    seeds: int = 5
    """Of the diffusion part."""
    gap_seeds: int = 6
    short_seeds: int = 12
    """Of the ways that make as few updates as the large batch: they differ by less."""

    def cells(self) -> Iterator[Cell[Diffusion | Gap, Network]]:
        ways = variants(self)
        short = [name for name, method in ways.items() if is_short(method)]
        gaps = {name: Gap(name, self.gap_images, method) for name, method in ways.items()}
        network = (self.network,)
        return interleave(
            Grid(list(diffusions(self)), network, self.seeds),
            Grid([gaps[name] for name in ways if name not in short], network, self.gap_seeds),
            Grid([gaps[name] for name in short], network, self.short_seeds),
        )


def diffusions(config: Config) -> Iterator[Diffusion]:
    """√-scaled rates at every batch size; long runs with and without momentum and weight decay."""

    def run(role: Role, regime: str, budget: Budget, *windows: int) -> Diffusion:
        budget = replace(budget, steps=windows[-1], watch_at=log_steps(windows[-1]))
        return Diffusion(regime, role, config.images, budget, windows)

    for size in (*config.batch_sizes, config.half):
        role = Role.HALF if size == config.half else Role.SCALED
        scaled = replace(SGD, batch_size=size, lr=root_lr(SGD.lr, REFERENCE, size))
        yield run(role, f"B={size}", scaled, config.steps)
    long = replace(SGD, batch_size=REFERENCE)
    yield run(Role.LONG, "long", long, config.steps, config.long)
    plain = replace(long, momentum=0.0, weight_decay=0.0)
    yield run(Role.PLAIN, "long, plain SGD", plain, config.steps, config.long)


def variants(config: Config) -> dict[str, LargeBatch]:
    """The six ways."""
    small, ghost = config.small, config.small.batch_size
    plain = LargeBatch(small, config.large, root=False, adapt=False, ghost=None)
    return {
        "small batch": replace(plain, batch_size=small.batch_size),
        "large": plain,
        "large + √lr": replace(plain, root=True),
        "large + √lr + GBN": replace(plain, root=True, ghost=ghost),
        "large + √lr + RA": replace(plain, root=True, adapt=True),
        "large + √lr + RA + GBN": replace(plain, root=True, adapt=True, ghost=ghost),
    }


def is_short(method: LargeBatch) -> bool:
    """Whether a large batch makes its few updates only."""
    return method.batch_size > method.small.batch_size and not method.adapt


def run(cell: Cell[Diffusion | Gap, Network], lab: Lab) -> Iterator[Row]:
    setting = cell.setting
    task = setting.images.build(lab.child("data"))
    model = untrained_model(lambda: network(cell.arm, task), lab)
    if isinstance(setting, Diffusion):
        yield from label(diffuse(setting, model, task, lab), seed=cell.seed)
    else:
        yield {"seed": cell.seed, **accuracies(setting, model, task, lab)}


def network(kind: Network, task: Task) -> nn.Module:
    """An untrained model for the task's images."""
    channels, height, width = task.split("train").data[0]["x"].shape
    if kind is Network.RESNET44:
        return resnet((16, 32, 64), 7, in_channels=channels, norm=Norm.BATCH)
    return mlp([channels * height * width, 128, 128, 128, 10], norm=nn.BatchNorm1d)


def diffuse(setting: Diffusion, model: nn.Module, task: Task, lab: Lab) -> Iterator[Row]:
    """One row of fits per window, and the distances themselves."""
    model.to(lab.device, lab.dtype)
    probe: dict[str, Value] = {}
    if setting.is_probed:
        probe["roughness"] = training_roughness(copy.deepcopy(model), task, lab)
    watch = {"distance": distance_from(parameters.copy_parameters(model))}
    trained = train(model, task, erm_step, setting.budget, lab.child("fit"), watch)
    steps, distances = (np.array(trained.curves[name]) for name in ("watched", "distance"))
    accuracy = scores(trained, lab, {"train": task.splits["train"]})["train"].value
    for window in setting.windows:
        inside = steps <= window
        fit = diffusion_fit(steps[inside], distances[inside])
        # the local exponent leaves out the first steps, where one batch decides
        late = inside & (steps >= 10)
        yield {
            "part": "diffusion",
            "regime": setting.regime,
            "role": setting.role,
            "window": window,
            "last": window == setting.windows[-1],
            "batch_size": setting.budget.batch_size,
            "lr": setting.budget.lr,
            "slope": fit.slope,
            "r2_log": fit.r2_log,
            "r2_root": fit.r2_root,
            "r2_power": fit.r2_power,
            "log_over_root": fit.r2_log - fit.r2_root,
            "exponent": diffusion_fit(steps[late], distances[late]).exponent,
            "train": accuracy,
            **probe,
        }
    for t, distance in zip(steps.tolist(), distances.tolist(), strict=True):
        yield {"part": "distance", "regime": setting.regime, "t": int(t), "distance": distance}


def accuracies(setting: Gap, model: nn.Module, task: Task, lab: Lab) -> Row:
    """Variants of a seed share data, initial weights and their stream of batches."""
    method = setting.method
    found = scores(method.fit(model, task, lab.child("fit")), lab)
    return {
        "part": "gap",
        "variant": setting.variant,
        "updates": method.budget.steps,
        "lr": method.budget.lr,
        "train": found["train"].value,
        "test": found["test"].value,
        "test_n": found["test"].n,
    }


SCALED: dict[str, Value] = {"part": "diffusion", "role": Role.SCALED}


def slope_ratio(rows: Rows) -> Reading:
    """Slope of log t at the largest batch over that at the smallest, per seed."""
    rows = pick(rows, **SCALED)
    sizes = column(rows, "batch_size")
    low, high = (
        {row["seed"]: float(row["slope"]) for row in pick(rows, batch_size=int(end(sizes)))}
        for end in (min, max)
    )
    ends = match(high, low)
    return stats.mean([large / small for large, small in zip(*ends, strict=True)])


def over(variant: str, other: str) -> Effect:
    """Paired difference of test accuracies; of ways with many updates, over their fewer seeds."""
    difference = gap("test", of={"variant": variant}, against={"variant": other})
    if {variant, other} <= SHORT:
        return difference
    return restrict(difference, lambda row: int(row["seed"]) < LAPTOP.gap_seeds)


HALF_A_POINT = 0.005
"""Less is no gap between batch sizes, with or without a remedy."""
LAPTOP = Config()
SHORT = {name for name, method in variants(LAPTOP).items() if is_short(method)}
CLAIMS = (
    Claim("In the first phase the distance from the start follows log t better than √t (worst "
          "batch size).", worst(average("log_over_root"), "regime", ideal=1, **SCALED), above=0.0,
          sign_because="which of two curves fits better has no size"),
    Claim("It grows slower than a random walk: local exponent below ½ (worst batch size).",
          worst(average("exponent"), "regime", ideal=0, **SCALED), below=0.5),
    # 0.89/1.11
    Claim("With √-scaled learning rates the curves of all batch sizes collapse: the slope of log "
          "t at the largest over that at the smallest is within [0.8, 1.25] (each within 11 %).",
          slope_ratio, above=0.80, below=1.25),
    Claim("The law breaks when a batch is half of the data: R² of log t falls by at least 0.05.",
          gap("r2_log", {"part": "diffusion", "role": "half"}, {**SCALED, "batch_size": REFERENCE}),
          below=-0.05),
    Claim("Limit of the law: over 2,000 updates of plain SGD (no momentum, no decay) √t fits "
          "better than log t.", average("log_over_root", role="plain", last=True), below=0.0,
          sign_because="which of two curves fits better has no size"),
    Claim("Around the start the loss is rough with α ≈ 2: its spread grows roughly linearly with "
          "the distance (with a power within [0.8, 1.2]).",
          average("roughness", role="scaled", batch_size=REFERENCE), above=0.8,
          below=1.2),
    Claim("At equal epochs a large batch generalizes worse than a small one, by at least half a "
          "point.",
          over("small batch", "large"), above=HALF_A_POINT),
    Claim("As many updates as the small batch (regime adaptation, with √-scaled learning rates) "
          "remove the gap: at most half a point is left.",
          over("small batch", "large + √lr + RA"), below=HALF_A_POINT),
    Claim("With ghost batch norm, too, at most half a point is left.",
          over("small batch", "large + √lr + RA + GBN"), below=HALF_A_POINT),
    Claim("√-scaled learning rates and ghost batch norm shrink the gap by at least half a point "
          "without a further update.",
          over("large + √lr + GBN", "large"), above=HALF_A_POINT),
    Claim("More updates help: both gain at least half a point from regime adaptation.",
          over("large + √lr + RA + GBN", "large + √lr + GBN"), above=HALF_A_POINT),
)  # fmt: skip

distances = curves(
    "t",
    "distance",
    by="regime",
    title="Distance of the weights from their start",
    x_label="updates",
    y_label="‖w − w₀‖",
    log_x=True,
    where={"part": "distance"},
)
gaps = bars(
    average("test"), by="variant", title="Test accuracy (mean over seeds)", label="accuracy"
)
fits = summary(
    "run",
    ("slope", "r2_log", "r2_root", "r2_power", "exponent", "train"),
    where={"part": "diffusion"},
)
tests = summary("run", ("updates", "train", "test"), where={"part": "gap"})


def name_of_run(row: Row) -> str:
    """A variant, or a regime and how long it was followed."""
    return str(row.get("variant", f"{row.get('regime')}, {row.get('window')} updates"))


def paper(laptop: Config) -> Config:
    """ResNet-44 on CIFAR-10, B_S = 128, B_L = 4096, 200 epochs, three seeds.

    Drops as in the authors' code. The collection here holds 10,000 of the 50,000 images: replace
    `images` by a larger one where it is at hand.
    """
    images = Images(Collection.CIFAR10, n_train=10_000, n_test=2_000)
    epoch = 10_000 // 128
    small = replace(
        SMALL,
        steps=200 * epoch,
        batch_size=128,
        weight_decay=1e-4,
        drops=(81 * epoch, 122 * epoch, 164 * epoch),
        bfloat16=True,
    )
    return replace(
        laptop,
        images=images,
        network=Network.RESNET44,
        half=5_000,
        gap_images=images,
        small=small,
        large=4_096,
        seeds=3,
        gap_seeds=3,
        short_seeds=3,
    )


EMBEDDED = Images(n_train=1_000, n_test=500, side=14)
study = Study(
    name="train_longer",
    system="22",
    differs=(
        "The paper trains ResNet-44, VGG and a wide network on CIFAR-10 and CIFAR-100 and AlexNet "
        "on ImageNet, with batches of 128 against 2,048 to 4,096; here a fully connected network "
        "with batch norm learns 4,096 images of Fashion-MNIST of 14×14 pixels with batches of 32 "
        "against 1,024, with 12 seeds for the ways with few updates, 6 for the others and 5 for "
        "the diffusion. The gap is 0.6 points here and several there: remedies have little to "
        "close, and most of their effects are within noise."
    ),
    not_tested=(
        "That the recipe closes the gap of convolutional networks and on ImageNet without extra "
        "epochs of tuning; that the random potential is what the walk follows (only its exponent "
        "is probed)."
    ),
    source=reference("hoffer2017train"),
    scales={
        Scale.SMOKE: resize(
            LAPTOP,
            images=EMBEDDED,
            batch_sizes=(32, 128),
            half=500,
            steps=100,
            long=150,
            gap_images=replace(EMBEDDED, n_train=1_024),
            small={"steps": 64, "drops": (32, 51)},
            large=256,
            seeds=1,
            gap_seeds=1,
            short_seeds=1,
        ),
        Scale.LAPTOP: LAPTOP,
        Scale.PAPER: paper(LAPTOP),
    },
    cells=Config.cells,
    run=run,
    claims=CLAIMS,
    figures=(distances, gaps),
    table=derive(stack(fits, tests), run=name_of_run),
)
