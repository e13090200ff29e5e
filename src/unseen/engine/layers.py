"""What each layer type makes of its input and output gradient: the forms of its own parameters."""

import sys
from functools import partial, singledispatch
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap
from torch.nn.modules.batchnorm import _BatchNorm

from unseen.engine.gradient_factors import (
    EmbeddingFactor,
    FullGradient,
    GradientFactor,
    LinearFactor,
    ScaleFactor,
)
from unseen.errors import UnsupportedLayer


def direct_parameters(layer: nn.Module) -> dict[str, nn.Parameter]:
    """Trainable parameters of the layer itself, not of its parts."""
    return {name: p for name, p in layer.named_parameters(recurse=False) if p.requires_grad}


@singledispatch
def forms(layer: nn.Module, x: Tensor, g: Tensor) -> dict[str, GradientFactor]:
    """The forms of a layer's own trainable parameters, from its input and the gradient of its
    output.

    For a layer type of your own: `@forms.register`. Without it any layer with one input and one
    output is treated exactly, by `vmap` of its `vjp`.
    """
    own = direct_parameters(layer)
    frozen = {name: p.detach() for name, p in own.items()}

    def gradient(example: Tensor, back: Tensor) -> dict[str, Tensor]:
        pull = vjp(lambda values: functional_call(layer, values, (example[None],))[0], frozen)[1]
        return pull(back)[0]

    try:
        with torch.no_grad():
            rows = vmap(gradient)(x, g)
    except (RuntimeError, ValueError, TypeError) as error:
        raise UnsupportedLayer(
            f"with parameters {', '.join(own)} cannot be run on one example at a time.",
            why="torch.func.vmap says: "
            f"{str(error).splitlines()[0] if str(error) else type(error).__name__}",
            fix="register its forms with @unseen.engine.tap.forms.register, or freeze these "
            "parameters.",
        ) from error
    return {
        name: FullGradient(row.reshape(len(g), -1), own[name].shape) for name, row in rows.items()
    }


def _positions(x: Tensor) -> Tensor:
    """`[b … d]` → `[b s d]`."""
    return x[:, None] if x.dim() == 2 else x.flatten(1, -2)


def _affine(layer: nn.Module, weight: GradientFactor, g: Tensor) -> dict[str, GradientFactor]:
    """A layer's weight form and that of its bias, the trainable ones."""
    made: dict[str, GradientFactor] = {}
    for name, p in direct_parameters(layer).items():
        made[name] = weight if name == "weight" else ScaleFactor(None, g, p.shape)
    return made


@forms.register
def _(layer: nn.Linear, x: Tensor, g: Tensor) -> dict[str, GradientFactor]:
    back = _positions(g)
    return _affine(layer, LinearFactor(_positions(x), back, layer.weight.shape), back)


def _conv1d(layer: Any, x: Tensor, g: Tensor) -> dict[str, GradientFactor]:
    """transformers' `Conv1D`: a linear map stored transposed."""
    back = _positions(g)
    return _affine(
        layer, LinearFactor(_positions(x), back, layer.weight.shape, transposed=True), back
    )


@forms.register(nn.Conv1d)
@forms.register(nn.Conv2d)
def _(layer: nn.Conv1d | nn.Conv2d, x: Tensor, g: Tensor) -> dict[str, GradientFactor]:
    back = g.flatten(2).mT
    return _affine(
        layer,
        LinearFactor(x, back, layer.weight.shape, layer.groups, unfold=partial(_unfold, layer)),
        back,
    )


def _unfold(layer: nn.Conv1d | nn.Conv2d, x: Tensor) -> Tensor:
    """`[b s i]`: what each output pixel of a convolution sees."""
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    if any(layer._reversed_padding_repeated_twice):
        x = F.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
    x, axes = x.contiguous(), x.dim() - 2
    steps = x.stride()[2:]
    sizes = [
        (x.shape[2 + k] - layer.dilation[k] * (layer.kernel_size[k] - 1) - 1) // layer.stride[k] + 1
        for k in range(axes)
    ]
    within = [steps[k] * layer.dilation[k] for k in range(axes)]
    between = [steps[k] * layer.stride[k] for k in range(axes)]
    # one strided copy: its inner loop runs along pixels, about eight times faster than torch's
    # im2col on a CPU
    windows = x.as_strided(
        (*x.shape[:2], *layer.kernel_size, *sizes), (*x.stride()[:2], *within, *between)
    )
    return windows.reshape(len(x), x.shape[1] * prod(layer.kernel_size), prod(sizes)).mT


@forms.register
def _(layer: nn.Embedding, x: Tensor, g: Tensor) -> dict[str, GradientFactor]:
    if layer.max_norm is not None or layer.scale_grad_by_freq:
        raise UnsupportedLayer(
            "has `max_norm` or `scale_grad_by_freq` set.",
            why="the first changes weights while it reads, the second makes a gradient depend on "
            "the other examples.",
            fix="unset them.",
        )
    index, back = x.reshape(len(x), -1), g.reshape(len(x), -1, g.shape[-1])
    if layer.padding_idx is not None:
        back = back.masked_fill((index == layer.padding_idx)[..., None], 0)
    return {"weight": EmbeddingFactor(index, back, layer.weight.shape)}


def _norm_factors(layer: nn.Module, x: Tensor, back: Tensor) -> dict[str, GradientFactor]:
    """The forms of an elementwise gain over normalised positions and its bias."""
    return {
        name: ScaleFactor(x if name == "weight" else None, back, p.shape)
        for name, p in direct_parameters(layer).items()
    }


@forms.register
def _(layer: nn.LayerNorm, x: Tensor, g: Tensor) -> dict[str, GradientFactor]:
    axes = len(layer.normalized_shape)
    normal = F.layer_norm(x, layer.normalized_shape, eps=layer.eps)
    return _norm_factors(layer, _last(normal, axes), _last(g, axes))


@forms.register
def _(layer: nn.RMSNorm, x: Tensor, g: Tensor) -> dict[str, GradientFactor]:
    axes = len(layer.normalized_shape)
    normal = F.rms_norm(x, layer.normalized_shape, eps=layer.eps)
    return _norm_factors(layer, _last(normal, axes), _last(g, axes))


def _last(x: Tensor, axes: int) -> Tensor:
    """`[b … shape]` → `[b s d]` with d the product of the last `axes` axes."""
    return _positions(x.flatten(-axes))


@forms.register
def _(layer: nn.GroupNorm, x: Tensor, g: Tensor) -> dict[str, GradientFactor]:
    return _norm_factors(
        layer, _channels(F.group_norm(x, layer.num_groups, eps=layer.eps)), _channels(g)
    )


@forms.register
def _(layer: _BatchNorm, x: Tensor, g: Tensor) -> dict[str, GradientFactor]:
    normal = F.batch_norm(x, layer.running_mean, layer.running_var, eps=layer.eps)
    return _norm_factors(layer, _channels(normal), _channels(g))


def _channels(x: Tensor) -> Tensor:
    """`[b d …]` → `[b s d]`."""
    return x[:, None] if x.dim() == 2 else x.flatten(2).mT


def forms_of(layer: nn.Module, x: Tensor, g: Tensor, name: str) -> dict[str, GradientFactor]:
    """`forms`, or the exact general way for a subclass that overrides the forward pass its
    registered form describes.
    """
    hugging_face = sys.modules.get("transformers.pytorch_utils")
    if hugging_face is not None and hugging_face.Conv1D not in forms.registry:
        forms.register(hugging_face.Conv1D, _conv1d)
    known: Any = next(kind for kind in type(layer).__mro__ if kind in forms.registry)
    inherits = (
        known is not object
        and type(layer).forward is known.forward
        and "forward" not in vars(layer)
    )
    try:
        return forms(layer, x, g) if inherits else forms.dispatch(object)(layer, x, g)
    except UnsupportedLayer as error:
        raise UnsupportedLayer(
            f"{type(layer).__name__} `{name}` {error.what}", error.why, error.fix
        ) from error
