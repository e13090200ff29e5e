"""Norms of weights and distances to the start (equations of Jiang et al., 2020, arXiv:1912.02178).

f_i = ‖W_i‖_F² of layer i of d, γ the tenth percentile of the margins.
"""

from collections.abc import Callable
from math import log

import torch
from jaxtyping import Float
from torch import Tensor

from unseen.measures.bounds.measure import Family, GeneralizationMeasure, Scope
from unseen.measures.bounds.shared_pass import SharedPass

Read = Callable[[SharedPass], float]


def log_product(norms2: Float[Tensor, " layer"], margin: float = 1.0) -> float:
    """Σ log ‖W_i‖² − 2 log γ."""
    return float(norms2.log().sum()) - 2 * log(margin)


def log_mean(norms2: Float[Tensor, " layer"], margin: float = 1.0) -> float:
    """log(d (Π ‖W_i‖² / γ²)^(1/d)) = log d + (Σ log ‖W_i‖² − 2 log γ)/d."""
    return log(len(norms2)) + log_product(norms2, margin) / len(norms2)


def _norm2(tensors: dict[str, Tensor]) -> float:
    return float(torch.stack([tensor.square().sum() for tensor in tensors.values()]).sum())


def weight_norm2(p: SharedPass) -> float:
    """‖w‖²."""
    return _norm2(p.weights)


def weight_distance2(p: SharedPass) -> float:
    """‖w − w⁰‖²."""
    return _norm2(p.differences)


def _norm(
    name: str, meaning: str, read: Read, scope: Scope = Scope.LAYERS, is_log: bool = False
) -> GeneralizationMeasure:
    return GeneralizationMeasure(name, Family.NORM, meaning, read, scope, is_log=is_log)


MEASURES = (
    _norm("parameters", "Number of weights (20).", lambda p: float(p.parameter_count), Scope.ALL),
    _norm("weight_norm", "Length of the vector of all weights.",
          lambda p: weight_norm2(p) ** 0.5, Scope.WEIGHTS),
    _norm("distance", "How far training moved the weights from where they began.",
          lambda p: weight_distance2(p) ** 0.5, Scope.WEIGHTS),
    _norm("frobenius_sum", "Sum of all squared weights of layers (42).",
          lambda p: float(p.frobenius2.sum())),
    _norm("frobenius_distance", "Sum of all squared changes of weights since the start (40).",
          lambda p: float(p.distance2.sum())),
    _norm("frobenius_product", "Product over layers of their squared Frobenius norms, as a "
          "logarithm (37).", lambda p: log_product(p.frobenius2), is_log=True),
    _norm("frobenius_product_over_margin", "The same over the squared margin (36).",
          lambda p: log_product(p.frobenius2, p.margin), is_log=True),
    _norm("frobenius_mean", "Depth times the geometric mean of the layers' squared Frobenius "
          "norms, as a logarithm (39).", lambda p: log_mean(p.frobenius2), is_log=True),
    _norm("frobenius_mean_over_margin", "The same over the squared margin (38).",
          lambda p: log_mean(p.frobenius2, p.margin), is_log=True),
)  # fmt: skip
