"""Two cues, slabs, dominoes, patches: closed forms, realised shares, and what must not change with
a knob.
"""

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.task import Use
from unseen.tasks import domino_halves, dominoes, patch_digits, slabs, spurious_gaussians
from unseen.tasks.digit_sources import area, load_part
from unseen.tasks.domino_halves import Half
from unseen.tasks.dominoes import Dominoes, disagreeing, stack_images
from unseen.tasks.images import Collection
from unseen.tasks.patch_digits import RING, Palette, PatchDigits, Visible, corners, paint, palette
from unseen.tasks.slabs import RINGS, Slabs, coordinate, lms, ms57, width
from unseen.tasks.spurious_gaussians import LinearCues

DATA = os.environ.get("UNSEEN_DATA")
full = pytest.mark.skipif(
    not DATA or not (Path(DATA) / "mnist").is_dir(), reason="MNIST is not in UNSEEN_DATA"
)


def columns(task, split):
    return task.splits[split].data.columns


def share(mask):
    return mask.double().mean().item()


def five(p, n):
    """Five standard deviations of a proportion."""
    return 5 * (p * (1 - p) / n) ** 0.5 + 1e-12


# Linear cues


@pytest.mark.parametrize(
    "weights", [(1.0, 0.0), (0.0, 1.0), (1.0, 2.0), (1.0, 2.0, 1.5), (-1.0, 0.5)]
)
@pytest.mark.parametrize("agreement", [0.95, 0.1])
def test_accuracy_of_a_linear_rule_is_the_closed_form(weights, agreement):
    spec = LinearCues(agreements=(agreement, 0.5), noise_dims=1, n=20_000)
    task = spec.build(Lab())
    parts = [split.data.columns for split in task.splits.values() if split.at == f"{agreement:g}"]
    x, y = (torch.cat([part[key] for part in parts]) for key in ("x", "y"))
    rule = torch.tensor([*weights, 0.0][:3])
    expected = spec.accuracy(weights, agreement)
    assert share((x @ rule > 0) == y.bool()) == pytest.approx(expected, abs=five(expected, 20_000))


def test_the_core_rule_alone_is_as_good_everywhere_and_the_spurious_one_is_not():
    spec = LinearCues()
    assert (
        spec.accuracy((1, 0), 0.95)
        == spec.accuracy((1, 0), 0.1)
        == pytest.approx(0.8413447, abs=1e-6)
    )  # Φ(1)
    assert spec.accuracy((0, 1), 0.1) < 0.2 < 0.9 < spec.accuracy((0, 1), 0.95)
    assert spec.accuracy((3, 4), 0.7) == pytest.approx(spec.accuracy((30, 40), 0.7))


def test_groups_are_label_and_cue():
    batch = columns(spurious_gaussians.example().build(Lab()), "train:0.95")
    assert torch.equal(batch["group"], 2 * batch["y"] + batch["cue"])
    assert set(batch["cue"].tolist()) == {0, 1}


def test_impossible_cues_are_refused():
    for change in (
        {"agreements": (0.5, 0.5)},
        {"agreements": (1.5, 0.5)},
        {"n": 0},
        {"noise_dims": -1},
    ):
        with pytest.raises(InvalidConfig, match="LinearCues"):
            replace(spurious_gaussians.example(), **change)
    with pytest.raises(InvalidConfig, match="decides nothing"):
        LinearCues().accuracy((0, 0), 0.5)


# Slabs


def clean(n):
    return torch.zeros(n, dtype=torch.bool)


def ring_of(x, k, margin):
    """Which ring a value lies in, by the known thresholds between slabs; the gap of each boundary
    is 2 margins.
    """
    w = width(k, margin)
    edges = torch.tensor([(r + 0.5) * w + (2 * r + 1) * margin for r in range((k - 1) // 2)])
    return torch.searchsorted(edges, x.abs().contiguous())


@pytest.mark.parametrize("k", sorted(RINGS))
@pytest.mark.parametrize("margin", [0.1, 0.02])
def test_every_slab_coordinate_tells_the_class_by_its_thresholds(k, margin):
    generator = torch.Generator().manual_seed(1)
    y = torch.randint(2, (20_000,), generator=generator)
    x = coordinate(k, y, margin, clean(len(y)), generator)
    ring = ring_of(x, k, margin)
    assert torch.equal(ring % 2, y)
    assert x.abs().max() <= 1 + 1e-6
    for label in (0, 1):
        mine = ring[y == label]
        for r, p in enumerate(RINGS[k][label]):
            assert share(mine == r) == pytest.approx(p, abs=five(p, len(mine)))
    correlation = torch.corrcoef(torch.stack([x, y.float()]))[0, 1].item()
    assert abs(correlation) < 5 / len(y) ** 0.5  # no linear rule helps


@pytest.mark.parametrize("k", sorted(RINGS))
def test_neighbouring_slabs_are_two_margins_apart(k):
    generator, margin = torch.Generator().manual_seed(0), 0.07
    y = torch.randint(2, (60_000,), generator=generator)
    x = coordinate(k, y, margin, clean(len(y)), generator).sort().values
    gaps = x.diff().sort(descending=True).values[: k - 1]
    torch.testing.assert_close(
        gaps, torch.full((k - 1,), 2 * margin), atol=3e-3, rtol=0
    )  # of 60,000 draws


def test_the_noisy_linear_coordinate_allows_half_the_noise_in_errors():
    generator = torch.Generator().manual_seed(2)
    y = torch.randint(2, (40_000,), generator=generator)
    noisy = torch.rand(len(y), generator=generator) < 0.2
    x = coordinate(1, y, 0.1, noisy, generator)
    assert share((x > 0) == y.bool()) == pytest.approx(0.9, abs=five(0.9, len(y)))
    assert x[noisy].abs().max() <= 0.1 <= x[~noisy].abs().min()


def test_coordinates_are_exchanged_together_and_only_where_they_should_be():
    spec = replace(slabs.example(), rotate=False)
    task = spec.build(Lab(3))
    found = {
        name: columns(task, name)["x"]
        for name in ("test", "simple randomised", "complex randomised")
    }
    for name, moved, kept in (
        ("simple randomised", slice(0, 1), slice(1, 5)),
        ("complex randomised", slice(1, 5), slice(0, 1)),
    ):
        mine, test = found[name], found["test"]
        assert torch.equal(mine[:, kept], test[:, kept])
        assert share((mine[:, moved] != test[:, moved]).any(1)) > 0.9
        assert sorted(mine[:, moved].tolist()) == sorted(
            test[:, moved].tolist()
        )  # whole rows changed places
    y = columns(task, "test")["y"].bool()
    assert share((found["test"][:, 0] > 0) == y) == 1
    assert share((found["simple randomised"][:, 0] > 0) == y) == pytest.approx(
        0.5, abs=five(0.5, 300)
    )


def test_without_rotation_the_data_are_the_coordinates():
    spec = replace(slabs.example(), rotate=False)
    turned, plain = slabs.example().build(Lab()), spec.build(Lab())
    torch.testing.assert_close(
        columns(turned, "train")["x"],
        columns(plain, "train")["x"] @ slabs.example().rotation(Lab()),
    )
    assert torch.equal(spec.rotation(Lab()), torch.eye(5))
    turn = slabs.example().rotation(Lab())
    torch.testing.assert_close(turn @ turn.T, torch.eye(5), atol=1e-5, rtol=0)


def test_named_families():
    assert lms(7, d=4).blocks == (1, 7, 7, 7)
    assert ms57(d=3).blocks == (5, 7, 7)
    assert lms(5).simple == (0,)
    assert ms57().title == "5×1, 7×19"
    assert Slabs(blocks=(7, 7)).simple == (0, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"blocks": (1, 4)},
        {"blocks": ()},
        {"margin": 0.25},
        {"margin": 0.0},
        {"noise": 1.1},
        {"n_test": 0},
    ],
)
def test_impossible_slabs_are_refused(change):
    with pytest.raises(InvalidConfig, match="Slabs"):
        replace(lms(5), **change)


def test_noise_without_a_linear_coordinate_is_refused():
    with pytest.raises(InvalidConfig, match="no linear coordinate"):
        replace(ms57(), noise=0.1)


# Dominoes


def test_halves_are_the_files_images_and_shares_are_exact():
    spec = dominoes.example()
    task = spec.build(Lab())
    upper, lower = (
        load_part(Collection.OPTDIGITS, "train"),
        load_part(Collection.FASHION_MNIST_SMALL, "train"),
    )
    batch = columns(task, "train")
    torch.testing.assert_close(batch["x"][:, :, 8:], area(lower.pixels(batch["index"]), 8))
    assert torch.equal(batch["y"], (lower.labels[batch["index"]] == 3).long())
    zeros_and_ones = upper.pixels(
        torch.isin(upper.labels, torch.tensor([0, 1])).nonzero().flatten()
    )
    nearest = torch.cdist(batch["x"][:, :, :8].flatten(1), zeros_and_ones.flatten(1)).min(1)
    assert nearest.values.max() < 1e-3
    labels = upper.labels[torch.isin(upper.labels, torch.tensor([0, 1]))][nearest.indices]
    assert torch.equal(labels, batch["cue"])
    assert torch.equal(batch["group"], 2 * batch["y"] + batch["cue"])
    assert spec.agreements(Lab()) == {
        "train": 1,
        "select": 1,
        "unlabelled": 0.5,
        "same": 1,
        "test": 0.5,
    }


def test_no_image_is_used_twice():
    drawn = dominoes.example().sample(Lab())
    for part in (("train", "select", "unlabelled"), ("same", "test")):
        for half in (slice(0, 8), slice(8, 16)):
            seen = Counter(
                image.numpy().tobytes()
                for name in part
                for image in drawn[name].columns["x"][:, :, half]
            )
            assert max(seen.values()) == 1


def test_unlabelled_pairs_hold_no_label_and_leave_the_labelled_ones_as_they_are():
    tasks = [
        replace(dominoes.example(), unlabelled_agreement=r).build(Lab()) for r in (0.0, 0.25, 1.0)
    ]
    for task in tasks:
        assert set(columns(task, "unlabelled")) == {"x", "index"}
        assert task.splits["unlabelled"].use is Use.ADAPT
        for name in ("train", "select", "same", "test"):
            assert all(
                torch.equal(columns(task, name)[k], v) for k, v in columns(tasks[0], name).items()
            )
    realised = [
        replace(dominoes.example(), unlabelled_agreement=r).agreements(Lab())["unlabelled"]
        for r in (0, 0.25, 1)
    ]
    assert realised == [0, 0.25, 1]


@given(n=st.integers(1, 80), p=st.floats(0, 1), q=st.floats(0, 1), seed=st.integers(0, 99))
def test_disagreement_is_exact_nested_and_even_over_classes(n, p, q, seed):
    y = torch.arange(n) % 2
    low, high = (disagreeing(y, agreement, Lab(seed)) for agreement in sorted((p, q)))
    assert not (high.bool() & ~low.bool()).any()
    assert int(low.sum()) == round((1 - min(p, q)) * n)
    assert abs(int(low[y == 0].sum()) - int(low[y == 1].sum())) <= 1


def test_a_grey_half_gets_the_channels_of_a_coloured_one():
    made = stack_images(torch.ones(2, 1, 3, 3), torch.zeros(2, 3, 3, 3))
    assert made.shape == (2, 3, 6, 3)
    assert made[:, :, :3].min() == 1
    assert made[:, :, 3:].max() == 0


@pytest.mark.parametrize(
    "change",
    [
        {"unlabelled_agreement": 1.5},
        {"agreement": -0.1},
        {"n_unlabelled": 0},
        {"top_classes": (1, 1)},
    ],
)
def test_impossible_dominoes_are_refused(change):
    with pytest.raises(InvalidConfig, match="Dominoes"):
        replace(dominoes.example(), **change)
    with pytest.raises(InvalidConfig, match="no image is used twice"):
        replace(dominoes.example(), n=4_000).build(Lab())


@full
def test_mnist_over_fashion_has_its_default_sizes():
    task = Dominoes().build(Lab())
    assert {name: len(split.data) for name, split in task.splits.items()} == {
        **{"train": 4_000, "unlabelled": 2_000, "select": 1_000, "same": 500, "test": 1_400}
    }
    assert columns(task, "test")["x"].shape[1:] == (1, 28, 14)
    assert torch.bincount(columns(task, "test")["group"], minlength=4).tolist() == [350] * 4


# Patches


def test_pixels_of_digit_and_patches():
    spec = patch_digits.example()
    batch = columns(spec.build(Lab()), "train")
    held, cells = (
        load_part(Collection.OPTDIGITS, "train"),
        palette(32, Palette.OWN, Lab().child("palette")),
    )
    digits = area(held.pixels(batch["index"]), 14)
    assert torch.equal(batch["x"][:, :, 3:17, 3:17], digits.expand(-1, 3, -1, -1))
    for n, k in ((0, 0), (7, 13), (199, 31)):
        row, column = corners(32)[k]
        patch = batch["x"][n, :, row : row + 2, column : column + 2]
        assert torch.equal(patch, cells[k, batch["colours"][n, k]][:, None, None].expand(3, 2, 2))
    assert torch.equal(
        batch["colours"], batch["y"][:, None].expand(-1, 32)
    )  # all agree where it is fitted


def test_patches_lie_on_the_border_and_do_not_overlap():
    cells = {(r + a, c + b) for r, c in corners(RING) for a in (0, 1) for b in (0, 1)}
    assert len(cells) == 4 * RING == 144
    assert all(r in (0, 1, 18, 19) or c in (0, 1, 18, 19) for r, c in cells)
    assert torch.equal(
        paint(
            torch.ones(1, 1, 14, 14), torch.zeros(1, 0, dtype=torch.int64), torch.ones(0, 10, 3)
        ).sum(),
        torch.tensor(3.0 * 196),
    )


@pytest.mark.parametrize("shift", [0.0, 0.3, 0.9, 1.0])
def test_a_patch_is_right_as_often_as_the_shift_allows(shift):
    task = replace(patch_digits.example(), shifts=(shift,), n_test=1_500).build(Lab())
    batch = columns(task, f"shift {shift:g}")
    right = 1 - shift + shift / 10
    agree = batch["colours"] == batch["y"][:, None]
    assert share(agree) == pytest.approx(right, abs=five(right, agree.numel()))


def test_a_larger_shift_redraws_more_patches_of_the_same_digits():
    task = replace(patch_digits.example(), shifts=(0.2, 0.6)).build(Lab())
    small, large = columns(task, "shift 0.2"), columns(task, "shift 0.6")
    assert torch.equal(small["index"], large["index"])
    assert torch.equal(small["index"], columns(task, "same")["index"])


def test_only_active_patches_tell_the_label():
    spec = replace(patch_digits.example(), active=(0, 1, 2), evaluated=(3,), shifts=(0.0,), n=1_000)
    task = spec.build(Lab())
    fitted, judged = columns(task, "train"), columns(task, "shift 0")
    agree = (fitted["colours"] == fitted["y"][:, None]).double().mean(0)
    assert (agree[:3] == 1).all()
    assert agree[3:].max() < 0.1 + five(0.1, 1_000)
    agree = (judged["colours"] == judged["y"][:, None]).double().mean(0)
    assert agree[3] == 1
    assert agree[4:].max() < 0.5


def test_another_task_of_the_same_lab_has_other_digits_and_the_same_colours():
    before = replace(patch_digits.example(), visible=Visible.TOP, n=100)
    after = replace(patch_digits.example(), skip=150, n=100)
    first, second = (columns(spec.build(Lab()), "train") for spec in (before, after))
    assert not set(first["index"].tolist()) & set(second["index"].tolist())
    assert not first["x"][:, :, 10:17, 3:17].any()
    assert first["x"][:, :, 3:10, 3:17].any()
    assert not columns(replace(before, visible=Visible.NOTHING).build(Lab()), "train")["x"][
        :, :, 3:17, 3:17
    ].any()
    for label in range(10):
        one, other = (batch["x"][batch["y"] == label][0, :, 0, 0] for batch in (first, second))
        assert torch.equal(one, other)


def test_a_shared_palette_is_one_for_all_patches():
    shared, own = (palette(5, kind, Lab()) for kind in (Palette.SHARED, Palette.OWN))
    assert torch.equal(shared[0], shared[4])
    assert not torch.equal(own[0], own[4])


@pytest.mark.parametrize(
    "change",
    [
        {"n_patches": 37},
        {"shifts": (1.2,)},
        {"shifts": (0.5, 0.5)},
        {"active": (40,)},
        {"skip": -1},
        {"n_test": 0},
    ],
)
def test_impossible_patches_are_refused(change):
    with pytest.raises(InvalidConfig, match="PatchDigits"):
        PatchDigits(**change)


# Halves of dominoes


def test_one_half_tells_the_label_and_the_other_is_independent():
    spec = replace(domino_halves.example(), n=1_000)
    for half, where in ((Half.UPPER, slice(0, 8)), (Half.LOWER, slice(8, 16))):
        batch = columns(replace(spec, half=half).build(Lab()), "train")
        held = load_part(spec.top if half is Half.UPPER else spec.bottom, "train")
        assert torch.equal(batch["y"], held.labels[batch["index"]])
        torch.testing.assert_close(
            batch["x"][:, :, where], area(held.pixels(batch["index"]), 8), atol=1e-6, rtol=0
        )
        assert len(set(batch["index"].tolist())) == 1_000
    upper, lower = (columns(replace(spec, half=half).build(Lab()), "train") for half in Half)
    assert torch.equal(upper["x"], lower["x"])  # the same pairs, asked about one half or the other
    assert share(upper["y"] == lower["y"]) == pytest.approx(0.1, abs=five(0.1, 1_000))


def test_an_empty_domino_half_is_refused():
    with pytest.raises(InvalidConfig, match="n=0"):
        replace(domino_halves.example(), n=0)
