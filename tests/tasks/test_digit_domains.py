"""Digits from several sources, turned and coloured: pixels by hand, shares of colours, and the
files' own images.
"""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unseen.engine.batches import whole
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.task import Use
from unseen.tasks import colored_digits, digit_sources, rotated_digits
from unseen.tasks.colored_digits import ColoredDigits, chance, colour_images
from unseen.tasks.digit_sources import DigitSources, Source, area, load_part, sample_rows
from unseen.tasks.images import Collection
from unseen.tasks.rotated_digits import RotatedDigits, rotate

DATA = os.environ.get("UNSEEN_DATA")
full = pytest.mark.skipif(
    not DATA or not (Path(DATA) / "mnist").is_dir(), reason="MNIST is not in UNSEEN_DATA"
)


def images(n=3, side=6, seed=0):
    return torch.rand(n, 1, side, side, generator=torch.Generator().manual_seed(seed))


def joined(task):
    """All examples of each domain, in the order of their splits."""
    parts = {}
    for split in task.splits.values():
        parts.setdefault(split.at, []).append(whole(split.data, Lab()))
    return {
        at: {key: torch.cat([part[key] for part in found]) for key in found[0]}
        for at, found in parts.items()
    }


# Size


@given(old=st.integers(1, 12), new=st.integers(1, 12), seed=st.integers(0, 99))
def test_resizing_keeps_the_mean_and_constants(old, new, seed):
    x = images(2, old, seed)
    torch.testing.assert_close(area(x, new).mean((1, 2, 3)), x.mean((1, 2, 3)))
    torch.testing.assert_close(area(torch.ones(1, 1, old, old), new), torch.ones(1, 1, new, new))


@given(side=st.integers(1, 6), blocks=st.integers(1, 4))
def test_resizing_by_whole_blocks_is_mean_pooling_and_back(side, blocks):
    x = images(2, side * blocks)
    torch.testing.assert_close(area(x, side), torch.nn.functional.avg_pool2d(x, blocks))
    small = images(2, side)
    torch.testing.assert_close(
        area(small, side * blocks), small.repeat_interleave(blocks, 2).repeat_interleave(blocks, 3)
    )


def test_a_pixel_between_two_is_weighted_by_what_is_covered():
    row = torch.tensor([1.0, 2.0, 4.0])
    x = row.expand(1, 1, 3, 3)
    expected = torch.tensor([(1 + 0.5 * 2) / 1.5, (0.5 * 2 + 4) / 1.5])
    torch.testing.assert_close(area(x, 2)[0, 0, 0], expected)


# Sources


def test_the_sources_are_the_files_and_no_image_is_used_twice():
    task = digit_sources.example().build(Lab())
    for k, (at, batch) in enumerate(joined(task).items()):
        held = load_part(Collection.OPTDIGITS, "train" if at == "optdigits" else "test")
        assert torch.equal(batch["x"], held.pixels(batch["index"]))
        assert torch.equal(batch["y"], held.labels[batch["index"]])
        assert len(batch["index"].unique()) == 200
        assert batch["domain"].unique().tolist() == [k]


@full
def test_three_sources_have_one_size_and_mnist_loses_its_frame():
    task = DigitSources(n=50).build(Lab())
    assert {tuple(split.data.columns["x"].shape[1:]) for split in task.splits.values()} == {
        (1, 8, 8)
    }
    batch = joined(task)["mnist"]
    held = load_part(Collection.MNIST, "train")
    pixels = held.pixels(batch["index"])
    torch.testing.assert_close(batch["x"].mean((1, 2, 3)), pixels[..., 4:24, 4:24].mean((1, 2, 3)))
    assert (
        0.9 < pixels[..., 4:24, 4:24].sum() / pixels.sum() < 1
    )  # digits are centred by mass: a little is cut off
    assert set(task.of(Use.TRAIN)) == {"train:mnist", "train:usps"}


def test_more_images_than_a_source_has_are_refused():
    with pytest.raises(InvalidConfig, match="no image is used twice"):
        replace(digit_sources.example(), n=1_798).build(Lab())
    with pytest.raises(InvalidConfig, match="name each source once"):
        DigitSources(sources=(Source.USPS, Source.USPS))
    held = load_part(Collection.OPTDIGITS, "test")
    rows = sample_rows(held, 100, Lab(), classes=(3, 7))
    assert set(held.labels[rows].tolist()) == {3, 7}
    assert torch.equal(rows[:40], sample_rows(held, 40, Lab(), classes=(3, 7)))


# Angles


@pytest.mark.parametrize("quarters", [0, 1, 2, 3, 4, -1])
def test_quarter_turns_are_counter_clockwise(quarters):
    x = images()
    torch.testing.assert_close(
        rotate(x, 90 * quarters), torch.rot90(x, quarters, (2, 3)), atol=1e-5, rtol=0
    )


def disc(side=17):
    """A smooth image that vanishes towards the corners: turning loses nothing."""
    r = torch.linspace(-1, 1, side)
    distance = (r[:, None] ** 2 + r**2).sqrt()
    return ((1 - distance).clamp_min(0) * (1 + r[:, None] + 0.5 * r))[None, None]


@given(angle=st.floats(-180, 180))
def test_turning_there_and_back_is_the_image_up_to_smoothing(angle):
    x = disc()
    assert (rotate(rotate(x, angle), -angle) - x).abs().max() < 0.08  # two bilinear interpolations


def test_an_angle_in_between_follows_the_rotation_matrix():
    x = torch.zeros(1, 1, 41, 41)
    x[0, 0, 20, 32] = 1.0  # twelve pixels to the right of the centre
    turned = rotate(x, 30.0)[0, 0]
    row, column = (
        (turned * torch.arange(41.0)[:, None]).sum() / turned.sum(),
        (turned * torch.arange(41.0)).sum() / turned.sum(),
    )
    assert column.item() == pytest.approx(20 + 12 * 3**0.5 / 2, abs=0.5)
    assert row.item() == pytest.approx(20 - 6, abs=0.5)  # up: rows count downwards


def test_each_domain_turns_digits_of_its_own():
    spec = rotated_digits.example()
    parts = joined(spec.build(Lab(1)))
    held = load_part(Collection.OPTDIGITS, "train")
    for angle in spec.angles:
        batch = parts[f"{angle:g}"]
        torch.testing.assert_close(batch["x"], rotate(held.pixels(batch["index"]), angle))
        assert torch.equal(batch["y"], held.labels[batch["index"]])
    rows = torch.cat([part["index"] for part in parts.values()])
    assert len(rows.unique()) == len(rows) == 600
    assert spec.domains() == ("0", "30", "60")


@full
def test_mnist_is_pooled_after_turning():
    batch = joined(RotatedDigits(angles=(0, 90), n=20).build(Lab()))["90"]
    pixels = load_part(Collection.MNIST, "train").pixels(batch["index"])
    torch.testing.assert_close(
        batch["x"], area(torch.rot90(pixels, 1, (2, 3)), 14), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("change", [{"angles": (0, 0)}, {"n": 2}, {"side": 0}])
def test_impossible_rotations_are_refused(change):
    with pytest.raises(InvalidConfig, match="RotatedDigits"):
        replace(rotated_digits.example(), **change)


# Colours


def test_a_digit_lies_in_the_channel_of_its_colour():
    x, colour = images(4), torch.tensor([0, 1, 1, 0])
    made = colour_images(x, colour)
    for k, channel in enumerate(colour.tolist()):
        assert torch.equal(made[k, channel], x[k, 0])
        assert not made[k, 1 - channel].any()


@given(n=st.integers(1, 200), p=st.floats(0, 1), q=st.floats(0, 1), seed=st.integers(0, 99))
def test_a_larger_probability_marks_a_superset(n, p, q, seed):
    small, large = sorted((p, q))
    assert not (chance(n, small, Lab(seed)) & ~chance(n, large, Lab(seed))).any()


@pytest.mark.parametrize("agreement", [0.9, 0.8, 0.1])
def test_colour_and_shape_predict_the_label_as_often_as_asked(agreement):
    spec = ColoredDigits(
        agreements=(agreement, 0.5), collection=Collection.OPTDIGITS, n=3_800, side=8
    )
    batch = joined(spec.build(Lab()))[f"{agreement:g}"]
    held = load_part(Collection.OPTDIGITS, "train")
    by_colour = (batch["colour"] == batch["y"]).double().mean().item()
    by_shape = ((held.labels[batch["index"]] >= 5) == batch["y"].bool()).double().mean().item()
    five = 5 * (0.25 / 1_900) ** 0.5  # five standard deviations of a proportion of 1,900
    assert by_colour == pytest.approx(agreement, abs=five)
    assert by_shape == pytest.approx(0.75, abs=five)
    assert torch.equal(batch["group"], 2 * batch["y"] + batch["colour"])
    assert torch.equal(batch["x"].sum(1, keepdim=True), held.pixels(batch["index"]))
    assert torch.equal(batch["x"].sum((2, 3)).argmax(1), batch["colour"])


def test_labels_of_a_domain_do_not_depend_on_the_others():
    one = replace(colored_digits.example(), agreements=(0.9, 0.8, 0.1))
    two = replace(colored_digits.example(), agreements=(0.9, 0.3, 0.1))
    left, right = joined(one.build(Lab()))["0.9"], joined(two.build(Lab()))["0.9"]
    assert all(torch.equal(left[key], right[key]) for key in left)


@pytest.mark.parametrize(
    "change",
    [{"agreements": (0.9, 0.9)}, {"agreements": (1.1, 0)}, {"label_noise": -0.1}, {"n": 1}],
)
def test_impossible_colours_are_refused(change):
    with pytest.raises(InvalidConfig, match="ColoredDigits"):
        replace(colored_digits.example(), **change)
