"""Edits of a generator: nothing at strength zero, exact at the latent, and layers by name."""

import math

import pytest
import torch
from torch import nn

from unseen.engine.loop import Budget
from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.lab import Lab
from unseen.models.generator import VAE, ConvDecoder, Direction, ImageGenerator, train_vae


def vae() -> ImageGenerator:
    with Lab().seeded():
        return VAE((1, 8, 8), latents=4, width=16).generator("small")


def unit(size: int, k: int = 0) -> Direction:
    return Direction(torch.eye(size)[k])


@pytest.mark.parametrize("layer", ["", "first_relu", "second"])
def test_strength_zero_changes_no_bit(layer):
    generator = vae()
    z = generator.sample(300, Lab())  # more than one batch
    size = generator.read(z, layer).shape[1]
    walk = generator.walk(z, unit(size), (-1, 0, 1), layer)
    assert walk.shape == (300, 3, 1, 8, 8)
    assert torch.equal(walk[:, 1], generator.images(z))
    assert not torch.equal(walk[:, 0], walk[:, 2])


def test_an_edit_at_the_latent_is_undone_by_its_opposite():
    generator = vae()
    z = generator.sample(5, Lab())
    shift = 2 * unit(4).vector
    torch.testing.assert_close(
        generator.edit(z + shift, -shift), generator.images(z), atol=1e-6, rtol=0
    )


def test_an_edit_of_a_layer_is_its_output_plus_the_shift():
    generator = vae()
    z = generator.sample(5, Lab())
    h = generator.read(z, "first")
    shift = torch.linspace(-1, 1, h.shape[1])
    rest = generator.decoder[1:]
    torch.testing.assert_close(generator.edit(z, shift, "first"), rest(h + shift))
    assert torch.equal(generator.images(z), generator.edit(z, 0 * shift, "first"))


def test_layers_that_do_not_exist_are_refused_with_those_that_do():
    with pytest.raises(UnknownName, match="first_relu, second"):
        vae().read(torch.zeros(1, 4), "third")


def test_a_gan_decoder_goes_through_the_same_protocol():
    with Lab().seeded():
        generator = ImageGenerator(ConvDecoder(), 16, "gan")
    z = generator.sample(3, Lab())
    assert generator.layers == ("project", "upsample", "pixels")
    size = generator.read(z, "upsample").shape[1]
    assert generator.walk(z, unit(size), (0, 1), "upsample").shape == (3, 2, 1, 28, 28)
    # both transposed convolutions, by the definition on one output pixel
    h = torch.relu(generator.decoder.project(z)).unflatten(1, (64, 7, 7))
    torch.testing.assert_close(
        generator.read(z, "upsample"),
        generator.decoder.upsample(h).flatten(1),
        atol=1e-5,
        rtol=1e-4,
    )


@pytest.mark.parametrize(
    "decoder", [nn.Linear(4, 9), nn.Sequential(nn.Linear(4, 9), nn.Flatten(0))]
)
def test_what_makes_no_images_is_refused(decoder):
    with pytest.raises(InvalidData, match="The generator made"):
        ImageGenerator(decoder, 4).images(torch.zeros(2, 4))


def test_pixels_that_are_not_finite_are_refused():
    broken = nn.Sequential(nn.Linear(4, 9), nn.Unflatten(1, (1, 3, 3)))
    with torch.no_grad():
        broken[0].bias.fill_(math.nan)
    with pytest.raises(InvalidData, match="not finite"):
        ImageGenerator(broken, 4).images(torch.zeros(2, 4))
    with pytest.raises(InvalidConfig):
        ImageGenerator(broken, 0)


@pytest.mark.parametrize("vector", [torch.zeros(3), torch.full((3,), math.nan), torch.ones(3)])
def test_a_direction_has_length_one(vector):
    with pytest.raises(InvalidData, match="length"):
        Direction(vector)


def test_the_digest_is_of_the_weights():
    assert vae().digest == vae().digest
    with Lab(1).seeded():
        assert VAE((1, 8, 8), latents=4, width=16).generator().digest != vae().digest


def test_the_elbo_of_one_pixel_is_its_formula():
    with Lab().seeded():
        model = VAE((1, 1, 1), latents=1, width=2).double().requires_grad_(False)
    x, noise = torch.tensor([[[[0.3]]]]).double(), torch.tensor([[0.7]]).double()
    mean, log_variance = model.encoder(x)[0].tolist()
    p = model.decoder(torch.tensor([[mean + math.exp(log_variance / 2) * 0.7]]).double()).item()
    likelihood = 0.3 * math.log(p) + 0.7 * math.log(1 - p)
    kl = (mean**2 + math.exp(log_variance) - 1 - log_variance) / 2
    assert float(model.elbo(x, noise, 0.5)) == pytest.approx(likelihood - 0.5 * kl)


def test_training_lowers_the_loss_and_repeats():
    images = torch.zeros(64, 1, 8, 8)
    images[:32, :, :4], images[32:, :, 4:] = 1, 1
    budget = Budget(steps=60, batch_size=32, lr=1e-2)
    model, again = (train_vae(images, Lab(), budget, latents=2, width=16) for _ in range(2))
    before = VAE((1, 8, 8), 2, 16)
    noise = torch.zeros(64, 2)
    with torch.no_grad():
        after, start = (float(m.elbo(images, noise).mean()) for m in (model, before))
    assert after > start + 20
    assert model.generator().digest == again.generator().digest


@pytest.mark.parametrize("images", [torch.zeros(0, 1, 8, 8), torch.full((2, 1, 8, 8), 255.0)])
def test_images_that_are_no_shares_of_white_are_refused(images):
    with pytest.raises(InvalidData):
        train_vae(images, Lab())
