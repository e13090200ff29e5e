"""Distances against the definition, laws against synthetic curves and a random walk."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis.strategies import floats, integers
from torch import nn

from unseen.engine import parameters
from unseen.engine.batches import Columns
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.measures.weight_distance import (
    LandscapeRoughness,
    WeightDistance,
    diffusion_fit,
    distance_from,
    landscape_roughness,
    log_steps,
    training_roughness,
    weight_tensors,
)
from unseen.method import Trained
from unseen.models.mlp import mlp
from unseen.objectives import classify
from unseen.task import Axis, Split, Task, Use

LAB = Lab(dtype=torch.float64)
STEPS = np.unique(np.geomspace(1, 2_000, 60).round())


def model(seed=1):
    with Lab(seed=seed).seeded():
        return mlp([3, 5, 2], norm=nn.BatchNorm1d).double().eval()


def task():
    x = torch.randn(40, 3, generator=Lab(seed=3).generator(), dtype=torch.float64)
    data = Columns(x=x, y=(x[:, 0] > 0).long())
    return Task(
        name="t", axis=Axis.IID, objective=classify, splits={"train": Split(data, Use.TRAIN)}
    )


def test_distance_is_over_weights_only():
    net = model()
    start = parameters.copy_parameters(net)
    assert set(weight_tensors(net)) == {"1.weight", "4.weight"}
    with torch.no_grad():
        for p in net.parameters():
            p += 3.0 if p.dim() > 1 else 100.0  # biases, gains and shifts must not count
    count = 3 * 5 + 5 * 2
    assert distance_from(start)(net) == pytest.approx(3.0 * count**0.5)
    reading = WeightDistance()(Trained(net, task(), start=start), Lab())
    assert (reading.value, reading.n) == (pytest.approx(3.0 * count**0.5), 2)
    assert distance_from(parameters.copy_parameters(net))(net) == 0


def test_distance_needs_a_start_and_weights():
    with pytest.raises(InvalidData, match="has no `start`"):
        WeightDistance()(Trained(model(), task()), Lab())
    lost = model()
    start = parameters.copy_parameters(lost)
    lost[1].weight.data[0, 0] = float("nan")
    with pytest.raises(InvalidData, match="is nan"):
        WeightDistance()(Trained(lost, task(), start=start), Lab())
    with pytest.raises(InvalidData, match="no trainable tensor"):
        distance_from({})(nn.BatchNorm1d(3))


@given(a=floats(0.5, 5.0), b=floats(0.2, 5.0), seed=integers(0, 99))
def test_a_logarithm_is_recovered(a, b, seed):
    noise = 1 + 0.002 * Lab(seed=seed).numpy().standard_normal(len(STEPS))
    fit = diffusion_fit(STEPS, (a + b * np.log(STEPS)) * noise)
    assert fit.slope == pytest.approx(b, rel=0.01)
    assert fit.is_ultra_slow
    assert fit.r2_log > max(fit.r2_root, fit.r2_power, 0.999)


@pytest.mark.parametrize("seed", range(5))
def test_a_random_walk_grows_with_the_root(seed):
    # 5,000 dimensions: ‖w_t − w_0‖ = σ√(t p) up to 1 %
    rng = Lab(seed=seed).numpy()
    walk = rng.normal(scale=0.01, size=(2_000, 5_000)).cumsum(0)
    fit = diffusion_fit(STEPS, np.linalg.norm(walk, axis=1)[STEPS.astype(int) - 1])
    assert fit.exponent == pytest.approx(0.5, abs=0.02)
    assert fit.r2_root > fit.r2_log
    assert not fit.is_ultra_slow


@given(c=floats(0.1, 10.0), gamma=floats(0.1, 1.5))
def test_a_power_is_recovered(c, gamma):
    fit = diffusion_fit(STEPS, c * STEPS**gamma)
    assert fit.exponent == pytest.approx(gamma)
    assert fit.r2_power == pytest.approx(1)


@given(scale=floats(0.1, 10.0), seed=integers(0, 99))
def test_the_unit_of_distance_and_the_order_of_points_do_not_matter(scale, seed):
    rng = Lab(seed=seed).numpy()
    distances = 1 + np.log(STEPS) + 0.1 * rng.random(len(STEPS))
    order = rng.permutation(len(STEPS))
    one, two = (
        diffusion_fit(STEPS, distances),
        diffusion_fit(STEPS[order], scale * distances[order]),
    )
    assert two.slope == pytest.approx(scale * one.slope)
    for name in ("r2_log", "r2_root", "r2_power", "exponent"):
        assert getattr(two, name) == pytest.approx(getattr(one, name), rel=1e-6)


@pytest.mark.parametrize(
    ("steps", "distances"),
    [
        ([1, 2, 3], [1, 2, 3]),
        ([0, 1, 2, 3], [0, 1, 2, 3]),
        ([1, 2, 3, 4], [1, 1, 1, 1]),
        ([1, 2, 3, 4], [1, 2, 3]),
        ([1, 2, 3, 4], [1, 2, float("nan"), 4]),
    ],
)
def test_curves_without_a_law_are_refused(steps, distances):
    with pytest.raises(InvalidData, match="diffusion_fit got"):
        diffusion_fit(steps, distances)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_roughness_is_the_growth_exponent_of_the_spread(power):
    # L(w) = ⟨a, w⟩ |⟨a, w⟩|^(power − 1) at w = 0 has a spread that grows as r^power
    a = torch.linspace(-1, 1, 7, dtype=torch.float64)
    w = torch.zeros(7, dtype=torch.float64)

    def loss():
        z = (a @ w).item()
        return np.sign(z) * abs(z) ** power

    found = landscape_roughness(loss, [w], (0.1, 0.5, 2.0, 9.0), 12, Lab().generator())
    assert found.slope.value == pytest.approx(power)
    assert not w.any()


def test_roughness_is_read_at_the_start_and_changes_nothing():
    net = model()
    start = parameters.copy_parameters(net)
    measure = LandscapeRoughness(radii=(1e-4, 1e-3, 1e-2), directions=8)
    at_start = measure(Trained(net, task(), start=start), LAB)
    assert at_start.value == pytest.approx(1, abs=0.05), "a smooth loss is linear nearby"
    with torch.no_grad():
        for p in net.parameters():
            p += 1.0
    moved = parameters.copy_parameters(net)
    again = measure(Trained(net, task(), start=start), LAB)
    assert again.value == pytest.approx(at_start.value, rel=1e-6)
    assert all(torch.equal(moved[name], p) for name, p in net.named_parameters())


def test_impossible_probes_are_refused():
    w = torch.zeros(2)
    for radii, directions in (
        ((1.0, 2.0), 8),
        ((1.0, 2.0, -1.0), 8),
        ((1.0, 1.0, 2.0), 8),
        ((1.0, 2.0, 3.0), 1),
    ):
        with pytest.raises(InvalidConfig, match="landscape_roughness got"):
            landscape_roughness(lambda: 0.0, [w], radii, directions, Lab().generator())
    with pytest.raises(InvalidData, match="spread of the loss"):
        landscape_roughness(lambda: 0.0, [w], (1.0, 2.0, 3.0), 4, Lab().generator())
    with pytest.raises(InvalidData, match="has no `start`"):
        LandscapeRoughness()(Trained(model(), task()), Lab())


def test_log_spaced_steps_start_at_one_and_end_at_the_last():
    steps = log_steps(400)
    assert (steps[0], steps[-1]) == (1, 400)
    assert (np.diff(steps) > 0).all()
    assert len(log_steps(2_000)) > 25


def test_training_roughness_sees_batch_statistics_and_moves_no_weight():
    net, other = model(), model()
    value = training_roughness(net, task(), LAB)
    assert 0.3 < value < 1.5  # a smooth loss near its weights: 1; flat far away: less
    assert net.training
    assert all(
        torch.allclose(a, b) for a, b in zip(net.parameters(), other.parameters(), strict=True)
    )
    assert value == training_roughness(other.eval(), task(), LAB), (
        "the mode it comes in does not matter"
    )
