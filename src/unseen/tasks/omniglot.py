"""Handwritten characters of several alphabets, each by twenty people (Lake et al., 2015)."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import torch
import torch.nn.functional as F

from unseen.data.files import data_file
from unseen.engine.batches import Columns
from unseen.errors import InvalidConfig, MissingExtra
from unseen.lab import Lab
from unseen.objectives import classify
from unseen.task import Axis, Split, Task, Use

DRAWERS = 20
SIDE = 105


@dataclass(frozen=True)
class Omniglot:
    """Characters drawn by some people to train, the same characters by others to evaluate.

    Batches hold `x` [1 side side] (1 is ink), `y` (the character), `alphabet` and `drawer`.
    """

    archives: tuple[int, ...] = (1,)
    """The small background sets: 1 and 2, five alphabets each (Greek and Latin are in both)."""
    drawers: int = 10
    """People whose characters are trained on, drawn at random; the other ones are evaluated."""
    side: int = SIDE
    """Mean-pooled to `side` × `side` pixels: 105, 35, 21, 15, 7, 5, 3 or 1."""

    def __post_init__(self) -> None:
        if not 1 <= self.drawers < DRAWERS or self.side < 1 or SIDE % self.side:
            raise InvalidConfig(
                f"Omniglot(drawers={self.drawers}, side={self.side}) is out of range.",
                why=f"{DRAWERS} people drew every character, and mean-pooling joins whole blocks "
                f"of {SIDE} × {SIDE} pixels.",
                fix=f"choose 1 to {DRAWERS - 1} drawers and a divisor of {SIDE}.",
            )

    def build(self, lab: Lab) -> Task:
        data = drawings(self.archives, self.side)
        order = torch.randperm(DRAWERS, generator=lab.child("drawers").generator())
        seen = torch.isin(data.columns["drawer"], order[: self.drawers])
        splits = {
            "train": Split(data.subset(seen.nonzero()[:, 0]), Use.TRAIN),
            "test": Split(data.subset((~seen).nonzero()[:, 0]), Use.EVALUATE),
        }
        return Task(name="omniglot", axis=Axis.IID, splits=splits, objective=classify)


def drawings(archives: Sequence[int], side: int = SIDE) -> Columns:
    """All images of the archives, sorted by alphabet, character and drawer."""
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtra(
            "Reading Omniglot's images needs Pillow.",
            why=str(error),
            fix='pip install "unseen[images]"',
        ) from error
    images, names = [], []
    for number in archives:
        path = data_file(f"omniglot/images_background_small{number}.zip")
        with zipfile.ZipFile(path) as archive:
            for member in sorted(name for name in archive.namelist() if name.endswith(".png")):
                pixels = np.asarray(Image.open(BytesIO(archive.read(member))).convert("L"))
                images.append(torch.from_numpy(pixels < 128))
                _, alphabet, character, file = member.split("/")
                names.append((f"{number}/{alphabet}", character, int(file[-6:-4]) - 1))
    x = torch.stack(images).unsqueeze(1).float()
    alphabets = sorted({name[0] for name in names})
    characters = sorted({name[:2] for name in names})
    return Columns(
        x=F.avg_pool2d(x, SIDE // side),
        y=torch.tensor([characters.index(name[:2]) for name in names]),
        alphabet=torch.tensor([alphabets.index(name[0]) for name in names]),
        drawer=torch.tensor([name[2] for name in names]),
    )


def example() -> Omniglot:
    return Omniglot(side=15)
