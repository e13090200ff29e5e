"""The eight explanations against captum, lime and shap, with the same baseline, mask, kernel and
number of samples.
"""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from unseen.attributions.explanation import (
    CLime,
    GradientTimesInput,
    IntegratedGradients,
    KernelShap,
    Lime,
    Occlusion,
    SmoothGrad,
    VanillaGradients,
)
from unseen.engine.local.features import FeatureSpec, patches
from unseen.engine.local.neighbourhoods import Rule
from unseen.lab import Lab
from unseen.method import Trained
from unseen.task import Batch
from unseen.testing import small_task

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore")]
LAB = Lab(dtype=torch.float64)


def net(d: int = 8) -> nn.Module:
    with LAB.child("net").seeded():
        return nn.Sequential(nn.Linear(d, 12), nn.Tanh(), nn.Linear(12, 3)).double().eval()


def points(n: int = 3, d: int = 8) -> Tensor:
    return torch.randn(n, d, generator=LAB.generator(), dtype=torch.float64)


def logit(model: nn.Module, batch: Batch) -> Tensor:
    return model(batch["x"])[:, 1]


def ours(preset, model: nn.Module, x: Tensor) -> Tensor:
    return preset.prepare(Trained(model, small_task()), LAB)({"x": x}, logit).scores


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten().double(), b.flatten().double()]))[0, 1])


def test_gradient_methods_and_occlusion_equal_captum():
    attr = pytest.importorskip("captum.attr")
    model, x = net(), points()
    base = torch.full_like(x, 0.2)
    assert_close(
        ours(VanillaGradients(), model, x), attr.Saliency(model).attribute(x, target=1, abs=False)
    )
    assert_close(
        ours(GradientTimesInput(), model, x),
        attr.InputXGradient(model).attribute(x.clone(), target=1),
    )
    integrated = attr.IntegratedGradients(model)
    for rule, method in ((Rule.GAUSS_LEGENDRE, "gausslegendre"), (Rule.MIDPOINT, "riemann_middle")):
        theirs = integrated.attribute(x, base, target=1, n_steps=20, method=method)
        assert_close(
            ours(IntegratedGradients(20, rule, FeatureSpec(baseline=0.2)), model, x),
            theirs,
            atol=1e-5,
            rtol=0,
        )
    theirs = attr.FeatureAblation(model).attribute(x, base, target=1)
    assert_close(ours(Occlusion(FeatureSpec(baseline=0.2)), model, x), theirs, atol=1e-5, rtol=0)
    windows = attr.Occlusion(model).attribute(x, (1,), baselines=base, target=1)
    assert_close(
        ours(Occlusion(FeatureSpec(baseline=0.2)), model, x), windows.double(), atol=1e-5, rtol=0
    )


def test_patches_equal_captum_feature_masks():
    attr = pytest.importorskip("captum.attr")
    with LAB.child("cnn").seeded():
        model = (
            nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 36, 3))
            .double()
            .eval()
        )
    x = torch.rand(2, 1, 8, 8, generator=LAB.generator(), dtype=torch.float64)
    mask = patches((1, 8, 8), 4)
    theirs = attr.FeatureAblation(model).attribute(
        x, torch.zeros_like(x), target=1, feature_mask=mask
    )
    corners = theirs[:, 0, ::4, ::4].flatten(1)
    assert_close(ours(Occlusion(FeatureSpec(mask=mask)), model, x), corners, atol=1e-5, rtol=0)


def test_smoothgrad_approaches_captum_noise_tunnel():
    attr = pytest.importorskip("captum.attr")
    model, x = net(), points()
    with LAB.seeded():
        theirs = attr.NoiseTunnel(attr.Saliency(model)).attribute(
            x,
            nt_type="smoothgrad",
            nt_samples=4_000,
            nt_samples_batch_size=500,
            stdevs=0.3,
            target=1,
            abs=False,
        )
    mine = ours(SmoothGrad(0.3, 4_000), model, x)
    assert (mine - theirs).norm() / theirs.norm() < 0.02


def test_lime_correlates_with_captum():
    attr = pytest.importorskip("captum.attr")
    linear = pytest.importorskip("captum._utils.models.linear_model")
    lime = pytest.importorskip("captum.attr._core.lime")
    model, x = net(), points(1)
    peer = attr.Lime(
        model,
        interpretable_model=linear.SkLearnLinearRegression(),
        similarity_func=lime.get_exp_kernel_similarity_function("euclidean", kernel_width=2.0),
    )
    with LAB.seeded():
        theirs = peer.attribute(x, target=1, n_samples=4_000)
    mine = ours(Lime(width=2.0 * 2**0.5, n=20_000, scaled=False), model, x)
    assert correlation(mine, theirs) > 0.99


def test_kernel_shap_correlates_with_captum_and_shap():
    attr = pytest.importorskip("captum.attr")
    shap = pytest.importorskip("shap")
    model, x = net(), points(1)
    mine = ours(KernelShap(20_000), model, x)
    with LAB.seeded():
        theirs = attr.KernelShap(model).attribute(x, target=1, n_samples=4_000)
    assert correlation(mine, theirs) > 0.99
    explainer = shap.KernelExplainer(
        lambda rows: model(torch.as_tensor(rows))[:, 1].detach().numpy(),
        np.zeros((1, 8)),
        silent=True,
    )
    exact = explainer.shap_values(x.numpy(), nsamples=2**8, l1_reg=0, silent=True)
    assert_close(mine, torch.as_tensor(exact).double().reshape(1, 8), atol=1e-6, rtol=0)


def test_clime_is_what_lime_does_with_gaussian_samples_around_the_instance():
    tabular = pytest.importorskip("lime.lime_tabular")
    from sklearn.linear_model import LinearRegression

    model, x = net(), points(1)
    train = 0.3 * np.random.default_rng(0).normal(size=(5_000, 8))
    scale = train.std(0)
    explainer = tabular.LimeTabularExplainer(
        train,
        mode="regression",
        kernel_width=1e6,
        discretize_continuous=False,
        sample_around_instance=True,
        feature_selection="none",
        random_state=0,
    )
    found = explainer.explain_instance(
        x[0].numpy(),
        lambda rows: model(torch.as_tensor(rows))[:, 1].detach().numpy(),
        num_features=8,
        num_samples=20_000,
        model_regressor=LinearRegression(),
    )
    theirs = torch.tensor([w for _, w in sorted(found.local_exp[1])]) / torch.as_tensor(scale)
    mine = ours(CLime(float(scale.mean()), 20_000), model, x)
    assert correlation(mine, theirs) > 0.99
    assert ((mine[0] - theirs).norm() / theirs.norm()) < 0.03
