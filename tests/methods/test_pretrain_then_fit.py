"""Pretraining before fitting: factor models, mixtures and contrastive pairs against scikit-learn
and closed forms.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.mixture import GaussianMixture
from torch import nn

from unseen.engine.batches import Columns, whole
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.measures.excess_risk import ExactExcessRisk, quadratic_risk
from unseen.methods.pretrain_then_fit import (
    ComponentLabels,
    ContrastiveLinear,
    FactorAnalysis,
    LinearHead,
    MixtureEM,
    PretrainThenFit,
    ProbabilisticPCA,
)
from unseen.methods.pretrain_then_fit.factor_model import fit_factors
from unseen.methods.pretrain_then_fit.heads import count_labels, ridge
from unseen.methods.pretrain_then_fit.mixture import SphericalMixture, ascend, starts_of
from unseen.objectives import classify, regress
from unseen.task import Axis, Split, Task, Use
from unseen.tasks.latent_variables import FactorModel, GaussianClusters, Views

LAB = Lab(seed=3, dtype=torch.float64)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=Lab(seed).generator(), dtype=torch.float64)


def factor_inputs(m=300, d=12, r=3, seed=0):
    return normal(m, r, seed=seed) @ normal(r, d, seed=seed + 1) + normal(m, d, seed=seed + 2)


def task_of(x, y, bare, objective, **more):
    splits = {
        "train": Split(Columns(x=x, y=y), Use.TRAIN),
        "unlabelled": Split(Columns(x=bare, **more), Use.ADAPT),
    }
    return Task(name="own", axis=Axis.IID, splits=splits, objective=objective)


@pytest.mark.parametrize("r", [1, 3, 11])
def test_probabilistic_pca_is_that_of_scikit_learn(r):
    x = factor_inputs()
    ours, theirs = fit_factors(x, r), PCA(r).fit(x.numpy())
    assert ours.noise2 == pytest.approx(theirs.noise_variance_, rel=1e-10)
    assert ours.mean_log_likelihood(x) == pytest.approx(theirs.score(x.numpy()), abs=1e-8)
    covariance = ours.loadings @ ours.loadings.T + ours.noise2 * torch.eye(12)
    np.testing.assert_allclose(covariance, theirs.get_covariance(), atol=1e-10)


def test_the_encoder_is_the_posterior_mean():
    x = factor_inputs()
    model = fit_factors(x, 3)
    b = model.loadings
    covariance = b @ b.T + model.noise2 * torch.eye(12, dtype=torch.float64)
    expected = (x - model.mean) @ torch.linalg.solve(covariance, b)
    torch.testing.assert_close(model.encoder()(x), expected, rtol=0, atol=1e-10)


def test_predictions_ignore_a_rotation_of_the_factors():
    z, y = normal(40, 3), normal(40, 1, seed=5)
    turn = torch.linalg.qr(normal(3, 3, seed=6)).Q
    for decay in (0.0, 0.3):
        weight, bias = ridge(z, y, decay)
        turned, level = ridge(z @ turn, y, decay)
        torch.testing.assert_close(z @ turn @ turned + level, z @ weight + bias)


def test_without_noise_factors_are_coordinates_in_unit_variance():
    x = normal(50, 2) @ normal(2, 6, seed=1)
    model = fit_factors(x, 2)
    assert model.noise2 == pytest.approx(0, abs=1e-20)
    torch.testing.assert_close(model.encoder()(x).T.cov(), torch.eye(2, dtype=torch.float64))


def test_the_number_of_factors_is_found_where_it_shows():
    assert fit_factors(factor_inputs(m=500, r=3), None).directions.shape == (12, 3)
    # a constant input and a doubled one add no factor
    x = factor_inputs(m=500, r=3)
    wide = torch.cat([x, torch.ones(500, 1, dtype=torch.float64)], 1)
    assert fit_factors(wide, None).directions.shape == (13, 3)


def test_factor_analysis_bears_noise_that_differs_between_inputs():
    d, m = 12, 4_000
    b, z = normal(d, 2), normal(m, 2, seed=1)
    scale = torch.ones(d, dtype=torch.float64)
    scale[:2] = 8  # loud inputs, which principal components take for factors
    x = z @ b.T + scale * normal(m, d, seed=2)

    def recovered(density):
        code = density.fit({"x": x}, LAB)(x)
        code = code - code.mean(0)
        fit = code @ torch.linalg.lstsq(code, z).solution
        return 1 - float((z - fit).square().mean() / z.square().mean())

    assert recovered(FactorAnalysis(2)) > 0.8
    assert recovered(ProbabilisticPCA(2)) < 0.5


def test_em_is_that_of_scikit_learn_from_the_same_start():
    x = torch.cat([normal(80, 5, seed=k) + 2 * normal(5, seed=k + 9) for k in range(3)])
    start = starts_of(x, 3, 1, LAB)
    steps = 12
    ours = ascend(x, start, steps, -1.0)
    theirs = GaussianMixture(
        3,
        covariance_type="spherical",
        tol=0,
        max_iter=steps,
        weights_init=start.weights[0].numpy(),
        means_init=start.means[0].numpy(),
        precisions_init=(1 / start.variances[0]).numpy(),
    )
    with pytest.warns(UserWarning, match="did not converge"):
        theirs.fit(x.numpy())
    np.testing.assert_allclose(ours.mixture.means[0], theirs.means_, atol=1e-10)
    np.testing.assert_allclose(ours.mixture.variances[0], theirs.covariances_, atol=1e-10)
    np.testing.assert_allclose(ours.mixture.weights[0], theirs.weights_, atol=1e-10)
    np.testing.assert_allclose(ours.mixture(x)[0], theirs.predict_proba(x.numpy()), atol=1e-8)


def test_the_likelihood_never_falls():
    x = normal(200, 4)
    found = ascend(x, starts_of(x, 6, 5, LAB), 60, 0.0)
    # the floor on variances is no maximum of the likelihood: 1e-6 of slack
    assert bool((found.likelihoods.diff(dim=0) > -1e-6).all())


def test_the_mixture_does_not_depend_on_where_the_inputs_lie():
    x = torch.cat([normal(60, 3, seed=k) + 6 * normal(3, seed=k + 9) for k in range(3)])
    density = MixtureEM(components=3, starts=3)
    here = density.fit({"x": x}, LAB)(x)
    far = density.fit({"x": x + 1e4}, LAB)(x + 1e4)
    # two starts may end in one optimum with other names: rounding says which is the better
    _, names = linear_sum_assignment(-(here.T @ far).numpy())
    torch.testing.assert_close(here, far[:, names], rtol=0, atol=1e-4)


def test_labels_of_components_are_counted():
    z = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
    table = count_labels(z, torch.tensor([0, 1, 1]), 2, 1.0)
    prior = np.array([1 / 3, 2 / 3])
    expected = (prior + np.array([[1, 1], [0, 1], [0, 0]])) / np.array([[3], [2], [1]])
    np.testing.assert_allclose(table, expected)


def test_the_linear_head_is_ridge_regression():
    z, y = normal(30, 4), normal(30, 1, seed=1)
    weight, bias = ridge(z, y, 0.2)
    theirs = Ridge(alpha=0.2 * 30).fit(z.numpy(), y[:, 0].numpy())
    np.testing.assert_allclose(weight[:, 0], theirs.coef_, atol=1e-10)
    assert float(bias) == pytest.approx(theirs.intercept_)


def test_heads_by_descent_and_in_closed_form_agree():
    z, y = normal(30, 4), normal(30, seed=1)
    copy = replace(regress, loss=lambda model, batch: regress.loss(model, batch))
    head, batch = LinearHead(decay=0.1), {"x": z, "y": y}
    exact, slow = (head.fit(z, batch, objective, 1) for objective in (regress, copy))
    torch.testing.assert_close(exact(z), slow(z), rtol=0, atol=1e-6)


def test_with_the_true_factors_the_excess_risk_is_parametric():
    """r ν²/n with ν² the noise of the target and what z leaves open given x (the constant within
    10 %, and the factors' error gone with 200,000 unlabelled inputs).
    """
    n, values = 500, []
    for seed in range(60):
        lab = Lab(seed, dtype=torch.float64)
        spec = FactorModel(dim=10, factors=3, noise=2.0, n=n, unlabelled=20_000, n_evaluate=1)
        known = spec.population(lab)
        task = spec.build(lab)
        # an intercept is fitted, too: one number more
        method = PretrainThenFit(ProbabilisticPCA(3), decay=0.0)
        trained = method.fit(nn.Linear(10, 1), task, lab)
        risk = ExactExcessRisk(known.covariance, known.best)(trained, lab).value
        values.append(risk / (4 * known.noise2 / n))
    assert np.mean(values) == pytest.approx(1, abs=3 * np.std(values) / len(values) ** 0.5 + 0.1)


def test_pretraining_beats_ridge_with_few_labels():
    """The smoke study: five draws, the better of many penalties on the other side."""
    ours, theirs = [], []
    for seed in range(5):
        lab = Lab(seed, dtype=torch.float64)
        spec = FactorModel(dim=30, factors=3, n=40, unlabelled=1_000, n_evaluate=1)
        known, task = spec.population(lab), spec.build(lab)
        trained = PretrainThenFit(ProbabilisticPCA(3), decay=0.0).fit(nn.Linear(30, 1), task, lab)
        ours.append(ExactExcessRisk(known.covariance, known.best)(trained, lab).value)
        batch = whole(task.splits["train"].data, lab)
        fits = [ridge(batch["x"], batch["y"][:, None], k) for k in np.logspace(-3, 3, 13)]
        risks = [quadratic_risk(w[:, 0], known.best, known.covariance, float(b)) for w, b in fits]
        theirs.append(min(risks))
    assert np.median(ours) < np.median(theirs)


def test_contrastive_pairs_find_the_shared_factors():
    spec = Views(dim=20, factors=2, noise=0.3, n=20, unlabelled=20_000, n_evaluate=1)
    bare = spec.build(LAB).splits["unlabelled"].data.columns
    encoder = ContrastiveLinear(2, shuffles=4).fit(bare, LAB)
    span = torch.linalg.qr(torch.from_numpy(spec.loadings(LAB))).Q
    rows = torch.linalg.qr(encoder.weight.T).Q
    # cosines of the angles between the two planes
    assert float(torch.linalg.svdvals(span.T @ rows).min()) > 0.99


def test_rows_of_one_entity_are_pairs():
    spec = Views(dim=20, factors=2, noise=0.3, n=20, unlabelled=1_000, n_evaluate=1)
    bare = spec.build(LAB).splits["unlabelled"].data.columns
    number = torch.arange(1_000)
    both = {
        "x": torch.cat([bare["x"], bare["view"]]),
        "entity": torch.cat([number, number]),
    }
    by_entity = ContrastiveLinear(2, pairs="entity").fit(both, LAB)
    by_view = ContrastiveLinear(2).fit(bare, LAB)
    spans = [torch.linalg.qr(one.weight.T).Q for one in (by_entity, by_view)]
    assert float(torch.linalg.svdvals(spans[0].T @ spans[1]).min()) > 0.999


def test_mixtures_label_components():
    spec = GaussianClusters(components=4, dim=20, separation=6.0, n=40, unlabelled=800)
    task = spec.build(LAB)
    method = PretrainThenFit(MixtureEM(4), ComponentLabels())
    trained = method.fit(nn.Linear(20, 2), task, LAB)
    test = task.splits["test"].data.columns
    wrong = trained.model(test["x"].double()).argmax(1) != test["y"]
    best = spec.best_class(test["x"].double(), LAB) != test["y"]
    assert float(wrong.double().mean()) <= float(best.double().mean()) + 0.01


def test_one_logit_and_images_work():
    x, y = normal(30, 1, 2, 3), torch.arange(30) % 2
    task = task_of(x, y, normal(60, 1, 2, 3, seed=1), classify)
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
    trained = PretrainThenFit(ProbabilisticPCA(2)).fit(model, task, LAB)
    assert trained.model(x).shape == (30, 3)


@pytest.mark.parametrize(
    ("density", "bare", "words"),
    [
        (ProbabilisticPCA(12), factor_inputs(), "12 factors of 300"),
        (ProbabilisticPCA(5), factor_inputs(m=5), "5 factors of 5"),
        (ProbabilisticPCA(2), torch.ones(30, 12, dtype=torch.float64), "vary in 0 directions"),
        (ProbabilisticPCA(2), factor_inputs().fill_(float("nan")), "NaN or infinite"),
        (FactorAnalysis(12), factor_inputs(), "12 factors"),
        (MixtureEM(5), factor_inputs(m=5), "5 components of 5"),
        (MixtureEM(2), torch.ones(9, 12, dtype=torch.float64), "1 different values"),
        (ContrastiveLinear(2), factor_inputs(), "no column `view`"),
    ],
)
def test_bad_inputs_are_refused(density, bare, words):
    task = task_of(factor_inputs(20), normal(20), bare, regress)
    with pytest.raises(InvalidData, match=words):
        PretrainThenFit(density).fit(nn.Linear(12, 1), task, LAB)


def test_labels_of_one_class_and_tasks_without_unlabelled_data_are_refused():
    x, bare = factor_inputs(20), factor_inputs()
    task = task_of(x, torch.ones(20, dtype=torch.long), bare, classify)
    for method in (PretrainThenFit(), PretrainThenFit(MixtureEM(2), ComponentLabels())):
        with pytest.raises(InvalidData, match="All 20 labelled examples have label 1"):
            method.fit(nn.Linear(12, 2), task, LAB)
    labelled = replace(task, splits={"train": task.splits["train"]})
    with pytest.raises(InvalidData, match="rows whose target is empty"):
        PretrainThenFit().fit(nn.Linear(12, 2), labelled, LAB)
    other = task_of(x[:, :5], torch.arange(20) % 2, bare, classify)
    with pytest.raises(InvalidData, match="prepare both"):
        PretrainThenFit().fit(nn.Linear(5, 2), other, LAB)


def test_a_head_for_components_needs_components():
    task = task_of(factor_inputs(20), torch.arange(20) % 2, factor_inputs(), classify)
    with pytest.raises(InvalidData, match="no share of components"):
        PretrainThenFit(ProbabilisticPCA(2), ComponentLabels()).fit(nn.Linear(12, 2), task, LAB)
    numbers = task_of(factor_inputs(20), normal(20), factor_inputs(), regress)
    with pytest.raises(InvalidData, match="counts the classes"):
        PretrainThenFit(MixtureEM(2), ComponentLabels()).fit(nn.Linear(12, 1), numbers, LAB)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ProbabilisticPCA(0),
        lambda: MixtureEM(components=0),
        lambda: ContrastiveLinear(factors=0),
        lambda: LinearHead(decay=-1.0),
        lambda: ComponentLabels(prior=0.0),
        lambda: FactorModel(factors=100, dim=100),
        lambda: FactorModel(n=0),
        lambda: GaussianClusters(label_noise=0.5),
    ],
)
def test_impossible_settings_are_refused(make):
    with pytest.raises(InvalidConfig):
        make()


def test_a_mixture_gives_shares():
    mixture = SphericalMixture(torch.tensor([0.5, 0.5]), torch.zeros(2, 3), torch.ones(2))
    torch.testing.assert_close(mixture(torch.randn(4, 3)), torch.full((4, 2), 0.5))
