"""Small image collections as classification tasks, with label noise of any strength.

Files are read without torchvision: IDX (LeCun), NPZ, CSV, and JPEG through Pillow (extra `images`).
"""

import gzip
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from unseen.data.files import data_file
from unseen.engine.batches import Columns
from unseen.errors import CorruptFile, InvalidConfig, MissingExtra
from unseen.lab import Lab
from unseen.objectives import classify
from unseen.task import Axis, Split, Task, Use


class Collection(StrEnum):
    """Image sets with ten classes, in the train and test parts of their authors."""

    FASHION_MNIST = "fashion-mnist"
    """60,000 / 10,000 articles of clothing, 28×28 (Xiao et al., 2017, arXiv:1708.07747)."""
    FASHION_MNIST_SMALL = "fashion-mnist-small"
    """The first 1,500 / 500 of them; shipped with the package."""
    MNIST = "mnist"
    """60,000 / 10,000 handwritten digits, 28×28 (LeCun et al., 1998)."""
    USPS = "usps"
    """7,291 / 2,007 digits from envelopes, 16×16 (Hull, 1994)."""
    OPTDIGITS = "optdigits"
    """3,823 / 1,797 digits of 30 and 13 other writers, 8×8 counts (Alpaydin & Kaynak, 1998);
    shipped with the package.
    """
    CIFAR10 = "cifar10"
    """10,000 / 2,000 photographs, 3×32×32: the first of each class, as JPEG (Krizhevsky, 2009)."""


@dataclass(frozen=True)
class Images:
    """`n_train` images to fit, `n_select` to select on (from the same file), `n_test` to evaluate,
    drawn at random.

    Batches hold `x` [channel height width], `y`, `index` (the image's row in its file) and two
    masks of the fitted labels: `redrawn` (the label was replaced by a uniformly drawn one) and
    `wrong` (it differs from the true one; a tenth of the redrawn labels are right by chance). A
    stronger noise redraws a superset of the labels of a weaker one.
    """

    collection: Collection = Collection.FASHION_MNIST_SMALL
    n_train: int = 1_000
    n_test: int = 500
    n_select: int = 0
    side: int | None = None
    """Mean-pooled to `side` × `side` pixels; None: as in the file."""
    standardise: bool = True
    """Subtract the mean and divide by the standard deviation of the training images, per channel;
    else values in [0, 1].
    """
    label_noise: float = 0.0
    """Share of the fitted labels that are redrawn uniformly over all classes."""

    def __post_init__(self) -> None:
        if (
            not 0 <= self.label_noise <= 1
            or self.n_train < 1
            or self.n_test < 1
            or self.n_select < 0
        ):
            raise InvalidConfig(
                f"Images(n_train={self.n_train}, n_test={self.n_test}, n_select={self.n_select}, "
                f"label_noise={self.label_noise}) is out of range.",
                why="at least one image is fitted and one evaluated, and the noise is a share from "
                "0 to 1.",
                fix="correct the value.",
            )

    def build(self, lab: Lab) -> Task:
        train, test = part(self.collection, "train"), part(self.collection, "test")
        drawn = _sample_rows(lab.child("train"), train, self.n_train + self.n_select)
        fitted, selected = drawn[: self.n_train], drawn[self.n_train :]
        judged = _sample_rows(lab.child("test"), test, self.n_test)
        pixels = self._pool(train, fitted)
        mean, deviation = pixels.mean((0, 2, 3), keepdim=True), pixels.std((0, 2, 3), keepdim=True)

        def columns(source: "Part", rows: Int[Tensor, " n"], noise: float = 0.0) -> Columns:
            x, true = pixels if rows is fitted else self._pool(source, rows), source.labels[rows]
            redrawn = redraws(len(rows), noise, lab.child("redrawn"))
            y = torch.where(redrawn, uniform_labels(len(rows), CLASSES, lab.child("labels")), true)
            x = (x - mean) / deviation if self.standardise else x
            return Columns(x=x, y=y, index=rows, redrawn=redrawn, wrong=y != true)

        splits = {"train": Split(columns(train, fitted, self.label_noise), Use.TRAIN)}
        if self.n_select:
            splits["select"] = Split(columns(train, selected), Use.SELECT)
        splits["test"] = Split(columns(test, judged), Use.EVALUATE)
        return Task(name=str(self.collection), axis=Axis.IID, splits=splits, objective=classify)

    def _pool(self, source: "Part", rows: Int[Tensor, " n"]) -> Float[Tensor, "n c h w"]:
        images = source.pixels(rows)
        own = images.shape[-1]
        if self.side is None:
            return images
        if self.side < 1 or own % self.side:
            raise InvalidConfig(
                f"{self.collection} cannot be pooled from {own} to {self.side} pixels.",
                why="mean-pooling joins whole blocks of pixels.",
                fix=f"choose a divisor of {own}.",
            )
        return F.avg_pool2d(images, own // self.side)


CLASSES = 10


def redraws(n: int, share: float, lab: Lab) -> Bool[Tensor, " n"]:
    """Marks round(share · n) of n labels; those of a smaller share are among those of a larger
    one.
    """
    order = torch.randperm(n, generator=lab.generator())
    return torch.zeros(n, dtype=torch.bool).index_fill(0, order[: round(share * n)], True)


def uniform_labels(n: int, classes: int, lab: Lab) -> Int[Tensor, " n"]:
    return torch.randint(classes, (n,), generator=lab.generator())


@dataclass(frozen=True)
class Part:
    """The train or test part of a collection: its labels, and the pixels in [0, 1] of chosen
    rows.
    """

    labels: Int[Tensor, " all"]
    pixels: Callable[[Int[Tensor, " n"]], Float[Tensor, "n c h w"]]


def part(collection: Collection, name: str) -> Part:
    """The part called `name` ("train" or "test"); files are found or fetched by
    `unseen.data.files`.
    """
    if collection is Collection.USPS:
        return _usps(data_file("usps/usps.npz"), name)
    if collection is Collection.OPTDIGITS:
        return _optdigits(
            data_file(f"optdigits/optdigits.{'tra' if name == 'train' else 'tes'}.gz")
        )
    if collection is Collection.CIFAR10:
        return _cifar(data_file("cifar10-subset/cifar10_subset_jpeg.zip"), name)
    prefix = f"{collection}/{'train' if name == 'train' else 't10k'}"
    images, labels = (
        read_idx(data_file(f"{prefix}-{kind}-ubyte.gz")) for kind in ("images-idx3", "labels-idx1")
    )
    return _part_in_memory(images[:, None], labels, 255.0)


def _part_in_memory(images: NDArray[Any], labels: NDArray[Any], full: float) -> Part:
    """A part held in memory; `full` is the value of a white pixel."""
    if len(images) != len(labels):
        raise CorruptFile(
            f"There are {len(images)} images but {len(labels)} labels.",
            why="they belong together, one each.",
            fix="delete both files and run again.",
        )
    return Part(
        torch.from_numpy(labels.astype(np.int64)),
        lambda rows: torch.from_numpy(images[rows.numpy()].astype(np.float32)) / full,
    )


_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: Path) -> NDArray[Any]:
    """The array in an IDX file, gzipped or not: two zero bytes, a type, the number of axes, their
    sizes, the values.

    Any departure from that (another magic number, too few or too many bytes) raises `CorruptFile`.
    """
    data = _decompress(path)
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _IDX_TYPES:
        raise _corruption_error(
            path, f"it starts with {data[:4].hex(' ')}, not with the magic number of an IDX file."
        )
    dtype, axes = np.dtype(_IDX_TYPES[data[2]]), data[3]
    if len(data) < 4 + 4 * axes:
        raise _corruption_error(path, f"it ends within the sizes of its {axes} axes.")
    shape = struct.unpack(f">{axes}I", data[4 : 4 + 4 * axes])
    expected = 4 + 4 * axes + prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise _corruption_error(path, f"shape {shape} needs {expected} bytes, it has {len(data)}.")
    values = np.frombuffer(data, dtype, offset=4 + 4 * axes).reshape(shape)
    return values.astype(dtype.newbyteorder("="))


def _decompress(path: Path) -> bytes:
    data = path.read_bytes()
    try:
        return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _corruption_error(path, str(error)) from error


def _corruption_error(path: Path, why: str) -> CorruptFile:
    return CorruptFile(
        f"{path} cannot be read.", why=why, fix="delete it and run again, or copy it anew."
    )


def _usps(path: Path, name: str) -> Part:
    try:
        with np.load(path, allow_pickle=False) as arrays:  # a pickle in the file would run its code
            x, y = arrays[f"x_{name}"], arrays[f"y_{name}"]
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise _corruption_error(path, str(error)) from error
    return _part_in_memory(x.reshape(-1, 1, 16, 16), y, 1.0)


def _optdigits(path: Path) -> Part:
    """One header line, then 64 counts from 0 to 16 and the class."""
    try:
        table = np.loadtxt(
            BytesIO(_decompress(path)), delimiter=",", skiprows=1, dtype=np.int64, ndmin=2
        )
        images = table[:, :64].reshape(-1, 1, 8, 8)
    except ValueError as error:
        raise _corruption_error(path, str(error)) from error
    return _part_in_memory(images, table[:, 64], 16.0)


def _cifar(path: Path, name: str) -> Part:
    """Paths `train/<class>/<number>.jpg`; classes are numbered in alphabetical order, as in the
    original.
    """
    with zipfile.ZipFile(path) as archive:
        members = sorted(member for member in archive.namelist() if member.startswith(f"{name}/"))
    classes = sorted({member.split("/")[1] for member in members})

    def pixels(rows: Int[Tensor, " n"]) -> Float[Tensor, "n c h w"]:
        with zipfile.ZipFile(path) as archive:
            images = [_decode_image(archive.read(members[row])) for row in rows.tolist()]
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255

    return Part(torch.tensor([classes.index(member.split("/")[1]) for member in members]), pixels)


def _decode_image(data: bytes) -> NDArray[np.uint8]:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtra(
            "Reading JPEG images needs Pillow.", why=str(error), fix='pip install "unseen[images]"'
        ) from error
    return np.asarray(Image.open(BytesIO(data)).convert("RGB"))


def _sample_rows(lab: Lab, source: Part, n: int) -> Int[Tensor, " n"]:
    """n different rows in random order; the first of a longer draw are those of a shorter one."""
    if n > len(source.labels):
        raise InvalidConfig(
            f"{n} images are asked for, the part `{lab.path[-1]}` holds {len(source.labels)}.",
            why="no image is used twice.",
            fix="ask for fewer, or choose a larger collection.",
        )
    return torch.randperm(len(source.labels), generator=lab.generator())[:n]


def example() -> Images:
    return Images(n_train=200, n_test=100, label_noise=0.2)
