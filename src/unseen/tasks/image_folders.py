"""Folders of images as domains: `root/<domain>/<class>/<image>`, as PACS, Office-Home and VLCS lie
on a user's disk.

PACS: Li et al. (2017, arXiv:1710.03077). Office-Home: Venkateswara et al. (2017, arXiv:1706.07522).
VLCS: Fang et al. (2013, doi:10.1109/ICCV.2013.208). Images are decoded when they are asked for
(Pillow, extra `images`).
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from unseen.data.files import home
from unseen.engine.batches import Columns, whole
from unseen.errors import CorruptFile, InvalidConfig, InvalidData, MissingExtra, MissingFile
from unseen.lab import Lab
from unseen.task import Task
from unseen.tasks.digit_sources import load_part
from unseen.tasks.domains import Division, Examples, assemble_task
from unseen.tasks.images import Collection

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"})


class Layout(StrEnum):
    """Which domains a folder must have."""

    OWN = "own"
    """Every folder in `root` is a domain."""
    PACS = "PACS"
    """`art_painting`, `cartoon`, `photo`, `sketch`; in `root`, or in `root/kfold` as published."""
    OFFICE_HOME = "Office-Home"
    """`Art`, `Clipart`, `Product`, `Real World` (also `RealWorld`, `real_world`)."""
    VLCS = "VLCS"
    """`Caltech101`, `LabelMe`, `SUN09`, `VOC2007` as in DomainBed, or `CALTECH`, `LABELME`, `SUN`,
    `PASCAL` with parts.
    """


NAMES: Mapping[Layout, tuple[tuple[str, ...], ...]] = {
    Layout.PACS: (("art_painting",), ("cartoon",), ("photo",), ("sketch",)),
    Layout.OFFICE_HOME: (("Art",), ("Clipart",), ("Product",), ("Real World",)),
    Layout.VLCS: (("Caltech101", "CALTECH"), ("LabelMe",), ("SUN09", "SUN"), ("VOC2007", "PASCAL")),
}
"""Each domain and the names under which its folder is found, in small or capital letters, with or
without spaces and underscores; the first is how it is called here."""
PARTS = ("full", "train", "val", "crossval", "test")
"""Folders that some copies have between domain and class (VLCS: CALTECH/train/0); `full` is the
others together.
"""
Files: TypeAlias = Mapping[str, Mapping[str, Sequence[Path]]]
"""Images by domain and class."""


@dataclass(frozen=True)
class ImageFolders:
    """Which class is in the image, from a domain left out? `x` is [3, side, side] in [0, 1],
    resized without cropping.

    The domains are found in `root` or up to two folders below it. All domains must have the same
    classes.
    """

    root: str | Path | Callable[[], Path]
    """The folder, or a function that returns it."""
    layout: Layout = Layout.OWN
    held_out: str | None = None
    side: int = 64
    division: Division = Division()

    def __post_init__(self) -> None:
        if self.side < 1:
            raise InvalidConfig(
                f"ImageFolders(side={self.side}) is out of range.",
                why="an image has pixels.",
                fix="use side ≥ 1.",
            )

    def domains(self) -> tuple[str, ...]:
        return tuple(self.files())

    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the labels."""
        return tuple(next(iter(self.files().values())))

    def files(self) -> Files:
        """The paths of all images; bad layouts are refused."""
        return list_images(self.root() if callable(self.root) else Path(self.root), self.layout)

    def build(self, lab: Lab) -> Task:
        parts = {
            name: _examples(list(classes.values()), k, self.side)
            for k, (name, classes) in enumerate(self.files().items())
        }
        name = "image folders" if self.layout is Layout.OWN else str(self.layout)
        return assemble_task(name, parts, self.held_out, self.division, lab)


class Pictures(Dataset[dict[str, Tensor]]):
    """Images that are decoded when they are asked for, with columns kept in memory."""

    def __init__(self, paths: Sequence[Path], side: int, **columns: Tensor) -> None:
        self.paths, self.side, self.columns = paths, side, columns

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        rows = {name: column[index] for name, column in self.columns.items()}
        return {"x": decode_image(self.paths[index], self.side), **rows}

    def subset(self, rows: Int[Tensor, " k"]) -> "Pictures":
        """The chosen images."""
        paths = [self.paths[row] for row in rows.tolist()]
        return Pictures(
            paths, self.side, **{name: column[rows] for name, column in self.columns.items()}
        )


def decode_image(path: Path, side: int) -> Float[Tensor, "3 side side"]:
    """An image file as RGB in [0, 1], resized to a square (a triangle filter as wide as the
    reduction, so nothing is skipped).
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise MissingExtra(
            "Reading images needs Pillow.", why=str(error), fix='pip install "unseen[images]"'
        ) from error
    try:
        with Image.open(path) as image:
            small = image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise CorruptFile(
            f"{path} is not a readable image.",
            why=str(error),
            fix="delete the file or copy it anew.",
        ) from error
    return torch.from_numpy(np.array(small)).permute(2, 0, 1).float() / 255


def in_memory(task: Task) -> Task:
    """The task with every image decoded once: for data that fit, and for training that reads them
    more than once.
    """
    splits = {
        name: replace(split, data=Columns(**whole(split.data, Lab())))
        if isinstance(split.data, Pictures)
        else split
        for name, split in task.splits.items()
    }
    return replace(task, splits=splits)


def _examples(classes: Sequence[Sequence[Path]], domain: int, side: int) -> Examples:
    paths = [path for own in classes for path in own]
    y = torch.tensor([k for k, own in enumerate(classes) for _ in own])
    pictures = Pictures(
        paths, side, y=y, index=torch.arange(len(y)), domain=torch.full((len(y),), domain)
    )
    return Examples(y, pictures.subset)


def list_images(root: Path, layout: Layout) -> Files:
    """Images by domain and class, in alphabetical order of classes and files."""
    if not root.is_dir():
        raise MissingFile(
            f"There is no folder {root}.", why="images are read from there.", fix="check the path."
        )
    folders = (
        {child.name: child for child in _folders(root)}
        if layout is Layout.OWN
        else _domain_folders(root, layout)
    )
    if not folders:
        raise InvalidData(
            f"{root} holds no folder.",
            why="each domain is a folder, each class a folder in it.",
            fix=f"arrange them as {root.name}/<domain>/<class>/<image>.",
        )
    files = {name: _classes(folder, layout) for name, folder in folders.items()}
    first = next(iter(files))
    for name, classes in files.items():
        if set(classes) != set(files[first]):
            odd = sorted(set(classes) ^ set(files[first]))
            raise InvalidData(
                f"Domains `{first}` and `{name}` of {root} have different classes "
                f"({', '.join(odd[:5])}).",
                why="the same class must have the same name, and images, in every domain.",
                fix="rename the folders, or remove the classes that are not everywhere.",
            )
    return files


def _domain_folders(root: Path, layout: Layout) -> dict[str, Path]:
    """The folders of the layout's domains, in `root` or up to two levels below."""
    level: list[Path] = [root]
    nearest: list[str] = []
    for _ in range(3):
        for place in level:
            have = {_plain(child.name): child for child in _folders(place)}
            found = {
                names[0]: have[_plain(name)]
                for names in NAMES[layout]
                for name in names
                if _plain(name) in have
            }
            if len(found) == len(NAMES[layout]):
                return found
            nearest = max(nearest, sorted(found), key=len)
        level = [child for place in level for child in _folders(place)]
    wanted = [names[0] for names in NAMES[layout]]
    raise InvalidData(
        f"{root} is not laid out like {layout}: of {', '.join(wanted)} it has "
        f"{', '.join(nearest) or 'none'}.",
        why="each domain is a folder, in the root or up to two levels below.",
        fix="give the folder that holds them, or use layout=Layout.OWN for domains of your own.",
    )


def _plain(name: str) -> str:
    return name.lower().replace(" ", "").replace("_", "")


def _classes(domain: Path, layout: Layout) -> dict[str, list[Path]]:
    """Class folders and their images; where a known layout has parts between domain and class,
    those of all parts.
    """
    children = {child.name: child for child in _folders(domain)}
    if layout is not Layout.OWN and children and set(children) <= set(PARTS):
        parts = [children["full"]] if "full" in children else list(children.values())
    else:
        parts = [domain]
    found: dict[str, list[Path]] = {}
    for part in parts:
        for folder in _folders(part):
            found.setdefault(folder.name, []).extend(_images(folder))
    empty = [name for name, images in found.items() if not images]
    if not found or empty:
        what = (
            f"class folders without images ({', '.join(empty[:5])})" if empty else "no class folder"
        )
        raise InvalidData(
            f"Domain {domain} has {what}.",
            why="images lie in one folder per class.",
            fix=f"arrange them as {domain.name}/<class>/<image> ({', '.join(sorted(SUFFIXES))}).",
        )
    return dict(sorted(found.items()))


def _folders(place: Path) -> list[Path]:
    return sorted(
        child
        for child in place.iterdir()
        if child.is_dir() and not child.name.startswith((".", "__"))
    )


def _images(folder: Path) -> list[Path]:
    """Files with an image's suffix, also in folders below; hidden files are none (macOS leaves
    `._a.jpg`).
    """
    found = (Path(place) / name for place, _, names in os.walk(folder) for name in names)
    return sorted(
        path for path in found if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )


def small_copy() -> Path:
    """Coats and dresses of the shipped Fashion-MNIST as PNG: bright, dark and upside down. Written
    once, below `home()`.
    """
    root = home() / "examples" / "image-folders"
    held = load_part(Collection.FASHION_MNIST_SMALL, "test")
    changes = {"bright": lambda x: x, "dark": lambda x: x // 2, "turned": lambda x: x[::-1]}
    for d, (domain, change) in enumerate(changes.items()):
        for name, label in (("coat", 4), ("dress", 3)):
            folder = root / domain / name
            rows = (held.labels == label).nonzero().flatten()[12 * d : 12 * (d + 1)]
            for row, pixels in zip(rows.tolist(), held.pixels(rows), strict=True):
                write_png(folder / f"{row}.png", change((pixels[0] * 255).byte().numpy()))
    return root


def write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Pixels as PNG, if the file is not there yet; another process sees the whole file or none."""
    from PIL import Image

    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        Image.fromarray(np.ascontiguousarray(pixels)).save(part, format="PNG")
        os.replace(part, path)


def example() -> ImageFolders:
    return ImageFolders(small_copy, side=14)
