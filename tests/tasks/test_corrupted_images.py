"""Corruptions by hand, and one domain as the only source."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.lab import Lab
from unseen.task import Use
from unseen.tasks import corrupted_images, rotated_digits, single_source
from unseen.tasks.corrupted_images import CorruptedImages, Corruption, blur, corrupt
from unseen.tasks.rotated_digits import rotate
from unseen.tasks.single_source import SingleSource
from unseen.tasks.table_domains import heart_sites


def images(n=4, side=9):
    return torch.rand(n, 1, side, side, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("kind", Corruption)
def test_strength_zero_is_the_image_and_more_is_further_from_it(kind):
    x = images(50)
    assert torch.equal(corrupt(x, kind, 0.0, Lab()), x)
    some, more = ((corrupt(x, kind, s, Lab()) - x).square().mean() for s in (0.3, 0.9))
    assert 0 < some < more
    made = corrupt(x, kind, 0.9, Lab())
    assert made.shape == x.shape
    assert 0 <= made.min() < made.max() <= 1


def test_each_corruption_does_what_it_says():
    x = 0.4 + 0.2 * images(2_000, 5)  # far from 0 and 1, so that nothing is cut off
    noise = corrupt(x, Corruption.NOISE, 0.1, Lab()) - x
    assert noise.std().item() == pytest.approx(0.05, rel=0.02)
    assert abs(noise.mean().item()) < 5 * 0.05 / noise.numel() ** 0.5
    torch.testing.assert_close(corrupt(x, Corruption.BRIGHTNESS, 0.4, Lab()), x + 0.2)
    mean = x.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(
        corrupt(x, Corruption.CONTRAST, 0.5, Lab()), mean + 0.55 * (x - mean)
    )
    salted = corrupt(x, Corruption.SALT, 0.4, Lab())
    changed = salted != x
    assert set(salted[changed].tolist()) == {0.0, 1.0}
    assert changed.double().mean().item() == pytest.approx(0.2, abs=5 * (0.16 / x.numel()) ** 0.5)
    turned = corrupt(x, Corruption.ROTATION, 0.5, Lab())
    left = (turned == rotate(x, 30.0)).flatten(1).all(1)
    assert torch.equal(turned[~left], rotate(x, -30.0)[~left])
    assert 0.4 < left.double().mean() < 0.6


@pytest.mark.parametrize("deviation", [0.3, 0.9, 1.5])
def test_blur_is_scipy_s_gaussian_filter(deviation):
    x = images(2).double()
    reach = int(np.ceil(3 * deviation))
    expected = [
        ndimage.gaussian_filter(image[0].numpy(), deviation, mode="nearest", radius=reach)
        for image in x
    ]
    torch.testing.assert_close(blur(x, deviation)[:, 0], torch.from_numpy(np.stack(expected)))
    torch.testing.assert_close(blur(torch.ones(1, 1, 5, 5), deviation), torch.ones(1, 1, 5, 5))


def test_all_judged_splits_are_the_same_images():
    task = corrupted_images.example().build(Lab())
    clean = task.splits["clean"].data.columns
    assert set(task.unseen) == {kind.value for kind in Corruption}
    for name in task.unseen:
        batch = task.splits[name].data.columns
        assert torch.equal(batch["index"], clean["index"])
        assert torch.equal(batch["y"], clean["y"])
        assert torch.equal(
            batch["x"], corrupt(clean["x"], Corruption(name), 0.6, Lab().child(name))
        )
    fewer = replace(corrupted_images.example(), corruptions=(Corruption.SALT,)).build(Lab())
    assert torch.equal(
        fewer.splits["salt and pepper"].data.columns["x"],
        task.splits["salt and pepper"].data.columns["x"],
    )


def test_impossible_corruptions_are_refused():
    for change in ({"strength": 1.1}, {"n": 0}, {"side": 0}):
        with pytest.raises(InvalidConfig, match="CorruptedImages"):
            CorruptedImages(**change)


def test_one_source_has_the_rows_of_the_task_with_many():
    spec = rotated_digits.example()
    task = SingleSource(spec, "30").build(Lab(1))
    assert set(task.of(Use.TRAIN)) == {"train:30"}
    assert set(task.of(Use.SELECT)) == {"select:30"}
    assert set(task.unseen) == {"unseen:0", "oracle:0", "unseen:60", "oracle:60"}
    assert task.name == "rotated optdigits · from 30"
    many = replace(spec, held_out="60").build(Lab(1))
    for name, other in (("train:30", "train:30"), ("unseen:60", "unseen")):
        assert torch.equal(
            task.splits[name].data.columns["x"], many.splits[other].data.columns["x"]
        )
    assert set(SingleSource(spec).build(Lab()).of(Use.TRAIN)) == {"train:0"}


def test_sources_that_do_not_exist_and_tables_are_refused():
    with pytest.raises(UnknownName, match="domain"):
        replace(single_source.example(), source="nowhere").build(Lab())
    with pytest.raises(InvalidData, match="depend on which domain is left out"):
        SingleSource(heart_sites(), "Cleveland").build(Lab())
