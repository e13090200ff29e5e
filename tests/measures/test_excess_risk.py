"""Excess risk: the closed form against drawn examples, and what it refuses."""

import pytest
import torch
from torch import nn

from unseen.errors import InvalidData, UnsupportedLayer
from unseen.lab import Lab
from unseen.measures.excess_risk import (
    ExactExcessRisk,
    ExcessRisk,
    affine_map,
    example,
    quadratic_risk,
)
from unseen.method import Trained
from unseen.tasks.latent_variables import FactorModel

LAB = Lab(seed=2, dtype=torch.float64)
SPEC = FactorModel(dim=15, factors=3, noise=1.5, n=40, unlabelled=10, n_evaluate=4_000)


def model_near_the_best(shift=0.3):
    best = SPEC.population(LAB).best
    model = nn.Linear(15, 1).double()
    noise = torch.randn(15, generator=LAB.generator(), dtype=torch.float64)
    model.weight.data = (best + shift * noise)[None]
    model.bias.data.fill_(0.1)
    return model


def test_the_closed_form_is_the_mean_over_a_million_draws():
    known, model = SPEC.population(LAB), model_near_the_best()
    exact = quadratic_risk(model.weight[0].detach(), known.best, known.covariance, 0.1)
    root, total = torch.linalg.cholesky(known.covariance), 0.0
    generator = LAB.child("draws").generator()
    for _ in range(20):
        x = torch.randn(50_000, 15, generator=generator, dtype=torch.float64) @ root.T
        total += float((model(x)[:, 0] - x @ known.best).detach().square().sum())
    assert exact == pytest.approx(total / 1_000_000, rel=0.01)


def test_the_population_is_that_of_the_examples():
    known = SPEC.population(LAB)
    data = SPEC.build(LAB).splits["test"].data.columns
    x, y = data["x"].double(), data["y"].double()
    torch.testing.assert_close(x.T.cov(), known.covariance, rtol=0.1, atol=1.2)
    residual = y - x @ known.best
    assert float(residual.var()) == pytest.approx(known.noise2, rel=0.1)
    assert float((residual[:, None] * x).mean(0).abs().max()) < 0.2


def test_of_the_best_model_it_is_zero_and_units_of_inputs_do_not_matter():
    known, model = SPEC.population(LAB), model_near_the_best()
    assert quadratic_risk(known.best, known.best, known.covariance) == 0
    scale = torch.linspace(0.1, 5, 15, dtype=torch.float64)
    w, sigma = model.weight[0].detach(), known.covariance
    plain = quadratic_risk(w, known.best, sigma)
    scaled = quadratic_risk(w / scale, known.best / scale, sigma * torch.outer(scale, scale))
    assert scaled == pytest.approx(plain)


def test_against_a_reference_it_is_the_paired_difference():
    known, model = SPEC.population(LAB), model_near_the_best()
    best = nn.Linear(15, 1).double()
    best.weight.data, best.bias.data = known.best[None], torch.zeros(1, dtype=torch.float64)
    reading = ExcessRisk(best)(Trained(model, SPEC.build(LAB)), LAB)
    exact = ExactExcessRisk(known.covariance, known.best)(Trained(model, SPEC.build(LAB)), LAB)
    # the task's loss is half the squared error
    assert reading.low < exact.value / 2 < reading.high
    assert ExcessRisk(best)(Trained(best, SPEC.build(LAB)), LAB).value == 0


def test_what_is_not_affine_is_refused():
    with pytest.raises(UnsupportedLayer, match="not affine"):
        affine_map(nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1)).double(), 3, LAB)
    with pytest.raises(UnsupportedLayer, match="2 outputs"):
        affine_map(nn.Linear(3, 2).double(), 3, LAB)
    with pytest.raises(InvalidData, match="same inputs"):
        quadratic_risk(torch.ones(3), torch.ones(3), torch.eye(2))


def test_a_missing_input_costs_its_variance():
    measure, trained = example()
    assert measure(trained, Lab()).value == pytest.approx(1)
