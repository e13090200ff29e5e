"""Generators of images, the sites at which they are edited, and directions there.

Anything that maps latents to images is one: the decoder of a variational autoencoder (Kingma &
Welling, 2014, arXiv:1312.6114), of a GAN (Radford et al., 2016, arXiv:1511.06434), or your own.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from unseen.engine.batches import Columns
from unseen.engine.loop import Budget, Draw, Optimizer, train
from unseen.engine.trace import patch, record
from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.identity.tensors import digest_of
from unseen.lab import Lab
from unseen.models.mlp import mlp
from unseen.task import Axis, Batch, Objective, Split, Task, Use

LATENT = ""
"""The edit site that is the latent itself; others are named layers of the decoder."""
BATCH = 256
"""Images that are decoded together."""


@dataclass(frozen=True)
class Direction:
    """A unit vector at an edit site, and the score that says on which side of it a sample lies.

    The edit is h ← h + α·`scale`·`vector`; score(h) = h·`weights` + `offset`, positive for *more*.
    The offset takes no part in the edit.
    """

    vector: Float[Tensor, " d"]
    scale: float = 1.0
    """Standard deviation of h·vector over samples; 1 in the latent."""
    weights: Float[Tensor, " d"] | None = None
    offset: float = 0.0

    def __post_init__(self) -> None:
        length = float(self.vector.norm())
        if not (isfinite(length) and abs(length - 1) < 1e-4 and isfinite(self.scale)):
            raise InvalidData(
                f"A direction of length {length:.3g} and scale {self.scale:.3g} is none.",
                why="strengths are counted in units of a vector of length 1.",
                fix="divide the vector by its length; 0 and NaN have no direction.",
            )

    def score(self, h: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        weights = self.vector if self.weights is None else self.weights
        return h.to(weights) @ weights + self.offset

    def reverse(self) -> "Direction":
        weights = None if self.weights is None else -self.weights
        return Direction(-self.vector, self.scale, weights, -self.offset)


@dataclass(frozen=True)
class ImageGenerator:
    """Images in [0, 1] from latents z ~ N(0, I), which can be edited at z or at a named layer."""

    decoder: nn.Module
    """[n, latent_size] → [n, channel, height, width]."""
    latent_size: int
    name: str = "generator"
    encoder: nn.Module | None = None
    """Images → their latents, where there is one: then naturalness is measured with it."""
    licence: str = ""

    def __post_init__(self) -> None:
        if self.latent_size < 1:
            raise InvalidConfig(
                f"A generator with {self.latent_size} latents makes one image.",
                why="directions need room.",
                fix="give the length of its latent vector.",
            )

    def sample(self, n: int, lab: Lab) -> Float[Tensor, "n k"]:
        """n latents; the first of a longer draw are not those of a shorter one."""
        z = torch.randn(n, self.latent_size, generator=lab.generator())
        return z.to(self._like.device, self._like.dtype)

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """Layers of the decoder that can be an edit site: those that return one row per latent."""
        names = [
            name
            for name, module in self.decoder.named_modules()
            if name and not [*module.children()]
        ]
        with torch.no_grad(), record(self.decoder.eval(), names) as found:
            self.decoder(torch.zeros(2, self.latent_size).to(self._like))
        return tuple(name for name in names if name in found and len(found[name]) == 2)

    def require_layer(self, layer: str) -> str:
        """The layer, or an error that names the legal ones."""
        if layer != LATENT and layer not in self.layers:
            raise UnknownName(
                f"There is no layer `{layer}`.",
                why="an edit happens at the latent or at a layer of the decoder.",
                fix=f"choose the latent, or one of: {', '.join(self.layers)}.",
            )
        return layer

    def images(self, z: Float[Tensor, "n k"]) -> Float[Tensor, "n c h w"]:
        return torch.cat([self._decode(part) for part in z.split(BATCH)])

    def read(self, z: Float[Tensor, "n k"], layer: str = LATENT) -> Float[Tensor, "n d"]:
        """What stands at the edit site for these latents, flattened."""
        if self.require_layer(layer) == LATENT:
            return z
        rows = []
        for part in z.split(BATCH):
            with record(self.decoder, [layer]) as found:
                self._decode(part)
            rows.append(found[layer].flatten(1))
        return torch.cat(rows)

    def edit(
        self, z: Float[Tensor, "n k"], shift: Float[Tensor, " d"], layer: str = LATENT
    ) -> Float[Tensor, "n c h w"]:
        """Images of latents after `shift` was added at the edit site; a shift of zero changes no
        bit of them.
        """
        if self.require_layer(layer) == LATENT:
            return self.images(z + shift.to(z))

        def move(h: Tensor) -> Tensor:
            return h + shift.to(h).view(1, *h.shape[1:])

        with patch(self.decoder, {layer: move}):
            return self.images(z)

    def walk(
        self,
        z: Float[Tensor, "n k"],
        direction: Direction,
        strengths: Sequence[float],
        layer: str = LATENT,
    ) -> Float[Tensor, "n m c h w"]:
        """Every latent at every strength. One pass per strength: the batch has always the same
        size, so that strength 0 is the unedited image to the last bit.
        """
        unit = direction.vector * direction.scale
        return torch.stack([self.edit(z, alpha * unit, layer) for alpha in strengths], 1)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the weights that make the images."""
        return digest_of({**self.decoder.state_dict(), "latents": torch.tensor(self.latent_size)})

    @property
    def _like(self) -> Tensor:
        return next(self.decoder.parameters(), torch.zeros(()))

    @torch.no_grad()
    def _decode(self, z: Float[Tensor, "n k"]) -> Float[Tensor, "n c h w"]:
        images = self.decoder.eval()(z)
        if not (isinstance(images, Tensor) and images.dim() == 4 and len(images) == len(z)):
            shape = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
            raise InvalidData(
                f"The generator made {shape} of {len(z)} latents.",
                why="images are [n, channel, height, width].",
                fix="end the decoder with nn.Unflatten(1, (channels, height, width)).",
            )
        if not torch.isfinite(images).all():
            raise InvalidData(
                "The generator made pixels that are not finite.",
                why="they cannot be shown or measured.",
                fix="look for NaN in its weights, or take a smaller strength.",
            )
        return images


class VAE(nn.Module):
    """Perceptrons around a Gaussian code with a standard normal prior; pixels are Bernoulli."""

    def __init__(
        self, shape: tuple[int, int, int] = (1, 28, 28), latents: int = 16, width: int = 256
    ) -> None:
        super().__init__()
        pixels = shape[0] * shape[1] * shape[2]
        self.latents = latents
        self.encoder = mlp([pixels, width, width // 2, 2 * latents])
        layers: dict[str, nn.Module] = {
            "first": nn.Linear(latents, width // 2),
            "first_relu": nn.ReLU(),
            "second": nn.Linear(width // 2, width),
            "second_relu": nn.ReLU(),
            "pixels": nn.Linear(width, pixels),
            "sigmoid": nn.Sigmoid(),
            "image": nn.Unflatten(1, shape),
        }
        self.decoder = nn.Sequential(OrderedDict(layers))

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """The mean codes."""
        return self.encoder(images)[:, : self.latents]

    def elbo(
        self, images: Float[Tensor, "n c h w"], noise: Float[Tensor, "n k"], beta: float = 1.0
    ) -> Float[Tensor, " n"]:
        """log p(x | z) − β KL(q(z | x) ‖ N(0, I)) with z = mean + deviation · noise, in nats."""
        mean, log_variance = self.encoder(images).chunk(2, 1)
        log_variance = log_variance.clamp(-10, 10)
        made = self.decoder(mean + (log_variance / 2).exp() * noise)
        likelihood = -F.binary_cross_entropy(made, images, reduction="none").flatten(1).sum(1)
        kl = (mean.square() + log_variance.exp() - 1 - log_variance).sum(1) / 2
        return likelihood - beta * kl

    def generator(self, name: str = "vae", licence: str = "") -> ImageGenerator:
        return ImageGenerator(self.decoder, self.latents, name, self, licence)


def negative_elbo(model: nn.Module, batch: Batch) -> Float[Tensor, " n"]:
    """At the mean code: what training watches without noise."""
    assert isinstance(model, VAE)
    x = batch["x"]
    return -model.elbo(x, torch.zeros(len(x), model.latents).to(x))


def elbo_step(model: nn.Module, draw: Draw, objective: Objective) -> Tensor:
    """Leaves in `.grad` the gradient of the negative evidence lower bound, one code an image."""
    assert isinstance(model, VAE)
    x = torch.cat([batch["x"] for batch in draw.fit.values()])
    noise = torch.randn(len(x), model.latents, generator=draw.generator).to(x)
    loss = -model.elbo(x, noise).mean()
    loss.backward()
    return loss.detach()


VAE_BUDGET = Budget(steps=700, batch_size=512, lr=2e-3, optimizer=Optimizer.ADAM)


def train_vae(
    images: Float[Tensor, "n c h w"],
    lab: Lab,
    budget: Budget = VAE_BUDGET,
    latents: int = 16,
    width: int = 256,
) -> VAE:
    """An autoencoder of images in [0, 1]."""
    if len(images) == 0 or not torch.isfinite(images).all() or images.min() < 0 or images.max() > 1:
        raise InvalidData(
            "These images are none, or their pixels lie outside [0, 1].",
            why="the likelihood takes pixels for shares of white.",
            fix="divide by the largest value that a pixel can have.",
        )
    channels, height, width_in_pixels = images.shape[1:]
    with lab.child("init").seeded():
        model = VAE((channels, height, width_in_pixels), latents, width)
    task = Task(
        name="images",
        axis=Axis.IID,
        splits={"train": Split(Columns(x=images), Use.TRAIN)},
        objective=Objective(loss=negative_elbo, score=lambda m, b: -negative_elbo(m, b)),
    )
    train(model, task, elbo_step, budget, lab.child("fit"))
    return model


class ConvDecoder(nn.Module):
    """The generator half of a DCGAN: two transposed convolutions, images of 28 × 28."""

    def __init__(self, latents: int = 16, channels: tuple[int, int] = (64, 32)) -> None:
        super().__init__()
        self.wide, self.narrow = channels
        self.project = nn.Linear(latents, self.wide * 7 * 7)
        self.upsample = nn.ConvTranspose2d(self.wide, self.narrow, 4, 2, 1)
        self.pixels = nn.ConvTranspose2d(self.narrow, 1, 4, 2, 1)

    def forward(self, z: Float[Tensor, "n k"]) -> Float[Tensor, "n 1 28 28"]:
        h = F.relu(self.project(z)).unflatten(1, (self.wide, 7, 7))
        return torch.sigmoid(self.pixels(F.relu(self.upsample(h))))
