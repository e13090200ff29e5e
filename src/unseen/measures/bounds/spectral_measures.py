"""Measures of spectral norms, of the reshaped matrices and of convolutions taken as circular
(equations of Jiang et al., 2020, arXiv:1912.02178).

Of linear layers both are the norms of the maps; of a convolution with zero padding neither is.

s_i = ‖W_i‖₂², f_i = ‖W_i‖_F² of layer i of d, γ the tenth percentile of the margins.
"""

from collections.abc import Callable, Iterator

from jaxtyping import Float
from torch import Tensor

from unseen.measures.bounds.measure import Family, GeneralizationMeasure
from unseen.measures.bounds.norms import log_mean, log_product
from unseen.measures.bounds.shared_pass import SharedPass
from unseen.reading import Work

Norms = Callable[[SharedPass], Float[Tensor, " layer"]]


def spectral_measures(
    suffix: str, kind: str, spectral2: Norms, distance2: Norms
) -> Iterator[GeneralizationMeasure]:
    """The measures of one way to take a layer's spectral norm."""

    def measure(
        name: str, meaning: str, read: Callable[[SharedPass], float], is_log: bool = True
    ) -> GeneralizationMeasure:
        words = meaning.format(norms=f"squared spectral norms ({kind})")
        return GeneralizationMeasure(
            name + suffix,
            Family.SPECTRAL,
            words,
            read,
            is_log=is_log,
            work=Work(sweeps=60, shared="spectral norms"),
        )

    def product(p: SharedPass) -> float:
        return log_product(spectral2(p), p.margin)

    yield measure(
        "spectral_product",
        "Product over layers of their {norms}, as a logarithm (32).",
        lambda p: log_product(spectral2(p)),
    )
    yield measure(
        "spectral_product_over_margin",
        "Product of the layers' {norms} over the squared margin, as a logarithm (31).",
        product,
    )
    yield measure(
        "spectral_start",
        "That times the sum of ‖W − W⁰‖²/‖W‖₂², after Bartlett et al., "
        "from the start; {norms} (29).",
        lambda p: product(p) + float((p.distance2 / spectral2(p)).sum().log()),
    )
    yield measure(
        "spectral_origin",
        "That times the sum of the layers' stable ranks; {norms} (30).",
        lambda p: product(p) + float((p.frobenius2 / spectral2(p)).sum().log()),
    )
    yield measure(
        "frobenius_over_spectral",
        "Sum of the layers' stable ranks: their squared Frobenius over their {norms} (33).",
        lambda p: float((p.frobenius2 / spectral2(p)).sum()),
        is_log=False,
    )
    yield measure(
        "spectral_mean",
        "Depth times the geometric mean of the layers' {norms}, as a logarithm (35).",
        lambda p: log_mean(spectral2(p)),
    )
    yield measure(
        "spectral_mean_over_margin",
        "The same over the squared margin; {norms} (34).",
        lambda p: log_mean(spectral2(p), p.margin),
    )
    yield measure("spectral_distance", "Sum of the {norms} of how the layers changed since the "
                  "start (41).", lambda p: float(distance2(p).sum()), is_log=False)  # fmt: skip


MEASURES = (
    *spectral_measures("", "reshaped", lambda p: p.spectral2, lambda p: p.spectral_distance2),
    *spectral_measures(
        "_fft", "circular", lambda p: p.spectral2_fft, lambda p: p.spectral_distance2_fft
    ),
)
