"""Measures of directions against closed forms on generators that are linear in the latent."""

import math

import pytest
import torch
from torch import nn

from unseen.engine.image_attributes import ATTRIBUTES
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.measures.latent_directions import (
    STRENGTHS,
    DirectionEffect,
    Naturalness,
    blind_accuracy,
    direction_effect,
    label_efficiency,
    monotonicity,
    naturalness,
    reliability,
    selectivity,
    success,
    transfer,
    walk_slopes,
)
from unseen.models.generator import VAE, Direction, ImageGenerator

C = torch.tensor([3.0, -1.0, 0.5, 2.0], dtype=torch.float64)


def linear() -> ImageGenerator:
    """Two pixels: cᵀz and a constant."""
    decoder = nn.Sequential(nn.Linear(4, 2), nn.Unflatten(1, (1, 1, 2))).double()
    with torch.no_grad():
        decoder[0].weight.copy_(torch.stack([C, 0 * C]))
        decoder[0].bias.copy_(torch.tensor([0.5, 1.0]))
    return ImageGenerator(decoder, 4)


def first_pixel(images: torch.Tensor) -> torch.Tensor:
    return images[:, 0, 0, 0]


def along(*numbers: float) -> Direction:
    vector = torch.tensor(numbers, dtype=torch.float64)
    return Direction(vector / vector.norm())


def test_the_effect_on_a_linear_attribute_is_its_slope_in_deviations_of_the_sample():
    generator = linear()
    z = generator.sample(400, Lab())
    found = direction_effect(generator, along(1, 2, 0, 0), first_pixel, z)
    deviation = float((z @ C).std())
    assert found.value == pytest.approx(float(C @ along(1, 2, 0, 0).vector) / deviation, abs=1e-3)
    # the population's ‖c‖ is another number
    assert abs(deviation / float(C.norm()) - 1) > 1e-3
    reverse = direction_effect(generator, along(1, 2, 0, 0).reverse(), first_pixel, z)
    assert reverse.value == pytest.approx(-found.value)
    assert found.n == 400


def test_slopes_are_those_of_least_squares_one_by_one():
    values = torch.randn(5, 9, generator=torch.Generator().manual_seed(0)).double()
    found = walk_slopes(values, STRENGTHS)
    for row, slope in zip(values, found, strict=True):
        design = torch.tensor([[1.0, a] for a in STRENGTHS]).double()
        assert float(torch.linalg.lstsq(design, row[:, None]).solution[1]) == pytest.approx(
            float(slope)
        )
    shifted = walk_slopes(values + 7, STRENGTHS)
    torch.testing.assert_close(shifted, found)


@pytest.mark.parametrize(
    "values", [torch.zeros(0, 9), torch.zeros(3, 8), torch.full((3, 9), math.nan)]
)
def test_walks_without_a_slope_are_refused(values):
    with pytest.raises(InvalidData):
        DirectionEffect()(values, Lab())


def test_an_attribute_that_never_differs_has_no_effect():
    generator = linear()
    with pytest.raises(InvalidData, match="standard deviation"):
        direction_effect(
            generator, along(1, 0, 0, 0), lambda x: x[:, 0, 0, 1], generator.sample(9, Lab())
        )


def test_success_monotonicity_and_selectivity():
    slopes = torch.tensor([0.1, 0.2, 0.04, -1.0])
    assert success(slopes).value == 0.5
    assert monotonicity(torch.tensor([[1.0, 2, 3], [3, 2, 1]])) == pytest.approx(0)
    assert monotonicity(torch.tensor([[1.0, 2, 9]])) == pytest.approx(1)
    both = {"a": torch.tensor([2.0, 4.0]), "b": torch.tensor([-1.0, 1.0])}
    assert selectivity(both, "a") == 3
    assert selectivity({"a": torch.ones(2), "b": torch.zeros(2)}, "a") == math.inf
    with pytest.raises(InvalidConfig):
        selectivity({"a": torch.ones(2)}, "a")


def test_transfer_is_the_effect_on_every_group():
    generator = linear()
    latents = {name: generator.sample(50, Lab(k)) for k, name in enumerate("ab")}
    directions = {"a": along(1, 0, 0, 0), "b": along(0, 1, 0, 0)}
    found = transfer(generator, directions, latents, first_pixel)
    deviation = float((torch.cat([*latents.values()]) @ C).std())
    expected = torch.tensor([[3.0, 3.0], [-1.0, -1.0]]) / deviation
    torch.testing.assert_close(found.effects, expected, atol=1e-4, rtol=0)
    assert found.ratio == pytest.approx(1)
    with pytest.raises(InvalidData):
        transfer(generator, directions, {"a": latents["a"]}, first_pixel)


def test_reliability_is_the_mean_cosine_of_pairs():
    one, other = along(1, 0, 0, 0), along(1, 1, 0, 0)
    found = reliability([one, one], [one, other])
    assert found.value == pytest.approx((1 + math.sqrt(0.5)) / 2)
    assert found.low >= -1
    assert found.high <= 1
    assert math.isnan(reliability([one], [other]).low)
    with pytest.raises(InvalidData):
        reliability([one], [])


def test_random_sessions_are_not_reliable():
    from unseen.attributions.directions import random_directions

    first, second = ([Direction(d) for d in random_directions(400, 16, Lab(k))] for k in range(2))
    # 400 cosines of deviation 1/4: the mean has deviation 1/80
    assert abs(reliability(first, second).value) < 0.06


def test_label_efficiency_is_the_cosine_after_the_first_marks():
    from unseen.attributions.directions import LatentDirection

    h = torch.eye(4).double()
    log = [(0, 1), (1, 1), (2, -1), (3, -1)]
    target = along(1, 1, -1, -1)
    found = label_efficiency(LatentDirection().fit, h, log, (2, 3, 4), target)
    assert list(found) == [3, 4]  # two marks of one kind have no direction
    assert found[4] == pytest.approx(1)


def test_the_distance_of_a_shift_is_its_square_and_the_safe_range_where_it_doubles():
    generator = linear()
    z = generator.sample(4_000, Lab())
    found = naturalness(
        generator,
        along(1, 0, 0, 0),
        z,
        features=lambda x: x[:, 0, 0, :1],
        strengths=(-2, -1, 0, 1, 2),
    )
    # one feature of variance ‖c‖², moved by 3α: D² = 1 + 9α²/‖c‖² (the ridge takes a hundredth)
    expected = [1 + 9 * a * a / float(C.square().sum()) for a in (-2, -1, 0, 1, 2)]
    assert found.mahalanobis == pytest.approx(expected, rel=0.1)
    assert found.frechet[2] == pytest.approx(0, abs=1e-6)
    assert found.frechet[4] == pytest.approx(36, rel=0.05)
    walk = Naturalness((-2.0, -1.0, 0.0, 1.0, 2.0), (5.0, 1.5, 1.0, 3.0, 9.0), (0.0,) * 5)
    assert walk.safe_range == pytest.approx((-1 - 0.5 / 3.5, 0.5))
    never = Naturalness((-1.0, 0.0, 1.0), (1.0, 1.0, 1.0), (0.0,) * 3)
    assert never.safe_range == (-math.inf, math.inf)


def test_naturalness_of_an_autoencoder_is_read_by_its_encoder():
    with Lab().seeded():
        generator = VAE((1, 8, 8), latents=3, width=16).generator()
    z = generator.sample(50, Lab())
    found = naturalness(generator, Direction(torch.eye(3)[0]), z, strengths=(-1, 0, 1))
    assert all(map(math.isfinite, found.mahalanobis + found.frechet))
    coarse = naturalness(ImageGenerator(generator.decoder, 3), Direction(torch.eye(3)[0]), z)
    assert coarse.mahalanobis[8] == min(coarse.mahalanobis[7:])
    with pytest.raises(InvalidConfig, match="0 among"):
        naturalness(generator, Direction(torch.eye(3)[0]), z, strengths=(1, 2))


def test_blind_answers_have_wilsons_interval():
    assert str(blind_accuracy(8, 10)) == "0.8 [0.49, 0.943] fraction"


def test_attributes_of_drawn_images():
    image = torch.zeros(3, 1, 28, 28)
    image[0, :, 14:, 6:10] = image[0, :, 14:, 18:22] = 1  # two legs
    image[1, :, :, 13:15] = 1  # a thin column
    image[2, :, 13:15, :] = 1  # a thin row
    values = {name: attribute(image) for name, attribute in ATTRIBUTES.items()}
    assert values["brightness"].tolist() == pytest.approx([8 * 14 / 784, 56 / 784, 56 / 784])
    assert values["gap"].tolist() == pytest.approx([1, -0.5, 0], abs=1e-5)
    assert values["width"][1] < 0.1 < 0.25 < values["width"][2]
    assert values["height"][2] < 0.1 < 0.25 < values["height"][1]
    assert values["low"][0] > 0.7
    assert values["low"].tolist()[1:] == pytest.approx([0.5, 0.5], abs=1e-3)
    # colour is averaged, and a black image has values, too
    assert ATTRIBUTES["width"](image.repeat(1, 3, 1, 1)).tolist() == pytest.approx(
        values["width"].tolist()
    )
    assert all(torch.isfinite(attribute(0 * image)).all() for attribute in ATTRIBUTES.values())
