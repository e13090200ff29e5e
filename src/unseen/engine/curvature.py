"""Curvature of a mean loss: products with its Hessian and Gauss–Newton matrix, largest eigenvalues
and trace.

Products: Pearlmutter (1994) for the Hessian, Schraudolph (2002) for the Gauss–Newton matrix.
Eigenvalues: Lanczos (1950) with full reorthogonalisation. Trace: Hutchinson (1989).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, jvp, vjp

from unseen import stats
from unseen.engine import parameters
from unseen.engine.batches import size
from unseen.engine.example_gradients import ModelAsArgument, double_differentiable
from unseen.engine.example_values import example_values
from unseen.engine.parameters import from_real, real_view
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.reading import Reading
from unseen.task import Batch, PerExample

Vector = Mapping[str, Tensor]
"""A direction in parameter space, by parameter name."""
Product = Callable[[Vector], dict[str, Tensor]]
"""A symmetric matrix as its product with a vector."""


def hessian(model: nn.Module, batches: Sequence[Batch], f: PerExample) -> Product:
    """v ↦ ∇² L v for L = mean of f over all examples of the batches; trainable parameters only.

    The model runs in the mode it is in: call `eval()` first, or dropout makes every product a
    different matrix.
    """
    params, n = parameters.trainable(model), _count(batches)

    def product(v: Vector) -> dict[str, Tensor]:
        total = {name: torch.zeros_like(p) for name, p in params.items()}
        for batch in batches:
            with torch.enable_grad(), double_differentiable():
                loss = example_values(f, model, batch).sum() / n
                first = torch.autograd.grad(
                    loss, list(params.values()), create_graph=True, materialize_grads=True
                )
                along = sum(
                    (real_view(g) * real_view(v[name].to(g))).sum()
                    for name, g in zip(params, first, strict=True)
                )
                if not isinstance(along, Tensor) or not along.requires_grad:
                    continue  # the loss is linear in the parameters here: its Hessian is zero
                second = torch.autograd.grad(along, list(params.values()), materialize_grads=True)
            for name, h in zip(params, second, strict=True):
                total[name] += h
        return total

    return product


def gauss_newton(
    model: nn.Module,
    batches: Sequence[Batch],
    outputs: Callable[[nn.Module, Batch], Tensor],
    loss: Callable[[Tensor, Batch], Float[Tensor, " batch"]],
) -> Product:
    """v ↦ mean over examples of Jᵀ H J v: J the Jacobian of `outputs`, H the Hessian of `loss` in
    the outputs.

    Positive semi-definite when the loss is convex in the outputs; equal to the Hessian for a model
    linear in its parameters.
    """
    params, n = parameters.trainable(model), _count(batches)

    def product(v: Vector) -> dict[str, Tensor]:
        total = {name: torch.zeros_like(p) for name, p in params.items()}
        own = {name: p.detach() for name, p in params.items()}
        tangent = {name: v[name].to(p) for name, p in own.items()}
        for batch in batches:

            def predict(values: Vector, batch: Batch = batch) -> Tensor:
                return functional_call(
                    ModelAsArgument(model),
                    {f"model.{k}": t for k, t in values.items()},
                    (outputs, batch),
                )

            def gradient(z: Tensor, batch: Batch = batch) -> Tensor:
                return torch.func.grad(lambda z: loss(z, batch).sum() / n)(z)

            # JᵀHJ v in three passes: J v forwards, H on the outputs, Jᵀ backwards; J is never
            # formed
            with double_differentiable():
                z, moved = jvp(predict, (own,), (tangent,))[:2]
                curved = jvp(gradient, (z,), (moved,))[1]
                for name, part in vjp(predict, own)[1](curved)[0].items():
                    total[name] += part.detach()
        return total

    return product


@dataclass(frozen=True)
class Spectrum:
    """Extreme eigenvalues of a symmetric matrix, largest first, with unit eigenvectors and
    residuals.
    """

    values: Float[Tensor, " k"]
    vectors: Sequence[Vector]
    residuals: Float[Tensor, " k"]
    """‖A u − λ u‖: an eigenvalue lies within this distance of each value."""


def lanczos(
    product: Product, like: Vector, k: int, lab: Lab, *, most: int = 100, tolerance: float = 1e-4
) -> Spectrum:
    """The k algebraically largest eigenvalues of the matrix behind `product`.

    Stops when every residual is at most `tolerance` times the largest |eigenvalue|, after `most`
    products, or when the Krylov space is exhausted. An eigenvalue of multiplicity m is found once.
    """
    d = sum(real_view(tensor).numel() for tensor in like.values())
    if not 1 <= k <= d or most < k:
        raise InvalidConfig(
            f"lanczos got k={k} and most={most} for {d} parameters.",
            why="it needs 1 ≤ k ≤ the number of parameters and at least k products.",
            fix="lower `k` or raise `most`.",
        )
    basis = [_unit(torch.randn(d, generator=lab.generator(), dtype=torch.float64))]
    alpha: list[float] = []
    beta: list[float] = []
    while True:
        # float64: orthogonality lost to float32 rounding returns copies of eigenvalues already
        # found
        w = _vector(product(_unflatten(basis[-1], like)))
        if not torch.isfinite(w).all():
            raise InvalidData(
                "A curvature product is not finite.",
                "an eigenvalue of it does not exist.",
                "check weights and inputs.",
            )
        alpha.append(float(w @ basis[-1]))
        stacked = torch.stack(basis)
        for _ in range(2):  # twice is enough (Parlett, 1980)
            w = w - stacked.T @ (stacked @ w)
        beta.append(float(w.norm()))
        values, rotations = _tridiagonal(alpha, beta)
        scale = max(float(values.abs().max()), 1e-300)
        found = min(k, len(alpha))
        # ‖A u − λ u‖ of a Ritz pair is β times the last entry of its eigenvector in the Krylov
        # basis
        residuals = beta[-1] * rotations[-1, -found:].abs()
        exhausted = len(alpha) == d or beta[-1] <= 1e-10 * scale
        if (
            exhausted
            or len(alpha) >= most
            or (len(alpha) > k and bool((residuals <= tolerance * scale).all()))
        ):
            vectors = rotations[:, -found:].T @ stacked
            return Spectrum(
                values[-found:].flip(0),
                [_unflatten(u, like) for u in vectors.flip(0)],
                residuals.flip(0),
            )
        basis.append(w / beta[-1])


def hutchinson(product: Product, like: Vector, lab: Lab, *, draws: int = 32) -> Reading:
    """trace(A) = E[zᵀ A z] over random signs z, as the mean over draws with its t interval."""
    if draws < 2:
        raise InvalidConfig(
            f"hutchinson got draws={draws}.", "one draw has no interval.", "set draws ≥ 2."
        )
    generator, values = lab.generator(), []
    for _ in range(draws):
        signs = {
            name: from_real(2.0 * torch.randint(2, real_view(p).shape, generator=generator) - 1, p)
            for name, p in like.items()
        }
        values.append(float(parameters.dot(signs, product(signs))))
    return stats.mean(values)


def _count(batches: Sequence[Batch]) -> int:
    n = sum(size(batch) for batch in batches)
    if not n:
        raise InvalidData(
            "Curvature of no examples.",
            "a mean over nothing does not exist.",
            "give a non-empty batch.",
        )
    return n


def _tridiagonal(alpha: Sequence[float], beta: Sequence[float]) -> tuple[Tensor, Tensor]:
    side = torch.tensor(beta[:-1], dtype=torch.float64)
    t = (
        torch.diag(torch.tensor(alpha, dtype=torch.float64))
        + torch.diag(side, 1)
        + torch.diag(side, -1)
    )
    return torch.linalg.eigh(t)


def _unit(x: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
    return x / x.norm()


def _vector(v: Vector) -> Float[Tensor, " d"]:
    parts = [real_view(tensor.detach()).double().cpu().flatten() for tensor in v.values()]
    return torch.cat(parts)


def _unflatten(x: Float[Tensor, " d"], like: Vector) -> dict[str, Tensor]:
    parts = x.split([real_view(tensor).numel() for tensor in like.values()])
    return {
        name: from_real(part.view(real_view(t).shape), t)
        for (name, t), part in zip(like.items(), parts, strict=True)
    }
