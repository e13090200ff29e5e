"""What a direction in a generator does: its effect on an attribute, what else it moves, whether it
carries over, whether a person finds it again, and how far it can be followed.

All on fresh latents: on the images that were marked anything looks right.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import inf

import torch
from jaxtyping import Float
from torch import Tensor

from unseen import stats
from unseen.engine.image_attributes import Attribute
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.models.generator import LATENT, Direction, ImageGenerator
from unseen.reading import Reading

STRENGTHS = tuple(-2 + k / 2 for k in range(9))
FAR = tuple(range(-8, 9))
"""Strengths at which naturalness is looked at."""
Fit = Callable[[Tensor, Mapping[int, int]], Direction]
Features = Callable[[Float[Tensor, "n c h w"]], Float[Tensor, "n f"]]


def direction_effect(
    generator: ImageGenerator,
    direction: Direction,
    attribute: Attribute,
    latents: Float[Tensor, "n k"],
    *,
    layer: str = LATENT,
    strengths: Sequence[float] = STRENGTHS,
    deviation: float | None = None,
) -> Reading:
    """Mean over latents of the least-squares slope of the attribute on the strength, in standard
    deviations of the attribute per unit of strength. `detail` has a slope per latent.

    `deviation` of the attribute, taken as known; default: over the unedited images of these
    latents. The interval is Student's over latents, for this generator and direction: another
    person, or another model, is not in it.
    """
    images = generator.walk(latents, direction, strengths, layer)
    values = attribute(images.flatten(0, 1)).view(images.shape[:2])
    if deviation is None:
        deviation = float(attribute(generator.images(latents)).double().std())
    return effect_of(values, strengths, deviation)


def effect_of(
    values: Float[Tensor, "n m"], strengths: Sequence[float], deviation: float
) -> Reading:
    """The effect from attribute values [latent, strength]."""
    return DirectionEffect(tuple(map(float, strengths)), deviation)(values, Lab())


@dataclass(frozen=True)
class DirectionEffect:
    """Mean least-squares slope of an attribute along a walk: 0 where the direction does nothing.

    Called with the attribute's values [latent, strength].
    """

    strengths: tuple[float, ...] = STRENGTHS
    deviation: float = 1.0
    """Of the attribute over samples: the unit of the effect."""

    def __call__(self, subject: Float[Tensor, "n m"], lab: Lab) -> Reading:
        slopes = walk_slopes(subject, self.strengths)
        if not self.deviation > 0:
            raise InvalidData(
                f"The attribute's standard deviation is {self.deviation:.3g}.",
                why="the effect is counted in it.",
                fix="take an attribute that differs between the samples.",
            )
        slopes = slopes / self.deviation
        return replace(stats.mean(slopes.numpy(), unit="sd per unit"), detail=slopes)


def walk_slopes(values: Float[Tensor, "n m"], strengths: Sequence[float]) -> Float[Tensor, " n"]:
    """Least-squares slope of every row."""
    if values.dim() != 2 or values.shape[1] != len(strengths) or len({*strengths}) < 2:
        raise InvalidData(
            f"Values of shape {tuple(values.shape)} are no walk of {len(strengths)} strengths.",
            why="a slope needs a value at each of at least two strengths.",
            fix="give values [latent, strength].",
        )
    if not len(values) or not torch.isfinite(values).all():
        raise InvalidData(
            f"A walk of {len(values)} latents has no value, or one that is not finite.",
            why="its slope would be made up.",
            fix="use at least one latent, and smaller strengths.",
        )
    alpha = torch.tensor(strengths, dtype=torch.float64)
    alpha = alpha - alpha.mean()
    return values.double().cpu() @ alpha / alpha.square().sum()


def success(slopes: Float[Tensor, " n"], least: float = 0.05) -> Reading:
    """Share of latents whose slope exceeds `least`, with Wilson's interval."""
    return stats.proportion(float((slopes > least).sum()), len(slopes))


def monotonicity(values: Float[Tensor, "n m"]) -> float:
    """Mean Spearman correlation of values with their order along the walk. A random direction can
    reach 1: it says nothing without the effect.
    """
    ranks = values.argsort(1).argsort(1).double()
    order = torch.arange(values.shape[1]).double()
    ranks, order = ranks - ranks.mean(1, keepdim=True), order - order.mean()
    return float((ranks @ order / (ranks.norm(dim=1) * order.norm())).mean())


def selectivity(slopes: Mapping[str, Float[Tensor, " n"]], target: str) -> float:
    """|mean slope of the target| / mean over the other attributes of their mean |slope|: infinite
    where nothing else moves.
    """
    others = [float(slope.abs().mean()) for name, slope in slopes.items() if name != target]
    if target not in slopes or not others:
        raise InvalidConfig(
            f"Selectivity of `{target}` among {', '.join(slopes)} has no value.",
            why="the target is compared with other attributes.",
            fix="give slopes of the target and at least one other attribute.",
        )
    moved = sum(others) / len(others)
    return float(slopes[target].mean().abs()) / moved if moved > 0 else inf


@dataclass(frozen=True)
class Transfer:
    """Effects [group of the marks, group of the latents]."""

    groups: tuple[str, ...]
    effects: Float[Tensor, "g g"]

    @property
    def diagonal(self) -> float:
        """Mean effect on the group of the marks."""
        return float(self.effects.diagonal().mean())

    @property
    def off_diagonal(self) -> float:
        """Mean effect on other groups."""
        elsewhere = ~torch.eye(len(self.groups), dtype=torch.bool)
        return float(self.effects[elsewhere].mean())

    @property
    def ratio(self) -> float:
        """Generalization ratio: 1 where a direction does elsewhere what it does at home."""
        return self.off_diagonal / self.diagonal


def transfer(
    generator: ImageGenerator,
    directions: Mapping[str, Direction],
    latents: Mapping[str, Float[Tensor, "n k"]],
    attribute: Attribute,
    *,
    layer: str = LATENT,
    strengths: Sequence[float] = STRENGTHS,
) -> Transfer:
    """Effect on every group of latents of a direction whose marks came from one group each. The
    attribute's deviation is that over all groups.
    """
    groups = tuple(directions)
    if len(groups) < 2 or {*groups} != {*latents}:
        raise InvalidData(
            f"Directions of {', '.join(groups) or 'no group'} and latents of "
            f"{', '.join(latents) or 'no group'} make no table.",
            why="every direction is tried on every group.",
            fix="give one direction and one set of latents for each of at least two groups.",
        )
    deviation = float(attribute(generator.images(torch.cat([*latents.values()]))).double().std())
    effects = [
        [
            direction_effect(
                generator, directions[one], attribute, latents[other],
                layer=layer, strengths=strengths, deviation=deviation,
            ).value
            for other in groups
        ]
        for one in groups
    ]  # fmt: skip
    return Transfer(groups, torch.tensor(effects))


def cosine(one: Direction, other: Direction) -> float:
    return float(one.vector.double() @ other.vector.double())


def reliability(first: Sequence[Direction], second: Sequence[Direction]) -> Reading:
    """Mean cosine of directions of independent sessions: pair k are two sessions of one person and
    concept (of two people it is their agreement). 0 by chance.

    Student's interval over pairs. One pair has none: in d dimensions two random directions have a
    cosine of standard deviation 1/√d.
    """
    if len(first) != len(second) or not first:
        raise InvalidData(
            f"{len(first)} and {len(second)} sessions make no pairs.",
            why="session k of one belongs to session k of the other.",
            fix="give equally many directions, at least one.",
        )
    cosines = [cosine(a, b) for a, b in zip(first, second, strict=True)]
    return stats.mean(cosines, within=(-1.0, 1.0), unit="cosine")


def label_efficiency(
    fit: Fit,
    h: Float[Tensor, "n d"],
    log: Sequence[tuple[int, int]],
    counts: Sequence[int],
    target: Direction,
) -> dict[int, float]:
    """Cosine with `target` after the first n marks of a log, where they lie on both sides."""
    found = {}
    for n in counts:
        marks = {sample: mark for sample, mark in dict(log[:n]).items() if mark}
        if {1, -1} <= {*marks.values()}:
            found[n] = cosine(fit(h, marks), target)
    return found


def blind_accuracy(right: int, n: int) -> Reading:
    """Share of blind answers that agree with the direction, with Wilson's interval."""
    return stats.proportion(right, n)


@dataclass(frozen=True)
class Naturalness:
    """How far edited images lie from unedited ones, by strength."""

    strengths: tuple[float, ...]
    mahalanobis: tuple[float, ...]
    """Mean squared Mahalanobis distance of the features from those of unedited images."""
    frechet: tuple[float, ...]
    """Fréchet distance between Gaussians fitted to edited and unedited features."""

    @property
    def safe_range(self) -> tuple[float, float]:
        """Strengths, on either side of 0, at which the Mahalanobis distance has doubled; infinite
        where it does not within what was looked at.
        """
        limit = 2 * self.mahalanobis[self.strengths.index(0)]
        pairs = sorted(zip(self.strengths, self.mahalanobis, strict=True))
        below = [pair for pair in reversed(pairs) if pair[0] <= 0]
        above = [pair for pair in pairs if pair[0] >= 0]
        return _crossing(below, limit, -inf), _crossing(above, limit, inf)


def _crossing(path: Sequence[tuple[float, float]], limit: float, otherwise: float) -> float:
    """Where a path of (strength, distance) first reaches the limit, by a line between points."""
    for (near, small), (far, large) in pairwise(path):
        if large >= limit:
            return near + (far - near) * (limit - small) / (large - small)
    return otherwise


def naturalness(
    generator: ImageGenerator,
    direction: Direction,
    latents: Float[Tensor, "n k"],
    *,
    layer: str = LATENT,
    features: Features | None = None,
    strengths: Sequence[float] = FAR,
) -> Naturalness:
    """Of images at these strengths, 0 among them.

    Features are the generator's encoder, else a mean over 4 × 4 pixels of the image (coarse: it
    sees light move, and no detail); give those of a classifier of real images for more.
    """
    alphas = tuple(map(float, strengths))
    if 0.0 not in alphas or len(latents) < 2:
        raise InvalidConfig(
            f"Strengths {alphas} of {len(latents)} latents lack what they are compared with.",
            why="the distance is from the unedited images.",
            fix="put 0 among the strengths, and use at least two latents.",
        )
    read = features or features_of(generator)
    with torch.no_grad():
        images = generator.walk(latents, direction, alphas, layer)
        parts = [read(images[:, k]).flatten(1).double() for k in range(len(alphas))]
    start = parts[alphas.index(0.0)]
    mean, covariance = _moments(start)
    inverse = torch.linalg.inv(covariance)
    far = [((p - mean) @ inverse * (p - mean)).sum(1).mean() for p in parts]
    frechet = [_frechet(mean, covariance, *_moments(p)) for p in parts]
    return Naturalness(alphas, tuple(map(float, far)), tuple(map(float, frechet)))


def features_of(generator: ImageGenerator) -> Features:
    """The encoder's, or coarse pixels."""
    if generator.encoder is not None:
        return generator.encoder.eval()
    return lambda images: torch.nn.functional.adaptive_avg_pool2d(images.mean(1, keepdim=True), 4)


def _moments(features: Float[Tensor, "n f"]) -> tuple[Tensor, Tensor]:
    """Mean and covariance, with a hundredth of the mean variance on its diagonal: features that
    never move would make any edit infinitely far.
    """
    centred = features - features.mean(0)
    covariance = centred.T @ centred / (len(features) - 1)
    ridge = 0.01 * covariance.diagonal().mean().clamp_min(1e-12)
    return features.mean(0), covariance + ridge * torch.eye(len(covariance)).to(covariance)


def _frechet(mean: Tensor, covariance: Tensor, other: Tensor, spread: Tensor) -> Tensor:
    """‖m − m′‖² + tr(C + C′ − 2 (C C′)^½)."""
    # the product of two positive matrices has positive eigenvalues, up to rounding
    roots = torch.linalg.eigvals(covariance @ spread).real.clamp_min(0).sqrt()
    trace = covariance.diagonal().sum() + spread.diagonal().sum() - 2 * roots.sum()
    return (mean - other).square().sum() + trace.clamp_min(0)


def example() -> tuple[DirectionEffect, Tensor]:
    """Of three latents whose attribute rises along the walk."""
    alpha = torch.tensor(STRENGTHS, dtype=torch.float64)
    return DirectionEffect(), torch.stack([0.5 * alpha, 0.75 * alpha + 1, alpha - 2])
