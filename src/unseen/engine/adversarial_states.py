"""Hidden states of a target moved so that it becomes unlikely, or far from its source but as likely
as before (CLAPS; Lee, Lee & Hwang, 2021, arXiv:2012.07280).

States are tokens of a whole batch in one matrix, without padding, with the row that each belongs
to. Every token moves by its own radius: normalised over a sequence, one token would take it all.
What is returned is constant: nothing differentiates through a perturbation.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unseen.errors import InvalidConfig, InvalidData

Loss = Callable[[Float[Tensor, "token d"]], Float[Tensor, ""]]
"""Of the states of all tokens."""


def imposter(
    states: Float[Tensor, "token d"], loss: Loss, radius: float | Float[Tensor, "token 1"]
) -> Float[Tensor, "token d"]:
    """Ẑ_t = Z_t + ε g_t/‖g_t‖ with g the gradient of `loss`, the negative log-likelihood: to first
    order it rises by ε Σ‖g_t‖, the most that steps of this length can do.
    """
    return states.detach() + _radius(radius) * ascent_directions(states, loss)


def distant_target(
    states: Float[Tensor, "token d"],
    contrast: Loss,
    divergence: Loss,
    radius: float | Float[Tensor, "token 1"],
) -> Float[Tensor, "token d"]:
    """Z̄ = Z + ε q_t/‖q_t‖, up the contrastive loss, and from there − ε k_t/‖k_t‖, down the
    divergence KL(p(·|Z) ‖ p(·|Z̄)), towards words as likely as before. The second step is as long
    as the first and may overshoot: where the divergence is quadratic, smaller radii do not help.
    A token that the first step leaves where it was stays there.
    """
    away = imposter(states, contrast, radius)
    back = _radius(radius) * ascent_directions(away, divergence)
    # at p = p the gradient of the divergence is rounding, which has a direction
    moved = (away != states.detach()).any(1, keepdim=True)
    return torch.where(moved, away - back, away)


def ascent_directions(states: Float[Tensor, "token d"], loss: Loss) -> Float[Tensor, "token d"]:
    """The gradient of `loss` by token, each of norm 1; 0 where it is 0. No parameter's `.grad`
    changes.
    """
    with torch.enable_grad():
        moved = states.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(moved), moved)
    # by the largest coordinate first: squares of gradients of well known tokens underflow
    largest = gradient.abs().amax(1, keepdim=True)
    scaled = gradient / torch.where(largest > 0, largest, 1)
    norms = scaled.norm(dim=1, keepdim=True)
    return scaled / torch.where(norms > 0, norms, 1)


def random_directions(
    states: Float[Tensor, "token d"], generator: torch.Generator | None
) -> Float[Tensor, "token d"]:
    """Directions of norm 1, each as likely."""
    drawn = torch.randn(states.shape, generator=generator, dtype=states.dtype).to(states.device)
    return drawn / drawn.norm(dim=1, keepdim=True)


def average_by_row(
    states: Float[Tensor, "token d"], rows: Int[Tensor, " token"], count: int
) -> Float[Tensor, "row d"]:
    """The mean over each row's tokens, which padding is not among."""
    sizes = torch.bincount(rows, minlength=count)
    if not bool((sizes > 0).all()):
        raise InvalidData(
            f"Row {int((sizes == 0).nonzero()[0])} of the batch has padding only.",
            why="the mean over its tokens is 0/0.",
            fix="leave out pairs with an empty source, or whose target has no supervised token.",
        )
    total = states.new_zeros(count, states.shape[1]).index_add(0, rows, states)
    return total / sizes[:, None]


def cosines(
    anchors: Float[Tensor, "anchor d"], candidates: Float[Tensor, "candidate d"]
) -> Float[Tensor, "anchor candidate"]:
    """cos of every pair; 0 where a vector is 0."""
    return _unit(anchors) @ _unit(candidates).T


def paired_cosines(
    anchors: Float[Tensor, "row d"], candidates: Float[Tensor, "row d"]
) -> Float[Tensor, " row"]:
    """cos of anchor i and candidate i."""
    return (_unit(anchors) * _unit(candidates)).sum(1)


def _unit(vectors: Float[Tensor, "row d"]) -> Float[Tensor, "row d"]:
    return torch.nn.functional.normalize(vectors, dim=1)


def _radius(radius: float | Tensor) -> float | Tensor:
    if bool((torch.as_tensor(radius) < 0).any()):
        raise InvalidConfig(
            f"A perturbation got radius={float(torch.as_tensor(radius).min()):g}.",
            why="it is a length; the direction decides what rises.",
            fix="use 0 or more.",
        )
    return radius
