"""Images and their labels from two folders: pairs by file name, labels as masks, classes, maps or
key points.
"""

import csv
import struct
import tokenize
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from unseen.engine.dense import check_labels
from unseen.errors import CorruptFile, InvalidConfig, InvalidData, MissingFile
from unseen.text import join_words

IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
UNKNOWN_CLASS = 255
"""Of a class label: the pixel is not labelled, as in Pascal VOC and Cityscapes."""
FEW = 32
"""Most classes."""
UNREADABLE = (
    UnidentifiedImageError,
    OSError,
    ValueError,
    EOFError,
    SyntaxError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    Image.DecompressionBombError,
)
"""What Pillow and NumPy raise at damaged files."""


class Kind(StrEnum):
    """What labels hold."""

    MASK = "mask"
    """Two values: outside and inside."""
    CLASSES = "classes"
    """A class index per pixel; every class is a channel."""
    MAP = "map"
    """Numbers in [0, 1]: grey images (divided by the largest value of 8 or 16 bits), or .npy files
    as they are.
    """
    POINTS = "points"
    """CSV files with the columns name, x and y in pixels; every name is a channel."""


@dataclass(frozen=True)
class Sample:
    """An image at the working size, with its label where there is one."""

    name: str
    image: Float[Tensor, "i 3 y x"]
    size: tuple[int, int]
    """Height and width of the file."""
    label: Float[Tensor, "c y x"] | None = None
    known: Bool[Tensor, "c y x"] | None = None
    points: Mapping[str, tuple[float, float]] | None = None
    """Row and column in pixels of the file."""

    @property
    def scale(self) -> float:
        """Pixels of the file per pixel of the working size."""
        return self.size[0] / self.image.shape[-2]


@dataclass(frozen=True)
class DenseData:
    """Labelled and unlabelled images of one task, in the order of their names."""

    kind: Kind
    channels: tuple[str, ...]
    labelled: Sequence[Sample]
    unlabelled: Sequence[Sample]

    @property
    def inputs(self) -> int:
        return len((*self.labelled, *self.unlabelled)[0].image)


def read_folders(
    images: Path,
    labels: Path,
    *,
    kind: Kind | None = None,
    side: int = 72,
    second: Path | None = None,
    unknown: str = "",
    sigma: float = 2.0,
) -> DenseData:
    """Images whose shorter side has at most `side` pixels, and labels of the same size.

    `unknown="nan"`: NaN in .npy labels are pixels that are not known.
    """
    pictures, marks = files_of(images, IMAGES), files_of(labels, (*IMAGES, ".npy", ".csv"))
    lone = sorted(marks.keys() - pictures.keys())
    if lone or not pictures or not marks:
        raise InvalidData(
            f"{join_words(lone[:5])}: a label without an image." if lone
            else f"{images} and {labels} hold {len(pictures)} images and {len(marks)} labels.",
            why="an image and its label have the same file name, without the suffix.",
            fix="rename or remove them; images end in " + ", ".join(IMAGES) + ".",
        )  # fmt: skip
    others = {} if second is None else files_of(second, IMAGES)
    kind = kind or guess_kind(list(marks.values()))
    raw = {name: read_label(path, kind) for name, path in marks.items()}
    channels = channels_of(raw, kind)
    samples = []
    for name, path in pictures.items():
        pair = [path] if second is None else [path, _second(others, name, second)]
        sample = read_sample(name, pair, side)
        if name in raw:
            sample = attach(sample, raw[name], kind, channels, unknown, sigma)
        samples.append(sample)
    found = DenseData(
        kind,
        channels,
        [one for one in samples if one.label is not None],
        [one for one in samples if one.label is None],
    )
    for one in found.labelled:
        assert one.label is not None
        assert one.known is not None
        check_labels(one.image[None, 0], one.label[None], one.known[None])
    return found


def files_of(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """Files of a folder by name without suffix, in the order of their names."""
    if not folder.is_dir():
        raise MissingFile(
            f"{folder} is no folder.",
            why="images and labels are read from two folders.",
            fix="unseen dense images/ labels/ --shots 10",
        )
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes)
    names = [path.stem for path in paths]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InvalidData(
            f"{folder} has several files called {twice[0]}.",
            why="pairs are found by file name without the suffix.",
            fix="keep one of them.",
        )
    return dict(zip(names, paths, strict=True))


def _second(others: Mapping[str, Path], name: str, folder: Path) -> Path:
    if name not in others:
        raise InvalidData(
            f"{folder} has no image {name}.",
            why="every image needs its second one (a stereo view, an exemplar mark).",
            fix="add it, or leave --second out.",
        )
    return others[name]


def open_image(path: Path) -> Image.Image:
    try:
        with Image.open(path) as file:
            file.load()
            return file.copy()
    except UNREADABLE as error:
        raise CorruptFile(
            f"{path} cannot be read as an image: {error}.",
            why="its pixels are needed.",
            fix="write it again, or remove it.",
        ) from error


def read_sample(name: str, paths: Sequence[Path], side: int) -> Sample:
    """The image, and the second one at the size of the first."""
    images = [to_rgb(open_image(path)) for path in paths]
    height, width = images[0].shape[-2:]
    if any(one.shape != images[0].shape for one in images):
        raise InvalidData(
            f"Both images of {name} have sizes {' and '.join(_size(one) for one in images)}.",
            why="they share a table of positions.",
            fix="resize one to the other.",
        )
    return Sample(name, torch.stack([shrink(one, side) for one in images]), (height, width))


def to_rgb(image: Image.Image) -> Float[Tensor, "3 y x"]:
    """Colours in [0, 1]; 16-bit grey images keep their digits."""
    pixels = np.asarray(image)
    if pixels.ndim == 2 and pixels.dtype != np.uint8:
        grey = pixels.astype(np.float32) / _largest(pixels)
        return torch.from_numpy(grey).expand(3, *grey.shape).clone()
    colours = np.asarray(image.convert("RGB"), dtype=np.float32) / 255
    return torch.from_numpy(colours).permute(2, 0, 1).contiguous()


def _largest(pixels: NDArray) -> float:
    """The largest value of the pixels' type: grey images of more than 8 bits have 16."""
    return 1.0 if pixels.dtype == np.bool_ else 65_535.0


def _size(image: Tensor) -> str:
    return f"{image.shape[-1]} × {image.shape[-2]}"


def shrink(maps: Float[Tensor, "c y x"], side: int) -> Float[Tensor, "c height width"]:
    """Averages over areas until the shorter side has `side` pixels; smaller maps stay."""
    height, width = maps.shape[-2:]
    factor = side / min(height, width)
    if factor >= 1:
        return maps
    size = (round(height * factor), round(width * factor))
    return F.interpolate(maps[None], size=size, mode="area")[0]


def guess_kind(paths: Sequence[Path]) -> Kind:
    """Points from CSV files, masks from images with two values, else maps."""
    suffixes = {path.suffix.lower() for path in paths}
    if suffixes == {".csv"}:
        return Kind.POINTS
    if ".csv" in suffixes:
        raise InvalidData(
            "Some labels are CSV files and some are images.",
            why="all images have the same kind of label.",
            fix="keep one kind.",
        )
    if suffixes == {".npy"}:
        return Kind.MAP
    values: set[int] = set()
    for path in paths:
        # as they are: converting to grey would replace a palette's indices by its colours
        pixels = np.asarray(open_image(path))
        if pixels.dtype.kind == "f":  # whole numbers would hide what lies between 0 and 1
            return Kind.MAP
        values |= {int(v) for v in np.unique(pixels)}
    if len(values) == 2 and 0 not in values:
        raise InvalidConfig(
            f"The labels hold {min(values)} and {max(values)}, and no 0.",
            why="0 is outside of a mask, everything else inside.",
            fix="write 0 outside, or give --kind classes.",
        )
    if len(values) <= 2:
        return Kind.MASK
    if max(values - {UNKNOWN_CLASS}, default=0) < FEW:
        raise InvalidConfig(
            f"The labels hold {len(values)} small whole numbers.",
            why="they may be classes, or a very dark map.",
            fix="say which: --kind classes or --kind map.",
        )
    return Kind.MAP


RawLabel = NDArray | Mapping[str, tuple[float, float]]


def read_label(path: Path, kind: Kind) -> RawLabel:
    """Numbers of a label file, or the points of a CSV file."""
    is_table = path.suffix.lower() == ".csv"
    if is_table != (kind is Kind.POINTS):
        raise InvalidData(
            f"{path} does not hold {kind}.",
            why="key points stand in CSV files, other labels in images or .npy files.",
            fix="leave --kind out, or write the labels in the other form.",
        )
    if is_table:
        return read_points(path)
    if path.suffix.lower() == ".npy":
        try:
            with open(path, "rb") as file:  # closed of damaged archives, too
                values = np.load(file, allow_pickle=False)
        except UNREADABLE as error:
            raise CorruptFile(
                f"{path} is no array of numbers: {error}.",
                why="a label is read from it.",
                fix="write it with numpy.save, without objects.",
            ) from error
        if not isinstance(values, np.ndarray):
            raise CorruptFile(
                f"{path} is an archive.",
                why="a label is one array.",
                fix="write it with numpy.save.",
            )
        if values.ndim not in (2, 3) or values.dtype.kind not in "fiub":
            raise InvalidData(
                f"{path} holds {values.dtype} of shape {values.shape}.",
                why="a map is [height, width] or [channel, height, width] of numbers.",
                fix="write it so.",
            )
        # numbers in [0, 1] as they are; only those of images are divided by the largest
        return values.astype(np.float32) if kind is Kind.MAP else values
    pixels = np.asarray(open_image(path))
    if pixels.ndim == 3:
        if (pixels[..., :3] != pixels[..., :1]).any():
            raise InvalidData(
                f"{path} is a coloured label.",
                why="colours do not say which channel means what.",
                fix="write class indices, a grey mask, or a .npy file [channel, height, width].",
            )
        pixels = pixels[..., 0]
    return pixels


def read_points(path: Path) -> dict[str, tuple[float, float]]:
    """Row and column by name."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        points = {row["name"]: (float(row["y"]), float(row["x"])) for row in rows}
    except (KeyError, ValueError, TypeError, UnicodeDecodeError) as error:
        raise InvalidData(
            f"{path} is no list of key points ({error}).",
            why="every line is a point.",
            fix="begin with the line name,x,y and write numbers; leave hidden points out.",
        ) from error
    if not np.isfinite(list(points.values())).all() or len(points) < len(rows):
        raise InvalidData(
            f"{path} has a point twice, or one that is NaN.",
            why="a point has one finite position.",
            fix="leave hidden points out.",
        )
    return points


def channels_of(raw: Mapping[str, RawLabel], kind: Kind) -> tuple[str, ...]:
    """Names of what is predicted: all points or classes that occur, or one channel."""
    if kind is Kind.POINTS:
        return tuple(sorted({name for points in raw.values() for name in points}))
    arrays = [label for label in raw.values() if isinstance(label, np.ndarray)]
    if kind is Kind.CLASSES:
        found = sorted({int(v) for one in arrays for v in np.unique(one)} - {UNKNOWN_CLASS})
        if not 2 <= len(found) <= FEW or found[0] < 0:
            raise InvalidData(
                f"The labels hold {len(found)} classes.",
                why=f"2 to {FEW} are predicted, each as a channel; {UNKNOWN_CLASS} is unknown.",
                fix="check --kind, or join rare classes.",
            )
        return tuple(f"class {value}" for value in found)
    counts = {one.shape[0] if one.ndim == 3 else 1 for one in arrays}
    if len(counts) > 1:
        raise InvalidData(
            f"Labels have {join_words([str(c) for c in sorted(counts)])} channels.",
            why="all images have the same kind of label.",
            fix="write the same number of channels into each.",
        )
    (count,) = counts
    return (str(kind),) if count == 1 else tuple(f"{kind} {k}" for k in range(count))


def attach(
    sample: Sample,
    raw: RawLabel,
    kind: Kind,
    channels: Sequence[str],
    unknown: str,
    sigma: float,
) -> Sample:
    """The sample with its label at the working size."""
    if not isinstance(raw, np.ndarray):
        label, known = heat_maps(sample, raw, channels, sigma)
        return replace(sample, label=label, known=known, points=dict(raw))
    if raw.shape[-2:] != sample.size:
        raise InvalidData(
            f"The image {sample.name} has {sample.size[1]} × {sample.size[0]} pixels, its label "
            f"{raw.shape[-1]} × {raw.shape[-2]}.",
            why="every pixel needs a label.",
            fix="resize the label to the image, classes without interpolation.",
        )
    full, known = label_channels(raw, kind, channels, unknown, sample.name)
    side = min(sample.image.shape[-2:])
    weights = shrink(known.float(), side)
    label = shrink(torch.where(known, full, torch.zeros_like(full)), side)
    label = label / weights.clamp_min(1e-6)  # the mean over the known pixels of an area
    if kind in (Kind.MASK, Kind.CLASSES):
        label = label.round()
    return replace(sample, label=label, known=weights > 0.5)


def label_channels(
    raw: NDArray, kind: Kind, channels: Sequence[str], unknown: str, name: str
) -> tuple[Tensor, Tensor]:
    """Channels with values in [0, 1], and where they hold."""
    if kind is Kind.CLASSES:
        values = [int(channel.rpartition(" ")[2]) for channel in channels]
        maps = np.stack([raw == value for value in values]).astype(np.float32)
        known = np.broadcast_to(raw != UNKNOWN_CLASS, maps.shape).copy()
        return torch.from_numpy(maps), torch.from_numpy(known)
    maps = raw.astype(np.float32)
    maps = maps[None] if maps.ndim == 2 else maps
    if kind is Kind.MASK:
        maps = (maps > 0).astype(np.float32)
    elif raw.dtype == np.uint8:
        maps = maps / np.float32(255)
    elif raw.dtype.kind in "iu":
        maps = maps / np.float32(65_535)
    known = np.isfinite(maps)
    if not known.all() and unknown != "nan":
        raise InvalidData(
            f"The label of {name} holds {int((~known).sum())} values that are NaN or infinite.",
            why="a pixel without a label is left out only where that is asked for.",
            fix="give --unknown nan, or write a number.",
        )
    inside = maps[known]
    if len(inside) and (inside.min() < 0 or inside.max() > 1):
        raise InvalidData(
            f"The label of {name} runs from {inside.min():.4g} to {inside.max():.4g}.",
            why="labels are read as values in [0, 1].",
            fix="divide by the largest possible value, the same for all images.",
        )
    return torch.from_numpy(maps), torch.from_numpy(known)


def heat_maps(
    sample: Sample, points: Mapping[str, tuple[float, float]], channels: Sequence[str], sigma: float
) -> tuple[Tensor, Tensor]:
    """A Gaussian around every point; the channel of a hidden point is not known."""
    height, width = sample.image.shape[-2:]
    label = torch.zeros(len(channels), height, width)
    known = torch.zeros(len(channels), height, width, dtype=torch.bool)
    for channel, name in enumerate(channels):
        if name not in points:
            continue
        row, column = points[name]
        if not (0 <= row <= sample.size[0] - 1 and 0 <= column <= sample.size[1] - 1):
            raise InvalidData(
                f"The point {name} of {sample.name} lies outside the image.",
                why=f"it is at x = {column:g}, y = {row:g} of {sample.size[1]} × {sample.size[0]}.",
                fix="correct it, or leave it out.",
            )
        dy = torch.arange(height)[:, None] - ((row + 0.5) / sample.scale - 0.5)
        dx = torch.arange(width) - ((column + 0.5) / sample.scale - 0.5)
        label[channel] = torch.exp(-(dy.square() + dx.square()) / (2 * sigma**2))
        known[channel] = True
    return label, known
