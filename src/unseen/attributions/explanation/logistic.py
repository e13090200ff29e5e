"""Logistic g, σ(w·ξ + w₀): the class that recovers a logistic model where the linear one cannot (no
closed form).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from unseen.engine.local.neighbourhoods import Sample
from unseen.errors import InvalidData

Solved = tuple[Tensor, Tensor, Tensor, Tensor]
"""w, w₀, loss, loss of w = 0."""


def logistic_regression(sample: Sample, f: Float[Tensor, "point n"], steps: int = 50) -> Solved:
    """Cross entropy −E[f log g + (1 − f) log(1 − g)] by Newton steps, all inputs at once; the loss
    is without f's entropy.
    """
    z = torch.cat([sample.xi, torch.ones_like(sample.xi[:, :1])], 1).double()
    y, weight = f.double().clamp(1e-12, 1 - 1e-12), sample.weight.double().expand(f.shape)
    level = (weight * y).sum(1, keepdim=True)
    theta = z.new_zeros(len(f), z.shape[1])
    theta[:, -1:] = level.logit()
    for _ in range(steps):
        g = (theta @ z.T).sigmoid()
        slope = (weight * (y - g)) @ z
        curve = torch.einsum("pn,ni,nj->pij", weight * (g * (1 - g)).clamp_min(1e-12), z, z)
        step = torch.linalg.solve(curve, slope)
        theta = theta + step * (
            5 / step.norm(dim=1, keepdim=True).clamp_min(5)
        )  # far steps overshoot a flat tail
        if bool((step.norm(dim=1) < 1e-10 * (1 + theta.norm(dim=1))).all()):
            break
    _refuse(theta)
    entropy = _cross(y, y)
    loss = ((_cross(y, (theta @ z.T).sigmoid()) - entropy) * weight).sum(1)
    null = ((_cross(y, level) - entropy) * weight).sum(1)
    return tuple(t.to(f) for t in (theta[:, :-1], theta[:, -1], loss.clamp_min(0), null))  # type: ignore[return-value]


def logistic_matching(
    sample: Sample, f: Float[Tensor, "point n"], g: Float[Tensor, "point n d"]
) -> Solved:
    """Gradient matching E‖∇f − g(1 − g) w‖² by L-BFGS in float64, from the mean gradient of f's
    log-odds.
    """
    xi, weight = sample.xi.double(), sample.weight.double().expand(f.shape)
    p, slopes = f.double().clamp(1e-12, 1 - 1e-12), g.double()
    odds = slopes / (p * (1 - p))[..., None]
    w = (weight[..., None] * odds).sum(1).requires_grad_()
    w0 = (weight * (p.logit() - w.detach() @ xi.T)).sum(1).requires_grad_()
    scale = (weight * slopes.square().sum(2)).sum(1).clamp_min(1e-30)

    def losses() -> Tensor:
        q = (w @ xi.T + w0[:, None]).sigmoid()
        return ((slopes - (q * (1 - q))[..., None] * w[:, None]).square().sum(2) * weight).sum(1)

    solver = torch.optim.LBFGS([w, w0], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-16,
                               line_search_fn="strong_wolfe")  # fmt: skip

    def closure() -> Tensor:
        solver.zero_grad()
        total = (losses() / scale).sum()
        total.backward()
        return total

    with torch.enable_grad():
        solver.step(closure)
        loss = losses()
    _refuse(w.detach())
    return tuple(t.detach().to(f) for t in (w, w0, loss, scale))  # type: ignore[return-value]


def _cross(y: Tensor, g: Tensor) -> Tensor:
    g = g.clamp(1e-12, 1 - 1e-12)
    return -(y * g.log() + (1 - y) * (1 - g).log())


def _refuse(theta: Tensor) -> None:
    if not torch.isfinite(theta).all():
        raise InvalidData(
            "The logistic fit did not converge.",
            why="the behaviour is 0 or 1 almost everywhere, which infinite weights fit best.",
            fix="use a wider neighbourhood, or explain the logit with a linear g.",
        )
