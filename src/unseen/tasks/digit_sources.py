"""The same digits from several sources, brought to one size: MNIST, USPS and optdigits as domains.

Used as domains in, for instance, French et al. (2018, arXiv:1706.05208). Writers, pens and scanners
differ, the question does not. `area` brings images of any size to another one.
"""

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unseen.engine.batches import Columns
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.task import Task
from unseen.tasks.domains import Division, assemble_task, examples_of
from unseen.tasks.images import Collection, Part, part


class Source(StrEnum):
    """Where digits come from."""

    MNIST = "mnist"
    """Forms and pupils' sheets; only the inner 20×20 pixels, since the other two have no frame (3.3
    % of the ink is lost).
    """
    USPS = "usps"
    """Envelopes."""
    OPTDIGITS = "optdigits"
    """30 writers; shipped with the package."""
    OTHER_WRITERS = "other writers"
    """13 other writers of optdigits (scikit-learn's `load_digits`); shipped with the package."""


@dataclass(frozen=True)
class DigitSources:
    """Which digit is it, from a source left out? `n` images of each, [1, side, side] in [0, 1]."""

    held_out: str | None = None
    sources: tuple[Source, ...] = (Source.MNIST, Source.USPS, Source.OPTDIGITS)
    n: int = 3_000
    side: int = 8
    division: Division = Division()

    def __post_init__(self) -> None:
        if self.n < 1 or self.side < 1 or len(set(self.sources)) < len(self.sources):
            raise InvalidConfig(
                f"DigitSources(sources={self.sources}, n={self.n}, side={self.side}) is out of "
                "range.",
                why="each source is one domain, with at least one image of at least one pixel.",
                fix="name each source once; use n ≥ 1 and side ≥ 1.",
            )

    def domains(self) -> tuple[str, ...]:
        return tuple(map(str, self.sources))

    def build(self, lab: Lab) -> Task:
        parts = {
            str(source): examples_of(self._sample(source, lab.child("rows", source)), k)
            for k, source in enumerate(self.sources)
        }
        return assemble_task("digits", parts, self.held_out, self.division, lab)

    def _sample(self, source: Source, lab: Lab) -> Columns:
        if source is Source.OTHER_WRITERS:
            held = load_part(Collection.OPTDIGITS, "test")
        else:
            held = load_part(Collection(source.value), "train")
        rows = sample_rows(held, self.n, lab)
        pixels = held.pixels(rows)
        if source is Source.MNIST:
            pixels = pixels[..., 4:24, 4:24]
        return Columns(x=area(pixels, self.side), y=held.labels[rows], index=rows)


@lru_cache(maxsize=6)
def load_part(collection: Collection, name: str) -> Part:
    """A part of a collection, read once per process: sweeps build the same task many times."""
    return part(collection, name)


def sample_rows(held: Part, n: int, lab: Lab, classes: tuple[int, ...] = ()) -> Int[Tensor, " n"]:
    """n different rows (of these classes) in random order; the first of a longer draw are those of
    a shorter one.
    """
    order = torch.randperm(len(held.labels), generator=lab.generator())
    if classes:
        order = order[torch.isin(held.labels[order], torch.tensor(classes))]
    if n > len(order):
        raise InvalidConfig(
            f"{n} images are asked for ({', '.join(lab.path)}), there are {len(order)}.",
            why="no image is used twice.",
            fix="ask for fewer, or choose a larger collection.",
        )
    return order[:n]


def area(images: Float[Tensor, "n c h w"], side: int) -> Float[Tensor, "n c side side"]:
    """Each new pixel is the mean over the square it covers: X' = W X Wᵀ, W[o, i] ∝ |[o, o + 1] · h
    / side ∩ [i, i + 1]|.

    Keeps every image's mean exactly, whether the sizes divide each other or not.
    """
    high, wide = (_overlaps(length, side).to(images) for length in images.shape[-2:])
    return high @ images @ wide.T


def _overlaps(old: int, new: int) -> Float[Tensor, "new old"]:
    edges = torch.arange(new + 1, dtype=torch.float64) * old / new
    left = torch.arange(old, dtype=torch.float64)
    shared = torch.minimum(edges[1:, None], left + 1) - torch.maximum(edges[:-1, None], left)
    return shared.clamp_min(0) * new / old


def example() -> DigitSources:
    return DigitSources(sources=(Source.OPTDIGITS, Source.OTHER_WRITERS), n=200)
