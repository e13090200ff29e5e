"""Measures that should foretell the generalization gap, from weights, margins and noise.

Jiang et al. (2020, arXiv:1912.02178, whose equation numbers stand behind the meanings), Dziugaite
et al. (2020, arXiv:2010.11924), Gastpar et al. (2024, arXiv:2309.13658): none is tight for all
algorithms and distributions.

`MEASURES` lists them; one `SharedPass` serves all. Biases are no part of norms, BatchNorm is folded
into the layer before it.
"""

from unseen.engine.toy import toy_subject
from unseen.errors import UnknownName
from unseen.measures.bounds import (
    flatness_measures,
    margin_measures,
    norms,
    spectral_measures,
    training_measures,
)
from unseen.measures.bounds.measure import Direction as Direction
from unseen.measures.bounds.measure import Family as Family
from unseen.measures.bounds.measure import GeneralizationMeasure as GeneralizationMeasure
from unseen.measures.bounds.measure import adjust_for_size as adjust_for_size
from unseen.measures.bounds.shared_pass import Coverage as Coverage
from unseen.measures.bounds.shared_pass import SharedPass as SharedPass
from unseen.method import Trained

MEASURES: tuple[GeneralizationMeasure, ...] = (
    *norms.MEASURES,
    *margin_measures.MEASURES,
    *spectral_measures.MEASURES,
    *flatness_measures.MEASURES,
    *training_measures.MEASURES,
)


def measure(name: str) -> GeneralizationMeasure:
    """The measure of that name, or `UnknownName` with near matches."""
    named = {one.name: one for one in MEASURES}
    if name not in named:
        raise UnknownName.near("measure", name, named)
    return named[name]


def example() -> tuple[GeneralizationMeasure, Trained]:
    """The product of spectral norms of a small model."""
    return measure("spectral_product"), toy_subject()
