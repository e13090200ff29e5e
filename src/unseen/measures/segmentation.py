"""Errors of dense predictions: overlap of masks, errors of maps, angles of normals, key points.

Every value is one per image; an interval is over images. A prediction that is mostly empty can have
a small RMSE: compare it with the constant.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from unseen import stats
from unseen.engine.batches import Columns
from unseen.engine.dense import dense, known_pixels, rmse
from unseen.engine.evaluate import per_example
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.reading import Reading
from unseen.task import Axis, Batch, Split, Task, Use

ImageError = Callable[[Tensor, Batch], Float[Tensor, " n"]]


def iou(
    maps: Float[Tensor, "n c y x"],
    labels: Float[Tensor, "n c y x"],
    known: Bool[Tensor, "n c y x"] | None = None,
    threshold: float = 0.5,
) -> Float[Tensor, " n"]:
    """|A ∩ B| / |A ∪ B| of predicted and labelled masks, averaged over channels; two empty masks
    agree: 1.
    """
    mask, truth = maps > threshold, labels > 0.5
    if known is not None:
        mask, truth = mask & known, truth & known
    both = (mask & truth).sum((-2, -1)).to(maps)
    either = (mask | truth).sum((-2, -1)).to(maps)
    return torch.where(either > 0, both / either.clamp_min(1), torch.ones_like(both)).mean(1)


def angular_error(
    maps: Float[Tensor, "n 3 y x"],
    labels: Float[Tensor, "n 3 y x"],
    known: Bool[Tensor, "n c y x"] | None = None,
) -> Float[Tensor, " n"]:
    """Mean angle in degrees between predicted and labelled normals, (component + 1) / 2 each.

    0 for equal directions, 180 for opposite ones. Pixels without a direction are left out.
    """
    one, other = 2 * maps - 1, 2 * labels - 1
    lengths = one.norm(dim=1) * other.norm(dim=1)
    # the angle from tangent and not from cosine, which has no digits near 0 and 180
    cross = torch.linalg.cross(one, other, dim=1).norm(dim=1)
    angles = torch.rad2deg(torch.atan2(cross, (one * other).sum(1)))
    counted = lengths > 1e-6
    if known is not None:
        counted &= known.all(1)
    total = counted.flatten(1).sum(1)
    if (total == 0).any():
        raise InvalidData(
            "An image has no pixel with a normal.",
            why="an angle between directions of length 0 does not exist.",
            fix="leave the image out, or check that ½ stands for 0 in its channels.",
        )
    return torch.where(counted, angles, torch.zeros_like(angles)).flatten(1).sum(1) / total


def peak(maps: Float[Tensor, "n c y x"]) -> Float[Tensor, "n c 2"]:
    """Row and column of the highest pixel, moved to the centre of mass of the nine around it."""
    height, width = maps.shape[-2:]
    best = maps.flatten(2).argmax(2)
    row, column = best // width, best % width
    shifts = torch.arange(-1, 2)
    rows = (row[..., None] + shifts).clamp(0, height - 1)
    columns = (column[..., None] + shifts).clamp(0, width - 1)
    flat = rows[..., :, None] * width + columns[..., None, :]
    weights = maps.flatten(2).gather(2, flat.flatten(2)).clamp_min(1e-12).unflatten(2, (3, 3))
    weights = weights / weights.sum((-2, -1), keepdim=True)
    return torch.stack([(weights.sum(-1) * rows).sum(-1), (weights.sum(-2) * columns).sum(-1)], -1)


def keypoint_error(
    maps: Float[Tensor, "n c y x"], labels: Float[Tensor, "n c y x"]
) -> Float[Tensor, " n"]:
    """Mean distance in pixels between the peaks of predicted and labelled heat maps; channels whose
    label is empty are left out.
    """
    there = labels.flatten(2).amax(2) > 0
    if not there.any(1).all():
        raise InvalidData(
            "An image has no labelled key point.",
            why="there is nothing to be distant from.",
            fix="leave the image out.",
        )
    distance = (peak(maps) - peak(labels)).norm(dim=-1)
    return torch.where(there, distance, torch.zeros_like(distance)).sum(1) / there.sum(1)


def _over_images(
    subject: Trained, split: str, batch_size: int, error: ImageError, unit: str, lab: Lab
) -> Reading:
    """Mean of an error over the images of a split."""

    def of_batch(model: nn.Module, batch: Batch) -> Tensor:
        return error(model(batch["x"]).sigmoid(), batch)

    data = subject.task.split(split).data
    values = per_example(subject.model, data, of_batch, lab, batch_size)
    if not torch.isfinite(values).all():
        raise InvalidData(
            f"{int((~torch.isfinite(values)).sum())} images of `{split}` have no error.",
            why="a pixel of the prediction, of the image or of its label is NaN or infinite.",
            fix="check the model's weights and the data.",
        )
    return stats.mean(values.double().numpy(), unit=unit)


@dataclass(frozen=True)
class IoU:
    """Mean intersection over union of the masks above ½."""

    split: str = "test"
    batch_size: int = 64

    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        def error(maps: Tensor, batch: Batch) -> Tensor:
            return iou(maps, batch["y"], known_pixels(batch))

        return _over_images(subject, self.split, self.batch_size, error, "fraction", lab)


@dataclass(frozen=True)
class RMSE:
    """Mean over images of the root of the mean squared error of their known pixels."""

    split: str = "test"
    batch_size: int = 64

    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        def error(maps: Tensor, batch: Batch) -> Tensor:
            return rmse(maps, batch["y"], known_pixels(batch))

        return _over_images(subject, self.split, self.batch_size, error, "of the range", lab)


@dataclass(frozen=True)
class AngularError:
    """Mean angle between normals, in degrees."""

    split: str = "test"
    batch_size: int = 64

    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        def error(maps: Tensor, batch: Batch) -> Tensor:
            return angular_error(maps, batch["y"], known_pixels(batch))

        return _over_images(subject, self.split, self.batch_size, error, "degrees", lab)


@dataclass(frozen=True)
class KeypointError:
    """Mean distance of the peaks of heat maps, in pixels."""

    split: str = "test"
    batch_size: int = 64

    def __call__(self, subject: Trained, lab: Lab) -> Reading:
        def error(maps: Tensor, batch: Batch) -> Tensor:
            return keypoint_error(maps, batch["y"])

        return _over_images(subject, self.split, self.batch_size, error, "pixels", lab)


def example() -> tuple[RMSE, Trained]:
    """A small network on random images whose label is their first channel."""
    images = torch.rand(12, 3, 8, 8, generator=Lab().child("images").generator())
    data = Columns(x=images, y=images[:, :1])
    splits = {
        "train": Split(data.subset(slice(8)), Use.TRAIN, "a"),
        "test": Split(data.subset(slice(8, 12)), Use.EVALUATE, "b"),
    }
    task = Task(name="copies", axis=Axis.TASK, splits=splits, objective=dense)
    with Lab().child("model").seeded():
        model = nn.Conv2d(3, 1, 1)
    return RMSE(), Trained(model, task)
