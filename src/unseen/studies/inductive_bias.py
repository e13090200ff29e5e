"""Tasks of more dimensions demand more inductive bias, and networks have much of it built in.

Boopathy et al. (2024), arXiv:2406.15941. Parts: "dimension" (targets drawn from a Gaussian process,
all of whose functions are hypotheses: exact bits, and what a distribution fitted to sampled
functions says), "hypotheses" (losses of a known distribution: the error of the bits against how
many there are), "networks" (hypotheses that fit 200 images, from two architectures, beside the
exact bits of a kernel).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import inf, log, log2, sqrt
from statistics import fmean
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from scipy.stats import linregress, ncx2
from torch import Tensor, nn

from unseen import stats
from unseen.engine.batches import whole
from unseen.engine.loop import Budget
from unseen.lab import Lab
from unseen.measures.inductive_bias import FEWEST, InductiveBias, KernelInductiveBias
from unseen.measures.inductive_bias.gaussian_process import GaussianProcess, PosteriorError
from unseen.measures.inductive_bias.hypotheses import sample_networks
from unseen.measures.inductive_bias.noncentral import (
    ScaledChi2,
    fit_by_likelihood,
    fit_by_moments,
)
from unseen.models.mlp import mlp
from unseen.reading import Reading
from unseen.study import Claim, Effect, Row, Rows, Scale, Study, Value, average, gap, pick
from unseen.study.effects import distinct, lowest_of, restrict
from unseen.study.figures import curves, stack, summary
from unseen.study.grid import Cell, Grid, interleave, resize
from unseen.study.source import reference
from unseen.study.trial import label
from unseen.task import Batch, Objective, Task
from unseen.tasks.images import Collection, Images


@dataclass(frozen=True)
class Dimensions:
    """Gaussian-process tasks in d dimensions: inputs N(0, I), kernel width 1."""

    dimensions: tuple[int, ...] = (1, 2, 3, 4, 6, 8, 12, 16)
    train: int = 200
    test: int = 300
    eps: float = 0.05
    """The targets' variance is 1."""
    functions: int = 2_000
    """Sampled for the fitted distribution."""


@dataclass(frozen=True)
class Losses:
    """Losses of a known scaled non-central χ²."""

    counts: tuple[int, ...] = (64, 256, 1_024, 4_096)
    repetitions: int = 20
    probability: float = 1e-3
    true: ScaledChi2 = ScaledChi2(0.4, 5.0, 8.0)


@dataclass(frozen=True)
class Networks:
    """Hypotheses of two architectures on a few images, and the kernel."""

    images: Images
    hypotheses: int = 32
    budget: Budget = Budget(steps=400, batch_size=50, lr=3e-3)
    fits: float = 0.01
    """Training loss up to which a hypothesis fits: its squared error is 0.09 for a constant."""
    reach: float = 0.1
    """ε is the larger of the two architectures' quantiles of this order, so that each has a share
    of at least this that reaches it.
    """
    least: float = 0.05
    """Below this share an architecture's bits would be extrapolated: none are given."""


MNIST = Images(Collection.MNIST, n_train=200, n_test=1_000, side=14)


@dataclass(frozen=True)
class Config:
    dimensions: Dimensions = Dimensions()
    losses: Losses = Losses()
    networks: tuple[Networks, ...] = (
        Networks(MNIST),
        Networks(replace(MNIST, collection=Collection.FASHION_MNIST)),
    )
    seeds: int = 10
    network_seeds: int = 3

    def cells(self) -> Iterator[Cell[Dimensions | Losses | Networks, None]]:
        return interleave(
            Grid((self.dimensions, self.losses), (None,), self.seeds),
            Grid(self.networks, (None,), self.network_seeds),
        )


def run(cell: Cell[Dimensions | Losses | Networks, None], lab: Lab) -> Iterator[Row]:
    setting = cell.setting
    if isinstance(setting, Dimensions):
        rows = dimension_rows(setting, lab)
    elif isinstance(setting, Losses):
        rows = count_rows(setting, lab)
    else:
        rows = network_rows(setting, lab)
    return label(rows, seed=cell.seed)


def dimension_rows(setting: Dimensions, lab: Lab) -> Iterator[Row]:
    """Exact bits, and those of a distribution fitted to sampled functions: at ε, and where one
    function in ten gets.
    """
    for d in setting.dimensions:
        error = gaussian_error(setting, d, lab.child("dimension", d))
        n = error.shape[0]
        losses = error.form.sample(setting.functions, lab.child("functions", d).numpy()) / n
        fitted = fit_by_moments(losses).form
        tenth = float(np.quantile(losses, 0.1))
        exact, near = (bits(error.form.log_probability(x * n)) for x in (setting.eps, tenth))
        row: dict[str, Any] = {
            "part": "dimension",
            "d": d,
            "bits": exact,
            "approximate": bits(error.form.approximate_log_probability(setting.eps * n)),
            "fitted": bits(fitted.log_probability(setting.eps)),
            "off_near": abs(bits(fitted.log_probability(tenth)) - near),
        }
        # where ε is reached by most functions there is nothing to extrapolate
        far = abs(row["fitted"] / exact - 1) if exact > 20 else None
        yield row if far is None else {**row, "off_far": far}


def gaussian_error(setting: Dimensions, d: int, lab: Lab) -> PosteriorError:
    """The error of functions that pass through the training points of one drawn from the prior."""
    generator, n = lab.generator(), setting.train + setting.test
    process = GaussianProcess()
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    covariance = process.covariance(x, x)
    covariance.diagonal().add_(process.jitter)
    normal = torch.randn(n, 1, generator=generator, dtype=torch.float64)
    y = torch.linalg.cholesky(covariance) @ normal
    k = setting.train
    return process.error(x[:k], y[:k], x[k:], y[k:])


def count_rows(setting: Losses, lab: Lab) -> Iterator[Row]:
    """Root mean square error of the bits, by both fits, for every number of hypotheses."""
    true = setting.true
    raw = ncx2.ppf(setting.probability, true.freedom, true.noncentrality)
    eps, wanted = true.scale * float(raw), -log2(setting.probability)
    for n in setting.counts:
        errors: dict[str, list[float]] = {"moments": [], "likelihood": []}
        for k in range(setting.repetitions):
            losses = true.form.sample(n, lab.child("losses", n, k).numpy())
            for name, fit in (("moments", fit_by_moments), ("likelihood", fit_by_likelihood)):
                errors[name].append(bits(fit(losses).form.log_probability(eps)) - wanted)
        roots = {name: sqrt(fmean(e**2 for e in values)) for name, values in errors.items()}
        logs = {f"log2_{name}": log2(value) for name, value in roots.items()}
        yield {"part": "hypotheses", "n": n, **roots, **logs}


def network_rows(setting: Networks, lab: Lab) -> Iterator[Row]:
    """The bits of each class of functions at one ε; none where too few networks reach it."""
    task = setting.images.build(lab.child("data"))
    task = replace(task, objective=Objective(one_hot_error, one_hot_error))
    tables = {
        name: sample_networks(
            build, task, setting.budget, setting.hypotheses, lab.child("networks", name)
        )
        for name, build in architectures(setting.images).items()
    }
    fitting = {
        name: table["loss"][table["training"] <= setting.fits] for name, table in tables.items()
    }
    images = setting.images.collection
    if any(len(losses) < FEWEST for losses in fitting.values()):
        shares = {name: len(losses) / setting.hypotheses for name, losses in fitting.items()}
        yield from (  # type: ignore[misc]
            {"part": "fit", "images": images, "space": k, "fit": v} for k, v in shares.items()
        )
        return
    eps = max(float(losses.quantile(setting.reach)) for losses in fitting.values())
    for name, losses in fitting.items():
        found = InductiveBias(eps, setting.fits, draws=50)(tables[name], lab.child(name))
        reached = float((losses <= eps).double().mean())
        row: Row = {
            "part": "networks",
            "images": images,
            "space": name,
            "eps": eps,
            "fit": 1 - found.unfit,
            "reached": reached,
            "loss": float(losses.mean()),
            "deviation": float(losses.std()),
        }
        yield {**row, "bits": found.value} if reached >= setting.least else row
    width = median_distance(task)
    kernel = KernelInductiveBias(eps, width=width, variance=0.1)(task, lab)
    yield {
        "part": "networks",
        "images": images,
        "space": "kernel",
        "eps": eps,
        "bits": kernel.value,
    }


def architectures(images: Images) -> dict[str, Callable[[], nn.Module]]:
    """Two networks with about 8,000 weights."""
    side = images.side or 28
    rest = ((side + 1) // 2 + 1) // 2

    def convolutional() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * rest**2, 10),
        )

    return {"convolutional": convolutional, "fully connected": lambda: mlp([side**2, 32, 10])}


def one_hot_error(model: nn.Module, batch: Batch) -> Float[Tensor, " batch"]:
    """Mean square over the ten outputs of what they miss of the class's code."""
    outputs = model(batch["x"])
    return (outputs - F.one_hot(batch["y"], 10).to(outputs)).square().mean(1)


def median_distance(task: Task) -> float:
    """Between training inputs: the kernel's width by the usual rule."""
    x = whole(task.split("train").data, Lab())["x"].flatten(1)
    return float(torch.pdist(x).median())


def bits(log_probability: float) -> float:
    return max(0.0, -log_probability / log(2))


def decay(column: str) -> Effect:
    """The slope of a column of logarithms against log₂ of the number of hypotheses, by seed."""

    def read(rows: Rows) -> Reading:
        chosen = pick(rows, part="hypotheses")
        slopes = [
            linregress(
                [log2(float(row["n"])) for row in pick(chosen, seed=seed)],
                [float(row[column]) for row in pick(chosen, seed=seed)],
            ).slope
            for (seed,) in distinct(chosen, "seed")
        ]
        return stats.mean(slopes)

    return read


def at(d: int) -> dict[str, Value]:
    return {"part": "dimension", "d": d}


def more(images: Collection, of: str, than: str) -> Effect:
    """Difference of bits; the smoke scale has no images but optdigits, which stand for others."""
    difference = gap("bits", {"space": of}, {"space": than})
    return restrict(
        difference, lambda row: row.get("images") in (images, Collection.OPTDIGITS), part="networks"
    )


CLAIMS = (
    Claim("A task of eight dimensions demands more than 100 bits, from 200 examples.",
          average("bits", at(8)), above=100.0),
    Claim("Each doubling of the dimension from 2 to 16 demands at least 10 bits more.",
          lowest_of({f"from {d} to {2 * d}": gap("bits", at(2 * d), at(d)) for d in (2, 4, 8)}),
          above=10.0),
    Claim("At the error that one sampled function in ten reaches, a distribution fitted to 2,000 "
          "sampled functions gives the exact bits within 0.3 (mean absolute difference).",
          average("off_near", part="dimension", within=(0.0, inf)), below=0.3),
    Claim("Far beyond the sample it misses them by at least 5 % (mean relative difference, tasks "
          "of more than 20 bits).",
          average("off_far", part="dimension", within=(0.0, inf)), above=0.05),
    Claim("The error of the bits falls with the number of hypotheses (slope of its logarithm, by "
          "moments; −½ is that of a mean).", decay("log2_moments"), below=-0.15),
    Claim("The same by likelihood.", decay("log2_likelihood"), below=-0.3),
    *(Claim(f"On 200 images of {images} a convolutional network leaves fewer bits to find than a "
            "fully connected one.", more(images, "fully connected", "convolutional"), above=1.0)
      for images in (Collection.MNIST, Collection.FASHION_MNIST)),
    *(Claim(f"On 200 images of {images} fully connected networks leave fewer bits to find than a "
            "Gaussian process.", more(images, "kernel", "fully connected"), above=1.0)
      for images in (Collection.MNIST, Collection.FASHION_MNIST)),
)  # fmt: skip

BITS = {"exact": "bits", "Lugannani–Rice": "approximate", "fitted to sampled functions": "fitted"}
ERRORS = {"by moments": "moments", "by likelihood": "likelihood"}
dimension_curves = curves(
    x="d",
    y=BITS,
    title="Bits that a task demands",
    x_label="input dimensions",
    y_label="bits",
    where={"part": "dimension"},
)
count_curves = curves(
    x="n",
    y=ERRORS,
    title="Error of the bits where one hypothesis in 1,000 gets (of 9.97 bits)",
    x_label="hypotheses",
    y_label="root mean square error, bits",
    log_x=True,
    where={"part": "hypotheses"},
)
READ = {"loss": "loss", "s.d. of losses": "deviation", "share that fits": "fit",
        "share that reaches ε": "reached", "ε": "eps", "bits": "bits"}  # fmt: skip
table = stack(
    summary(("part", "d"), BITS, where={"part": "dimension"}),
    summary(("part", "n"), ERRORS, where={"part": "hypotheses"}),
    summary(("images", "space"), READ, where={"part": "networks"}),
)

LAPTOP = Config()
study = Study(
    name="inductive_bias",
    system="04",
    differs=(
        "The paper samples functions of a kernel space and of networks on MNIST, SVHN, CIFAR-10, "
        "Omniglot and control. Here the kernel's bits are exact (no sampling), its tasks are drawn "
        "from the Gaussian process itself (200 training and 300 test points, with 10 seeds), and "
        "32 networks of each of two architectures with about 8,000 weights fit 200 images of MNIST "
        "and Fashion-MNIST pooled to 14 × 14, with 3 seeds. Networks count only if their training "
        "loss is at most 0.01, and ε is where a tenth of the worse architecture gets: at smaller "
        "errors the order would be the fitted distribution's, not the networks'. The kernel beside "
        "them is as wide as the median distance of its inputs and varies as the targets do (0.1), "
        "which makes it a good prior for MNIST and decides that comparison; with the paper's width "
        "of 1, images of 196 standardised pixels would be unrelated to each other."
    ),
    not_tested=(
        "The paper's bits for whole benchmarks, its error bound as a formula, reinforcement and "
        "meta-learning, and that required bias guides the design of tasks."
    ),
    source=reference("boopathy2024bias"),
    scales={
        Scale.SMOKE: resize(
            LAPTOP,
            dimensions={"dimensions": (2, 4, 8, 16), "train": 60, "test": 80, "functions": 200},
            losses={"counts": (64, 256), "repetitions": 2},
            networks=(
                Networks(
                    Images(Collection.OPTDIGITS, n_train=60, n_test=100, side=8),
                    hypotheses=10,
                    budget=Budget(steps=120, batch_size=30, lr=1e-2),
                    fits=0.05,
                ),
            ),
            seeds=2,
            network_seeds=1,
        ),
        Scale.LAPTOP: LAPTOP,
        Scale.PAPER: resize(
            LAPTOP,
            dimensions={"train": 2_000, "test": 2_000, "functions": 10_000},
            networks=tuple(
                Networks(
                    Images(collection, n_train=10_000, n_test=10_000),
                    hypotheses=1_000,
                    budget=Budget(steps=20_000, batch_size=128, lr=1e-3),
                )
                for collection in (Collection.MNIST, Collection.FASHION_MNIST)
            ),
        ),
    },
    cells=Config.cells,
    run=run,
    claims=CLAIMS,
    figures=(dimension_curves, count_curves),
    table=table,
)
