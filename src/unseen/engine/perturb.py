"""Perturbations in parameter and input space."""

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


@contextlib.contextmanager
def shifted(params: Sequence[Tensor], by: Sequence[Tensor]) -> Iterator[None]:
    """Inside the block `params` are moved by `by`; afterwards they hold their exact old values, also after an error."""
    old = [p.detach().clone() for p in params]
    try:
        with torch.no_grad():
            torch._foreach_add_(list(params), list(by))
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(list(params), old)


def sphere(params: Sequence[Tensor], radius: float, generator: torch.Generator) -> list[Tensor]:
    """A direction drawn uniformly from the sphere of `radius` in the space of all entries."""
    noise = [torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p) for p in params]
    norm = torch.stack([x.double().square().sum() for x in noise]).sum().sqrt()
    return [x * (radius / norm).to(x) for x in noise]


def gaussian(x: Tensor, scale: float, generator: torch.Generator) -> Tensor:
    """x plus independent normal noise of standard deviation `scale`."""
    return x + scale * torch.randn(x.shape, generator=generator).to(x)
