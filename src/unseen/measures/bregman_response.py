"""Proximal Bregman response: what influence functions estimate in networks that did not converge.

Bae et al. (2022), arXiv:2209.05364; Grosse et al. (2023), arXiv:2308.03296, equation 13. Training
again answers another question: there initial weights, early stopping and non-convexity act, here
the change stays near the trained weights.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import sqrt

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unseen.engine import parameters
from unseen.engine.batches import size
from unseen.errors import Divergence, InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.measures.leave_one_out import correlation
from unseen.reading import Reading
from unseen.task import Batch, PerExample

Outputs = Callable[[nn.Module, Batch], Tensor]
"""The model's outputs [batch, …]; the loss must be convex in them."""
OutputLoss = Callable[[Tensor, Batch], Float[Tensor, " batch"]]


@dataclass(frozen=True)
class Proximal:
    """θ(ε) = argmin (1/N) Σ_i D(h(θ, x_i), h(θ_s, x_i)) + ε L(z, θ) + λ/2 ‖θ − θ_s‖², ε = copies/N,
    by L-BFGS in float64.

    D is the Bregman divergence of the loss in the outputs h: KL(p_s ‖ p) for cross-entropy, half
    the squared distance for squared error. To first order θ(ε) − θ_s = −ε (G + λ)⁻¹ ∇L(z), G the
    Gauss–Newton matrix.
    """

    damping: float
    """λ, absolute."""
    copies: float = -0.1
    """Added copies of the example; a negative number takes a part of it away."""
    iterations: int = 2_000
    tolerance: float = 1e-4
    """Largest gradient at the end, as a share of that at the start."""

    def __post_init__(self) -> None:
        if (
            not self.damping > 0
            or not self.copies
            or self.iterations < 1
            or not 0 < self.tolerance < 1
        ):
            raise InvalidConfig(
                f"{self} has no minimum to find.",
                why="λ and the tolerance are positive, and nothing happens with 0 copies.",
                fix="choose for example damping=0.01, copies=-0.1.",
            )

    def response(
        self, model: nn.Module, data: Batch, outputs: Outputs, loss: OutputLoss, changed: Batch
    ) -> nn.Module:
        """A copy of the model moved to θ(ε); `changed` is the batch whose summed loss is weighted
        by ε.
        """
        moved = copy.deepcopy(model).double().eval()
        data, changed, n = _double(data), _double(changed), size(data)
        params = parameters.trainable(moved)
        start = parameters.copy_parameters(moved)
        divergence = bregman(loss, outputs(moved, data).detach(), data)
        left = 0.0

        def value() -> Tensor:
            nonlocal left
            moved.zero_grad(set_to_none=True)
            near = sum((p - start[name]).square().sum() for name, p in params.items())
            # times N: the line search's own thresholds suit values of order 1
            total = (
                divergence(outputs(moved, data)).sum()
                + self.copies * loss(outputs(moved, changed), changed).sum()
            )
            total = total + n * self.damping / 2 * near
            total.backward()
            left = float(
                parameters.norm({name: p.grad for name, p in params.items() if p.grad is not None})
            )
            return total.detach()

        value()
        begun, numbers = left, sum(p.numel() for p in params.values())
        optimizer = torch.optim.LBFGS(
            list(params.values()),
            max_iter=self.iterations,
            tolerance_grad=self.tolerance * begun / sqrt(numbers),
            tolerance_change=0.0,
            history_size=50,
            line_search_fn="strong_wolfe",
        )
        optimizer.step(value)
        value()
        if not left <= self.tolerance * begun:
            raise Divergence(
                f"L-BFGS left {left / begun:.1e} of the gradient after {self.iterations} "
                "iterations.",
                why="the proximal problem is not solved: λ is small against the largest curvature, "
                "or a kink (ReLU).",
                fix="raise `damping`, `iterations` or `tolerance`, take fewer `copies`, or use a "
                "smooth activation.",
            )
        return moved

    def responses(
        self,
        model: nn.Module,
        data: Batch,
        rows: Int[Tensor, " row"],
        outputs: Outputs,
        loss: OutputLoss,
        queries: Batch,
        behaviour: PerExample,
    ) -> Float[Tensor, "query row"]:
        """(f(θ(ε)) − f(θ_s)) / copies of every query for each of these examples of `data`: per
        added copy.
        """
        queries, still = _double(queries), copy.deepcopy(model).double().eval()
        with torch.no_grad():
            before = behaviour(still, queries)
        changes = []
        for row in rows.tolist():
            example = {name: tensor[row : row + 1] for name, tensor in data.items()}
            moved = self.response(model, data, outputs, loss, example)
            with torch.no_grad():
                changes.append((behaviour(moved, queries) - before) / self.copies)
        return torch.stack(changes, 1)


def bregman(
    loss: OutputLoss, at: Tensor, batch: Batch
) -> Callable[[Tensor], Float[Tensor, " batch"]]:
    """D(h, at) = L(h) − L(at) − ⟨∇L(at), h − at⟩ per example."""
    with torch.enable_grad():
        point = at.detach().requires_grad_()
        value = loss(point, batch)
        (slope,) = torch.autograd.grad(value.sum(), point)
    value = value.detach()

    def divergence(h: Tensor) -> Float[Tensor, " batch"]:
        return loss(h, batch) - value - (slope * (h - at)).flatten(1).sum(1)

    return divergence


def _double(batch: Batch) -> dict[str, Tensor]:
    if not size(batch):
        raise InvalidData(
            "The response got no examples.", why="nothing pulls the model.", fix="give a batch."
        )
    return {
        name: tensor.double() if tensor.is_floating_point() else tensor
        for name, tensor in batch.items()
    }


@dataclass(frozen=True)
class ResponseCorrelation:
    """Mean over queries of r between `scores` and `responses`, both [query, example] and per added
    copy.
    """

    def __call__(self, subject: Mapping[str, Tensor], lab: Lab) -> Reading:
        return correlation(subject["scores"], subject["responses"])


def example() -> tuple[ResponseCorrelation, dict[str, Tensor]]:
    """Three queries whose responses are the scores with noise."""
    generator = Lab().child("response").generator()
    scores, noise = (torch.randn(3, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    return ResponseCorrelation(), {"scores": scores, "responses": scores + 0.3 * noise}
