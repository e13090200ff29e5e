import pytest
import torch
from torch import nn
from torch.testing import assert_close

from unseen.engine import parameters
from unseen.lab import Lab


def pair() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    g = Lab(0).generator()
    return tuple(  # type: ignore[return-value]
        {
            "w": torch.randn(3, 2, generator=g, dtype=torch.float64),
            "b": torch.randn(2, generator=g, dtype=torch.float64),
        }
        for _ in range(2)
    )


def vector(a: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([t.flatten() for t in a.values()])


def test_algebra_equals_that_of_vectors():
    a, b = pair()
    u, v = vector(a), vector(b)
    assert_close(parameters.dot(a, b), u @ v)
    assert_close(parameters.norm(a), u.norm())
    assert_close(parameters.distance(a, b), (u - v).norm())
    assert_close(vector(parameters.axpy(0.3, a, b)), 0.3 * u + v)
    assert_close(vector(parameters.interpolate(a, b, 0.25)), 0.75 * u + 0.25 * v)
    assert_close(parameters.interpolate(a, b, 0.0), a)
    assert_close(parameters.interpolate(a, b, 1.0), b)


def test_order_of_names_does_not_matter():
    a, b = pair()
    turned = dict(reversed(b.items()))
    assert_close(parameters.dot(a, turned), parameters.dot(a, b))
    assert_close(parameters.distance(a, turned), parameters.distance(a, b))


def test_trainable_leaves_out_frozen_and_counts_tied_once():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2))
    model[1].weight = model[0].weight
    model[2].bias.requires_grad_(False)
    assert list(parameters.trainable(model)) == ["0.weight", "0.bias", "1.bias", "2.weight"]


def test_copies_do_not_follow_the_model_and_load_brings_them_back():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    copies, everything = parameters.copy_parameters(model), parameters.state(model)
    assert "1.running_mean" in everything
    assert "1.running_mean" not in copies
    model(torch.randn(5, 2))
    with torch.no_grad():
        model[0].weight.add_(1)
    assert float(parameters.distance(parameters.copy_parameters(model), copies)) == pytest.approx(
        2.0
    )
    parameters.load(model, everything)
    assert_close(parameters.state(model), everything)
    with pytest.raises(KeyError):
        parameters.load(model, {"2.weight": torch.zeros(2)})
