"""The eight methods twice: as instances of the local approximation, and each by its own
definition.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from unseen.attributions.explanation import eight
from unseen.attributions.explanation.solve import Approximation
from unseen.engine.local.neighbourhoods import Coalitions, Gaussian, PathSegment
from unseen.engine.local.perturbed_model import PerturbedModel
from unseen.engine.local.surrogate import Loss
from unseen.lab import Lab
from unseen.tasks.sklearn_tables import SklearnDataset

TIES = ({"C-LIME", "SmoothGrad"}, {"Vanilla Gradients", "Gradient × Input"})
"""Equal in expectation: Stein's lemma; the same gradient in two units."""


@dataclass(frozen=True)
class Config:
    tables: tuple[SklearnDataset, ...] = (SklearnDataset.DIABETES, SklearnDataset.CANCER)
    hidden: tuple[int, ...] = (2,)
    """Numbers of hidden layers of width 8; linear models are always trained beside them."""
    points: int = 60
    noise: int = 20_000
    """Gaussian samples."""
    masks: int = 4_096
    sigma: float = 0.1
    width: float = 1.0
    shares: tuple[float, ...] = (0.1, 0.2, 0.3, 0.5)
    """Of the features, perturbed in the perturbation tests."""
    steps: int = 500
    seeds: int = 10


def instances(config: Config) -> dict[str, Approximation]:
    """The eight rows of the paper's table, with its kernel and without scaling."""
    made = {name: preset.approximation(nn.Identity()) for name, preset in eight().items()}
    noise, masks = Gaussian(config.sigma, config.noise), made["LIME"].neighbourhood
    return made | {
        "LIME": Approximation(type(masks)(config.width, config.masks, scaled=False)),  # type: ignore[call-arg]
        "C-LIME": Approximation(noise),
        "SmoothGrad": Approximation(noise, Loss.GRADIENT),
        "KernelSHAP": Approximation(Coalitions(config.masks)),
        "Integrated Gradients": Approximation(PathSegment(), Loss.GRADIENT),
    }


def _gradient(at: PerturbedModel, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(at.model(x)[:, 0].sum(), x)[0]


def _smooth(at: PerturbedModel, config: Config, lab: Lab) -> Tensor:
    g, n = lab.generator(), config.noise
    return torch.stack(
        [
            _gradient(at, x + config.sigma * torch.randn(n, at.d, generator=g, dtype=x.dtype)).mean(
                0
            )
            for x in at.point
        ]
    )


def _integrated_gradients(at: PerturbedModel, config: Config, lab: Lab) -> Tensor:
    ways = (torch.arange(300) + 0.5) / 300
    return torch.stack([x * _gradient(at, ways[:, None].to(x) * x).mean(0) for x in at.point])


@torch.no_grad()
def _occlusion(at: PerturbedModel, config: Config, lab: Lab) -> Tensor:
    whole_output = at.model(at.point)
    left = [at.model(at.point * (torch.arange(at.d) != j)) for j in range(at.d)]
    return whole_output - torch.cat(left, 1)


@torch.no_grad()
def _noisy(at: PerturbedModel, config: Config, lab: Lab) -> Tensor:
    """Ordinary least squares per point on its own noise."""
    rng, rows = lab.numpy(), []
    for x in at.point:
        xi = torch.as_tensor(config.sigma * rng.normal(size=(config.noise, at.d)))
        rows.append(_fit(xi, at.model(x + xi)[:, 0], torch.ones(len(xi), dtype=x.dtype)))
    return torch.stack(rows)


@torch.no_grad()
def _lime(at: PerturbedModel, config: Config, lab: Lab) -> Tensor:
    rng, rows = lab.numpy(), []
    for x in at.point:
        xi = torch.as_tensor(rng.integers(2, size=(config.masks, at.d)).astype(float))
        distance2 = (x * (1 - xi)).square().sum(1)
        rows.append(_fit(xi, at.model(xi * x)[:, 0], (-distance2 / config.width**2).exp()))
    return torch.stack(rows)


@torch.no_grad()
def _shapley(at: PerturbedModel, config: Config, lab: Lab) -> Tensor:
    """Mean marginal contributions over random orders and their reverses (Castro et al., 2009)."""
    rng, total, n = lab.numpy(), torch.zeros_like(at.point), max(1, config.masks // 8)
    for _ in range(n):
        order = rng.permutation(at.d)
        for way in (order, order[::-1]):
            kept = torch.as_tensor(np.argsort(way)[None] < np.arange(at.d + 1)[:, None]).to(
                at.point
            )  # first k of the order
            f = at.model((kept[:, None] * at.point).flatten(0, 1)).view(at.d + 1, -1)
            total[:, way.copy()] += (f[1:] - f[:-1]).T / (2 * n)
    return total


def _fit(xi: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    design = torch.cat([xi, torch.ones_like(xi[:, :1])], 1)
    weighted = (weight[:, None] * design).T  # lstsq gives other last digits in other memory
    return torch.linalg.solve(weighted @ design, weighted @ y)[:-1]


CLASSIC: Mapping[str, Callable[[PerturbedModel, Config, Lab], Tensor]] = {
    "LIME": _lime,
    "C-LIME": _noisy,
    "KernelSHAP": _shapley,
    "Occlusion": _occlusion,
    "Vanilla Gradients": lambda at, config, lab: _gradient(at, at.point),
    "Gradient × Input": lambda at, config, lab: at.point * _gradient(at, at.point),
    "SmoothGrad": _smooth,
    "Integrated Gradients": _integrated_gradients,
}
