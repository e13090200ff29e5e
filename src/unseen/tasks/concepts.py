"""Visual concepts from simple to complex, and tables of what animals have.

Generated shapes at five levels of visual complexity, and natural categories, all as 3 × 32 × 32
images (after Shi et al., 2023, arXiv:2211.11033, whose six sets go from LEGO bricks to ImageNet).
`AttributeConcept` asks for one attribute of an animal from its others, without images.
"""

import csv
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from unseen.data.files import data_file
from unseen.engine.batches import Columns
from unseen.errors import InvalidConfig, UnknownName
from unseen.lab import Lab
from unseen.objectives import classify
from unseen.task import Axis, Split, Task, Use
from unseen.tasks.images import CLASSES, Collection, part
from unseen.tasks.omniglot import drawings

SIDE = 32


class Level(StrEnum):
    """Where the concepts come from; generated levels add to the one before."""

    FIXED = "fixed"
    """White shapes, centred."""
    POSE = "pose"
    """Moved, turned and resized."""
    COLOUR = "colour"
    """In a colour, on another."""
    TEXTURE = "texture"
    """Before a background of smooth noise."""
    CLUTTER = "clutter"
    """With pieces of other shapes, and noise in every pixel."""
    OPTDIGITS = "optdigits"
    OMNIGLOT = "omniglot"
    """Characters of five alphabets, drawn by twenty people each."""
    FASHION = "fashion-mnist"
    CIFAR10 = "cifar10"


GENERATED = (Level.FIXED, Level.POSE, Level.COLOUR, Level.TEXTURE, Level.CLUTTER)
NATURAL = (Level.OPTDIGITS, Level.OMNIGLOT, Level.FASHION, Level.CIFAR10)
SHAPES = ("disc", "square", "triangle", "cross", "ring", "star", "bar", "crescent")
COLLECTIONS = {
    Level.OPTDIGITS: Collection.OPTDIGITS,
    Level.FASHION: Collection.FASHION_MNIST,
    Level.CIFAR10: Collection.CIFAR10,
}
DRAWERS = 20


Group: TypeAlias = tuple[Tensor, int, int, int]
"""Images, the concept, its level, and its number within the level."""


@dataclass(frozen=True)
class Concepts:
    """Which concept does an image show? `y` counts the concepts of all levels, in their order.

    Batches hold `x` in [0, 1], `y` and `level` (its number in `levels`). `held_out` names every
    second concept of each level ("odd" numbers or "even" ones) whose images are not trained on:
    then `novel` (EVALUATE) holds them, and `train` and `test` the other ones.
    """

    levels: tuple[Level, ...] = GENERATED
    n_train: int = 100
    """Images of each concept; characters have twenty, of which two thirds."""
    n_test: int = 30
    characters: int = 30
    """Of Omniglot, drawn at random."""
    held_out: int | None = None
    """0 or 1: every concept whose number within its level leaves this rest modulo 2."""

    def __post_init__(self) -> None:
        if (
            not self.levels
            or min(self.n_train, self.n_test, self.characters - 1) < 1
            or self.held_out not in (None, 0, 1)
        ):
            raise InvalidConfig(
                f"Concepts(n_train={self.n_train}, n_test={self.n_test}, characters="
                f"{self.characters}, held_out={self.held_out}, {len(self.levels)} levels) is out "
                "of range.",
                why="at least one level with images of two concepts is needed, and concepts are "
                "held out by their rest modulo 2.",
                fix="correct the value.",
            )

    def build(self, lab: Lab) -> Task:
        train: list[Group]
        test: list[Group]
        train, test, first = [], [], 0
        for number, level in enumerate(self.levels):
            groups = list(self._images(level, lab.child(level)))
            for within, (seen, fresh) in enumerate(groups):
                for found, images in ((train, seen), (test, fresh)):
                    found.append((images, first + within, number, within))
            first += len(groups)
        rest = None if self.held_out is None else self.held_out
        splits = {
            "train": Split(_columns(train, lambda within: within % 2 != rest), Use.TRAIN),
            "test": Split(_columns(test, lambda within: within % 2 != rest), Use.EVALUATE),
        }
        if rest is not None:
            novel = _columns(train + test, lambda within: within % 2 == rest)
            splits["novel"] = Split(novel, Use.EVALUATE, at="novel concepts")
        return Task(name="concepts", axis=Axis.DOMAIN, splits=splits, objective=classify)

    def _images(self, level: Level, lab: Lab) -> Iterator[tuple[Tensor, Tensor]]:
        """(training images, test images) of each concept of a level."""
        if level in GENERATED:
            for shape in SHAPES:
                draw = lab.child(shape).numpy()
                n = self.n_train + self.n_test
                drawn = np.stack([draw_shape(shape, level, draw) for _ in range(n)])
                images = torch.from_numpy(drawn).float()
                yield images[: self.n_train], images[self.n_train :]
        elif level is Level.OMNIGLOT:
            yield from self._characters(lab)
        else:
            sources = [(part(COLLECTIONS[level], name), n) for name, n in
                       (("train", self.n_train), ("test", self.n_test))]  # fmt: skip
            for label in range(CLASSES):
                seen, fresh = (
                    _resize(source.pixels(_rows(source.labels, label, n, lab.child(label, n))))
                    for source, n in sources
                )
                yield seen, fresh

    def _characters(self, lab: Lab) -> Iterator[tuple[Tensor, Tensor]]:
        data = drawings((1,), 35).columns
        order = torch.randperm(int(data["y"].max()) + 1, generator=lab.generator())
        seen = DRAWERS * 2 // 3
        for character in order[: self.characters].tolist():
            rows = data["y"] == character
            images = _resize(data["x"][rows])
            people = torch.randperm(DRAWERS, generator=lab.child("people").generator())
            yield images[people[:seen][: self.n_train]], images[people[seen:][: self.n_test]]


def _rows(labels: Int[Tensor, " n"], label: int, n: int, lab: Lab) -> Int[Tensor, " m"]:
    """At most n different rows with this label."""
    rows = (labels == label).nonzero()[:, 0]
    return rows[torch.randperm(len(rows), generator=lab.generator())[:n]]


def _resize(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3 32 32"]:
    """Bilinear, grey images in three equal channels."""
    resized = F.interpolate(images, (SIDE, SIDE), mode="bilinear", align_corners=False)
    return resized.clamp(0, 1).expand(-1, 3, -1, -1)


def _columns(groups: list[Group], chosen: Callable[[int], bool]) -> Columns:
    """The groups that are chosen by their number within the level."""
    kept = [group for group in groups if chosen(group[3])]
    sizes = torch.tensor([len(images) for images, *_ in kept])
    concepts, levels = (torch.tensor([group[k] for group in kept]) for k in (1, 2))
    return Columns(
        x=torch.cat([images for images, *_ in kept]),
        y=concepts.repeat_interleave(sizes),
        level=levels.repeat_interleave(sizes),
    )


def draw_shape(shape: str, level: Level, draw: np.random.Generator) -> NDArray[np.float64]:
    """One image [3, 32, 32] in [0, 1]."""
    depth = GENERATED.index(level)
    moved = depth >= 1
    mask = shape_mask(shape, *(_pose(draw) if moved else (0.0, 0.0, 0.0, 0.6)))
    image = np.where(mask, 1.0, 0.0)[None].repeat(3, 0)
    if depth >= 2:
        front, back = draw.uniform(0.5, 1, (3, 1, 1)), draw.uniform(0, 0.5, (3, 1, 1))
        behind = back + (0.25 * _smooth_noise(draw) if depth >= 3 else 0)
        if depth >= 4:
            for _ in range(3):  # pieces of other shapes
                x, y, angle, _ = _pose(draw)
                other = SHAPES[draw.integers(len(SHAPES))]
                piece = shape_mask(other, x * 2.5, y * 2.5, angle, 0.25)
                behind = np.where(piece, draw.uniform(0, 1, (3, 1, 1)), behind)
        image = np.where(mask, front, behind)
        if depth >= 4:
            image = image + draw.normal(0, 0.08, image.shape)
    return image.clip(0, 1)


def _pose(draw: np.random.Generator) -> tuple[float, float, float, float]:
    """Shift along both axes, angle and size."""
    x, y = draw.uniform(-0.3, 0.3, 2)
    return float(x), float(y), float(draw.uniform(0, 2 * math.pi)), float(draw.uniform(0.4, 0.65))


def _smooth_noise(draw: np.random.Generator) -> NDArray[np.float64]:
    coarse = torch.from_numpy(draw.normal(size=(1, 3, 8, 8)))
    return F.interpolate(coarse, (SIDE, SIDE), mode="bicubic", align_corners=False)[0].numpy()


def shape_mask(shape: str, x: float, y: float, angle: float, size: float) -> NDArray[np.bool_]:
    """Which of 32 × 32 pixels of [−1, 1]² belong to a shape of this position, angle and size."""
    axis = (np.arange(SIDE) + 0.5) / SIDE * 2 - 1
    u, v = np.meshgrid(axis - x, axis - y)
    u, v = ((math.cos(angle) * u + math.sin(angle) * v) / size,
            (math.cos(angle) * v - math.sin(angle) * u) / size)  # fmt: skip
    radius, turn = np.hypot(u, v), np.arctan2(v, u)
    if shape == "disc":
        return radius < 0.9
    if shape == "square":
        return np.maximum(abs(u), abs(v)) < 0.8
    if shape == "triangle":
        return (v < 0.7) & (v > 2 * abs(u) - 0.9)
    if shape == "cross":
        return (np.minimum(abs(u), abs(v)) < 0.28) & (np.maximum(abs(u), abs(v)) < 0.95)
    if shape == "ring":
        return (radius < 0.95) & (radius > 0.55)
    if shape == "star":
        return radius < 0.65 + 0.35 * np.cos(5 * turn)
    if shape == "bar":
        return (abs(u) < 0.95) & (abs(v) < 0.3)
    if shape == "crescent":
        return (radius < 0.95) & (np.hypot(u - 0.45, v) > 0.75)
    raise UnknownName.near("shape", shape, SHAPES)


class Table(StrEnum):
    """What animals have."""

    AWA2 = "awa2"
    """50 animals × 85 attributes (Animals with Attributes 2)."""
    ZOO = "zoo"
    """100 animals × 15 attributes and seven types; the second of two equal frogs is left out."""


@dataclass(frozen=True)
class Attributes:
    """A table of 0 and 1: which animal has which attribute."""

    items: tuple[str, ...]
    names: tuple[str, ...]
    values: Bool[Tensor, "item attribute"]


def read_attributes(table: Table) -> Attributes:
    """The table; the number of legs (Zoo) becomes "has legs", the type one attribute per value."""
    return _awa2() if table is Table.AWA2 else _zoo()


def _awa2() -> Attributes:
    items, names = (
        tuple(line.split()[1] for line in _lines(f"awa2-attributes/{name}.txt"))
        for name in ("classes", "predicates")
    )
    rows = [[cell == "1" for cell in line.split()]
            for line in _lines("awa2-attributes/predicate-matrix-binary.txt")]  # fmt: skip
    return Attributes(items, names, torch.tensor(rows))


def _zoo() -> Attributes:
    animals = {row["animal_name"]: row for row in csv.DictReader(_lines("zoo/zoo.data"))}
    first, *_ = animals.values()
    binary = [name for name in first if name not in ("animal_name", "type")]
    kinds = sorted({row["type"] for row in animals.values()})
    rows = [
        [*(row[name] != "0" for name in binary), *(row["type"] == kind for kind in kinds)]
        for row in animals.values()
    ]
    return Attributes(
        tuple(animals), (*binary, *(f"type {kind}" for kind in kinds)), torch.tensor(rows)
    )


def _lines(name: str) -> list[str]:
    return [line for line in data_file(name).read_text().splitlines() if line.strip()]


@dataclass(frozen=True)
class AttributeConcept:
    """Does an animal have `concept`, by its other attributes? Half of the animals are trained on.

    Batches hold `x` (0 and 1), `y`, and `index` (the animal's row).
    """

    table: Table = Table.AWA2
    concept: str = "hunter"

    def build(self, lab: Lab) -> Task:
        known = read_attributes(self.table)
        if self.concept not in known.names:
            raise UnknownName.near("attribute", self.concept, known.names)
        column = known.names.index(self.concept)
        others = [k for k in range(len(known.names)) if k != column]
        order = torch.randperm(len(known.items), generator=lab.child("animals").generator())
        half = len(order) // 2

        def columns(rows: Int[Tensor, " n"]) -> Columns:
            values = known.values[rows]
            return Columns(x=values[:, others].float(), y=values[:, column].long(), index=rows)

        splits = {
            "train": Split(columns(order[:half]), Use.TRAIN),
            "test": Split(columns(order[half:]), Use.EVALUATE),
        }
        return Task(name=self.concept, axis=Axis.IID, splits=splits, objective=classify)


def example() -> Concepts:
    return Concepts(levels=(Level.POSE, Level.COLOUR), n_train=20, n_test=5)
