"""A generator that many sessions share."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.measures.latent_directions import naturalness
from unseen.models.generator import LATENT, Direction, ImageGenerator

POOL = 2_048
BOARDS = 1_536
"""Samples 0 … BOARDS − 1 may be marked; the others are for walks and measures only."""
MEASURED = 128
"""Of the others, so many stand behind a measure."""


@dataclass(frozen=True)
class Samples:
    """The latents of a seed, and what stands at the edit site for them."""

    z: Float[Tensor, "n k"]
    h: Float[Tensor, "n d"]


class Studio:
    """A generator with everything that sessions share: samples by seed and site, and one lock for
    edits at a layer, whose hooks sit on the model.
    """

    def __init__(self, generator: ImageGenerator, measured: int = MEASURED) -> None:
        if not 2 <= measured <= POOL - BOARDS:
            raise InvalidConfig(
                f"{measured} images cannot be measured.",
                why=f"{POOL - BOARDS} are kept from the boards, and an interval needs two.",
                fix=f"use 2 to {POOL - BOARDS}.",
            )
        self.generator, self.measured = generator, measured
        self._samples: dict[tuple[int, str], Samples] = {}
        self._lock = threading.RLock()

    def samples(self, seed: int, layer: str) -> Samples:
        with self._lock:
            if (seed, layer) not in self._samples:
                while len(self._samples) >= 4:  # a layer may be wide
                    del self._samples[next(iter(self._samples))]
                z = self.generator.sample(POOL, Lab(seed).child("compass"))
                self._samples[seed, layer] = Samples(z, self.generator.read(z, layer))
            return self._samples[seed, layer]

    def walk(
        self, z: Tensor, direction: Direction, strengths: tuple[float, ...], layer: str
    ) -> Float[Tensor, "n m c h w"]:
        return self._with_layer_lock(
            layer, lambda: self.generator.walk(z, direction, strengths, layer)
        )

    def edit(self, z: Tensor, shift: Tensor, layer: str) -> Float[Tensor, "n c h w"]:
        return self._with_layer_lock(layer, lambda: self.generator.edit(z, shift, layer))

    def safe_range(self, z: Tensor, direction: Direction, layer: str) -> tuple[float, float]:
        found = self._with_layer_lock(
            layer, lambda: naturalness(self.generator, direction, z, layer=layer).safe_range
        )
        return found

    def _with_layer_lock(self, layer: str, work: Callable[[], Any]) -> Any:
        if layer == LATENT:
            return work()
        with self._lock:
            return work()

    @cached_property
    def first_weight(self) -> Tensor | None:
        """Of the first affine layer that takes latents, for SeFa."""
        for module in self.generator.decoder.modules():
            if isinstance(module, nn.Linear) and module.in_features == self.generator.latent_size:
                return module.weight.detach()
        return None

    @cached_property
    def middle_layer(self) -> str:
        """Where principal components of the latent are taken from."""
        return self.generator.layers[(len(self.generator.layers) - 1) // 2]
