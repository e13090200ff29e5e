"""Losses over known pixels, tiles that cover, and labels that cannot be learned from."""

import pytest
import torch
from torch.testing import assert_close

from unseen.engine.dense import (
    UNet,
    check_labels,
    cut_tiles,
    dense,
    join_tiles,
    label_filter,
    mirror,
    pixel_loss,
    tile_starts,
)
from unseen.errors import InvalidData


def uniform(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*size, generator=torch.Generator().manual_seed(seed))


def test_the_loss_is_the_mean_over_known_pixels_whatever_the_others_hold():
    logits, labels = 3 * uniform(4, 2, 5, 6) - 1, uniform(4, 2, 5, 6, seed=1)
    known = uniform(4, 2, 5, 6, seed=2) < 0.6
    p = logits.sigmoid()
    losses = -(labels * p.log() + (1 - labels) * (1 - p).log())
    expected = torch.stack([one[k].mean() for one, k in zip(losses, known, strict=True)])
    assert_close(pixel_loss(logits, labels, known), expected)
    other = torch.where(known, labels, torch.full_like(labels, float("nan")))
    assert_close(pixel_loss(logits, other, known), expected)


def test_the_objective_scores_the_negative_rmse():
    class Half(torch.nn.Module):
        def forward(self, x):
            return torch.zeros(len(x), 1, 4, 4)

    batch = {"x": uniform(3, 3, 4, 4), "y": uniform(3, 1, 4, 4, seed=1)}
    expected = -(batch["y"] - 0.5).square().mean((1, 2, 3)).sqrt()
    assert_close(dense.score(Half(), batch), expected)


@pytest.mark.parametrize(("height", "width", "side"), [(24, 24, 24), (50, 31, 24), (48, 72, 24)])
def test_tiles_cover_a_map_and_give_it_back(height, width, side):
    maps = uniform(2, 3, height, width)
    tiles = cut_tiles(maps, side)
    assert len(tiles) == -(-height // side) * -(-width // side)
    assert_close(join_tiles(tiles, height, width), maps)


def test_tiles_lie_evenly():
    assert tile_starts(50, 24) == [0, 13, 26]
    assert tile_starts(24, 24) == [0]


def test_a_map_smaller_than_a_tile_is_refused():
    with pytest.raises(InvalidData, match="smaller than a tile"):
        cut_tiles(uniform(1, 10, 30), 24)


def test_filters_keep_values_inside_and_treat_all_maps_alike():
    labels = uniform(3, 1, 12, 12)
    for seed in range(20):
        change = label_filter(torch.Generator().manual_seed(seed))
        together = change(labels)
        assert together.min() >= 0
        assert together.max() <= 1
        assert_close(together[1:2], change(labels[1:2]))


def test_a_mirror_changes_the_sign_of_components_along_x():
    images, labels = uniform(2, 3, 4, 4), uniform(2, 2, 4, 4, seed=1)
    seen, found = mirror(images, labels, torch.tensor([False, True]))
    assert torch.equal(seen, images.flip(-1))
    assert torch.equal(found[:, 0], labels[:, 0].flip(-1))
    assert_close(found[:, 1], 1 - labels[:, 1].flip(-1))
    assert_close(mirror(seen, found, torch.tensor([False, True]))[1], labels)


def test_a_unet_answers_at_every_pixel_of_any_size():
    assert UNet(3, 2, width=8)(uniform(2, 3, 20, 13)).shape == (2, 2, 20, 13)


IMAGES, LABELS = uniform(2, 3, 8, 8), uniform(2, 1, 8, 8, seed=1)


@pytest.mark.parametrize(
    ("images", "labels", "says"),
    [
        (IMAGES, LABELS[..., :7], "height and width"),
        (IMAGES[:1], LABELS, "every image needs a label"),
        (IMAGES, 255 * LABELS, "divide masks by 255"),
        (IMAGES, LABELS - 1, "values in"),
        (IMAGES, torch.full_like(LABELS, float("nan")), "known="),
        (IMAGES * float("nan"), LABELS, "NaN"),
    ],
)
def test_labels_that_cannot_be_learned_from_are_refused(images, labels, says):
    with pytest.raises(InvalidData) as error:
        check_labels(images, labels)
    assert says in str(error.value)


def test_unknown_pixels_may_hold_anything_where_a_mask_says_so():
    labels = LABELS.clone()
    labels[0, 0, 0, 0] = float("nan")
    known = torch.isfinite(labels)
    assert torch.equal(check_labels(IMAGES, labels, known), known)
    with pytest.raises(InvalidData, match="No label pixel"):
        check_labels(IMAGES, labels, torch.zeros_like(known))
