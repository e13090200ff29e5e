"""Eight explanations as local function approximations: closed forms against definitions, limits and
a generic optimiser.
"""

from itertools import combinations, pairwise
from math import factorial

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
    LocalApproximation,
    Occlusion,
    SmoothGrad,
    VanillaGradients,
    eight,
)
from unseen.attributions.explanation.solve import Approximation, solve_explanation
from unseen.engine.local.features import FeatureSpec, patches
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
from unseen.engine.local.perturbed_model import PerturbedModel, build_perturbed_model
from unseen.engine.local.surrogate import Explanation, Family, Loss, convert, effects, evaluate
from unseen.lab import Lab
from unseen.task import Batch

LAB = Lab(dtype=torch.float64)


def output(model: nn.Module, batch: Batch) -> Tensor:
    return model(batch["x"])[:, 0]


def probability(model: nn.Module, batch: Batch) -> Tensor:
    return model(batch["x"])[:, 0].sigmoid()


def smooth(d: int, seed: int = 0) -> nn.Module:
    with Lab(seed=seed).child("net").seeded():
        return (
            nn.Sequential(nn.Linear(d, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
            .double()
            .eval()
        )


def linear(d: int) -> nn.Linear:
    with Lab().child("linear").seeded():
        return nn.Linear(d, 1).double().eval()


def points(n: int, d: int) -> dict[str, Tensor]:
    return {"x": torch.randn(n, d, generator=Lab().child("x").generator(), dtype=torch.float64)}


def near(
    model: nn.Module, batch: Batch, inputs: FeatureSpec = FeatureSpec(), behaviour=output
) -> PerturbedModel:
    return build_perturbed_model(model, batch, behaviour, inputs, LAB)


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_kernel_shap_with_all_coalitions_is_the_shapley_value_by_definition():
    d, model, batch = 10, smooth(10), points(2, 10)
    base = torch.linspace(-0.5, 0.5, d, dtype=torch.float64)
    found = solve_explanation(
        near(model, batch, FeatureSpec(baseline=base)), Approximation(Coalitions(2**d)), LAB
    )

    def value(x: Tensor, kept: tuple[int, ...]) -> Tensor:
        moved = base.clone()
        moved[list(kept)] = x[list(kept)]
        return model(moved[None])[0, 0]

    for x, scores in zip(batch["x"], found.scores, strict=True):
        v = {s: value(x, s).item() for k in range(d + 1) for s in combinations(range(d), k)}
        for i in range(d):
            others = [s for s in v if i not in s]
            weight = {k: factorial(k) * factorial(d - k - 1) / factorial(d) for k in range(d)}
            shapley = sum(weight[len(s)] * (v[tuple(sorted((*s, i)))] - v[s]) for s in others)
            assert scores[i].item() == pytest.approx(shapley, abs=1e-9)


def test_sampled_shapley_values_approach_the_exact_ones_and_enumerate_what_fits():
    at = near(smooth(12), points(3, 12))
    exact = solve_explanation(at, Approximation(Coalitions(2**12)), LAB).scores
    gaps = [
        relative(solve_explanation(at, Approximation(Coalitions(n)), LAB).scores, exact)
        for n in (100, 3_000)
    ]
    assert gaps[1] < 0.02
    assert gaps[1] < gaps[0] / 2
    sample = Coalitions(400).draw(at.lengths2, LAB)
    sizes = sample.xi.sum(1)
    assert (sizes == 1).sum() == 12
    assert (sizes == 11).sum() == 12
    assert sample.weight.sum().item() == pytest.approx(1)
    assert len(sample.xi) <= 400


def test_complete_methods_sum_to_the_difference_to_the_baseline():
    model, batch = smooth(6), points(5, 6)
    at = near(model, batch, FeatureSpec(baseline=0.3))
    whole = at.at_point - at.at_base
    ig = solve_explanation(at, Approximation(PathSegment(n=64), Loss.GRADIENT), LAB)
    assert_close(ig.scores.sum(1), whole, atol=1e-7, rtol=0)
    assert_close(
        solve_explanation(at, Approximation(Coalitions(30)), LAB).scores.sum(1),
        whole,
        atol=1e-12,
        rtol=0,
    )
    occluded = solve_explanation(at, Approximation(LeaveOneOut()), LAB)
    assert (
        occluded.scores.sum(1) - whole
    ).abs().max() > 1e-2  # promised by no one for a net that is not additive
    assert ig.gap is not None
    assert_close(ig.gap, whole - ig.scores.sum(1))


def test_midpoint_is_used_for_kinks_and_reports_what_is_left():
    with LAB.seeded():
        kinked = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 1)).double().eval()
    how = IntegratedGradients(n=200)
    assert how.approximation(kinked).neighbourhood == PathSegment(0.0, 200, Rule.MIDPOINT)
    assert how.approximation(smooth(6)).neighbourhood == PathSegment(0.0, 200, Rule.GAUSS_LEGENDRE)
    gaps = []
    for n in (10, 1_000):
        found = solve_explanation(
            near(kinked, points(4, 6)), IntegratedGradients(n=n).approximation(kinked), LAB
        )
        assert found.gap is not None
        gaps.append(found.gap.abs().max().item())
    assert gaps[1] < gaps[0] / 10
    assert gaps[1] > 0


def test_linear_functions_are_explained_exactly_by_all():
    d, model, batch = 7, linear(7), points(4, 7)
    v, base = model.weight[0].detach(), torch.linspace(0, 1, d, dtype=torch.float64)
    at = near(model, batch, FeatureSpec(baseline=base))
    present = v * (batch["x"] - base)
    for name, preset in eight(n=60, inputs=at.inputs).items():
        found = solve_explanation(at, preset.approximation(model), LAB)
        want = v.expand(4, -1) if found.parametrization is Parametrization.ADDITIVE else present
        assert_close(found.scores, want, atol=1e-8, rtol=0, msg=name)
        assert_close(effects(at, found), present, atol=1e-8, rtol=0, msg=name)
        assert found.loss.max() < 1e-12
    for width in (1.0, 3.0):
        narrow = solve_explanation(at, Approximation(Masks(width, 60, scaled=False)), LAB)
        assert_close(narrow.scores, present, atol=1e-7, rtol=0)


def test_clime_and_smoothgrad_meet_as_the_sample_grows():
    at = near(smooth(5), points(6, 5))
    gaps = []
    for n in (1_000, 10_000, 100_000):
        noise = Gaussian(0.7, n)
        fitted, averaged = (
            solve_explanation(at, Approximation(noise, loss), LAB).scores for loss in Loss
        )
        gaps.append(relative(fitted, averaged))
    assert gaps[1] < 0.1
    assert all(2 < a / b < 5 for a, b in pairwise(gaps)), gaps


def test_stein_the_moment_of_the_noise_is_the_smoothed_gradient():
    at, noise = near(smooth(4), points(2, 4)), Gaussian(0.5, 200_000)
    sample = at.sample(noise, LAB)
    moment = at.values(noise, sample.xi) @ sample.xi / len(sample.xi) / 0.25
    assert (
        relative(moment, solve_explanation(at, Approximation(noise, Loss.GRADIENT), LAB).scores)
        < 0.02
    )


def test_smoothgrad_shrinks_to_the_gradient_and_the_segment_to_gradient_times_input():
    model, batch = smooth(6), points(6, 6)
    at = near(model, batch)
    here = solve_explanation(
        at, Approximation(PointMass(Parametrization.ADDITIVE), Loss.GRADIENT), LAB
    ).scores
    scaled = solve_explanation(
        at, Approximation(PointMass(Parametrization.MULTIPLICATIVE), Loss.GRADIENT), LAB
    ).scores
    gaps = [
        relative(
            solve_explanation(at, Approximation(Gaussian(s, 2_000), Loss.GRADIENT), LAB).scores,
            here,
        )
        for s in (0.3, 0.1, 0.01)
    ]
    assert gaps[2] < 0.05
    assert gaps[0] > 4 * gaps[1] > 16 * gaps[2]  # O(σ²)
    close = [
        relative(
            solve_explanation(at, Approximation(PathSegment(c), Loss.GRADIENT), LAB).scores, scaled
        )
        for c in (0.9, 0.99)
    ]
    assert close[1] < 0.05
    assert close[0] > 5 * close[1]  # O(1 − c)


def test_gradients_are_autograd_one_by_one():
    model, batch = smooth(5), points(3, 5)
    at = near(model, batch)
    x = batch["x"].clone().requires_grad_()
    grad = torch.stack(
        [torch.autograd.grad(model(row[None])[0, 0], x)[0][k] for k, row in enumerate(x)]
    )
    assert_close(solve_explanation(at, VanillaGradients().approximation(model), LAB).scores, grad)
    assert_close(
        solve_explanation(at, GradientTimesInput().approximation(model), LAB).scores,
        grad * batch["x"],
    )


@pytest.mark.parametrize("name", list(eight()))
def test_a_generic_optimiser_finds_the_closed_form(name: str):
    model, batch, d = smooth(4), points(3, 4), 4
    at = near(model, batch)
    how = eight(sigma=0.3, width=1.0, n=40)[name].approximation(model)
    sample = at.sample(how.neighbourhood, LAB)
    found = solve_explanation(at, how, LAB)
    xi, weight = sample.xi, sample.weight
    w = torch.zeros(3, d, dtype=torch.float64, requires_grad=True)
    w0 = torch.zeros(3, 1, dtype=torch.float64, requires_grad=True)
    if how.loss is Loss.GRADIENT:
        slopes = torch.zeros(3, len(xi), d, dtype=torch.float64)
        for where, part, g in at.gradients(how.neighbourhood, xi):
            slopes[where, part] = g
    else:
        f = at.values(how.neighbourhood, xi)

    def objective() -> Tensor:
        if how.loss is Loss.GRADIENT:
            return ((slopes - w[:, None]).square().sum(2) * weight).sum()
        if isinstance(how.neighbourhood, LeaveOneOut):
            return ((f - w @ xi.T).square() * weight).sum()
        if isinstance(
            how.neighbourhood, Coalitions
        ):  # both ends exact: the last weight is determined
            last = (at.at_point - at.at_base)[:, None] - w[:, :-1].sum(1, keepdim=True)
            g = at.at_base[:, None] + torch.cat([w[:, :-1], last], 1) @ xi.T
            return ((f - g).square() * weight).sum()
        return ((f - w @ xi.T - w0).square() * weight).sum()

    solver = torch.optim.LBFGS([w, w0], max_iter=500, tolerance_grad=1e-13, tolerance_change=1e-18,
                               line_search_fn="strong_wolfe")  # fmt: skip

    def closure() -> Tensor:
        solver.zero_grad()
        loss = 1e3 * objective()
        loss.backward()
        return loss

    solver.step(closure)
    free = slice(None, -1) if isinstance(how.neighbourhood, Coalitions) else slice(None)
    assert_close(w.detach()[:, free], found.scores[:, free], atol=1e-5, rtol=0)
    assert objective().item() == pytest.approx(found.loss.sum().item(), abs=1e-9)


def test_a_logistic_class_recovers_a_logistic_model_and_the_linear_one_does_not():
    d, batch = 4, points(3, 4)
    model = linear(d)
    with torch.no_grad():
        model.weight.mul_(4)
    v = model.weight[0].detach()
    at = near(model, batch, behaviour=probability)
    for loss in Loss:
        how = Approximation(Gaussian(0.5, 400), loss, Family.LOGISTIC)
        found = solve_explanation(at, how, LAB)
        assert relative(found.scores, v.expand(3, -1)) < 1e-4, loss
        straight = solve_explanation(at, Approximation(Gaussian(0.5, 400), loss), LAB)
        assert relative(straight.scores, v.expand(3, -1)) > 0.5
        through = LocalApproximation(how).approximation(model)
        assert through == how


def test_ridge_shrinks_towards_zero():
    at = near(smooth(4), points(2, 4))
    plain, shrunk = (
        solve_explanation(at, Lime(n=16, ridge=r).approximation(at.model), LAB).scores
        for r in (0.0, 10.0)
    )
    assert shrunk.norm() < 0.1 * plain.norm()


@pytest.mark.parametrize("name", list(eight()))
def test_credits_scale_with_the_behaviour_and_follow_the_order_of_features(name: str):
    model, batch, order = smooth(5), points(3, 5), torch.tensor([3, 0, 4, 1, 2])
    how = eight(n=31)[name].approximation(model)  # all masks of five features, each once
    found = solve_explanation(near(model, batch), how, LAB)
    scaled = solve_explanation(
        near(model, batch, behaviour=lambda m, b: 7 - 2 * output(m, b)), how, LAB
    )
    assert_close(scaled.scores, -2 * found.scores)
    assert_close(scaled.loss, 4 * found.loss)
    if name in ("C-LIME", "SmoothGrad", "LIME"):
        return  # their draws are random: another order is another sample
    turned = solve_explanation(
        near(
            model,
            {"x": batch["x"][:, order]},
            behaviour=lambda m, b: output(m, {"x": b["x"][:, order.argsort()]}),
        ),
        how,
        LAB,
    )
    assert_close(turned.scores, found.scores[:, order])


@pytest.mark.parametrize("name", list(eight()))
def test_a_batch_is_a_loop_and_chunks_do_not_matter(name: str):
    model, batch = smooth(5), points(4, 5)
    inputs = FeatureSpec(
        baseline=batch["x"].roll(1, 0), chunk=35
    )  # seven rows per pass: draws are split, too
    preset = eight(n=60, inputs=inputs)[name]
    together = solve_explanation(near(model, batch, inputs), preset.approximation(model), LAB)
    for k in range(4):
        one = FeatureSpec(baseline=inputs.baseline[k : k + 1])
        alone = solve_explanation(
            near(model, {"x": batch["x"][k : k + 1]}, one), preset.approximation(model), LAB
        )
        assert_close(alone.scores[0], together.scores[k], atol=1e-12, rtol=1e-9)
        assert_close(alone.loss[0], together.loss[k], atol=1e-12, rtol=1e-6)


def test_features_of_many_entries_are_sums_along_their_directions():
    model = linear(12)
    v = model.weight[0].detach().view(3, 4)
    x = torch.randn(2, 3, 4, generator=LAB.generator(), dtype=torch.float64)
    mask = patches((3, 4), 2)
    assert mask.unique().tolist() == [0, 1, 2, 3]
    behave = lambda m, b: m(b["x"].flatten(1))[:, 0]  # noqa: E731
    at = near(model, {"x": x}, FeatureSpec(mask=mask), behave)
    for preset in (
        KernelShap(n=30),
        IntegratedGradients(),
        Occlusion(),
        Lime(n=30),
        GradientTimesInput(),
    ):
        found = solve_explanation(at, preset.approximation(model), LAB).scores
        want = torch.stack([((v * x) * (mask == g)).sum((1, 2)) for g in range(4)], 1)
        assert_close(found, want, atol=1e-8, rtol=0)
    for preset in (VanillaGradients(), SmoothGrad(), CLime(n=100)):
        found = solve_explanation(at, preset.approximation(model), LAB).scores
        parts = [x * (mask == g) for g in range(4)]
        want = torch.stack(
            [(v * part).sum((1, 2)) / part.flatten(1).norm(dim=1) for part in parts], 1
        )
        assert_close(found, want, atol=1e-8, rtol=0)
        there = effects(at, solve_explanation(at, preset.approximation(model), LAB))
        assert_close(
            there, torch.stack([(v * part).sum((1, 2)) for part in parts], 1), atol=1e-8, rtol=0
        )


def test_a_mask_of_single_entries_is_no_mask():
    model, batch = smooth(5), points(3, 5)
    for preset in eight(n=60).values():
        how = preset.approximation(model)
        one = solve_explanation(near(model, batch), how, LAB)
        other = solve_explanation(near(model, batch, FeatureSpec(mask=torch.arange(5))), how, LAB)
        assert_close(one.scores, other.scores)


def test_half_precision_models_are_summed_in_single_precision():
    model = smooth(4).bfloat16()
    at = build_perturbed_model(
        model, points(2, 4), output, FeatureSpec(), Lab(dtype=torch.bfloat16)
    )
    for preset in eight(n=60).values():
        found = solve_explanation(at, preset.approximation(model), LAB)
        assert found.scores.dtype is torch.float32
        assert torch.isfinite(found.scores).all()
    exact = solve_explanation(
        near(smooth(4), points(2, 4)), KernelShap(n=14).approximation(model), LAB
    ).scores
    assert (
        relative(
            solve_explanation(at, KernelShap(n=14).approximation(model), LAB).scores.double(), exact
        )
        < 0.1
    )


def test_conversion_is_by_the_distance_to_the_baseline_and_says_nothing_where_there_is_none():
    x = torch.tensor([[2.0, 0.0, -3.0]], dtype=torch.float64)
    at = near(linear(3), {"x": x})
    slopes = torch.tensor([[1.0, 5.0, 2.0]], dtype=torch.float64)
    there = convert(at, slopes, Parametrization.ADDITIVE, Parametrization.MULTIPLICATIVE)
    assert there.tolist() == [[2.0, 0.0, -6.0]]
    assert convert(
        at, there, Parametrization.MULTIPLICATIVE, Parametrization.ADDITIVE
    ).tolist() == [[1.0, 0.0, 2.0]]


def test_the_loss_carried_is_the_mean_over_the_sample():
    model, batch = smooth(4), points(2, 4)
    at = near(model, batch)
    how = Approximation(Masks(1.0, 16))
    found = solve_explanation(at, how, LAB)
    sample = at.sample(how.neighbourhood, LAB)
    for k, x in enumerate(batch["x"]):
        f = torch.stack([model((xi * x)[None])[0, 0] for xi in sample.xi]).detach()
        g = sample.xi @ found.scores[k] + found.intercept[k]
        assert found.loss[k].item() == pytest.approx(
            (sample.weight[k] * (f - g) ** 2).sum().item(), rel=1e-8
        )
        mean = (sample.weight[k] * f).sum()
        assert found.null[k].item() == pytest.approx(
            (sample.weight[k] * (f - mean) ** 2).sum().item(), rel=1e-8
        )
    looked = evaluate(at, how.neighbourhood, how.loss, LAB)
    assert (looked.loss(found.scores + 0.1) > found.loss).all()
    assert isinstance(found, Explanation)
    assert ((found.unexplained_share >= 0) & (found.unexplained_share <= 1)).all()
