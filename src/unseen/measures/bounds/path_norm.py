"""Path norm (Neyshabur, Tomioka & Srebro, 2015, arXiv:1503.00036)."""

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from unseen.errors import InvalidData, UnsupportedLayer
from unseen.measures.bounds.weights import is_bias, refuse_computed_weights

HOMOGENEITY = 1e-6
FACTORS = (2, 1e3, 1e6)
"""Inputs are scaled by these: a little, and far beyond where an activation bends or saturates."""


@torch.no_grad()
def path_norm(model: nn.Module, shape: tuple[int, ...]) -> float:
    """Σ over outputs of the network with every parameter squared, for inputs that are all one.

    For layers of ReLUs this is Σ over paths from an input (or bias) to an output of the product of
    squared weights. Where activations are not positively homogeneous (tanh, GELU, ReLU6, softmax,
    LayerNorm) that sum has nothing to do with the function, and is refused, as is a BatchNorm that
    was not folded: its running statistics are no weights that could be squared.
    """
    refuse_computed_weights(model)
    _refuse_batch_norm(model)
    weights = {name: p.detach().double() for name, p in model.named_parameters()}
    squared = {name: p.square() for name, p in weights.items()}
    buffers = {
        name: b.double() if b.is_floating_point() else b for name, b in model.named_buffers()
    }
    ones = torch.ones((1, *shape), dtype=torch.float64, device=next(model.parameters()).device)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn((2, *shape), generator=generator, dtype=torch.float64).to(ones)
    for parameters, inputs in ((squared, ones), (weights, torch.cat([drawn, -drawn]))):
        without_bias = {
            name: torch.zeros_like(p) if is_bias(name) else p for name, p in parameters.items()
        }
        _require_homogeneity(model, {**without_bias, **buffers}, inputs)
    total = float(functional_call(model, {**squared, **buffers}, (ones,)).sum())
    if not 0 < total < float("inf"):
        raise InvalidData(
            f"The path norm is {total}.",
            why="a weight is not finite, or no path leads from the inputs to the outputs.",
            fix="look at the weights.",
        )
    return total


def _require_homogeneity(model: nn.Module, state: dict[str, Tensor], inputs: Tensor) -> None:
    """Refuse a network that in this state does not scale its outputs with its inputs."""
    single = functional_call(model, state, (inputs,))
    for factor in FACTORS:
        scaled = functional_call(model, state, (factor * inputs,))
        # rounding is as large as the largest output where others cancel
        if not isinstance(single, Tensor) or not torch.allclose(
            scaled / factor, single, rtol=0, atol=HOMOGENEITY * float(single.abs().max())
        ):
            raise UnsupportedLayer(
                f"{type(model).__name__} without its biases does not double its outputs with its "
                "inputs.",
                why="a path norm is a property of networks that are positively homogeneous: linear "
                "maps, ReLU, pooling and sums.",
                fix="read the spectral or distance measures of this model.",
            )


def _refuse_batch_norm(model: nn.Module) -> None:
    found = [name for name, module in model.named_modules() if isinstance(module, _BatchNorm)]
    if found:
        raise UnsupportedLayer(
            f"BatchNorm {', '.join(f'`{name}`' for name in found[:3])} could not be folded.",
            why="only behind a single linear layer it is part of that layer's weights.",
            fix="read the spectral or distance measures of this model.",
        )
