"""A⁻¹ b by products with A alone, for many b at once, preconditioned by an approximate inverse.

Conjugate gradients: Hestenes & Stiefel, 1952. The stochastic form is ASTRA's (Wang et al., 2025,
arXiv:2507.14740): preconditioned descent on ½ xᵀ A x − bᵀ x with the A of a minibatch.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unseen.errors import Divergence

Matrix = Callable[[Float[Tensor, "q p"]], Float[Tensor, "q p"]]
"""A symmetric positive definite matrix, as its product with every row."""

log = logging.getLogger("unseen.influence")
MUCH = 0.05
"""Share of the right-hand side beyond which a residual is said."""
POWERS = 8
"""Products that estimate the largest eigenvalue, from below; a step of its inverse is stable up to
twice that eigenvalue.
"""


class Solution(NamedTuple):
    """What a solve ended with."""

    x: Float[Tensor, "q p"]
    residual: Float[Tensor, " q"]
    """‖A x − b‖ / ‖b‖ of every row; 0 where b is."""


def conjugate_gradients(
    product: Matrix,
    precondition: Matrix,
    b: Float[Tensor, "q p"],
    steps: Iterable[int],
    tolerance: float = 1e-10,
) -> Solution:
    """A⁻¹ b after so many steps from the preconditioner's own answer.

    Every row goes its own way: one whose residual is `tolerance` of b stays where it is, so that a
    row's answer does not depend on its company. The residual is that of the recurrence.
    """
    x = precondition(b)
    r = b - product(x)
    z = precondition(r)
    p, rz = z, _dots(r, z)
    least = tolerance * b.norm(dim=1)
    for _ in steps:
        moves = ~(r.norm(dim=1) <= least)  # NaN moves, too, and is found at the end
        if not moves.any():
            continue  # the steps may be a progress bar, which is to reach its end
        ap = product(p)
        alpha = torch.where(moves, _ratio(rz, _dots(p, ap)), 0.0)[:, None]
        x, r = x + alpha * p, r - alpha * ap
        z = precondition(r)
        new = _dots(r, z)
        p, rz = z + _ratio(new, rz)[:, None] * p, new
    return _solution(x, r, b, "Conjugate gradients")


def _solution(
    x: Float[Tensor, "q p"], r: Float[Tensor, "q p"], b: Float[Tensor, "q p"], solver: str
) -> Solution:
    """x, if it is finite; what is left is said where it is much."""
    found = Solution(refuse_divergence(x), _ratio(r.norm(dim=1), b.norm(dim=1)))
    far = found.residual > MUCH
    if bool(far.any()):
        log.warning(
            "%s did not converge for %d of %d vectors: the residual is up to %.2g of the "
            "right-hand side. Raise the iterations or the damping.",
            solver,
            int(far.sum()),
            len(b),
            float(found.residual[far].max()),
        )
    return found


def stochastic_descent(
    products: Sequence[Matrix],
    whole: Matrix,
    precondition: Matrix,
    b: Float[Tensor, "q p"],
    start: Float[Tensor, "1 p"],
    steps: Iterable[int],
) -> Solution:
    """The mean over the second half of the steps x ← x − α M⁻¹(A_k x − b), with A_k of minibatch k.

    The residual is that of the `whole` matrix, a product more: minibatches do not tell it.

    α is the inverse of the largest eigenvalue of M⁻¹A_k among the first eighth of the minibatches,
    by powers from `start`. The paper tunes the step instead.
    """
    x, half = precondition(b), len(products) // 2
    mean, count = torch.zeros_like(x), 0
    some = products[: max(1, len(products) // 8)]
    alpha = 1 / max(largest_eigenvalue(product, precondition, start) for product in some)
    for k in steps:
        x = x - alpha * precondition(products[k](x) - b)
        if k >= half:
            mean, count = mean + x, count + 1
    x = refuse_divergence(mean / count if count else x)
    return _solution(x, whole(x) - b, b, "Stochastic descent")


def largest_eigenvalue(product: Matrix, precondition: Matrix, start: Float[Tensor, "1 p"]) -> float:
    """Of M⁻¹A, by powers from `start`."""
    v = start
    for _ in range(POWERS):
        v = precondition(product(v / v.norm()))
    return float(v.norm())


def refuse_divergence(x: Float[Tensor, "q p"]) -> Float[Tensor, "q p"]:
    """x, if it is finite."""
    if torch.isfinite(x).all():
        return x
    raise Divergence(
        "An iterative solve is no longer finite.",
        why="the matrix is close to singular in the model's precision.",
        fix="raise `damping`, lower `iterations`, or use curvature=Curvature.EKFAC.",
    )


def _dots(a: Tensor, b: Tensor) -> Float[Tensor, " q"]:
    return (a * b).sum(1)


def _ratio(a: Tensor, b: Tensor) -> Float[Tensor, " q"]:
    """a / b; 0 where b is: a row that has arrived."""
    return torch.where(b == 0, 0.0, a / torch.where(b == 0, 1.0, b))
