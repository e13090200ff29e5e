"""Waterbirds: land and water birds, pasted onto places where they mostly, but not always, live.

Sagawa et al. (2020, arXiv:1911.08731). The folder as published: `metadata.csv` and the images it
names.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from unseen.data.files import home
from unseen.errors import CorruptFile, InvalidConfig, InvalidData, MissingFile
from unseen.lab import Lab
from unseen.objectives import classify
from unseen.task import Axis, Split, Task, Use
from unseen.tasks.digit_sources import load_part
from unseen.tasks.image_folders import Pictures, write_png
from unseen.tasks.images import Collection

BIRDS, PLACES = ("landbird", "waterbird"), ("land", "water")
COLUMNS = ("img_filename", "y", "split", "place")
GROUPS = tuple(f"{bird} on {place}" for bird in BIRDS for place in PLACES)
"""In the order of the column `group` = 2 y + place."""


@dataclass(frozen=True)
class Waterbirds:
    """Does the bird live on water? The split of the authors: places are domains, bird × place are
    four groups.

    Splits: `train:P` (TRAIN) and `select:P` (SELECT, the authors' validation) per place P; one
    evaluation split per group; `unlabelled` (ADAPT) if asked for. Columns: `x` [3, side, side] in
    [0, 1], `y`, `place`, `domain` (= place), `group`, `index` (row of metadata.csv). There are two
    places only: leaving one out would leave one kind of bird.
    """

    root: str | Path | Callable[[], Path]
    side: int = 64
    complete: bool = False
    """Fit the two large groups only (Waterbirds-CC, complete correlation: Lee et al., 2023,
    arXiv:2202.03418).
    """
    unlabelled: float = 0.0
    """Share of the validation images that methods may use without labels; the others select."""

    def __post_init__(self) -> None:
        if self.side < 1 or not 0 <= self.unlabelled < 1:
            raise InvalidConfig(
                f"Waterbirds(side={self.side}, unlabelled={self.unlabelled}) is out of range.",
                why="an image has pixels, and some validation images must be left to select on.",
                fix="use side ≥ 1 and 0 ≤ unlabelled < 1.",
            )

    def build(self, lab: Lab) -> Task:
        root = self.root() if callable(self.root) else Path(self.root)
        table = metadata(root)
        part, group = table["split"].to_numpy(), (2 * table["y"] + table["place"]).to_numpy()
        large = (table["y"] == table["place"]).to_numpy()
        free = lab.child("unlabelled").numpy().random(len(table)) < self.unlabelled
        masks: dict[str, tuple[np.ndarray, Use, str | None]] = {}
        for kind, number, use in (("train", 0, Use.TRAIN), ("select", 1, Use.SELECT)):
            for k, place in enumerate(PLACES):
                mask = (part == number) & (table["place"].to_numpy() == k)
                mask &= ~free if use is Use.SELECT else (large if self.complete else True)
                masks[f"{kind}:{place}"] = mask, use, place
        if self.unlabelled:
            masks["unlabelled"] = (part == 1) & free, Use.ADAPT, "validation"
        masks |= {
            name: ((part == 2) & (group == k), Use.EVALUATE, name) for k, name in enumerate(GROUPS)
        }
        paths = [root / name for name in table["img_filename"]]
        splits = {}
        for name, (mask, use, at) in masks.items():
            rows = torch.from_numpy(np.flatnonzero(mask))
            _refuse_empty(len(rows), name, root)
            splits[name] = Split(self._pictures(paths, table, rows, use), use, at)
        return Task(name="Waterbirds", axis=Axis.DOMAIN, splits=splits, objective=classify)

    def _pictures(self, paths: list[Path], table: pd.DataFrame, rows: Tensor, use: Use) -> Pictures:
        columns = {"index": torch.arange(len(table))}
        if use is not Use.ADAPT:
            y, place = (torch.tensor(table[name].tolist()) for name in ("y", "place"))
            columns |= {"y": y, "place": place, "domain": place, "group": 2 * y + place}
        return Pictures(paths, self.side, **columns).subset(rows)


def metadata(root: Path) -> pd.DataFrame:
    """The rows of metadata.csv: file name, y (1: waterbird), split (0 train, 1 validation, 2 test),
    place (1: water).
    """
    path = root / "metadata.csv"
    if not path.is_file():
        raise MissingFile(
            f"There is no {path}.",
            why="it says which image is which bird, in which place and split.",
            fix="give the folder as published (waterbird_complete95_forest2water2).",
        )
    try:
        table = pd.read_csv(path)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise CorruptFile(f"{path} cannot be read.", why=str(error), fix="copy it anew.") from error
    lacking = [name for name in COLUMNS if name not in table]
    if lacking:
        raise InvalidData(
            f"{path} has no column {', '.join(lacking)}.",
            why=f"it has {', '.join(map(str, table.columns[:8]))}.",
            fix="give the folder as published.",
        )
    for name, allowed in (("y", {0, 1}), ("place", {0, 1}), ("split", {0, 1, 2})):
        if odd := set(table[name].unique()) - allowed:
            raise InvalidData(
                f"Column `{name}` of {path} holds {', '.join(map(str, sorted(odd, key=str)))}.",
                why=f"known values are {', '.join(map(str, sorted(allowed)))}.",
                fix="give the folder as published.",
            )
    gone = [name for name in table["img_filename"] if not (root / str(name)).is_file()]
    if gone:
        raise MissingFile(
            f"{len(gone)} of {len(table)} images of {path} are missing, the first is {gone[0]}.",
            why="the table names them.",
            fix="unpack the archive anew.",
        )
    return table


def _refuse_empty(n: int, name: str, root: Path) -> None:
    if n == 0:
        raise InvalidData(
            f"Split `{name}` of {root} is empty.",
            why="every place and every group needs images where it is used for training or "
            "evaluation.",
            fix="give the folder as published, or a copy with images of all groups.",
        )


def small_copy() -> Path:
    """Coats ("land birds") and dresses on dark ("land") and bright frames. Not birds. Written once,
    below `home()`.
    """
    root = home() / "examples" / "waterbirds"
    held = load_part(Collection.FASHION_MNIST_SMALL, "train")
    plan = {0: (20, 4, 4, 20), 1: (5, 5, 5, 5), 2: (5, 5, 5, 5)}
    coats, dresses = ((held.labels == label).nonzero().flatten().tolist() for label in (4, 3))
    rows: list[dict[str, object]] = []
    for split, counts in plan.items():
        for group, count in enumerate(counts):
            for _ in range(count):
                row = (coats if group < 2 else dresses).pop(0)
                rows.append(
                    {
                        "img_id": len(rows) + 1,
                        "img_filename": f"{GROUPS[group].replace(' ', '_')}/{row}.png",
                    }
                )
                rows[-1] |= {
                    "y": group // 2,
                    "split": split,
                    "place": group % 2,
                    "place_filename": "none",
                }
                pixels = (held.pixels(torch.tensor([row]))[0, 0] * 255).byte().numpy()
                write_png(
                    root / str(rows[-1]["img_filename"]),
                    np.pad(pixels, 2, constant_values=255 * (group % 2)),
                )
    part = root / f"metadata.{os.getpid()}"
    pd.DataFrame(rows).to_csv(part, index=False)
    os.replace(part, root / "metadata.csv")  # another process sees the whole file or none
    return root


def example() -> Waterbirds:
    return Waterbirds(small_copy, side=16, unlabelled=0.5)
