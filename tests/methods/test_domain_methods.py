"""Baselines for several domains against their definitions, alone and many at once."""

import copy
from dataclasses import replace
from itertools import combinations
from math import inf

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from unseen.engine.batches import Columns
from unseen.engine.domain_risks import losses_by_domain, merge_batches, mergeable
from unseen.engine.features import record_features
from unseen.engine.loop import Budget, Draw, Optimizer, draws, erm_step, train
from unseen.engine.toy import toy_model, toy_task
from unseen.engine.vectorized.loop import TrainingRuns, train_stacked
from unseen.engine.vectorized.mlp import BatchedMLP
from unseen.errors import InvalidConfig, InvalidData, UnknownName, UnsupportedLayer
from unseen.lab import Lab
from unseen.methods.adversarial_training import (
    AdversarialTraining,
    Norm,
    project,
    start,
    worst_inputs,
)
from unseen.methods.coral import CORAL, coral_distance, covariance
from unseen.methods.group_reweighting import DomainDRO, weighted_domains
from unseen.methods.irm import IRM, irm_criterion, scale_gradients
from unseen.methods.mixup import Mixup, mixing
from unseen.methods.sam import SAM
from unseen.methods.vrex import VREx, mean_and_variance
from unseen.models.mlp import mlp
from unseen.objectives import classify, regress
from unseen.task import Objective, Task, Use

LAB = Lab(dtype=torch.float64)
SGD = Budget(steps=12, batch_size=16, lr=0.1, optimizer=Optimizer.SGD, momentum=0.9)
FAMILIES = {
    "domain dro": [DomainDRO(rate=rate, budget=SGD) for rate in (0.1, 1.0, 3.0)],
    "irm": [IRM(weight=w, warmup=0.25, budget=SGD) for w in (0.5, 5.0, 50.0)],
    "v-rex": [VREx(weight=w, warmup=0.25, budget=SGD) for w in (0.5, 5.0, 50.0)],
    "coral": [CORAL(weight=w, budget=SGD) for w in (0.5, 5.0, 50.0)],
    "mixup": [Mixup(alpha=a, budget=SGD) for a in (0.1, 1.0, 2.0)],
    "adversarial": [AdversarialTraining(radius=r, passes=2, budget=SGD) for r in (0.0, 0.1, 0.4)],
    "adversarial l2": [
        AdversarialTraining(radius=r, norm=Norm.L2, passes=2, low=-1, high=1, budget=SGD)
        for r in (0.1, 0.4)
    ],
    "sam": [SAM(rho=r, budget=SGD) for r in (0.0, 0.1)],
}


def drawn(task: Task | None = None, budget: Budget = SGD) -> Draw:
    return next(draws(task or toy_task(), budget, LAB))


def model(seed: int = 1) -> nn.Module:
    return toy_model(Lab(seed)).double()


def weights_after(method, task: Task | None = None, seed: int = 1) -> dict[str, torch.Tensor]:
    return dict(method.fit(model(seed), task or toy_task(), LAB).model.state_dict())


@pytest.mark.parametrize("chain", [True, False], ids=["rows", "vmap"])
@pytest.mark.parametrize("methods", FAMILIES.values(), ids=FAMILIES)
def test_many_at_once_equal_one_after_the_other(methods, chain, monkeypatch):
    """Own hyperparameter, own random numbers and own memory of every model; chains of linear layers
    and others.
    """
    if not chain:
        monkeypatch.setattr(BatchedMLP, "fits", lambda model: False)
    labs = [Lab(seed, dtype=torch.float64) for seed in range(len(methods))]
    models = [model(seed) for seed in range(len(methods))]
    alone = [
        m.fit(copy.deepcopy(net), toy_task(), lab)
        for m, net, lab in zip(methods, models, labs, strict=True)
    ]
    steps = [m.step for m in methods]
    many = train_stacked(
        TrainingRuns(models, [toy_task()] * len(models), steps, [SGD] * len(models), labs)
    )
    for one, other in zip(alone, many, strict=True):
        assert_close(
            dict(other.model.state_dict()), dict(one.model.state_dict()), rtol=1e-9, atol=1e-11
        )
        assert list(other.curves["loss"]) == pytest.approx(list(one.curves["loss"]), rel=1e-9)


@pytest.mark.parametrize(
    "method",
    [
        VREx(weight=0, budget=SGD),
        IRM(weight=0, budget=SGD),
        CORAL(weight=0, budget=SGD),
        DomainDRO(rate=0, budget=SGD),
    ],
    ids=lambda m: type(m).__name__,
)
def test_without_penalty_it_is_erm(method):
    """All domains have the same number of examples in a step, so the mean of their means is ERM's
    mean.
    """
    reference = train(model(), toy_task(), erm_step, SGD, LAB).model
    assert_close(weights_after(method), dict(reference.state_dict()), rtol=1e-9, atol=1e-11)


def test_adversarial_training_without_radius_is_erm():
    reference = train(model(), toy_task(), erm_step, SGD, LAB).model
    method = AdversarialTraining(radius=0, budget=SGD)
    assert_close(weights_after(method), dict(reference.state_dict()), rtol=1e-9, atol=1e-11)


def test_methods_do_not_care_about_the_order_of_domains():
    task = toy_task()
    names = ["train:b", "train:a", *(n for n in task.splits if not n.startswith("train"))]
    turned = replace(task, splits={name: task.splits[name] for name in names})
    for methods in (FAMILIES["domain dro"], FAMILIES["irm"], FAMILIES["v-rex"], FAMILIES["coral"]):
        assert_close(
            weights_after(methods[1]), weights_after(methods[1], turned), rtol=1e-9, atol=1e-11
        )


def test_domains_share_a_pass_only_where_it_makes_no_difference():
    """Batch statistics are those of one domain each; otherwise one pass over all gives every
    domain's losses.
    """
    draw = drawn()
    batches = list(draw.fit.values())
    with Lab(2).seeded():
        normed = mlp([4, 6, 2], norm=nn.BatchNorm1d).double().train()
    passes: list[int] = []
    for net, count in ((model(), 1), (normed, 2)):
        wanted = [classify.loss(copy.deepcopy(net), batch) for batch in batches]
        net.register_forward_pre_hook(lambda module, inputs: passes.append(len(inputs[0])))
        assert_close(losses_by_domain(net, batches, classify), wanted)
        assert len(passes) == count
        passes.clear()
    other = [batches[0], {**batches[1], "x": torch.cat([batches[1]["x"]] * 2, 1)}]
    assert mergeable(model(), batches)
    assert not mergeable(model(), other)
    assert not mergeable(model(), [batches[0], {key: batches[1][key] for key in ("x", "y")}])


class Scale(nn.Module):
    """f(x) = w x, of which every penalty is known on paper."""

    def __init__(self, w: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.w * x


def one_dimensional() -> Draw:
    def batch(x: list[float], y: list[float]) -> dict[str, torch.Tensor]:
        return {
            "x": torch.tensor(x, dtype=torch.float64)[:, None],
            "y": torch.tensor(y, dtype=torch.float64)[:, None],
        }

    return Draw(
        {"a": batch([1, 2, 3, -1], [2, 1, 0, 1]), "b": batch([0.5, 1, -2, 4], [1, 3, 0, 2])},
        {},
        step=7,
    )


def test_irm_penalty_by_hand():
    """ℓ = ½ (s w x − y)²: the derivative in the scale s at 1 is mean (w x − y) w x; even and odd
    rows are multiplied.
    """
    draw, w, weight = one_dimensional(), 0.7, 3.0
    values, penalties = [], []
    for batch in draw.fit.values():
        x, y = batch["x"][:, 0].numpy(), batch["y"][:, 0].numpy()
        slope = (w * x - y) * w * x
        penalties.append(slope[0::2].mean() * slope[1::2].mean())
        values.append(((w * x - y) ** 2 / 2).mean())
        assert_close(
            scale_gradients(Scale(w)(batch["x"]), batch, regress),
            torch.tensor([slope[0::2].mean(), slope[1::2].mean()]),
        )
    wanted = (np.mean(values) + weight * np.mean(penalties)) / 3.0
    assert irm_criterion(Scale(w), draw, regress, weight=weight, until=0).item() == pytest.approx(
        wanted
    )
    early = (np.mean(values) + np.mean(penalties)) / 1.0
    assert irm_criterion(Scale(w), draw, regress, weight=weight, until=8).item() == pytest.approx(
        early
    )


def test_irm_gradient_by_finite_differences():
    draw, h = one_dimensional(), 1e-6
    net = Scale(0.7)
    irm_criterion(net, draw, regress, weight=3.0, until=0).backward()
    up, down = (
        irm_criterion(Scale(0.7 + d), draw, regress, weight=3.0, until=0).item() for d in (h, -h)
    )
    assert float(net.w.grad) == pytest.approx((up - down) / (2 * h), rel=1e-7)


def test_vrex_by_numpy():
    draw, w = one_dimensional(), 0.7
    r = [((w * b["x"] - b["y"]).numpy() ** 2 / 2).mean() for b in draw.fit.values()]
    given = losses_by_domain(Scale(w), list(draw.fit.values()), regress)
    assert mean_and_variance(given, 1, weight=0.5, until=0).item() == pytest.approx(
        np.mean(r) + 0.5 * np.var(r)
    )
    assert mean_and_variance(given, 1, weight=4.0, until=0).item() == pytest.approx(
        (np.mean(r) + 4 * np.var(r)) / 4
    )
    assert mean_and_variance(given, 1, weight=4.0, until=8).item() == pytest.approx(
        np.mean(r) + np.var(r)
    )


def test_coral_moments_by_numpy():
    g = Lab(3).generator()
    a, b = (
        torch.randn(9, 5, generator=g, dtype=torch.float64),
        torch.randn(12, 5, generator=g, dtype=torch.float64),
    )
    assert_close(covariance(a), torch.tensor(np.cov(a.numpy().T)))
    wanted = np.square(np.cov(a.numpy().T) - np.cov(b.numpy().T)).sum() / (4 * 25)
    assert float(coral_distance(a, b)) == pytest.approx(wanted)
    assert float(coral_distance(a, a + 3)) == pytest.approx(
        0, abs=1e-20
    )  # a shift leaves the covariance


def test_coral_compares_the_inputs_of_the_last_layer_of_all_domains():
    draw, net = drawn(), model()
    hidden = [net[:-1](b["x"]) for b in (*draw.fit.values(), *draw.adapt.values())]
    assert len(hidden) == 3
    wanted = torch.stack([classify.loss(net, b).mean() for b in draw.fit.values()]).mean()
    wanted = (
        wanted
        + 2.5 * torch.stack([coral_distance(a, b) for a, b in combinations(hidden, 2)]).mean()
    )
    step = CORAL(weight=2.5).step
    assert_close(step(net, draw, classify), wanted.detach())
    named = CORAL(weight=2.5, layer="3").step
    assert_close(named(net, draw, classify), wanted.detach())


def test_domain_weights_follow_the_closed_form():
    """With risks that training cannot change, q after T steps is proportional to exp(η T R)."""
    fixed = Objective(loss=lambda m, b: 0 * m.w + 0.3 + 0.4 * b["y"][:, 0], score=classify.score)
    q = {}
    draw = one_dimensional()
    risk = torch.stack([0.3 + 0.4 * b["y"].mean() for b in draw.fit.values()])
    for _ in range(20):
        loss, q = weighted_domains(
            losses_by_domain(Scale(1.0), list(draw.fit.values()), fixed), 0, rate=0.05, **q
        )
    assert_close(q["weights"], (0.05 * 20 * risk).softmax(0))
    assert loss.item() == pytest.approx((q["weights"] @ risk).item())


def test_domain_dro_memory_begins_anew_with_every_run():
    step = DomainDRO(rate=2.0, budget=SGD).step
    first = train(model(), toy_task(), step, SGD, LAB).model
    again = train(model(), toy_task(), step, SGD, LAB).model
    assert_close(dict(first.state_dict()), dict(again.state_dict()), rtol=0, atol=0)


def test_mixup_is_the_cross_entropy_of_the_mixed_targets():
    draw, net = drawn(), model()
    noise = mixing(replace(draw, generator=Lab(5).generator()), alpha=0.7)
    lam, j = float(noise["share"]), noise["partner"]
    x = torch.cat([b["x"] for b in draw.fit.values()])
    hot = torch.eye(2, dtype=torch.float64)[torch.cat([b["y"] for b in draw.fit.values()])]
    p = net(lam * x + (1 - lam) * x[j]).log_softmax(1)
    wanted = -((lam * hot + (1 - lam) * hot[j]) * p).sum(1).mean()
    got = Mixup(alpha=0.7).step(net, replace(draw, generator=Lab(5).generator()), classify)
    assert float(got) == pytest.approx(wanted.item())
    assert sorted(j.tolist()) == list(range(len(x)))
    assert 0 <= lam <= 1


def test_mixing_share_is_beta():
    generator = Lab(0).generator()
    draw = replace(drawn(), generator=generator)
    shares = np.array([float(mixing(draw, alpha=0.5)["share"]) for _ in range(600)])
    # mean 1/2, variance 1/(4 (2 α + 1)) = 1/8; five standard errors
    assert abs(shares.mean() - 0.5) < 5 * np.sqrt(1 / 8 / 600)
    assert abs(shares.var() - 1 / 8) < 5 * np.sqrt((1 / 8) ** 2 * 2 / 600)


@pytest.mark.parametrize("norm", Norm)
def test_worst_perturbation_of_a_linear_model(norm):
    """Of log(1 + e^(−s ⟨w, x⟩)) the worst δ is −s r sign w (ℓ∞) or −s r w/‖w‖ (ℓ2): ascent on a
    line ends there.
    """
    net = nn.Sequential(nn.Linear(3, 1, bias=False)).double()
    w = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64)
    net[0].weight.data.copy_(w)
    x, s = (
        torch.randn(6, 3, generator=Lab(1).generator(), dtype=torch.float64),
        torch.tensor([1.0, -1, 1, -1, 1, -1]),
    )
    objective = Objective(
        loss=lambda m, b: nn.functional.softplus(-b["s"] * m(b["x"])[:, 0]), score=classify.score
    )
    draw = Draw({"a": {"x": x, "s": s.double()}}, {}, generator=Lab(2).generator())
    worst = w.sign() if norm is Norm.LINF else w / w.norm()
    moved = x - 0.3 * s[:, None] * worst
    clean, wanted = (
        nn.functional.softplus(-s * (at @ w.T)[:, 0]).mean().item() for at in (x, moved)
    )
    method = AdversarialTraining(radius=0.3, norm=norm, passes=4)
    straight = replace(method.step, noise=lambda draw, **_: {"begin": torch.zeros_like(x)})
    assert straight(net, draw, objective).item() == pytest.approx(wanted)
    g = net[0].weight.grad.clone()
    slope = (moved @ w.T)[:, 0].mul(-s).sigmoid() * -s / 6
    assert_close(g[0], slope @ moved)
    assert clean < method.step(net, draw, objective).item() <= wanted + 1e-12  # from a random start


@pytest.mark.parametrize("norm", Norm)
def test_perturbations_stay_inside_the_ball_and_the_input_range(norm):
    draw = replace(drawn(), generator=Lab(4).generator())
    begin = start(draw, norm=norm)["begin"]
    size = begin.flatten(1).abs().amax(1) if norm is Norm.LINF else begin.flatten(1).norm(dim=1)
    assert float(size.max()) <= 1
    assert float(size.min()) > 0
    far = project(10 * begin, 0.2, norm).flatten(1)
    size = far.abs().amax(1) if norm is Norm.LINF else far.norm(dim=1)
    assert float(size.max()) <= 0.2 + 1e-12
    assert_close(project(0.1 * begin, 0.2, norm), 0.1 * begin)
    given = {"begin": begin, "norm": norm, "low": -0.5, "high": 0.5}
    net, batch = model(), merge_batches(draw.fit.values())
    moved, loss = worst_inputs(net, batch, classify, radius=5.0, passes=3, **given)
    assert float(moved["x"].min()) >= -0.5
    assert float(moved["x"].max()) <= 0.5
    assert_close(loss(net, moved), classify.loss(net, moved))
    clamped = (
        (batch["x"] + 5.0 * begin).clamp(-0.5, 0.5).requires_grad_()
    )  # the first step by the definition
    (up,) = torch.autograd.grad(classify.loss(net, {**batch, "x": clamped}).sum(), clamped)
    way = up.sign() if norm is Norm.LINF else up / up.flatten(1).norm(dim=1, keepdim=True)
    delta = project(clamped.detach() + 2.5 * 5.0 * way - batch["x"], 5.0, norm)
    one, _ = worst_inputs(net, batch, classify, radius=5.0, passes=1, **given)
    assert_close(one["x"].detach(), (batch["x"] + delta).clamp(-0.5, 0.5))


@pytest.mark.parametrize("norm", Norm)
def test_one_adversarial_step_by_hand(norm):
    """Of a linear score the loss rises along −w y: one step of 2.5 radius from 0 ends on the ball's
    surface.
    """
    w, x = (
        torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64),
        torch.randn(6, 3, dtype=torch.float64),
    )
    net = nn.Linear(3, 1, bias=False, dtype=torch.float64)
    net.weight.data.copy_(w)
    target = torch.ones(6, 1, dtype=torch.float64)
    linear = Objective(
        loss=lambda m, b: -(m(b["x"]) * b["y"]).squeeze(1), score=lambda m, b: m(b["x"]).squeeze(1)
    )
    given = {"begin": torch.zeros_like(x), "norm": norm, "passes": 1, "low": -inf, "high": inf}
    radii = torch.linspace(0.1, 0.6, 6, dtype=torch.float64)
    moved, loss = worst_inputs(net, {"x": x, "y": target}, linear, radius=radii, **given)
    got = loss(net, moved)
    reach = w.abs().sum() if norm is Norm.LINF else w.norm()
    assert_close(got, -(x @ w.T).squeeze(1) + radii * reach)
    assert net.weight.requires_grad


def alone() -> Task:
    """One domain only."""
    task = toy_task()
    return replace(
        task,
        splits={n: s for n, s in task.splits.items() if n != "train:b" and s.use is not Use.ADAPT},
    )


@pytest.mark.parametrize(
    "method", [DomainDRO(budget=SGD), IRM(budget=SGD), VREx(budget=SGD), CORAL(budget=SGD)], ids=str
)
def test_methods_that_need_domains_refuse_one(method):
    with pytest.raises(InvalidData, match="one split to fit"):
        method.fit(model(), alone(), LAB)
    labs = [Lab(k) for k in range(2)]
    with pytest.raises(InvalidData, match="one split to fit"):
        train_stacked(
            TrainingRuns([model(), model()], [alone()] * 2, [method.step] * 2, [SGD] * 2, labs)
        )


def test_coral_takes_unlabelled_data_as_a_second_domain():
    task = alone()
    both = replace(task, splits={**task.splits, "bare": toy_task().splits["bare"]})
    assert all(torch.isfinite(p).all() for p in weights_after(CORAL(budget=SGD), both).values())


def test_refusals():
    for make, word in (
        (lambda: IRM(weight=-1), "weight=-1"),
        (lambda: IRM(weight=float("nan")), "weight=nan"),
        (lambda: VREx(weight=float("nan")), "weight=nan"),
        (lambda: CORAL(weight=float("nan")), "weight=nan"),
        (lambda: VREx(warmup=2), "warmup=2"),
        (lambda: CORAL(weight=-0.1), "weight=-0.1"),
        (lambda: DomainDRO(rate=-1), "rate=-1"),
        (lambda: Mixup(alpha=0), "alpha=0"),
        (lambda: AdversarialTraining(radius=-1), "radius=-1"),
        (lambda: AdversarialTraining(low=1, high=0), "low=1"),
    ):
        with pytest.raises(InvalidConfig, match=word):
            make()
    tokens = {
        n: replace(s, data=Columns(**{**s.data.columns, "x": torch.ones(64, 4, dtype=torch.long)}))
        for n, s in toy_task().splits.items()
    }
    whole_numbers = replace(toy_task(), splits=tokens)
    for method in (Mixup(budget=SGD), AdversarialTraining(budget=SGD)):
        with pytest.raises(InvalidData, match="int64"):
            method.fit(model(), whole_numbers, LAB)
    with pytest.raises(InvalidData, match="one example"):
        IRM(budget=replace(SGD, batch_size=1)).fit(model(), toy_task(), LAB)
    with pytest.raises(InvalidData, match="one example"):
        CORAL(budget=replace(SGD, batch_size=1)).fit(model(), toy_task(), LAB)
    with pytest.raises(UnknownName, match="`head`"):
        CORAL(layer="head", budget=SGD).fit(model(), toy_task(), LAB)
    with (
        pytest.raises(UnsupportedLayer, match="no linear layer"),
        record_features(nn.Conv1d(1, 1, 1)),
    ):
        pass
