"""Parameters as vectors: arithmetic on dictionaries of them, and perturbations that are undone."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

Parameters = Mapping[str, Tensor]


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that require gradients, by name; a tied parameter appears once."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def copy_parameters(model: nn.Module) -> dict[str, Tensor]:
    """Detached copies of the trainable parameters."""
    return {name: p.detach().clone() for name, p in trainable(model).items()}


def state(model: nn.Module) -> dict[str, Tensor]:
    """Detached copies of all parameters and buffers."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def real_view(x: Tensor) -> Tensor:
    """The tensor, or the real and imaginary parts of a complex one along a last axis."""
    return torch.view_as_real(x.resolve_conj()) if x.is_complex() else x


def from_real(x: Tensor, like: Tensor) -> Tensor:
    """Real numbers as a tensor like this one: the inverse of `real_view`."""
    return (torch.view_as_complex(x.contiguous()) if like.is_complex() else x).to(like)


def dot(a: Parameters, b: Parameters) -> Tensor:
    """⟨a, b⟩ over all entries, Re⟨a, b⟩ of complex ones."""
    parts = [(real_view(a[name]) * real_view(b[name])).sum() for name in a]
    return torch.stack(parts).sum()


def norm(a: Parameters) -> Tensor:
    """‖a‖₂ over all entries."""
    parts = [real_view(tensor.detach()).square().sum() for tensor in a.values()]
    return torch.stack(parts).sum().sqrt()


def axpy(alpha: float, x: Parameters, y: Parameters) -> dict[str, Tensor]:
    """α x + y."""
    return {name: alpha * x[name] + y[name] for name in y}


def interpolate(a: Parameters, b: Parameters, t: float) -> dict[str, Tensor]:
    """(1 − t) a + t b."""
    return {name: torch.lerp(a[name], b[name], t) for name in a}


def distance(a: Parameters, b: Parameters) -> Tensor:
    """‖a − b‖₂ over the entries of `a`."""
    return norm({name: tensor.detach() - b[name] for name, tensor in a.items()})


def load(model: nn.Module, values: Parameters) -> None:
    """Copies the named values into the model."""
    own = dict(model.named_parameters()) | dict(model.named_buffers())
    with torch.no_grad():
        for name, tensor in values.items():
            own[name].copy_(tensor)


@contextlib.contextmanager
def shift_parameters(params: Sequence[Tensor], by: Sequence[Tensor]) -> Iterator[None]:
    """Inside the block `params` are moved by `by`; afterwards they hold their exact old values,
    also after an error.
    """
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
    noise = [
        from_real(torch.randn(real_view(p).shape, generator=generator, dtype=torch.float64), p)
        for p in params
    ]
    norm = torch.stack([real_view(x).double().square().sum() for x in noise]).sum().sqrt()
    return [x * (radius / norm).to(x) for x in noise]


def gaussian(x: Tensor, scale: float, generator: torch.Generator) -> Tensor:
    """x plus independent normal noise of standard deviation `scale`."""
    return x + scale * from_real(torch.randn(real_view(x).shape, generator=generator), x)


def shares_weights(a: nn.Module, b: nn.Module) -> bool:
    """Whether two models are one, or have a trainable parameter in common: training one changes the
    other.
    """
    return a is b or bool(_storages(a) & _storages(b))


def _storages(model: nn.Module) -> set[int]:
    return {p.untyped_storage().data_ptr() for p in trainable(model).values() if p.numel()}


def has_weights_of(a: nn.Module, b: nn.Module) -> bool:
    """Whether all trainable parameters of two models have the same names and values."""
    one, other = trainable(a), trainable(b)
    if not one or one.keys() != other.keys():
        return False
    return all(
        p.shape == other[name].shape and torch.equal(p.detach().cpu(), other[name].detach().to(p))
        for name, p in one.items()
    )
