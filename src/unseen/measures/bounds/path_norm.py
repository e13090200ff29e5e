"""Path norm (Neyshabur, Tomioka & Srebro, 2015, arXiv:1503.00036)."""

import torch
from torch import Tensor, nn
from torch.func import functional_call

from unseen.errors import InvalidData, UnsupportedLayer
from unseen.measures.bounds.weights import refuse_computed_weights

HOMOGENEITY = 1e-6


@torch.no_grad()
def path_norm(model: nn.Module, shape: tuple[int, ...]) -> float:
    """Σ over outputs of the network with every parameter squared, for inputs that are all one.

    For layers of ReLUs this is Σ over paths from an input (or bias) to an output of the product of
    squared weights. Where activations are not positively homogeneous (tanh, softmax, LayerNorm)
    that sum has nothing to do with the function, and is refused.
    """
    refuse_computed_weights(model)
    squared = {name: p.detach().double().square() for name, p in model.named_parameters()}
    buffers = {
        name: b.double() if b.is_floating_point() else b for name, b in model.named_buffers()
    }
    ones = torch.ones((1, *shape), dtype=torch.float64, device=next(model.parameters()).device)
    without_bias = {
        name: torch.zeros_like(p) if "bias" in name.rpartition(".")[2] else p
        for name, p in squared.items()
    }
    single, double = (
        functional_call(model, {**without_bias, **buffers}, (scale * ones,)) for scale in (1, 2)
    )
    if not isinstance(single, Tensor) or not torch.allclose(
        double, 2 * single, rtol=HOMOGENEITY, atol=0
    ):
        raise UnsupportedLayer(
            f"{type(model).__name__} with squared weights does not double its outputs with its "
            "inputs.",
            why="a path norm is a property of networks that are positively homogeneous: linear "
            "maps, ReLU, pooling and sums.",
            fix="read the spectral or distance measures of this model.",
        )
    total = float(functional_call(model, {**squared, **buffers}, (ones,)).sum())
    if not 0 < total < float("inf"):
        raise InvalidData(
            f"The path norm is {total}.",
            why="a weight is not finite, or no path leads from the inputs to the outputs.",
            fix="look at the weights.",
        )
    return total
