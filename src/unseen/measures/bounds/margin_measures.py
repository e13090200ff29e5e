"""Measures of margins and of paths."""

from unseen.measures.bounds.measure import Family, GeneralizationMeasure, Scope

MEASURES = (
    GeneralizationMeasure(
        "inverse_margin",
        Family.MARGIN,
        "One over the squared lead of the right class that nine tenths of the training examples "
        "have (22).",
        lambda p: p.margin**-2,
        Scope.ALL,
    ),
    GeneralizationMeasure(
        "path_norm",
        Family.PATH,
        "Sum over all paths through the network of the product of squared weights (44); rescaling "
        "a layer against the next leaves it as it is.",
        lambda p: p.path_norm,
        Scope.ALL,
    ),
    GeneralizationMeasure(
        "path_norm_over_margin",
        Family.PATH,
        "The same over the squared margin (43).",
        lambda p: p.path_norm / p.margin**2,
        Scope.ALL,
    ),
)
