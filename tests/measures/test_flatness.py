"""Noise and boxes around the weights against closed forms; measures of gradients and training."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats as scipy_stats
from torch import nn

from unseen.engine.batches import Columns
from unseen.engine.parameters import shift_parameters
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.measures.bounds import SharedPass, measure
from unseen.measures.bounds.flatness import (
    ASCENT,
    DRAWS,
    DROP,
    EPSILON,
    Flatness,
    examples_for_noise,
    largest_scale,
)
from unseen.measures.bounds.flatness_measures import pac_bayes_magnitude
from unseen.measures.bounds.training_measures import steps_to_loss
from unseen.method import Trained
from unseen.objectives import binary
from unseen.task import Axis, Split, Task, Use
from unseen.testing import small_subject

LAB = Lab(dtype=torch.float64)


def one_weight_per_example(n: int = 400, *, right: bool = True) -> Trained:
    """f(e_i) = w_i = 1 with label 1: an example is lost where its own weight falls below zero."""
    model = nn.Linear(n, 1, bias=False).double()
    with torch.no_grad():
        model.weight.fill_(1.0 if right else -1.0)
    data = Columns(x=torch.eye(n, dtype=torch.float64), y=torch.ones(n, dtype=torch.int64))
    split = {"train": Split(data, Use.TRAIN)}
    task = Task(name="one weight each", axis=Axis.IID, splits=split, objective=binary)
    return Trained(model.eval(), task, start={"weight": torch.zeros(1, n, dtype=torch.float64)})


def flatness_of(t: Trained, lab: Lab = LAB) -> Flatness:
    return SharedPass(t, lab)._flatness


def test_noise_scale_and_box_radius_have_closed_forms():
    shared = SharedPass(one_weight_per_example(), LAB)
    # P(1 + σ z < 0) = 0.1; 4,000 Bernoulli draws leave 5 % of noise in that probability
    exact = -1 / scipy_stats.norm.ppf(DROP)
    assert shared.noise_scale == pytest.approx(exact, rel=0.05)
    assert shared.relative_noise_scale == pytest.approx(exact, rel=0.05)
    assert shared.box_radius == pytest.approx(1, rel=0.02)
    assert shared.relative_box_radius == pytest.approx(1 / 1.001, rel=0.02)


def test_published_noise_has_the_variance_for_its_deviation():
    t = one_weight_per_example()
    sigma = SharedPass(t, LAB).noise_scale
    published = SharedPass(t, LAB, as_published=True).noise_scale
    assert published == pytest.approx(math.sqrt(sigma), rel=0.02)


def test_measures_are_their_equations():
    shared = SharedPass(one_weight_per_example(), LAB)
    n = weights = 400
    sigma, alpha = shared.noise_scale, shared.box_radius
    relative = shared.relative_noise_scale
    per_weight = sum(
        math.log((1e-6 + (relative**2 + 1) * 400 / weights) / (1e-6 + relative**2 * 1.0))
        for _ in range(weights)
    )
    expected = {
        "pac_bayes_start": 400 / (4 * sigma**2) + math.log(n / sigma) + 10,
        "pac_bayes_origin": 400 / (4 * sigma**2) + math.log(n / sigma) + 10,
        "pac_bayes_flatness": 1 / sigma**2,
        "pac_bayes_magnitude_start": per_weight / 4 + math.log(n / relative) + 10,
        "pac_bayes_magnitude_flatness": 1 / relative**2,
        "sharpness_start": 400 * math.log(800) / (4 * alpha**2) + math.log(n / alpha) + 10,
        "sharpness_flatness": 1 / alpha**2,
        "sharpness_magnitude_flatness": 1 / shared.relative_box_radius**2,
    }
    for name, value in expected.items():
        assert measure(name)(shared, LAB).value == pytest.approx(value, rel=1e-6), name
    moved = torch.tensor([0.5, -2.0], dtype=torch.float64)
    slow = sum(math.log((1e-6 + 1.25 * 9 / 2) / (1e-6 + 0.25 * float(v) ** 2)) for v in moved)
    found = pac_bayes_magnitude(9.0, moved, 0.5, 100)
    assert found == pytest.approx(slow / 4 + math.log(200) + 10, rel=1e-6)


def test_the_drop_grows_with_the_noise():
    found = flatness_of(one_weight_per_example())
    drops = [found.noise_drop(scale) for scale in np.geomspace(0.05, 20, 30)]
    assert drops == sorted(drops)
    assert drops[0] == 0
    assert drops[-1] == pytest.approx(0.5, abs=0.03)


def test_two_streams_of_noise_agree():
    t = small_subject()
    first, second = (SharedPass(t, Lab(seed=seed)) for seed in (1, 2))
    assert first.noise_scale == pytest.approx(second.noise_scale, rel=0.15)
    assert first.box_radius == second.box_radius


def test_rescaling_two_layers_changes_what_noise_they_stand():
    t = small_subject()
    model = copy.deepcopy(t.model)
    layers = [m for m in model if isinstance(m, nn.Linear)]
    with torch.no_grad():
        layers[0].weight *= 10
        layers[0].bias *= 10
        layers[1].weight /= 10
    before, after = (
        measure("pac_bayes_flatness")(x, Lab()).value for x in (t, replace(t, model=model))
    )
    assert after > 1.5 * before


def test_the_weights_come_back():
    t = small_subject()
    t.model.zero_grad()
    before = copy.deepcopy(t.model.state_dict())
    t.model.train()
    for name in ("pac_bayes_flatness", "sharpness_magnitude_flatness", "gradient_noise"):
        measure(name)(t, Lab())
    assert t.model.training
    assert all(torch.equal(before[key], value) for key, value in t.model.state_dict().items())
    assert all(p.grad is None for p in t.model.parameters())


def test_untrained_and_unaffected_models_are_refused():
    with pytest.raises(InvalidData, match=r"training accuracy is 0\.000"):
        measure("pac_bayes_flatness")(one_weight_per_example(right=False), LAB)
    with pytest.raises(InvalidData, match="no noise up to"):
        largest_scale(lambda scale, enough: 0.0)
    with pytest.raises(InvalidData, match="even noise of"):
        largest_scale(lambda scale, enough: 0.3)


@pytest.mark.parametrize("edge", [3e-5, 0.01, 0.7, 250.0])
def test_the_largest_scale_is_found_to_two_percent(edge):
    def smooth(scale: float, enough: float) -> float:
        return DROP * (scale / edge) ** 2

    found = largest_scale(smooth)
    for one in (found, largest_scale(lambda scale, enough: 0.5 * (scale > edge))):
        assert edge / 1.021 <= one <= edge * (1 + 1e-9)
    # where a number above `enough` will do, less is computed, and the scale is the same
    assert largest_scale(lambda scale, enough: min(smooth(scale, enough), enough + 1e-6)) == found


def box_drop_of_the_definition(found: Flatness, scale: float, magnitude: bool) -> float:
    """Ascent step by step: a pass for the gradient, the step, a pass for the accuracy."""
    radii = [
        scale * (p.detach().abs() + EPSILON) if magnitude else torch.full_like(p, scale).detach()
        for p in found.weights
    ]
    moves = [torch.zeros_like(p).detach() for p in found.weights]
    drops = [0.0]
    for _ in range(ASCENT):
        with shift_parameters(found.weights, moves):
            total = sum(found.objective.loss(found.network, b).sum() for b in found.batches)
            signs = [g.sign() for g in torch.autograd.grad(total, found.weights)]
        moves = [
            torch.minimum(torch.maximum(move + 0.2 * radius * sign, -radius), radius)
            for move, radius, sign in zip(moves, radii, signs, strict=True)
        ]
        with shift_parameters(found.weights, moves):
            drops.append(found.accuracy - found._accuracy())
    return max(drops)


def noise_drop_of_the_definition(found: Flatness, scale: float, magnitude: bool) -> float:
    drops = []
    for draw in range(DRAWS):
        generator = found.lab.child("noise", draw).generator()
        noise = [
            torch.randn(p.shape, generator=generator).to(p)
            * found._deviation(p.detach(), scale, magnitude)
            for p in found.weights
        ]
        with shift_parameters(found.weights, noise):
            drops.append(found.accuracy - found._accuracy())
    return sum(drops) / DRAWS


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("magnitude", [False, True])
def test_drops_are_those_of_their_definitions_to_the_last_digit(magnitude, dtype):
    t = small_subject()
    data = t.task.split("train").data[:]
    data["x"] = data["x"].to(dtype)
    split = {"train": Split(Columns(**data), Use.TRAIN)}
    t = replace(t, model=t.model.to(dtype).eval(), task=replace(t.task, splits=split))
    found = flatness_of(t, Lab(dtype=dtype))
    seen = set()
    for scale in (0.003, 0.03, 0.1, 0.2, 0.5, 1.0, 3.0):
        box = box_drop_of_the_definition(found, scale, magnitude)
        noise = noise_drop_of_the_definition(found, scale, magnitude)
        assert found.box_drop(scale, magnitude=magnitude) == box
        assert found.noise_drop(scale, magnitude=magnitude) == noise
        # a bound decides as the whole drop does
        assert (found.box_drop(scale, magnitude=magnitude, enough=DROP) > DROP) == (box > DROP)
        bound = found.noise_drop(scale, magnitude=magnitude, enough=DROP)
        assert (bound > DROP) == (noise > DROP)
        assert bound <= noise
        seen.add((box, noise))
    assert len(seen) > 2


def test_ascent_reads_the_examples_once_a_step():
    found, passes = flatness_of(one_weight_per_example()), []
    found.network.register_forward_hook(lambda *_: passes.append(1))
    found.box_drop(1e-3)
    # whether there is a gradient at all, the first gradient, and one pass after each step
    assert len(passes) == 2 + ASCENT
    found.box_drop(2e-3)
    assert len(passes) == 2 + 2 * ASCENT
    found.box_drop(100.0, enough=DROP)
    assert len(passes) == 2 + 2 * ASCENT + 1


def test_the_weights_come_back_after_an_error():
    found = flatness_of(one_weight_per_example())
    before = found.weights[0].detach().clone()

    def fail() -> float:
        raise RuntimeError

    found._accuracy = fail
    with pytest.raises(RuntimeError):
        found.noise_drop(1.0)
    assert torch.equal(found.weights[0], before)


def test_noise_reads_the_first_examples():
    batches = [{"x": torch.zeros(3, 1)}, {"x": torch.zeros(4, 1)}]
    assert [len(b["x"]) for b in examples_for_noise(batches, 5)] == [3, 2]
    assert [len(b["x"]) for b in examples_for_noise(batches, 3)] == [3]


# gradients and the way there


def test_gradient_moments_equal_a_loop():
    t = small_subject()
    t = replace(t, model=t.model.double())
    batch, loss = t.task.splits["train"].data[:], t.task.objective.loss
    rows = []
    for i in range(len(batch["y"])):
        one = {key: value[i : i + 1] for key, value in batch.items()}
        one["x"] = one["x"].double()
        parts = torch.autograd.grad(loss(t.model, one).sum(), list(t.model.parameters()))
        rows.append(torch.cat([part.flatten() for part in parts]))
    g = torch.stack(rows)
    variance = g.var(0, correction=1).sum().item()
    shared = SharedPass(t, LAB)
    assert measure("gradient_noise")(shared, LAB).value == pytest.approx(variance, rel=1e-6)
    mean2 = g.mean(0).square().sum().item()
    scale = measure("gradient_noise_scale")(shared, LAB).value
    assert scale == pytest.approx(variance / mean2, rel=1e-6)
    fisher = measure("fisher_trace")(shared, LAB)
    assert fisher.value == pytest.approx(g.square().sum(1).mean().item(), rel=1e-6)
    assert fisher.low < fisher.value < fisher.high


def test_steps_to_a_loss():
    t = small_subject()
    curve = [1.0] * 30 + [0.05] * 30 + [0.001] * 30
    t = replace(t, curves={"loss": curve})
    # the mean of twenty losses is at most 0.1 once nineteen of them are small
    assert steps_to_loss(t, 0.1) == 49
    assert measure("steps_0.1_to_0.01")(t, LAB).value == steps_to_loss(t, 0.01) - 49
    watched = replace(t, curves={"loss": curve, "watched": [0, 10, 50], "train_loss": [2, 0.1, 0]})
    assert steps_to_loss(watched, 0.1) == 10
    assert steps_to_loss(watched, 0.01) == 50
    with pytest.raises(InvalidData, match=r"lowest training loss is 0\.001"):
        steps_to_loss(t, 1e-4)
    with pytest.raises(InvalidData, match="losses of 3 steps"):
        steps_to_loss(replace(t, curves={"loss": [1.0, 2.0, 3.0]}), 0.1)
