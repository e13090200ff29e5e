"""Weights diffuse with the logarithm of the number of updates, and large batches lose by making too few of them.

Hoffer, Hubara & Soudry (2017), arXiv:1705.08741. Part "diffusion": distance from the start against updates at several
batch sizes. Part "gap": test accuracy of six ways to train with a large batch.
"""

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypeAlias

import numpy as np
from torch import nn

from unseen import stats
from unseen.engine import parameters
from unseen.engine.evaluate import scores
from unseen.engine.loop import Budget, Optimizer, erm_step, train
from unseen.figure import Bars, Curves
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
from unseen.study import Claim, Effect, Row, Rows, Scale, Study, Value, average, column, effects, figures, gap, pick
from unseen.study.source import Source
from unseen.task import Task
from unseen.tasks.images import Collection, Images


class Network(StrEnum):
    """Models with batch norm."""

    MLP = "mlp"
    """Three hidden layers of 128."""
    RESNET44 = "resnet44"
    """Seven residual blocks at each of three resolutions (He et al., 2016)."""


def network(kind: Network, task: Task) -> nn.Module:
    """An untrained model for the task's images."""
    channels, height, width = task.split("train").data[0]["x"].shape
    if kind is Network.RESNET44:
        return resnet((16, 32, 64), 7, in_channels=channels, norm=Norm.BATCH)
    return mlp([channels * height * width, 128, 128, 128, 10], norm=nn.BatchNorm1d)


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
    network: Network
    budget: Budget
    windows: tuple[int, ...]
    """Numbers of updates up to which the laws are fitted."""
    probed: bool
    """Whether the landscape at the start, the same for all regimes of a seed, is probed, too."""
    seed: int


@dataclass(frozen=True)
class Gap:
    """One run whose test accuracy counts."""

    variant: str
    images: Images
    network: Network
    method: LargeBatch
    seed: int


Cell: TypeAlias = Diffusion | Gap
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


def cells(config: Config) -> Iterator[Cell]:
    for seed in range(max(config.seeds, config.gap_seeds)):
        if seed < config.seeds:
            yield from diffusions(config, seed)
        if seed < config.gap_seeds:
            for variant, method in variants(config).items():
                yield Gap(variant, config.gap_images, config.network, method, seed)


def diffusions(config: Config, seed: int) -> Iterator[Diffusion]:
    """√-scaled learning rates at every batch size; long runs with and without momentum and weight decay."""

    def cell(role: Role, regime: str, budget: Budget, *windows: int) -> Diffusion:
        budget = replace(budget, steps=windows[-1], watch_at=log_steps(windows[-1]))
        probed = role is Role.SCALED and budget.batch_size == REFERENCE
        return Diffusion(regime, role, config.images, config.network, budget, windows, probed, seed)

    for size in (*config.batch_sizes, config.half):
        role = Role.HALF if size == config.half else Role.SCALED
        scaled = replace(SGD, batch_size=size, lr=root_lr(SGD.lr, REFERENCE, size))
        yield cell(role, f"B={size}", scaled, config.steps)
    long = replace(SGD, batch_size=REFERENCE)
    yield cell(Role.LONG, "long", long, config.steps, config.long)
    plain = replace(long, momentum=0.0, weight_decay=0.0)
    yield cell(Role.PLAIN, "long, plain SGD", plain, config.steps, config.long)


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


def run(cell: Cell, lab: Lab) -> Iterable[Row]:
    task = cell.images.build(lab.child("data"))
    with lab.child("init").seeded():
        model = network(cell.network, task)
    return diffused(cell, model, task, lab) if isinstance(cell, Diffusion) else gapped(cell, model, task, lab)


def diffused(cell: Diffusion, model: nn.Module, task: Task, lab: Lab) -> Iterator[Row]:
    """One row of fits per window, and the distances themselves."""
    model.to(lab.device, lab.dtype)
    probe: dict[str, Value] = {"roughness": training_roughness(copy.deepcopy(model), task, lab)} if cell.probed else {}
    watch = {"distance": distance_from(parameters.copy_parameters(model))}
    trained = train(model, task, erm_step, cell.budget, lab.child("fit"), watch)
    steps, distances = np.array(trained.curves["watched"]), np.array(trained.curves["distance"])
    accuracy = scores(trained, lab, {"train": task.splits["train"]})["train"].value
    for window in cell.windows:
        inside = steps <= window
        fit = diffusion_fit(steps[inside], distances[inside])
        # the local exponent leaves out the first steps, where one batch decides
        late = diffusion_fit(steps[inside & (steps >= 10)], distances[inside & (steps >= 10)])
        yield {
            "part": "diffusion",
            "regime": cell.regime,
            "role": str(cell.role),
            "window": window,
            "last": window == cell.windows[-1],
            "seed": cell.seed,
            "batch_size": cell.budget.batch_size,
            "lr": cell.budget.lr,
            "slope": fit.slope,
            "r2_log": fit.r2_log,
            "r2_root": fit.r2_root,
            "r2_power": fit.r2_power,
            "log_over_root": fit.r2_log - fit.r2_root,
            "exponent": late.exponent,
            "train": accuracy,
            **probe,
        }
    for t, distance in zip(steps.tolist(), distances.tolist(), strict=True):
        yield {"part": "distance", "regime": cell.regime, "seed": cell.seed, "t": int(t), "distance": distance}


def gapped(cell: Gap, model: nn.Module, task: Task, lab: Lab) -> Iterator[Row]:
    """Training and test accuracy; all variants of a seed share data, initial weights and their stream of batches."""
    trained = cell.method.fit(model, task, lab.child("fit"))
    found = scores(trained, lab)
    yield {
        "part": "gap",
        "variant": cell.variant,
        "seed": cell.seed,
        "updates": cell.method.budget.steps,
        "lr": cell.method.budget.lr,
        "train": found["train"].value,
        "test": found["test"].value,
        "test_n": found["test"].n,
    }


def slope_ratio(rows: Rows) -> Reading:
    """Slope of log t at the largest batch over that at the smallest, per seed."""
    rows = pick(rows, **SCALED)
    sizes = column(rows, "batch_size")
    low, high = ({r["seed"]: float(r["slope"]) for r in pick(rows, batch_size=int(f(sizes)))} for f in (min, max))
    return stats.mean([high[seed] / low[seed] for seed in sorted(low) if seed in high])


def against(variant: str, other: str) -> Effect:
    """Paired difference of test accuracies."""
    return gap("test", of={"variant": variant}, against={"variant": other})


SCALED: dict[str, Value] = {"part": "diffusion", "role": "scaled"}
CLAIMS = (
    Claim(
        says="In the first phase the distance from the start follows log t better than √t (worst batch size).",
        effect=effects.worst(average("log_over_root"), "regime", ideal=1, **SCALED),
        above=0.0,
    ),
    Claim(
        says="It grows slower than a random walk: local exponent below ½ (worst batch size).",
        effect=effects.worst(average("exponent"), "regime", ideal=0, **SCALED),
        below=0.5,
    ),
    Claim(
        says="With √-scaled learning rates the curves of all batch sizes collapse: slopes of log t within ± 11 %.",
        effect=slope_ratio,
        above=0.80,  # 0.89/1.11
        below=1.25,
    ),
    Claim(
        says="The law breaks when a batch is half of the data: R² of log t falls.",
        effect=gap("r2_log", of={"part": "diffusion", "role": "half"}, against={**SCALED, "batch_size": REFERENCE}),
        below=-0.05,
    ),
    Claim(
        says="Limit of the law: over 2,000 updates of plain SGD (no momentum, no decay) √t fits better than log t.",
        effect=average("log_over_root", role="plain", last=True),
        below=0.0,
    ),
    Claim(
        says="Around the start the loss is rough with α ≈ 2: its spread grows linearly with the distance.",
        effect=average("roughness", role="scaled", batch_size=REFERENCE),
        above=0.8,
        below=1.2,
    ),
    Claim(
        says="At equal epochs a large batch generalizes worse than a small one.",
        effect=against("small batch", "large"),
        above=0.0,
    ),
    Claim(
        says="As many updates as the small batch (√lr + RA) remove the gap: at most half a point is left.",
        effect=against("small batch", "large + √lr + RA"),
        below=0.005,
    ),
    Claim(
        says="With ghost batch norm, too (√lr + RA + GBN), at most half a point is left.",
        effect=against("small batch", "large + √lr + RA + GBN"),
        below=0.005,
    ),
    Claim(
        says="√lr and ghost batch norm shrink the gap without a further update.",
        effect=against("large + √lr + GBN", "large"),
        above=0.0,
    ),
    Claim(
        says="More updates help: √lr + GBN gains from regime adaptation.",
        effect=against("large + √lr + RA + GBN", "large + √lr + GBN"),
        above=0.0,
    ),
)


def distance_curves(rows: Rows) -> Curves:
    """Mean distance at the steps that all regimes share."""
    return figures.curves(
        pick(rows, part="distance"),
        x="t",
        y="distance",
        by="regime",
        title="Distance of the weights from their start",
        x_label="updates",
        y_label="‖w − w₀‖",
        log_x=True,
    )


def accuracies(rows: Rows) -> Bars:
    names = [str(name) for (name,) in effects.distinct(rows, "variant")]
    readings = {name: average("test", variant=name)(rows) for name in names}
    return figures.bars(readings, title="Test accuracy (mean over seeds)", label="accuracy")


def table(rows: Rows) -> Sequence[Row]:
    """Means over seeds: the fits by regime and window, then the variants."""
    fits = [{**row, "run": f"{row['regime']}, {row['window']} updates"} for row in pick(rows, part="diffusion")]
    gaps = [{**row, "run": row["variant"]} for row in pick(rows, part="gap")]
    return [
        *figures.summary(fits, ["run"], ("slope", "r2_log", "r2_root", "r2_power", "exponent", "train")),
        *figures.summary(gaps, ["run"], ("updates", "train", "test")),
    ]


def paper() -> Config:
    """ResNet-44 on CIFAR-10, B_S = 128, B_L = 4096, 200 epochs, drops as in the authors' code, three seeds.

    The collection here holds 10,000 of the 50,000 images: replace `images` by a larger one where it is at hand.
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
    return Config(
        images, Network.RESNET44, half=5_000, gap_images=images, small=small, large=4_096, seeds=3, gap_seeds=3
    )


study = Study(
    name="train_longer",
    system="22",
    source=Source(
        key="hoffer2017train",
        title="Train longer, generalize better: closing the generalization gap in large batch training of neural networks",
        authors=("Hoffer, Elad", "Hubara, Itay", "Soudry, Daniel"),
        year=2017,
        venue="NeurIPS",
        arxiv="1705.08741",
    ),
    scales={
        Scale.SMOKE: Config(
            images=Images(n_train=1_000, n_test=500, side=14),
            batch_sizes=(32, 128),
            half=500,
            steps=100,
            long=150,
            gap_images=Images(n_train=1_024, n_test=500, side=14),
            small=replace(SMALL, steps=64, drops=(32, 51)),
            large=256,
            seeds=1,
            gap_seeds=1,
        ),
        Scale.LAPTOP: Config(),
        Scale.PAPER: paper(),
    },
    cells=cells,
    run=run,
    claims=CLAIMS,
    figures=(distance_curves, accuracies),
    table=table,
)
