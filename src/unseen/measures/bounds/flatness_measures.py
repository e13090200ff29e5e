"""PAC-Bayes and sharpness measures, plain and magnitude-aware (equations of Jiang et al., 2020,
arXiv:1912.02178).

σ and α are those of `flatness`, m the number of training examples, ω that of weights.
"""

from collections.abc import Callable
from math import log

import torch
from jaxtyping import Float
from torch import Tensor

from unseen.measures.bounds.flatness import EPSILON
from unseen.measures.bounds.measure import Family, GeneralizationMeasure, Scope
from unseen.measures.bounds.norms import weight_distance2, weight_norm2
from unseen.measures.bounds.shared_pass import SharedPass
from unseen.reading import Work

Read = Callable[[SharedPass], float]


def pac_bayes(reference2: float, sigma: float, n: int) -> float:
    """‖v‖²/(4σ²) + log(m/σ) + 10 (48, 49)."""
    return reference2 / (4 * sigma**2) + log(n / sigma) + 10


def sharpness(reference2: float, alpha: float, weights: int, n: int) -> float:
    """‖v‖² log(2ω)/(4α²) + log(m/α) + 10 (51, 52)."""
    return reference2 * log(2 * weights) / (4 * alpha**2) + log(n / alpha) + 10


def pac_bayes_magnitude(
    reference2: float, difference: Float[Tensor, " weight"], sigma: float, n: int
) -> float:
    """¼ Σ_j log[(ε² + (σ′² + 1)‖v‖²/ω)/(ε² + σ′²(w_j − w_j⁰)²)] + log(m/σ′) + 10 (56, 57)."""
    above = EPSILON**2 + (sigma**2 + 1) * reference2 / len(difference)
    below = EPSILON**2 + sigma**2 * difference.square()
    return float((log(above) - below.log()).sum()) / 4 + log(n / sigma) + 10


def _count(p: SharedPass) -> int:
    return sum(weight.numel() for weight in p.weights.values())


def _difference(p: SharedPass) -> Float[Tensor, " weight"]:
    return torch.cat([difference.flatten() for difference in p.differences.values()])


def _pac_bayes(
    name: str, meaning: str, read: Read, needs_start: bool = False
) -> GeneralizationMeasure:
    """A dozen scales are tried, with ten draws of noise each."""
    relative = "relative " if name.startswith("magnitude") else ""
    return GeneralizationMeasure(
        "pac_bayes_" + name,
        Family.PAC_BAYES,
        meaning,
        read,
        Scope.WEIGHTS,
        passes=120,
        work=Work(forward=120, sweeps=250, shared=f"the {relative}noise that the weights stand"),
        needs_start=needs_start,
        most=2_000,
    )


def _sharpness(
    name: str, meaning: str, read: Read, needs_start: bool = False
) -> GeneralizationMeasure:
    """A dozen boxes are tried; ascent takes ten steps in those about as large as the radius."""
    relative = "relative " if name.startswith("magnitude") else ""
    return GeneralizationMeasure(
        "sharpness_" + name,
        Family.SHARPNESS,
        meaning,
        read,
        Scope.WEIGHTS,
        passes=100,
        work=Work(
            forward=10,
            gradients=90,
            sweeps=250,
            copies=6,
            shared=f"the worst {relative}change that the weights stand",
        ),
        needs_start=needs_start,
        most=2_000,
    )


MEASURES = (
    _pac_bayes("start", "Distance to the start in units of the noise that the weights stand (48).",
               lambda p: pac_bayes(weight_distance2(p), p.noise_scale, p.n), needs_start=True),
    _pac_bayes("origin", "Norm of the weights in units of the noise that they stand (49).",
               lambda p: pac_bayes(weight_norm2(p), p.noise_scale, p.n)),
    _pac_bayes("flatness", "One over the variance of weight noise that costs a tenth of the "
               "training accuracy (53).", lambda p: p.noise_scale**-2),
    _pac_bayes("magnitude_start", "The first with noise in proportion to each weight (56).",
               lambda p: pac_bayes_magnitude(weight_distance2(p), _difference(p),
                                             p.relative_noise_scale, p.n), needs_start=True),
    _pac_bayes("magnitude_origin", "The second with noise in proportion to each weight (57).",
               lambda p: pac_bayes_magnitude(weight_norm2(p), _difference(p),
                                             p.relative_noise_scale, p.n), needs_start=True),
    _pac_bayes("magnitude_flatness", "One over the variance of relative weight noise that costs a "
               "tenth of the training accuracy (61).", lambda p: p.relative_noise_scale**-2),
    _sharpness("start", "Distance to the start in units of the worst change of weights that costs "
               "a tenth of the training accuracy (51).",
               lambda p: sharpness(weight_distance2(p), p.box_radius, _count(p), p.n),
               needs_start=True),
    _sharpness("origin", "Norm of the weights in the same units (52).",
               lambda p: sharpness(weight_norm2(p), p.box_radius, _count(p), p.n)),
    _sharpness("flatness", "One over the squared size of the worst change of weights that costs a "
               "tenth of the training accuracy (54).", lambda p: p.box_radius**-2),
    _sharpness("magnitude_flatness", "The same for changes in proportion to each weight (62).",
               lambda p: p.relative_box_radius**-2),
)  # fmt: skip
