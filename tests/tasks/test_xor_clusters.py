"""XOR clusters: labels, flips, counts and the Bayes floor against Monte Carlo."""

import numpy as np
import pytest
import torch

from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.tasks.xor_clusters import XorClusters, bayes_error


def test_labels_follow_clusters_and_flips_are_training_only():
    task = XorClusters(n=4_000, dim=5_000, mean_norm2=900.0, noise=0.2, n_evaluate=300).build(
        Lab(seed=3)
    )
    train, test = task.splits["train"].data.columns, task.splits["test"].data.columns
    clean = (train["cluster"] < 2).long()
    assert torch.equal(train["y"], clean ^ train["flipped"].long())
    assert torch.equal(test["y"], (test["cluster"] < 2).long())
    assert not test["flipped"].any()
    # five standard deviations of a binomial
    assert abs(train["flipped"].double().mean() - 0.2) < 5 * (0.2 * 0.8 / 4_000) ** 0.5
    counts = torch.bincount(train["cluster"], minlength=4)
    assert (abs(counts - 1_000) < 5 * (4_000 * 3 / 16) ** 0.5).all()


def test_clusters_have_orthogonal_means_of_the_given_norm_and_unit_noise():
    task = XorClusters(n=20_000, dim=20_000 // 10 * 10, mean_norm2=400.0, n_evaluate=5, noise=0.0)
    data = (
        XorClusters(n=2_000, dim=2_000, mean_norm2=400.0, n_evaluate=5)
        .build(Lab())
        .splits["train"]
        .data.columns
    )
    means = torch.stack([data["x"][data["cluster"] == k].mean(0) for k in range(4)])
    centres = torch.zeros(4, 2_000)
    centres[0, 0], centres[1, 0], centres[2, 1], centres[3, 1] = 20.0, -20.0, 20.0, -20.0
    # each coordinate of a mean over about 500 samples has standard deviation 0.045; 8,000 of them
    assert (means - centres).abs().max() < 6 * 0.045
    residual = data["x"] - centres[data["cluster"]]
    assert residual.square().mean().item() == pytest.approx(
        1.0, abs=5 * (2 / residual.numel()) ** 0.5
    )
    assert task.signal == pytest.approx(20_000 * 400**2 / 20_000)


@pytest.mark.parametrize("norm2", [0.5, 2.0, 6.0])
def test_bayes_error_is_the_error_of_comparing_projections(norm2):
    rng = np.random.default_rng(5)
    u, v = rng.standard_normal((2, 400_000))
    wrong = np.abs(u + norm2**0.5) < np.abs(v)
    assert bayes_error(norm2) == pytest.approx(wrong.mean(), abs=5 * (0.25 / 400_000) ** 0.5)


def test_own_means_are_used_and_define_the_same_problem():
    first, second = (0.0, 3.0, 4.0), (0.0, 4.0, -3.0)
    own = XorClusters(n=3, dim=3, mean_norm2=25.0, n_evaluate=4, means=(first, second)).build(
        Lab(seed=1)
    )
    axes = XorClusters(n=3, dim=3, mean_norm2=25.0, n_evaluate=4).build(Lab(seed=1))
    centres = own.splits["centres"].data.columns["x"]
    assert torch.equal(
        centres, torch.tensor([first, [-a for a in first], second, [-b for b in second]])
    )
    # same streams: the noise around the centres is the same
    for name in ("train", "test"):
        a, b = own.splits[name].data.columns, axes.splits[name].data.columns
        noise = [
            c["x"] - t.splits["centres"].data.columns["x"][c["cluster"]]
            for c, t in ((a, own), (b, axes))
        ]
        torch.testing.assert_close(noise[0], noise[1], rtol=0, atol=2e-6)


def test_splits_do_not_depend_on_each_other():
    a = XorClusters(n=5, dim=9, n_evaluate=4, mean_norm2=4.0).build(Lab(seed=2))
    b = XorClusters(n=5, dim=9, n_evaluate=7, mean_norm2=4.0).build(Lab(seed=2))
    assert torch.equal(a.splits["train"].data.columns["x"], b.splits["train"].data.columns["x"])


@pytest.mark.parametrize(
    "bad",
    [
        {"dim": 1},
        {"noise": 0.5},
        {"noise": -0.1},
        {"noise": float("nan")},
        {"mean_norm2": 0.0},
        {"n": 0},
    ],
)
def test_values_out_of_range_are_refused(bad):
    with pytest.raises(InvalidConfig, match="out of range"):
        XorClusters(**bad)


@pytest.mark.parametrize(
    "means",
    [
        ((2.0, 0.0), (1.0, 3**0.5)),
        ((2.0, 0.0), (0.0, 1.0)),
        ((2.0,), (0.0, 2.0)),
        ((float("nan"), 0.0), (0.0, 2.0)),
    ],
)
def test_means_that_are_no_xor_problem_are_refused(means):
    with pytest.raises(InvalidData, match="means"):
        XorClusters(n=2, dim=2, mean_norm2=4.0, means=means)


def test_more_samples_than_dimensions_warn():
    with pytest.warns(UserWarning, match="not nearly orthogonal"):
        XorClusters(n=30, dim=20)
