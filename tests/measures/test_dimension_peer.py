"""Intrinsic dimension against scikit-dimension, where it is installed."""

import pytest
import torch

from unseen.lab import Lab
from unseen.measures.intrinsic_dimension import intrinsic_dimension


@pytest.mark.parametrize("k", [5, 12])
@pytest.mark.parametrize("shape", ["sphere", "cube"])
def test_the_dimension_equals_that_of_scikit_dimension(shape, k):
    peer = pytest.importorskip("skdim")
    generator = Lab(seed=k).generator()
    if shape == "sphere":
        x = torch.randn(1_000, 5, generator=generator, dtype=torch.float64)
        x = x / x.norm(dim=1, keepdim=True)
    else:
        x = torch.rand(1_000, 4, generator=generator, dtype=torch.float64)
    theirs = peer.id.MLE(neighborhood_based=True)
    theirs.fit(x.numpy(), n_neighbors=k, comb="mle")  # the harmonic mean over points
    ours = intrinsic_dimension(x, Lab(), k=k)
    assert ours.value == pytest.approx(theirs.dimension_, rel=1e-12)
    inverse = ours.detail.sort().values.numpy()  # the points come in another order
    assert inverse == pytest.approx(sorted(1 / theirs.dimension_pw_), rel=1e-9)
