"""Harder tasks demand more bits before any model is chosen, and a better model supplies more of
them.

Boopathy et al. (2023), arXiv:2305.01034, with the inputs of its formula estimated from data. Parts:
"images" (three collections at equal n), "models" (what two models' test errors supply),
"cart-pole" (its state, and past positions alone), "few-shot" (sets of Omniglot characters).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from math import log

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.special import gammaln, logsumexp
from torch import Tensor, nn

from unseen.engine.batches import whole
from unseen.engine.evaluate import scores
from unseen.engine.loop import Budget, erm_step, train
from unseen.lab import Lab
from unseen.measures.difficulty import (
    Control,
    Difficulty,
    DifficultyReading,
    class_separation,
    few_shot_space,
)
from unseen.measures.intrinsic_dimension import intrinsic_dimension
from unseen.models.conv import cnn
from unseen.models.mlp import mlp
from unseen.reading import Reading
from unseen.study import Claim, Effect, Row, Scale, Study, average, gap
from unseen.study.effects import derive
from unseen.study.figures import bars, stack, summary
from unseen.study.grid import Cell, Grid, resize
from unseen.study.source import reference
from unseen.study.trial import label, untrained_model
from unseen.tasks.images import Collection, Images
from unseen.tasks.omniglot import Omniglot


class Part(StrEnum):
    """What a cell measures."""

    IMAGES = "images"
    MODELS = "models"
    CART_POLE = "cart-pole"
    FEW_SHOT = "few-shot"


@dataclass(frozen=True)
class CartPole:
    """A pole on a cart (Barto, Sutton & Anderson, 1983), pushed left or right by a controller that
    errs at random.
    """

    steps: int = 4_000
    """Situations that are kept, one in `every`."""
    every: int = 5
    errors: float = 0.3
    """Share of random pushes: without them the state hardly moves."""
    past: int = 3
    """Positions that stand for the state, `every` steps of 0.02 s apart."""


@dataclass(frozen=True)
class Config:
    n: int = 10_000
    """Images of each collection."""
    collections: tuple[Collection, ...] = (
        Collection.MNIST,
        Collection.FASHION_MNIST,
        Collection.CIFAR10,
    )
    eps: float = 0.01
    models: Images = Images(Collection.MNIST, n_train=2_000, n_test=2_000)
    budget: Budget = Budget(steps=300, batch_size=64, lr=5e-3)
    cart_pole: CartPole = CartPole()
    omniglot: Omniglot = Omniglot(side=35)
    ways: int = 20
    seeds: int = 3

    def cells(self) -> "Grid[Config, Part]":
        return Grid((self,), tuple(Part), self.seeds)


def run(cell: Cell[Config, Part], lab: Lab) -> Iterator[Row]:
    rows = {
        Part.IMAGES: image_rows,
        Part.MODELS: model_rows,
        Part.CART_POLE: cart_pole_rows,
        Part.FEW_SHOT: few_shot_rows,
    }[cell.arm]
    return label(rows(cell.setting, lab), seed=cell.seed, part=str(cell.arm))


def image_rows(config: Config, lab: Lab) -> Iterator[Row]:
    """Each collection's difficulty from its estimated inputs."""
    for collection in config.collections:
        images = Images(collection, n_train=config.n, n_test=10, standardise=False)
        task = images.build(lab.child("data", collection))
        found = Difficulty(eps=config.eps)(task, lab.child("difficulty", collection))
        yield {"task": str(collection), **describe(found)}


def describe(found: DifficultyReading) -> Row:
    """The reading's numbers as columns."""
    space = found.space
    if isinstance(space, Control) or space is None:
        return {"log2_bits": found.log2_bits}
    return {
        "log2_bits": found.log2_bits,
        "dimension": space.dimension,
        "separation": space.separation,
        "radius": space.radius,
        "ratio": space.radius / space.separation,
    }


def model_rows(config: Config, lab: Lab) -> Iterator[Row]:
    """The share of the difficulty at ε that a linear model and a convolutional network supply."""
    task = replace(config.models, standardise=True).build(lab.child("data"))
    raw = replace(config.models, standardise=False).build(lab.child("data"))
    found = Difficulty(eps=config.eps)(raw, lab.child("difficulty"))
    pixels = task.split("train").data[0]["x"].numel()
    models: dict[str, Callable[[], nn.Module]] = {
        "linear": lambda: mlp([pixels, 10]),
        "convolutional": lambda: cnn((16, 32), hidden=32),
    }
    for name, build in models.items():
        model = untrained_model(build, lab, f"init {name}")
        trained = train(model, task, erm_step, config.budget, lab.child("fit"))
        right = scores(trained, lab, {"test": task.split("test")})["test"]
        error = Reading(1 - right.value, 1 - right.high, 1 - right.low, right.n)
        supplied = found.bits_supplied(error)
        share = 2 ** (supplied.log2_bits - found.log2_bits)
        yield {"model": name, "error": error.value, "share": share}


def cart_pole_rows(config: Config, lab: Lab) -> Iterator[Row]:
    """The state observed, and the last positions of cart and pole alone."""
    state, push = simulate(config.cart_pole, lab.child("cart-pole"))
    past = config.cart_pole.past
    positions = [state[past - 1 - k : len(state) - k, ::2] for k in range(past)]
    seen = {"state": state[past - 1 :], "positions": torch.cat(positions, 1)}
    for name, observed in seen.items():
        x = (observed - observed.mean(0)) / observed.std(0)
        dimension = intrinsic_dimension(x, lab.child("dimension", name)).value
        delta = float(class_separation(x, push[past - 1 :].long()).distance)
        ratio = delta / float(x.norm(dim=1).max())
        task = Control(observations=dimension, steps=len(x), separation=ratio)
        found = Difficulty(eps=config.eps)(task, lab)
        yield {
            "task": name,
            "dimension": dimension,
            "separation": delta,
            "ratio": 1 / ratio,
            "log2_bits": found.log2_bits,
        }


def simulate(setting: CartPole, lab: Lab) -> tuple[Float[Tensor, "n 4"], Bool[Tensor, " n"]]:
    """Position, speed, angle and turning speed, and whether the controller pushes right."""
    rng = lab.numpy()
    state = np.zeros(4)
    states: list[np.ndarray] = []
    for step in range(setting.steps * setting.every):
        right = wants_right(state)
        if step % setting.every == 0:
            states.append(state)
        if rng.random() < setting.errors:
            right = rng.random() < 0.5
        state = advance(state, 10.0 if right else -10.0)
        if abs(state[0]) > 2.4 or abs(state[2]) > 0.5:
            state = rng.uniform(-0.05, 0.05, 4)
    found = np.array(states)
    pushes = np.array([wants_right(one) for one in found])
    return torch.from_numpy(found), torch.from_numpy(pushes)


def wants_right(state: Float[np.ndarray, "4"]) -> bool:
    """A linear controller that keeps the pole up and the cart near the middle."""
    return bool(state @ np.array([0.3, 0.6, 6.0, 1.5]) > 0)


def advance(state: Float[np.ndarray, "4"], force: float) -> Float[np.ndarray, "4"]:
    """0.02 s later."""
    _, speed, angle, turning = state
    sine, cosine = np.sin(angle), np.cos(angle)
    push = (force + 0.05 * turning**2 * sine) / 1.1
    turn = (9.8 * sine - cosine * push) / (0.5 * (4 / 3 - 0.1 * cosine**2 / 1.1))
    acceleration = push - 0.05 * turn * cosine / 1.1
    return state + 0.02 * np.array([speed, acceleration, turning, turn])


def few_shot_rows(config: Config, lab: Lab) -> Iterator[Row]:
    """From 20 characters of one alphabet, one image each, to their classifier."""
    task = config.omniglot.build(lab.child("data"))
    batch = whole(task.split("train").data, lab)
    x, y = batch["x"].flatten(1).double(), batch["y"]
    alphabets = [batch["alphabet"] == one for one in batch["alphabet"].unique()]
    within = [
        intrinsic_dimension(x[rows], lab.child("within", k)).value
        for k, rows in enumerate(alphabets)
    ]
    ways = config.ways
    characters = [max(ways, len(y[rows].unique())) for rows in alphabets]
    sets = [
        gammaln(n + 1) - gammaln(ways + 1) - gammaln(n - ways + 1)
        + ways * log(config.omniglot.drawers)
        for n in characters
    ]  # fmt: skip
    space = few_shot_space(
        ways=ways,
        within=float(np.mean(within)),
        across=intrinsic_dimension(x, lab.child("across")).value,
        radius=float(x.norm(dim=1).max()),
        separation=float(class_separation(x, y).distance),
        log_n=float(logsumexp(sets)),
    )
    found = Difficulty(eps=config.eps)(space, lab)
    yield {"task": "omniglot", "within": float(np.mean(within)), **describe(found)}


STAND_INS = {
    Collection.OPTDIGITS: (Collection.MNIST, Collection.CIFAR10),
    Collection.FASHION_MNIST_SMALL: (Collection.FASHION_MNIST,),
}
"""Collections that the smoke scale has, and those that they stand for."""


def harder(of: str, than: str) -> Effect:
    """Difference of log₂ bits."""

    def role(row: Row) -> str:
        names = (row.get("task"), *STAND_INS.get(row.get("task"), ()))  # type: ignore[call-overload]
        return "hard" if of in names else "easy" if than in names else "other"

    return derive(gap("log2_bits", {"role": "hard"}, {"role": "easy"}), role=role)


CLAIMS = (
    Claim("Fashion-MNIST demands at least twice the bits of MNIST, from 10,000 images each (log₂ "
          "of the ratio).", harder("fashion-mnist", "mnist"), above=1.0),
    Claim("CIFAR-10, of which there is one sample, demands at least twice the bits of "
          "Fashion-MNIST.",
          harder("cifar10", "fashion-mnist"), above=1.0),
    Claim("Past positions of cart and pole alone demand at least twice the bits of the state.",
          harder("positions", "state"), above=1.0),
    Claim("Few-shot classification of simple characters demands more than classification of "
          "CIFAR-10, by 10 doublings at least.",
          harder("omniglot", "cifar10"), above=10.0),
    Claim("A convolutional network supplies more of the difficulty than a linear model (share at "
          "an error of 0.01).",
          gap("share", {"model": "convolutional"}, {"model": "linear"}), above=0.01),
)  # fmt: skip

READ = {"log₂ bits": "log2_bits", "dimension": "dimension", "separation": "separation",
        "radius / separation": "ratio"}  # fmt: skip
figures = (
    bars(
        average("log2_bits"),
        by="task",
        title="Difficulty of tasks from estimated inputs",
        label="log₂ bits",
    ),
    bars(
        average("share"),
        by="model",
        title="What models trained on 2,000 images of MNIST supply",
        label="share of the difficulty at an error of 0.01",
        where={"part": "models"},
    ),
)
table = stack(
    summary(("part", "task"), READ),
    summary(("part", "model"), {"test error": "error", "share supplied": "share"}),
)

LAPTOP = Config()
study = Study(
    name="task_difficulty",
    system="08",
    differs=(
        "The paper uses MNIST, SVHN, CIFAR-10 and ImageNet with all their images, an "
        "extreme-value estimate of the distance between classes, rounded dimensions, and chosen "
        "resolutions for control. Here three collections have 10,000 images each (all that the "
        "CIFAR-10 subset has, so that its seeds are equal), the distance is the exact smallest one "
        "of those images, dimensions are not rounded, with 3 seeds. The cart-pole's dimension and "
        "resolution are estimated from 4,000 simulated situations (three past positions against "
        "the state; both measured in standard deviations); Omniglot's from five alphabets by ten "
        "people, pooled to 35 × 35. All errors are 0.01. What models supply is shown on MNIST: in "
        "a trial with up to 4,000 images of Fashion-MNIST the convolutional network erred more "
        "than the linear one, and supplied less."
    ),
    not_tested=(
        "ImageNet and MuJoCo, trends in the number of examples and the dimension (identities of "
        "the formula, which tests check), and that the measure guides the construction of tasks."
    ),
    source=reference("boopathy2023difficulty"),
    scales={
        Scale.SMOKE: resize(
            LAPTOP,
            n=300,
            collections=(Collection.OPTDIGITS, Collection.FASHION_MNIST_SMALL),
            models=Images(Collection.OPTDIGITS, n_train=200, n_test=200),
            budget={"steps": 40},
            cart_pole={"steps": 300},
            seeds=1,
        ),
        Scale.LAPTOP: LAPTOP,
        Scale.PAPER: resize(
            LAPTOP,
            n=60_000,
            collections=(Collection.MNIST, Collection.FASHION_MNIST),
            models=Images(Collection.MNIST, n_train=60_000, n_test=10_000),
            budget={"steps": 10_000},
            cart_pole={"steps": 20_000},
            omniglot={"archives": (1, 2), "side": 105},
        ),
    },
    cells=Config.cells,
    run=run,
    claims=CLAIMS,
    figures=figures,
    table=table,
)
