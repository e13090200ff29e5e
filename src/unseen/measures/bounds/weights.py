"""The weights that measures read: BatchNorm folded into the layer before it, biases left out.

A BatchNorm in evaluation mode is an affine map of each channel, so W ← W·γ/√(v + ε) and
b ← β + (b − μ)·γ/√(v + ε) leave the outputs as they were (Jiang et al., 2020, arXiv:1912.02178).
A start has no running statistics, unless it holds buffers, too: distances take the current
γ/√(v + ε) at both ends, so that a model lies at distance 0 from its own parameters.
"""

import copy
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrize import is_parametrized

from unseen.errors import InvalidData, UnsupportedLayer
from unseen.measures.bounds.spectral import convolution_norm

LINEAR_MAPS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Embedding)
"""Layers whose weight is a matrix that maps inputs to outputs; an embedding maps one-hot inputs."""
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
FOLDING_TOLERANCE = 1e-3
"""Largest change of outputs, as a share of the largest one, that is taken for rounding: where a
layer's output goes elsewhere, too, folding changes the outputs by about their own size."""

Forward = Callable[[nn.Module], Tensor]
"""The outputs of a model for fixed examples."""


@dataclass(frozen=True)
class Layer:
    """A linear map of the folded network: its module and its weight."""

    name: str
    module: nn.Module
    weight: Tensor
    sizes: tuple[int, ...] = ()
    """The spatial axes of the inputs that a convolution saw."""

    @property
    def weight_name(self) -> str:
        return f"{self.name}.weight" if self.name else "weight"

    @property
    def matrix(self) -> Float[Tensor, "out rest"]:
        """The weight as a matrix, in float64."""
        return self.weight.detach().double().cpu().flatten(1)

    def map_norm(self, weight: Tensor) -> float:
        """‖·‖₂ of the circular convolution with such a weight on inputs of the size it saw."""
        module = self.module
        return convolution_norm(
            weight,
            self.sizes or tuple(weight.shape[2:]),
            stride=module.stride,  # type: ignore[arg-type]
            dilation=module.dilation,  # type: ignore[arg-type]
            groups=module.groups,  # type: ignore[arg-type]
        )


def require_start(start: Mapping[str, Tensor] | None, model: nn.Module) -> dict[str, Tensor]:
    """All parameters before training by all their names, or the reason why there is no distance.

    A frozen one that `start` does not hold has stayed as it is.
    """
    fix = "start=parameters.copy_parameters(model)), taken from this model before training."
    if start is None:
        raise InvalidData(
            "The trained model has no `start`.",
            why="a distance needs the weights before training, too.",
            fix=f"train with a method of this library, or give Trained(…, {fix}",
        )
    names = weight_names(model)
    lost = [name for name, p in names.items() if p.requires_grad and name not in start]
    if not names.keys() & start.keys():
        lost = list(names)
    crooked = [name for name, p in names.items() if name in start and start[name].shape != p.shape]
    if lost or crooked:
        few = ", ".join((lost or crooked)[:3])
        raise InvalidData(
            f"`start` lacks {few}." if lost else f"`start` has another shape of {few}.",
            why="a distance needs every trainable weight before training.",
            fix=f"give Trained(…, {fix}",
        )
    found: dict[str, Tensor] = {}
    first: dict[int, Tensor] = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        # folding unties weights: the second name of a tied one is asked for, too
        found[name] = start.get(name, first.get(id(p), p)).detach()
        first.setdefault(id(p), found[name])
    return found


@dataclass(frozen=True)
class FoldedNetwork:
    """A network without the BatchNorm layers that could be folded."""

    model: nn.Module
    start_scales: Mapping[str, Tensor] = field(default_factory=dict)
    """By the name of the layer that took it, the γ/√(v + ε) by which its start is scaled: that of
    the start where it holds the running variance, else the current one."""
    names: tuple[str, ...] = ()
    """The BatchNorm layers that are the identity now."""


@torch.no_grad()
def fold_batch_norm(
    model: nn.Module, forward: Forward, start: Mapping[str, Tensor] | None = None
) -> FoldedNetwork:
    """A copy with every BatchNorm folded that reads the output of one layer; the others stay.

    The model itself where there is none. `forward` runs it on a few examples, in evaluation mode:
    the outputs with and without folding are compared.
    """
    if not any(isinstance(module, _BatchNorm) for module in model.modules()):
        return FoldedNetwork(model)
    reads = batch_norm_inputs(model, forward)
    model = copy.deepcopy(model)
    expected = forward(model)
    scales: dict[str, Tensor] = {}
    names = []
    for norm_name, layer_name in reads.items():
        layer, norm = model.get_submodule(layer_name), model.get_submodule(norm_name)
        before = copy.deepcopy(layer)
        _fold(layer, norm)
        _replace(model, norm_name, nn.Identity())
        if _differ(forward(model), expected):
            _replace(model, norm_name, norm)
            _replace(model, layer_name, before)
            continue
        names.append(norm_name)
        scales[layer_name] = _start_scale(norm, norm_name, start or {})
    return FoldedNetwork(model, scales, tuple(names))


def batch_norm_inputs(model: nn.Module, forward: Forward) -> dict[str, str]:
    """BatchNorm → the linear map whose output it reads, where both run once and keep statistics."""
    outputs: list[tuple[str, Tensor]] = []
    reads: dict[str, str] = {}
    calls: Counter[str] = Counter()
    handles = []

    def remember(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
            calls[name] += 1
            outputs.append((name, output))  # held, so that no other tensor takes its identity

        return hook

    def look_up(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            calls[name] += 1
            for layer, output in outputs:
                if output is inputs[0]:
                    reads[name] = layer

        return hook

    for name, module in model.named_modules():
        if isinstance(module, LINEAR_MAPS) and not has_computed_weights(module):
            handles.append(module.register_forward_hook(remember(name)))
        elif isinstance(module, _BatchNorm) and module.running_mean is not None:
            handles.append(module.register_forward_pre_hook(look_up(name)))
    try:
        forward(model)
    finally:
        for handle in handles:
            handle.remove()
    single = {name for name, count in calls.items() if count == 1}
    return {norm: layer for norm, layer in reads.items() if {norm, layer} <= single}


def _fold(layer: Any, norm: Any) -> None:
    mean, scale = norm.running_mean, _scale(norm.weight, norm.running_var, norm.eps)
    shift = torch.zeros_like(mean) if norm.bias is None else norm.bias
    bias = torch.zeros_like(mean) if layer.bias is None else layer.bias
    layer.weight = nn.Parameter(layer.weight * scale.reshape(-1, *[1] * (layer.weight.dim() - 1)))
    layer.bias = nn.Parameter(shift + (bias - mean) * scale)


def _scale(gain: Tensor | None, variance: Tensor, eps: float) -> Tensor:
    return (torch.ones_like(variance) if gain is None else gain) / (variance + eps).sqrt()


def _start_scale(norm: Any, name: str, start: Mapping[str, Tensor]) -> Tensor:
    if f"{name}.running_var" not in start:
        return _scale(norm.weight, norm.running_var, norm.eps)
    gain = start.get(f"{name}.weight", norm.weight)
    return _scale(gain, start[f"{name}.running_var"], norm.eps)


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def _differ(outputs: Tensor, expected: Tensor) -> bool:
    return bool((outputs - expected).abs().max() > FOLDING_TOLERANCE * expected.abs().max())


def weight_names(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters with two or more axes, by name: no biases, no gains of normalisation layers."""
    return {name: p for name, p in model.named_parameters() if p.dim() > 1}


def has_computed_weights(module: nn.Module) -> bool:
    """Whether a weight of this layer is a function of other parameters: weight norm, spectral norm
    or pruning, as a parametrization or as a hook that sets a tensor w from parameters w_….
    """
    computed = [name for name, value in vars(module).items() if isinstance(value, Tensor)]
    names = [name for name, _ in module.named_parameters(recurse=False)]
    return is_parametrized(module) or any(
        name.startswith(f"{one}_") for one in computed for name in names
    )


def refuse_computed_weights(model: nn.Module) -> None:
    """Refuse a model whose parameters are not its weights, by the names of its layers."""
    found = [name for name, module in model.named_modules() if has_computed_weights(module)]
    if found:
        raise UnsupportedLayer(
            f"The weights of {', '.join(f'`{name}`' for name in found[:3])} are computed from "
            "other parameters.",
            why="norms of those parameters are not norms of the weights.",
            fix="remove the parametrization (torch.nn.utils.parametrize.remove_parametrizations), "
            "or read the margins.",
        )


def is_bias(name: str) -> bool:
    """Whether a parameter is called a bias: those are no part of what measures should cover."""
    return "bias" in name.rpartition(".")[2]


def input_sizes(model: nn.Module, forward: Forward) -> dict[str, tuple[int, ...]]:
    """The spatial axes of each convolution's inputs, of its first call."""
    sizes: dict[str, tuple[int, ...]] = {}

    def remember(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            axes = module.weight.dim() - 2  # type: ignore[operator]
            sizes.setdefault(name, tuple(inputs[0].shape[-axes:]))

        return hook

    handles = [
        module.register_forward_pre_hook(remember(name))
        for name, module in model.named_modules()
        if isinstance(module, CONVOLUTIONS)
    ]
    try:
        forward(model)
    finally:
        for handle in handles:
            handle.remove()
    return sizes


def linear_maps(folded: FoldedNetwork, forward: Forward) -> list[Layer]:
    """The linear maps of a folded network in its order, a tied weight once.

    A subclass that computes otherwise is no linear map, nor is a parametrised layer, whose weight
    is a function of other parameters.
    """
    sizes = input_sizes(folded.model, forward)
    layers, seen = [], set()
    for name, module in folded.model.named_modules():
        if not isinstance(module, LINEAR_MAPS) or not _computes_as_its_kind(module):
            continue
        if id(module.weight) in seen or not isinstance(module.weight, nn.Parameter):
            continue
        seen.add(id(module.weight))
        layers.append(Layer(name, module, module.weight.detach(), sizes.get(name, ())))
    return layers


def _computes_as_its_kind(module: nn.Module) -> bool:
    kind = next(kind for kind in type(module).__mro__ if kind in LINEAR_MAPS)
    return type(module).forward is kind.forward and not has_computed_weights(module)


def start_of(name: str, folded: FoldedNetwork, start: Mapping[str, Tensor]) -> Tensor:
    """A weight before training, scaled as folding would have scaled it."""
    before, scale = start[name].cpu(), folded.start_scales.get(name.rpartition(".")[0])
    if scale is not None:
        # in the model's own precision, as the weight was: equal parameters differ by nothing
        before = before * scale.detach().cpu().reshape(-1, *[1] * (before.dim() - 1))
    return before.double()
