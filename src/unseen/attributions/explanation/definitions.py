"""The eight methods by their authors' own definitions, and the same as instances of the local
approximation: what a comparison of the two needs.

Han, Srinivas & Lakkaraju (2022), arXiv:2206.01254, table 1. Nothing here is shared with the
solvers: gradients, masks and orders are drawn and fitted point by point.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from unseen.attributions.explanation import eight
from unseen.attributions.explanation.solve import Approximation
from unseen.engine.local.neighbourhoods import Coalitions, Gaussian, Masks, PathSegment
from unseen.engine.local.perturbed_model import PerturbedModel
from unseen.engine.local.surrogate import Loss
from unseen.lab import Lab

TIES = ({"C-LIME", "SmoothGrad"}, {"Vanilla Gradients", "Gradient × Input"})
"""Equal in expectation: Stein's lemma; the same gradient in two units."""
STEPS = 300
"""Midpoints of the way from the baseline."""


@dataclass(frozen=True)
class Sampling:
    """How much is drawn around every point, and how far away."""

    noise: int = 20_000
    """Gaussian samples."""
    masks: int = 4_096
    sigma: float = 0.1
    width: float = 1.0
    """Of LIME's kernel, in the units of the inputs."""


def instances(sampling: Sampling) -> dict[str, Approximation]:
    """The eight rows of the paper's table, with its kernel and without scaling."""
    approximations = {name: one.approximation(nn.Identity()) for name, one in eight().items()}
    noise = Gaussian(sampling.sigma, sampling.noise)
    return approximations | {
        "LIME": Approximation(Masks(sampling.width, sampling.masks, scaled=False)),
        "C-LIME": Approximation(noise),
        "SmoothGrad": Approximation(noise, Loss.GRADIENT),
        "KernelSHAP": Approximation(Coalitions(sampling.masks)),
        "Integrated Gradients": Approximation(PathSegment(), Loss.GRADIENT),
    }


def gradient(at: PerturbedModel, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(at.model(x)[:, 0].sum(), x)[0]


def smooth_gradient(at: PerturbedModel, sampling: Sampling, lab: Lab) -> Tensor:
    generator, shape = lab.generator(), (sampling.noise, at.d)

    def noise(x: Tensor) -> Tensor:
        return sampling.sigma * torch.randn(shape, generator=generator, dtype=x.dtype)

    return torch.stack([gradient(at, x + noise(x)).mean(0) for x in at.point])


def integrated_gradients(at: PerturbedModel, sampling: Sampling, lab: Lab) -> Tensor:
    along = (torch.arange(STEPS) + 0.5) / STEPS
    return torch.stack([x * gradient(at, along[:, None].to(x) * x).mean(0) for x in at.point])


@torch.no_grad()
def occlusion(at: PerturbedModel, sampling: Sampling, lab: Lab) -> Tensor:
    without = [at.model(at.point * (torch.arange(at.d) != j)) for j in range(at.d)]
    return at.model(at.point) - torch.cat(without, 1)


@torch.no_grad()
def noisy_regression(at: PerturbedModel, sampling: Sampling, lab: Lab) -> Tensor:
    """Ordinary least squares per point on its own noise."""
    rng, slopes = lab.numpy(), []
    for x in at.point:
        xi = torch.as_tensor(sampling.sigma * rng.normal(size=(sampling.noise, at.d)))
        weight = torch.ones(len(xi), dtype=x.dtype)
        slopes.append(least_squares(xi, at.model(x + xi)[:, 0], weight))
    return torch.stack(slopes)


@torch.no_grad()
def masked_regression(at: PerturbedModel, sampling: Sampling, lab: Lab) -> Tensor:
    """Weighted least squares per point on its own masks."""
    rng, slopes = lab.numpy(), []
    for x in at.point:
        xi = torch.as_tensor(rng.integers(2, size=(sampling.masks, at.d)).astype(float))
        distance2 = (x * (1 - xi)).square().sum(1)
        weight = (-distance2 / sampling.width**2).exp()
        slopes.append(least_squares(xi, at.model(xi * x)[:, 0], weight))
    return torch.stack(slopes)


def least_squares(xi: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    design = torch.cat([xi, torch.ones_like(xi[:, :1])], 1)
    weighted = (weight[:, None] * design).T  # lstsq gives other last digits in other memory
    return torch.linalg.solve(weighted @ design, weighted @ y)[:-1]


@torch.no_grad()
def shapley_values(at: PerturbedModel, sampling: Sampling, lab: Lab) -> Tensor:
    """Mean marginal contributions over random orders and their reverses (Castro et al., 2009)."""
    rng, total, n = lab.numpy(), torch.zeros_like(at.point), max(1, sampling.masks // 8)
    for _ in range(n):
        forward = rng.permutation(at.d)
        for order in (forward, forward[::-1]):
            # the first k features of the order, k = 0 … d
            first = np.argsort(order)[None] < np.arange(at.d + 1)[:, None]
            masks = torch.as_tensor(first).to(at.point)
            f = at.model((masks[:, None] * at.point).flatten(0, 1)).view(at.d + 1, -1)
            total[:, order.copy()] += (f[1:] - f[:-1]).T / (2 * n)
    return total


DEFINITIONS: Mapping[str, Callable[[PerturbedModel, Sampling, Lab], Tensor]] = {
    "LIME": masked_regression,
    "C-LIME": noisy_regression,
    "KernelSHAP": shapley_values,
    "Occlusion": occlusion,
    "Vanilla Gradients": lambda at, sampling, lab: gradient(at, at.point),
    "Gradient × Input": lambda at, sampling, lab: at.point * gradient(at, at.point),
    "SmoothGrad": smooth_gradient,
    "Integrated Gradients": integrated_gradients,
}
