"""Informativeness of factor models: Hellinger's distance against its definition; κ ≥ 1."""

import numpy as np
import pytest
import torch

from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.measures.informativeness import (
    Informativeness,
    distance_ratio,
    hellinger,
    nearest_rotation,
)

LAB = Lab(seed=6)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=Lab(seed).generator(), dtype=torch.float64)


def test_hellinger_is_the_integral():
    grid = np.linspace(-30, 30, 200_001)
    density = [np.exp(-(grid**2) / (2 * v)) / np.sqrt(2 * np.pi * v) for v in (1.0, 3.0)]
    affinity = np.sum(np.sqrt(density[0] * density[1])) * (grid[1] - grid[0])
    found = hellinger(*(torch.tensor([[v]], dtype=torch.float64) for v in (1.0, 3.0)))
    assert found == pytest.approx(np.sqrt(1 - affinity), rel=1e-6)


def test_hellinger_by_determinants_is_symmetric_and_zero_for_equals():
    first, second = (a @ a.T + torch.eye(4) for a in (normal(4, 4), normal(4, 4, seed=1)))
    logs = [torch.linalg.slogdet(s)[1] for s in (first, second, (first + second) / 2)]
    expected = float((1 - (logs[0] / 4 + logs[1] / 4 - logs[2] / 2).exp()).sqrt())
    assert hellinger(first, second) == pytest.approx(expected)
    assert hellinger(second, first) == pytest.approx(expected)
    assert hellinger(first, first) == pytest.approx(0, abs=1e-7)


def test_no_rotation_is_nearer():
    b, truth = normal(6, 3), normal(6, 3, seed=1)
    best = float((b @ nearest_rotation(b, truth) - truth).norm())
    for seed in range(50):
        other = torch.linalg.qr(normal(3, 3, seed=seed)).Q
        assert best <= float((b @ other - truth).norm()) + 1e-12


def test_the_ratio_is_at_least_one_and_ignores_a_rotation_of_the_factors():
    b, truth = normal(8, 2), normal(8, 2, seed=1)
    turn = torch.linalg.qr(normal(2, 2, seed=2)).Q
    found = distance_ratio(b, truth, 1.0)
    assert found >= 1
    assert distance_ratio(b @ turn, truth, 1.0) == pytest.approx(found, rel=1e-9)


def test_weak_factors_are_less_informative():
    subject = {"loadings": normal(40, 3), "noise": torch.tensor(0.5)}
    weak = {**subject, "noise": torch.tensor(12.0)}
    assert 1 <= Informativeness()(subject, LAB).value < Informativeness()(weak, LAB).value


def test_what_has_no_density_is_refused():
    with pytest.raises(InvalidData, match="no density"):
        Informativeness()({"loadings": normal(4, 2), "noise": torch.zeros(())}, LAB)
    with pytest.raises(InvalidConfig):
        Informativeness(draws=0)
