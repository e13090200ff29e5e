"""Ghost batch normalization (Hoffer, Hubara & Soudry, 2017, arXiv:1705.08741): statistics of small
parts of a batch.

A large batch normalised by its own statistics loses the noise that a small batch has. Here a batch
is split into ghosts of a fixed size, in order, and each is normalised as if it were a batch of its
own.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from unseen.engine.batches import Columns
from unseen.engine.loop import Budget, Optimizer, erm_step, train
from unseen.errors import InvalidConfig, InvalidData, UnsupportedLayer
from unseen.lab import Lab
from unseen.method import Trained
from unseen.models.mlp import mlp
from unseen.objectives import classify
from unseen.task import Axis, Split, Task, Use


class _Ghosts:
    """What the one- and two-dimensional layers share; the batch-norm class beside it brings
    parameters and buffers.
    """

    ghost: int

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.track_running_stats:  # type: ignore[attr-defined]
            return super().forward(x)  # type: ignore[misc]
        self._check_input_dim(x)  # type: ignore[attr-defined]
        if len(x) <= self.ghost:
            if len(x) < self.ghost:
                warnings.warn(
                    f"A batch of {len(x)} is smaller than the ghost size {self.ghost}: plain batch "
                    "norm is used.",
                    stacklevel=2,
                )
            return super().forward(x)  # type: ignore[misc]
        return ghost_batch_norm(x, self, self.ghost)  # type: ignore[arg-type]

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, ghost={self.ghost}"  # type: ignore[misc]


class GhostBatchNorm1d(_Ghosts, nn.BatchNorm1d):
    """Batch norm of each `ghost` consecutive examples; the last ghost may be smaller, but not a
    single example.

    In evaluation it is batch norm with the running statistics, which follow the ghosts one after
    the other: μ_run ← (1−ρ)^k μ_run + Σ_l ρ(1−ρ)^(k−l) μ_l over the k ghosts of a batch, the same
    for the unbiased variance. A batch smaller than a ghost is normalised as a whole, with a
    warning.
    """

    def __init__(self, features: int, ghost: int, **options: Any) -> None:
        super().__init__(features, **options)
        self.ghost = _size(ghost)


class GhostBatchNorm2d(_Ghosts, nn.BatchNorm2d):
    """`GhostBatchNorm1d` for maps [batch channel height width]."""

    def __init__(self, features: int, ghost: int, **options: Any) -> None:
        super().__init__(features, **options)
        self.ghost = _size(ghost)


def ghost_batch_norm(
    x: Float[Tensor, "batch feature *place"], norm: nn.BatchNorm1d | nn.BatchNorm2d, ghost: int
) -> Float[Tensor, "batch feature *place"]:
    """Every `ghost` consecutive examples normalised by themselves; updates the running statistics
    of `norm` in order.
    """
    rest = len(x) % ghost
    if rest == 1:
        raise InvalidData(
            f"A batch of {len(x)} leaves a ghost of one example at ghost size {ghost}.",
            why="one example has no variance.",
            fix="choose a batch size that is a multiple of the ghost size.",
        )
    k = len(x) // ghost
    even, tail = (x[: k * ghost], x[k * ghost :]) if rest else (x, None)
    factors = _factors(norm, k)
    if x.dim() == 2:
        weight = x.new_ones(x.shape[1]) if norm.weight is None else norm.weight
        bias = x.new_zeros(x.shape[1]) if norm.bias is None else norm.bias
        y = _GhostNormFunction.apply(
            even, weight, bias, norm.running_mean, norm.running_var, factors, ghost, norm.eps
        )
    elif x.is_cuda:
        y = _as_channels(even, norm, factors, ghost)
    # on a CPU the native kernel per ghost is faster for maps than any rearrangement:
    # benchmarks/ghost_batch_norm.py
    else:
        y = torch.cat(
            [
                _single(part, norm, factor)
                for part, factor in zip(even.split(ghost), factors, strict=True)
            ]
        )
    if tail is None:
        return y
    return torch.cat([y, _single(tail, norm, _factors(norm, 1)[0])])


def _factors(norm: nn.BatchNorm1d | nn.BatchNorm2d, k: int) -> tuple[float, ...]:
    """The update factor ρ of each of the next k ghosts; without momentum, of a cumulative mean.
    Counts the ghosts.
    """
    assert norm.num_batches_tracked is not None  # guarded by track_running_stats
    seen = (
        int(norm.num_batches_tracked) if norm.momentum is None else 0
    )  # read only where needed: it waits for a GPU
    norm.num_batches_tracked.add_(k)
    return (
        (norm.momentum,) * k
        if norm.momentum is not None
        else tuple(1 / (seen + 1 + l) for l in range(k))
    )


def shares(factors: Sequence[float]) -> tuple[float, list[float]]:
    """The weight of the old value and of each ghost after r ← (1−ρ_l) r + ρ_l s_l for l = 1 … k."""
    kept, weights = 1.0, []
    # from the last ghost backwards: its share is ρ, the one before has ρ(1−ρ), …
    for factor in reversed(factors):
        weights.append(kept * factor)
        kept *= 1 - factor
    return kept, weights[::-1]


@lru_cache(maxsize=64)  # the same at every step: making the tensor anew costs a tenth of the layer
def _shares_on_device(
    factors: tuple[float, ...], device: torch.device, dtype: torch.dtype
) -> tuple[float, Tensor]:
    kept, weights = shares(factors)
    return kept, torch.tensor(weights, device=device, dtype=dtype)


def _single(x: Tensor, norm: nn.BatchNorm1d | nn.BatchNorm2d, factor: float) -> Tensor:
    return F.batch_norm(
        x, norm.running_mean, norm.running_var, norm.weight, norm.bias, True, factor, norm.eps
    )


def _update(
    norm_mean: Tensor,
    norm_var: Tensor,
    mean: Tensor,
    variance: Tensor,
    factors: tuple[float, ...],
    bessel: float = 1.0,
) -> None:
    """The running statistics after the ghosts' [ghost feature] means and variances (× `bessel`), in
    order.
    """
    kept, each = _shares_on_device(factors, mean.device, mean.dtype)
    norm_mean.addmv_(mean.T, each, beta=kept)
    norm_var.addmv_(variance.T, each, beta=kept, alpha=bessel)


def _as_channels(
    x: Tensor, norm: nn.BatchNorm1d | nn.BatchNorm2d, factors: tuple[float, ...], ghost: int
) -> Tensor:
    """All ghosts in one call of the native kernel: [k ghost feature …] seen as [ghost (k feature)
    …].
    """
    k, features = len(x) // ghost, x.shape[1]
    wide = x.view(k, ghost, *x.shape[1:]).transpose(0, 1).reshape(ghost, k * features, *x.shape[2:])
    mean, variance = x.new_zeros(k * features), x.new_zeros(k * features)
    weight, bias = (None if p is None else p.repeat(k) for p in (norm.weight, norm.bias))
    # momentum 1: the running statistics of the wide call are the (unbiased) statistics of each
    # ghost
    y = F.batch_norm(wide, mean, variance, weight, bias, True, 1.0, norm.eps)
    assert norm.running_mean is not None  # guarded by track_running_stats
    assert norm.running_var is not None
    _update(
        norm.running_mean,
        norm.running_var,
        mean.view(k, features),
        variance.view(k, features),
        factors,
    )
    return y.view(ghost, k, *x.shape[1:]).transpose(0, 1).reshape(x.shape)


class _GhostNormFunction(torch.autograd.Function):
    """The layer on vectors, all ghosts at once, in as few passes over memory as batch norm itself.

    With centred values c, inverse deviation r and the ghost size g: y = w r c + b and
    ∂x = w r (∂y − mean ∂y − c r² mean(∂y c)).
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        factors: tuple[float, ...],
        ghost: int,
        eps: float,
    ) -> Tensor:
        ghosts = x.view(-1, ghost, x.shape[1])
        mean = ghosts.mean(1, keepdim=True)
        centred = ghosts - mean
        y = centred * centred
        variance = y.mean(1, keepdim=True)  # about the mean, in two passes: no cancellation
        inverse = (variance + eps).rsqrt_()
        torch.addcmul(bias, centred, inverse * weight, out=y)
        ctx.save_for_backward(centred, inverse, weight)
        _update(
            running_mean,
            running_var,
            mean.squeeze(1),
            variance.squeeze(1),
            factors,
            ghost / (ghost - 1),
        )
        return y.view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        centred, inverse, weight = ctx.saved_tensors
        ghost = centred.shape[1]
        out = gradient.reshape(centred.shape)
        total = out.sum(1, keepdim=True)
        # reused below as the result: one buffer less on a layer that memory bounds
        inner = out * centred
        along = inner.sum(1, keepdim=True).mul_(inverse)
        scale = inverse * weight
        torch.addcmul(total * scale * (-1 / ghost), out, scale, out=inner)
        inner.addcmul_(centred, scale * inverse * along, value=-1 / ghost)
        return (
            inner.view(gradient.shape),
            along.sum((0, 1)),
            total.sum((0, 1)),
            None,
            None,
            None,
            None,
            None,
        )


def convert(model: nn.Module, ghost: int) -> nn.Module:
    """The model with every BatchNorm1d and BatchNorm2d replaced by its ghost version; parameters,
    buffers are shared.
    """
    _size(ghost)
    if isinstance(model, nn.BatchNorm1d | nn.BatchNorm2d):
        return _ghost_layer(model, ghost)
    replaced: dict[nn.Module, nn.Module] = {}  # a layer used in two places stays one layer
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
                parent._modules[name] = replaced.setdefault(child, _ghost_layer(child, ghost))
            elif isinstance(child, nn.BatchNorm3d | nn.SyncBatchNorm):
                raise UnsupportedLayer(
                    f"{type(child).__name__} `{name}` has no ghost version.",
                    why="ghost statistics are defined here for vectors and for two-dimensional "
                    "maps on one device.",
                    fix="use BatchNorm1d or BatchNorm2d.",
                )
    if not replaced:
        raise UnsupportedLayer(
            f"{type(model).__name__} has no batch norm.",
            why="there is nothing that ghosts could replace.",
            fix="build the model with BatchNorm1d or BatchNorm2d, or train it with "
            "LargeBatch(ghost=None).",
        )
    return model


def _ghost_layer(norm: nn.BatchNorm1d | nn.BatchNorm2d, ghost: int) -> nn.Module:
    kind = GhostBatchNorm2d if isinstance(norm, nn.BatchNorm2d) else GhostBatchNorm1d
    options = {
        "eps": norm.eps,
        "momentum": norm.momentum,
        "track_running_stats": norm.track_running_stats,
    }
    new = kind(norm.num_features, ghost, affine=False, **options)
    new.affine, new.weight, new.bias = norm.affine, norm.weight, norm.bias
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        setattr(new, name, getattr(norm, name))
    return new.train(norm.training)


def _size(ghost: int) -> int:
    if ghost < 2:
        raise InvalidConfig(
            f"ghost={ghost} is no ghost size.",
            why="a variance needs at least two examples.",
            fix="use 2 or more, for example the batch size of the small-batch regime.",
        )
    return ghost


@dataclass(frozen=True)
class GhostBatchNorm:
    """Trains with every batch norm of the model replaced by ghosts of `ghost` examples."""

    ghost: int = 32
    budget: Budget = field(
        default_factory=lambda: Budget(optimizer=Optimizer.SGD, lr=0.1, momentum=0.9)
    )

    def __post_init__(self) -> None:
        _size(self.ghost)

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> Trained:
        return train(convert(model, self.ghost), task, erm_step, self.budget, lab)


def example() -> tuple[GhostBatchNorm, Trained]:
    """Two ghosts of eight, on the smallest model with batch norm."""
    x = torch.randn(64, 3, generator=Lab().generator())
    data = Columns(x=x, y=(x[:, 0] > 0).long())
    task = Task(
        name="half_spaces",
        axis=Axis.IID,
        objective=classify,
        splits={"train": Split(data, Use.TRAIN)},
    )
    with Lab().seeded():
        model = mlp([3, 8, 2], norm=nn.BatchNorm1d)
    budget = Budget(steps=30, batch_size=16, lr=0.05, optimizer=Optimizer.SGD)
    return GhostBatchNorm(ghost=8, budget=budget), Trained(model, task)
