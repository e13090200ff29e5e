"""Samples of neighbourhoods: weights, moments, enumeration."""

from math import comb

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unseen.engine.local.neighbourhoods import (
    Coalitions,
    Gaussian,
    LeaveOneOut,
    Masks,
    Parametrization,
    PathSegment,
    PointMass,
    Rule,
)
from unseen.errors import InvalidConfig
from unseen.lab import Lab

LAB = Lab(dtype=torch.float64)


def lengths(points: int, d: int) -> torch.Tensor:
    return torch.rand(points, d, generator=LAB.generator(), dtype=torch.float64) + 0.1


EVERY = (
    *(Gaussian(n=31), PointMass(), PointMass(Parametrization.MULTIPLICATIVE), PathSegment()),
    *(PathSegment(rule=Rule.MIDPOINT), Masks(1.0, 40), Masks(n=40), Coalitions(60), LeaveOneOut()),
)


@pytest.mark.parametrize("where", EVERY, ids=lambda where: type(where).__name__)
@pytest.mark.parametrize("d", [2, 5, 12])
def test_weights_sum_to_one_and_the_lab_decides(where, d: int):
    sample = where.draw(lengths(3, d), LAB)
    assert sample.xi.shape == (sample.weight.shape[1], d)
    assert torch.allclose(sample.weight.sum(1), torch.ones(len(sample.weight), dtype=torch.float64))
    assert (sample.weight >= 0).all()
    again = where.draw(lengths(3, d), LAB)
    assert torch.equal(sample.xi, again.xi)
    assert where.title
    assert len(sample.xi) <= max(getattr(where, "n", d), d, 1)


@given(d=st.integers(2, 9), share=st.floats(0.1, 1.0))
def test_coalitions_weigh_sizes_as_the_shapley_kernel(d: int, share: float):
    n = max(2, int(share * (2**d - 2)))
    sample = Coalitions(n).draw(lengths(1, d), LAB)
    size = sample.xi.sum(1)
    assert ((size > 0) & (size < d)).all()
    kernel = {k: 1 / (k * (d - k)) for k in range(1, d)}
    if len(sample.xi) == 2**d - 2:  # enumerated: every subset once, with its own weight
        assert len(sample.xi.unique(dim=0)) == 2**d - 2
        for k in kernel:
            each = sample.weight[0][size == k]
            assert torch.allclose(
                each, torch.full_like(each, kernel[k] / comb(d, k) / sum(kernel.values()))
            )
    # sampled or not, a coalition and its complement weigh the same
    total = {k: sample.weight[0][size == k].sum().item() for k in kernel}
    assert all(total[k] == pytest.approx(total[d - k]) for k in kernel)


def test_gaussian_pairs_cancel_and_have_the_asked_spread():
    xi = Gaussian(0.3, 20_000).draw(lengths(1, 4), LAB).xi
    assert xi.mean(0).abs().max() < 1e-12
    assert xi.std(0).sub(0.3).abs().max() < 0.01


def test_all_masks_are_enumerated_where_they_fit():
    xi = Masks(n=16).draw(lengths(1, 4), LAB).xi
    assert len(xi.unique(dim=0)) == 16


def test_the_kernel_is_the_squared_distance_over_the_squared_width():
    lengths2 = lengths(2, 3)
    for scaled in (False, True):
        sample = Masks(0.7, 8, scaled).draw(lengths2, LAB)
        for k in range(2):
            distance2 = ((1 - sample.xi) * lengths2[k]).sum(1) / (
                lengths2[k].sum() if scaled else 1
            )
            want = (-distance2 / 0.49).exp()
            assert torch.allclose(sample.weight[k], want / want.sum())


def test_quadratures_are_exact_where_they_promise():
    gauss, middle = PathSegment(0.2, 3), PathSegment(0.2, 400, Rule.MIDPOINT)
    for where, tolerance in ((gauss, 1e-12), (middle, 1e-5)):
        sample = where.draw(lengths(1, 1), LAB)
        mean = (sample.weight[0] * sample.xi[:, 0] ** 5).sum().item()
        assert mean == pytest.approx((1 - 0.2**6) / 6 / 0.8, abs=tolerance)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Coalitions(1),
        lambda: PathSegment(-0.1),
        lambda: PathSegment(n=0),
        lambda: Masks(n=0),
        lambda: Masks(-1.0),
    ],
)
def test_impossible_neighbourhoods_are_refused(make):
    with pytest.raises(InvalidConfig):
        make()
