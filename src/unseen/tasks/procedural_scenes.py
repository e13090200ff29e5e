"""Drawn scenes with exact dense labels: overlapping discs, squares and triangles before a tinted
gradient.

For few-shot dense prediction (Kim et al., 2023, arXiv:2303.14969): some labels train, others, of
another structure, are held out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from unseen.engine.batches import Columns
from unseen.engine.dense import dense
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.task import Axis, Split, Task, Use

OBJECTS = 4
"""Most objects of a scene."""


class Label(StrEnum):
    """Dense labels with values in [0, 1], one channel each."""

    DISC = "disc mask"
    SQUARE = "square mask"
    RED = "red mask"
    DEPTH = "depth order"
    EDGES = "instance edges"
    NORMAL_X = "normal x"
    LUMINANCE = "luminance"
    SIZE = "object size"
    GRADIENT = "horizontal gradient"
    UPPER = "upper half"
    BORDER = "border distance"
    CENTRE = "centre heat map"
    NORMAL_Y = "normal y"
    LEFT = "left half"


TRAINING = tuple(Label)[:10]
HELD_OUT = tuple(Label)[10:]
NEGATED = (Label.NORMAL_X, Label.GRADIENT)
"""Components along x: they change sign in a mirror."""


@dataclass(frozen=True)
class Scenes:
    """Scenes and what is known about them. Objects stand from the back to the front."""

    images: Float[Tensor, "n 3 y x"]
    clean: Float[Tensor, "n 3 y x"]
    """Without noise."""
    index: Int[Tensor, "n y x"]
    """The object that is seen at a pixel; −1: background."""
    kind: Int[Tensor, "n k"]
    """0 disc, 1 square, 2 triangle."""
    centre: Float[Tensor, "n k 2"]
    """Row and column."""
    radius: Float[Tensor, "n k"]
    red: Bool[Tensor, "n k"]
    count: Int[Tensor, " n"]

    def label(self, name: Label) -> Float[Tensor, "n y x"]:
        return _LABELS[name](self)

    def at(self, values: Tensor, background: float = 0.0) -> Float[Tensor, "n y x"]:
        """An object's value at the pixels where it is seen."""
        flat = self.index.clamp_min(0).flatten(1)
        seen = values.float().gather(1, flat).view(self.index.shape)
        return torch.where(self.index >= 0, seen, torch.full_like(seen, background))

    def offset(self, axis: int) -> Float[Tensor, "n y x"]:
        """Rows (0) or columns (1) from the centre of the object, in radii; 0 in the background."""
        side = self.index.shape[-1]
        along = torch.arange(side).float()
        along = along[:, None].expand(side, side) if axis == 0 else along.expand(side, side)
        away = (along - self.at(self.centre[..., axis])) / self.at(self.radius, 1.0)
        return torch.where(self.index >= 0, away, torch.zeros_like(away))


def draw_scenes(n: int, side: int, lab: Lab) -> Scenes:
    """2 to 4 objects of radius 3 to 6.5 pixels, two in five of them red, lit at their centre."""
    generator = lab.generator()

    def uniform(*size: int) -> Tensor:
        return torch.rand(*size, generator=generator)

    kind = torch.randint(3, (n, OBJECTS), generator=generator)
    count = torch.randint(2, OBJECTS + 1, (n,), generator=generator)
    centre = 2 + uniform(n, OBJECTS, 2) * (side - 5)
    radius = 3 + 3.5 * uniform(n, OBJECTS)
    red = uniform(n, OBJECTS) < 0.4
    colour = torch.where(
        red[..., None], _red_colours(uniform(n, OBJECTS, 3)), _cold_colours(uniform(n, OBJECTS, 3))
    )
    clean = _backgrounds(n, side, uniform)
    index = torch.full((n, side, side), -1)
    grid = torch.arange(side).float()
    for k in range(OBJECTS):
        dy = grid[:, None] - centre[:, k, 0, None, None]
        dx = grid - centre[:, k, 1, None, None]
        r = radius[:, k, None, None]
        inside = _inside(kind[:, k], dy, dx, r) & (k < count)[:, None, None]
        light = 1 - 0.4 * ((dy.square() + dx.square()) / r.square()).clamp(0, 1)
        painted = colour[:, k, :, None, None] * light[:, None]
        clean = torch.where(inside[:, None], painted, clean)
        index = torch.where(inside, torch.full_like(index, k), index)
    noise = 0.04 * torch.randn(n, 3, side, side, generator=generator)
    images = (clean + noise).clamp(0, 1)
    return Scenes(images, clean, index, kind, centre, radius, red, count)


def _red_colours(u: Tensor) -> Tensor:
    return torch.stack([0.7 + 0.3 * u[..., 0], 0.25 * u[..., 1], 0.25 * u[..., 2]], -1)


def _cold_colours(u: Tensor) -> Tensor:
    """Little red, and at least one of green and blue."""
    green, blue = 0.3 + 0.7 * u[..., 1], 0.3 + 0.7 * u[..., 2]
    return torch.stack([0.5 * u[..., 0], green, blue], -1)


def _backgrounds(n: int, side: int, uniform: object) -> Float[Tensor, "n 3 y x"]:
    """A grey tint that rises in a random direction."""
    assert callable(uniform)
    tint, angle = 0.25 + 0.4 * uniform(n, 3), 2 * torch.pi * uniform(n)
    along = torch.linspace(-1, 1, side)
    slope = angle.sin()[:, None, None] * along[:, None] + angle.cos()[:, None, None] * along
    return (tint[:, :, None, None] + 0.15 * slope[:, None]).clamp(0, 1)


def _inside(kind: Tensor, dy: Tensor, dx: Tensor, r: Tensor) -> Bool[Tensor, "n y x"]:
    disc = dy.square() + dx.square() <= r.square()
    square = torch.maximum(dy.abs(), dx.abs()) <= 0.85 * r
    triangle = (dy >= -r) & (dy <= 0.7 * r) & (dx.abs() <= (dy + r) / 1.7)
    kind = kind[:, None, None]
    return torch.where(kind == 0, disc, torch.where(kind == 1, square, triangle))


def border_distance(index: Int[Tensor, "n y x"], most: int = 5) -> Float[Tensor, "n y x"]:
    """Pixels from an object's pixel to the nearest one that shows something else, at most `most`; 0
    in the background. The frame is no border.
    """
    padded = F.pad(index.double()[:, None], (most,) * 4, mode="replicate")[:, 0]
    height, width = index.shape[1:]
    nearest = torch.full(index.shape, float(most))
    for dy in range(-most, most + 1):
        for dx in range(-most, most + 1):
            distance = (dy**2 + dx**2) ** 0.5
            if not 0 < distance <= most:
                continue
            there = padded[:, most + dy : most + dy + height, most + dx : most + dx + width]
            other = there != index
            nearest = torch.where(other, nearest.clamp_max(distance), nearest)
    return torch.where(index >= 0, nearest, torch.zeros_like(nearest))


def centre_heat(scenes: Scenes, share: float = 0.35) -> Float[Tensor, "n y x"]:
    """A Gaussian around the centre of every object that is seen somewhere; its deviation is a share
    of the radius.
    """
    side = scenes.index.shape[-1]
    grid = torch.arange(side).float()
    heat = torch.zeros(scenes.index.shape)
    for k in range(OBJECTS):
        seen = (scenes.index == k).flatten(1).any(1)
        dy = grid[:, None] - scenes.centre[:, k, 0, None, None]
        dx = grid - scenes.centre[:, k, 1, None, None]
        sd = share * scenes.radius[:, k, None, None]
        bump = torch.exp(-(dy.square() + dx.square()) / (2 * sd.square()))
        heat = torch.where(seen[:, None, None], torch.maximum(heat, bump), heat)
    return heat


def edges(index: Int[Tensor, "n y x"]) -> Float[Tensor, "n y x"]:
    """1 where a neighbour above, below, left or right shows something else."""
    rows, columns = index[:, 1:] != index[:, :-1], index[..., 1:] != index[..., :-1]
    found = F.pad(rows, (0, 0, 0, 1)) | F.pad(rows, (0, 0, 1, 0))
    return (found | F.pad(columns, (0, 1)) | F.pad(columns, (1, 0))).float()


def luminance(images: Float[Tensor, "n 3 y x"]) -> Float[Tensor, "n y x"]:
    return torch.einsum("ncyx,c->nyx", images, torch.tensor([0.299, 0.587, 0.114]))


def _gradient(scenes: Scenes) -> Tensor:
    light = F.pad(luminance(scenes.clean)[:, None], (1, 1, 0, 0), mode="replicate")[:, 0]
    return (0.5 + (light[..., 2:] - light[..., :-2]) / 2 * 2).clamp(0, 1)


def _objects(scenes: Scenes) -> Tensor:
    return (scenes.index >= 0).float()


_LABELS = {
    Label.DISC: lambda s: s.at(s.kind == 0),
    Label.SQUARE: lambda s: s.at(s.kind == 1),
    Label.RED: lambda s: s.at(s.red),
    Label.DEPTH: lambda s: s.at((torch.arange(OBJECTS) + 1) / s.count[:, None]),
    Label.EDGES: lambda s: edges(s.index),
    Label.NORMAL_X: lambda s: (0.5 + s.offset(1) / 2).clamp(0, 1),
    Label.LUMINANCE: lambda s: luminance(s.clean),
    Label.SIZE: lambda s: s.at((s.radius - 2) / 5),
    Label.GRADIENT: _gradient,
    Label.UPPER: lambda s: _objects(s) * (s.offset(0) < 0),
    Label.BORDER: lambda s: border_distance(s.index) / 5,
    Label.CENTRE: centre_heat,
    Label.NORMAL_Y: lambda s: (0.5 + s.offset(0) / 2).clamp(0, 1),
    Label.LEFT: lambda s: _objects(s) * (s.offset(1) < 0),
}


@dataclass(frozen=True)
class ProceduralScenes:
    """Scenes with some of the labels, one channel each; `x` and `y` in [0, 1].

    The scenes depend on the lab alone: another choice of labels shows the same ones.
    """

    labels: tuple[Label, ...] = TRAINING
    n_train: int = 3_000
    n_test: int = 300
    side: int = 24

    def __post_init__(self) -> None:
        if not self.labels or self.n_train < 1 or self.n_test < 1 or self.side < 16:
            raise InvalidConfig(
                f"{len(self.labels)} labels of {self.n_train} and {self.n_test} scenes with a "
                f"side of {self.side}.",
                why="a task has a label and scenes, and objects have a radius of up to 6.5 pixels.",
                fix="for example ProceduralScenes(labels=(Label.EDGES,), side=24).",
            )

    def build(self, lab: Lab) -> Task:
        splits = {
            name: Split(self.columns(n, lab.child(name)), use, at=name)
            for name, n, use in (
                ("train", self.n_train, Use.TRAIN),
                ("test", self.n_test, Use.EVALUATE),
            )
        }
        return Task(name="scenes", axis=Axis.TASK, splits=splits, objective=dense)

    def columns(self, n: int, lab: Lab) -> Columns:
        scenes = draw_scenes(n, self.side, lab)
        labels = torch.stack([scenes.label(Label(name)) for name in self.labels], 1)
        return Columns(x=scenes.images, y=labels)


def negated_channels(labels: Sequence[Label]) -> Bool[Tensor, " c"]:
    """Which channels are components along x."""
    return torch.tensor([label in NEGATED for label in labels])


def example() -> tuple[ProceduralScenes, Callable[[Task], nn.Module]]:
    """Small scenes, and an easy model for them."""
    spec = ProceduralScenes(labels=(Label.RED, Label.EDGES), n_train=64, n_test=16, side=16)

    def model(task: Task) -> nn.Module:
        with Lab().child("model").seeded():
            return nn.Conv2d(3, len(spec.labels), 3, padding=1)

    return spec, model
