"""Errors of dense predictions against sets, angles and distances."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from unseen.engine.batches import Columns
from unseen.engine.dense import dense
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.measures.segmentation import (
    RMSE,
    AngularError,
    IoU,
    KeypointError,
    angular_error,
    iou,
    keypoint_error,
    peak,
)
from unseen.method import Trained
from unseen.task import Axis, Split, Task, Use


def uniform(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*size, generator=torch.Generator().manual_seed(seed))


def as_set(mask: torch.Tensor) -> set[tuple[int, ...]]:
    return {tuple(at) for at in mask.nonzero().tolist()}


def test_iou_is_a_quotient_of_sets():
    maps, labels = uniform(5, 2, 6, 6), uniform(5, 2, 6, 6, seed=1).round()
    found = iou(maps, labels)
    for n in range(5):
        pairs = [(as_set(maps[n, c] > 0.5), as_set(labels[n, c] > 0.5)) for c in range(2)]
        assert float(found[n]) == pytest.approx(sum(len(a & b) / len(a | b) for a, b in pairs) / 2)


def test_two_empty_masks_agree_and_one_empty_mask_does_not():
    empty, full = torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)
    assert iou(empty, empty) == 1
    assert iou(empty, full) == 0 == iou(full, empty)
    half = torch.arange(4).expand(1, 1, 4, 4) < 2
    assert iou(full, full * half, half) == 1  # what is not known does not count


def test_angles_of_equal_and_opposite_and_right_normals():
    x = torch.tensor([1.0, 0.5, 0.5]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    y = torch.tensor([0.5, 1.0, 0.5]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    assert float(angular_error(x, x)) == 0
    assert float(angular_error(x, 1 - x)) == pytest.approx(180)
    assert float(angular_error(x, y)) == pytest.approx(90)
    with pytest.raises(InvalidData, match="no pixel with a normal"):
        angular_error(x, torch.full_like(x, 0.5))


def test_angles_do_not_depend_on_lengths():
    one, other = uniform(2, 3, 5, 5), uniform(2, 3, 5, 5, seed=1)
    shorter = 0.5 + (one - 0.5) / 3
    assert_close(angular_error(shorter, other), angular_error(one, other))


def bumps(points: torch.Tensor, side: int = 20) -> torch.Tensor:
    grid = torch.arange(side).float()
    dy, dx = grid[:, None] - points[..., 0, None, None], grid - points[..., 1, None, None]
    return torch.exp(-(dy.square() + dx.square()) / 8)


def test_peaks_are_found_below_a_pixel():
    points = 3 + 14 * uniform(6, 2, 2)
    assert (peak(bumps(points)) - points).abs().max() < 0.5
    other = points + torch.tensor([3.0, 4.0])
    error = keypoint_error(bumps(points - 3, 40), bumps(other - 3, 40))
    assert_close(error, torch.full((6,), 5.0), atol=0.5, rtol=0)


def test_points_without_a_label_are_left_out():
    maps, labels = (
        bumps(torch.tensor([[[5.0, 5], [9, 9]]])),
        bumps(torch.tensor([[[5.0, 5], [2, 2]]])),
    )
    labels[:, 1] = 0
    assert float(keypoint_error(maps, labels)) == 0
    with pytest.raises(InvalidData, match="key point"):
        keypoint_error(maps, torch.zeros_like(labels))


def subject(y: torch.Tensor, model: nn.Module) -> Trained:
    x = uniform(len(y), 3, *y.shape[-2:])
    splits = {
        "train": Split(Columns(x=x, y=y), Use.TRAIN, "a"),
        "test": Split(Columns(x=x, y=y), Use.EVALUATE, "b"),
    }
    return Trained(model, Task(name="maps", axis=Axis.TASK, splits=splits, objective=dense))


class Answer(nn.Module):
    def __init__(self, maps: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("maps", maps.logit(1e-6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.maps[: len(x)]


def test_measures_are_means_over_images_with_an_interval():
    y = torch.stack([torch.full((1, 8, 8), v) for v in (0.2, 0.4, 0.9)])
    reading = RMSE()(subject(y, Answer(torch.full_like(y, 0.5))), Lab())
    assert reading.value == pytest.approx((0.3 + 0.1 + 0.4) / 3)
    assert reading.low < reading.value < reading.high
    assert reading.n == 3
    assert IoU()(subject(y.round(), Answer(y.round())), Lab()).value == 1
    points = bumps(5 + 9 * uniform(3, 2, 2))
    assert KeypointError()(subject(points, Answer(points)), Lab()).value == pytest.approx(
        0, abs=1e-3
    )
    normals = uniform(3, 3, 8, 8, seed=2)
    assert AngularError()(subject(normals, Answer(normals)), Lab()).value == pytest.approx(
        0, abs=0.01
    )


def test_predictions_that_are_no_numbers_are_refused():
    y = uniform(3, 1, 8, 8)
    with pytest.raises(InvalidData):
        RMSE()(subject(y, Answer(y * float("nan"))), Lab())
