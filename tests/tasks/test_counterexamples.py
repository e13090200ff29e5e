"""Finite fields: elimination against brute force, and the impossibility itself."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.strategies import integers, sampled_from
from scipy import stats as scipy_stats

from unseen.engine.evaluate import scores
from unseen.errors import InvalidConfig, InvalidData, UnsupportedLayer
from unseen.lab import Lab
from unseen.measures.bounds import MEASURES, SharedPass, adjust_for_size
from unseen.tasks.counterexamples import (
    FiniteField,
    Truth,
    eliminate,
    fit_by_elimination,
    fit_by_memory,
    is_basis,
    random_basis,
)


@given(q=sampled_from([2, 3, 7]), d=integers(1, 3), seed=integers(0, 999))
@settings(deadline=None, max_examples=30)
def test_elimination_finds_what_trying_all_maps_finds(q, d, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(q, size=(d, d)), rng.integers(q, size=d)
    maps = [w for w in product(range(q), repeat=d) if ((x @ w - y) % q == 0).all()]
    if is_basis(x, q):
        assert maps == [tuple(eliminate(x, y, q))]
    else:
        assert len(maps) != 1
        with pytest.raises(InvalidData, match="no basis"):
            eliminate(x, y, q)


def test_a_share_of_random_matrices_is_invertible():
    rng = np.random.default_rng(0)
    share = np.mean([is_basis(rng.integers(2, size=(6, 6)), 2) for _ in range(2_000)])
    exact = math.prod(1 - 2.0**-i for i in range(1, 7))
    assert abs(share - exact) < 3 * math.sqrt(exact * (1 - exact) / 2_000)


def error(trained) -> float:
    return 1 - scores(trained, Lab())["unseen"].value


@pytest.mark.parametrize(("q", "d"), [(2, 8), (7, 8)])
def test_elimination_is_right_on_linear_truths_and_at_chance_elsewhere(q, d):
    spec = FiniteField(q, d)
    errors = {truth: [] for truth in Truth}
    for seed in range(20):
        for truth in Truth:
            task = FiniteField(q, d, truth).build(Lab(seed=seed))
            assert str(truth) in task.name
            trained = fit_by_elimination(task, q, Lab())
            assert scores(trained, Lab())["train"].value == 1
            errors[truth].append(error(trained))
    n = len(task.splits["unseen"].data)
    assert n == (2**8 - 8 if q == 2 else pytest.approx(5_000, abs=5))
    assert errors[Truth.LINEAR] == [0.0] * 20
    # 20 draws of n labels: three standard deviations of their mean, and of the farthest
    deviation = math.sqrt(spec.chance_error * (1 - spec.chance_error) / n)
    for truth in (Truth.FUNCTION, Truth.INDEPENDENT):
        found = np.array(errors[truth])
        assert abs(found.mean() - spec.chance_error) < 3 * deviation / math.sqrt(20)
        assert np.abs(found - spec.chance_error).max() < 4 * deviation


def test_a_memory_is_at_chance_in_both_worlds():
    for truth in (Truth.LINEAR, Truth.INDEPENDENT):
        errors = []
        for seed in range(40):
            trained = fit_by_memory(FiniteField(7, 4, truth).build(Lab(seed=seed)), 7, Lab())
            assert scores(trained, Lab())["train"].value == 1
            errors.append(error(trained))
        assert np.mean(errors) == pytest.approx(6 / 7, abs=0.01)


def test_sample_and_hypothesis_have_one_distribution():
    maps = {
        truth: np.concatenate(
            [
                fit_by_elimination(FiniteField(3, 4, truth).build(Lab(seed=seed)), 3, Lab())
                .model.map.weight.detach()
                .int()
                .numpy()
                for seed in range(150 * k, 150 * (k + 1))
            ]
        )
        for k, truth in enumerate((Truth.LINEAR, Truth.FUNCTION))
    }
    counts = [np.bincount((w @ 3 ** np.arange(4)) % 9, minlength=9) for w in maps.values()]
    assert scipy_stats.chi2_contingency(np.array(counts)).pvalue > 0.01


@pytest.mark.parametrize("q", [2, 7])
def test_every_measure_misses_the_gap_in_half_of_fair_coin_draws(q):
    draws, half = 40, (1 - 1 / q) / 2
    misses: dict[str, list[bool]] = {}
    for seed in range(draws):
        coin = Truth.LINEAR if Lab(seed=seed).child("coin").numpy().random() < 0.5 else None
        task = FiniteField(q, 6, coin or Truth.INDEPENDENT).build(Lab(seed=seed))
        trained = fit_by_elimination(task, q, Lab())
        gap = 0.0 if coin else 1 - 1 / q
        shared = SharedPass(trained, Lab())
        for measure in MEASURES:
            try:
                value = measure(shared, Lab()).value
            except InvalidData:  # a map that is zero has no logarithm
                continue
            except UnsupportedLayer:  # rounding is no homogeneous function
                continue
            bound = adjust_for_size(measure, value, shared.n)
            misses.setdefault(measure.name, []).append(not abs(bound - gap) < half - 1e-12)
    assert {"weight_norm", "distance", "spectral_product", "inverse_margin"} <= misses.keys()
    for name, found in misses.items():
        # a half in expectation: three binomial standard deviations below it
        assert np.mean(found) >= 0.5 - 3 * math.sqrt(0.25 / len(found)), name


def test_labels_of_a_function_are_one_per_input():
    task = FiniteField(2, 17, Truth.FUNCTION, n_evaluate=200_000).build(Lab())
    data = task.splits["unseen"].data[:]
    code = (data["x"].long() @ 2 ** torch.arange(17)).numpy()
    labels = {}
    for key, label in zip(code.tolist(), data["y"].tolist(), strict=True):
        assert labels.setdefault(key, label) == label
    assert len(labels) < len(code)


def test_unseen_inputs_are_not_in_training():
    task = FiniteField(3, 5).build(Lab())
    train, unseen = (
        {tuple(row) for row in task.splits[name].data[:]["x"].int().tolist()}
        for name in ("train", "unseen")
    )
    assert not train & unseen
    assert len(train | unseen) == 3**5
    assert is_basis(random_basis(5, 3, np.random.default_rng(0)), 5)


@pytest.mark.parametrize(("q", "d"), [(4, 3), (1, 3), (9, 2), (2, 0), (2, 1)])
def test_refusals(q, d):
    if (q, d) == (2, 1):
        FiniteField(q, d)
        return
    with pytest.raises(InvalidConfig, match="FiniteField got"):
        FiniteField(q, d)
