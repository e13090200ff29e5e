"""UDIM against explicit per-example gradients, its limits SAM and ERM, and its count of passes."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from unseen.engine.domain_risks import merge_batches
from unseen.engine.loop import Budget, Draw, Optimizer, draws, erm_step, train
from unseen.engine.toy import toy_model, toy_task
from unseen.engine.vectorized.loop import TrainingRuns, train_stacked
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.methods.adversarial_training import norms
from unseen.methods.sam import SAM
from unseen.methods.udim import (
    UDIM,
    Perturbation,
    errors_and_features,
    head_norms,
    head_variances,
    root,
)
from unseen.objectives import classify

LAB = Lab(dtype=torch.float64)
SGD = Budget(
    steps=8, batch_size=16, lr=0.1, optimizer=Optimizer.SGD, momentum=0.9, weight_decay=0.01
)


def model(seed: int = 1) -> nn.Module:
    return toy_model(Lab(seed)).double()


def drawn() -> Draw:
    return next(draws(toy_task(), SGD, LAB))


def per_example(net: nn.Module, batch) -> torch.Tensor:
    """Gradients of the last layer, one example after the other, [n, c, d + 1]."""
    rows = []
    for i in range(len(batch["y"])):
        loss = classify.loss(net, {k: v[i : i + 1] for k, v in batch.items()}).sum()
        w, b = torch.autograd.grad(loss, [net[-1].weight, net[-1].bias])
        rows.append(torch.cat([w, b[:, None]], 1))
    return torch.stack(rows)


def test_closed_forms_of_the_last_layer_equal_explicit_gradients():
    net, batch = model(), merge_batches(drawn().fit.values())
    losses, errors, h = errors_and_features(net, batch, classify, "")
    each = per_example(net, batch)
    assert_close(losses, classify.loss(net, batch))
    assert_close(head_norms(errors, h), each.flatten(1).norm(dim=1))
    assert_close(head_variances(errors, h), each.var(0, correction=0))


def by_hand(net: nn.Module, draw: Draw, m: UDIM) -> list[torch.Tensor]:
    """The definition with plain autograd on explicit per-example gradients."""
    batch, params = merge_batches(draw.fit.values()), list(net.parameters())
    x = batch["x"].clone().requires_grad_()
    h = net[:-1](x)
    p = net[-1](h).softmax(1)
    y = torch.eye(2, dtype=torch.float64)[batch["y"]]
    s = -(y * p.log()).sum(1) + m.sharpness * (p - y).norm(dim=1) * (h.square().sum(1) + 1).sqrt()
    (u,) = torch.autograd.grad(s.sum(), x)
    moved = {
        **batch,
        "x": (x + m.radius * u / u.norm(dim=1, keepdim=True)).detach().clamp(m.low, m.high),
    }

    def variance(b) -> torch.Tensor:
        h = net[:-1](b["x"])
        e = net[-1](h).softmax(1) - torch.eye(2, dtype=torch.float64)[b["y"]]
        return torch.einsum(
            "nc,nd->ncd", e, torch.cat([h, torch.ones(len(h), 1, dtype=torch.float64)], 1)
        ).var(0, correction=0)

    more = (
        m.loss_weight * classify.loss(net, moved).mean()
        + m.variance_weight * (variance(moved) - variance(batch)).norm()
    )
    extra = torch.autograd.grad(more, params)
    g = torch.autograd.grad(classify.loss(net, batch).mean(), params)
    norm = torch.sqrt(sum(each.square().sum() for each in g))
    up = copy.deepcopy(net)
    with torch.no_grad():
        for p, each in zip(up.parameters(), g, strict=True):
            p += m.rho * each / norm
    sharp = torch.autograd.grad(classify.loss(up, batch).mean(), list(up.parameters()))
    return [a + b for a, b in zip(sharp, extra, strict=True)]


@pytest.mark.parametrize(
    "method", [UDIM(), UDIM(rho=0.2, radius=1.5, sharpness=1, variance_weight=2, low=-1, high=2)]
)
def test_gradient_equals_the_definition(method):
    net, draw = model(), drawn()
    wanted = by_hand(net, draw, method)
    loss = method.step(net, draw, classify)
    assert_close([p.grad for p in net.parameters()], wanted)
    assert loss.item() == pytest.approx(
        classify.loss(net, merge_batches(draw.fit.values())).mean().item()
    )


def test_without_weights_it_is_sam_and_without_radius_erm():
    a = (
        UDIM(rho=0.2, loss_weight=0, variance_weight=0, budget=SGD)
        .fit(model(), toy_task(), LAB)
        .model
    )
    b = SAM(rho=0.2, budget=SGD).fit(model(), toy_task(), LAB).model
    assert_close(dict(a.state_dict()), dict(b.state_dict()), rtol=1e-12, atol=1e-14)
    c = (
        UDIM(rho=0, loss_weight=0, variance_weight=0, budget=SGD)
        .fit(model(), toy_task(), LAB)
        .model
    )
    d = train(model(), toy_task(), erm_step, SGD, LAB).model
    assert_close(dict(c.state_dict()), dict(d.state_dict()), rtol=1e-12, atol=1e-14)


def test_unmoved_inputs_have_no_variance_term():
    """ρ_x = 0: D is 0 with derivative 0, so its weight does not matter."""
    nets = [model(), model()]
    for net, weight in zip(nets, (0.0, 100.0), strict=True):
        UDIM(radius=0, variance_weight=weight).step(net, drawn(), classify)
    assert_close(
        [p.grad for p in nets[0].parameters()],
        [p.grad for p in nets[1].parameters()],
        rtol=0,
        atol=0,
    )
    x = torch.tensor([0.0, 4.0], requires_grad=True)
    root(x).sum().backward()
    assert root(x).tolist() == [0, 2]
    assert x.grad.tolist() == [0, 0.25]


@pytest.mark.parametrize("perturbation", Perturbation)
def test_inputs_move_by_the_radius(perturbation):
    seen: list[torch.Tensor] = []
    net, draw = model(), replace(drawn(), generator=Lab(3).generator())
    handle = net.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    UDIM(radius=0.3, perturbation=perturbation).step(net, draw, classify)
    handle.remove()
    x = merge_batches(draw.fit.values())["x"]
    far = [other for other in seen if other.shape == x.shape and not torch.equal(other, x)]
    assert len(far) == 1  # one of the passes is on x̃
    assert_close(norms(far[0] - x).flatten(), torch.full((len(x),), 0.3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("perturbation", "examples"), [(Perturbation.WORST, 5), (Perturbation.RANDOM, 4)]
)
def test_count_of_passes(perturbation, examples):
    """Two of SAM, one for the worst inputs (none for random ones), two to compare x̃ with x."""
    net, draw, rows = model(), replace(drawn(), generator=Lab(3).generator()), [0]

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        rows[0] += len(inputs[0])

    net.register_forward_pre_hook(count)
    UDIM(perturbation=perturbation).step(net, draw, classify)
    assert rows[0] == examples * len(merge_batches(draw.fit.values())["x"])


@pytest.mark.parametrize("perturbation", Perturbation)
def test_many_at_once_equal_one_after_the_other(perturbation):
    methods = [
        UDIM(rho=0.1 * k, radius=0.2 + k, variance_weight=k, perturbation=perturbation, budget=SGD)
        for k in range(3)
    ]
    labs, models = (
        [Lab(seed, dtype=torch.float64) for seed in range(3)],
        [model(seed) for seed in range(3)],
    )
    alone = [
        m.fit(copy.deepcopy(net), toy_task(), lab)
        for m, net, lab in zip(methods, models, labs, strict=True)
    ]
    many = train_stacked(
        TrainingRuns(models, [toy_task()] * 3, [m.step for m in methods], [SGD] * 3, labs)
    )
    for one, other in zip(alone, many, strict=True):
        assert_close(
            dict(other.model.state_dict()), dict(one.model.state_dict()), rtol=1e-8, atol=1e-10
        )


def test_the_worst_inputs_are_worse_than_random_ones():
    net, draw = model(), replace(drawn(), generator=Lab(3).generator())
    batch, losses = merge_batches(draw.fit.values()), {}
    for perturbation in Perturbation:
        seen: list[torch.Tensor] = []
        handle = net.register_forward_pre_hook(
            lambda module, inputs, kept=seen: kept.append(inputs[0].detach())
        )
        UDIM(radius=0.05, perturbation=perturbation).step(net, draw, classify)
        handle.remove()
        (moved,) = [
            x for x in seen if x.shape == batch["x"].shape and not torch.equal(x, batch["x"])
        ]
        losses[perturbation] = classify.loss(net, {**batch, "x": moved}).detach()
    assert (
        losses[Perturbation.WORST] >= classify.loss(net, batch).detach()
    ).double().mean() >= 0.95
    assert losses[Perturbation.WORST].mean() > losses[Perturbation.RANDOM].mean()


def test_refusals():
    for bad in ({"rho": -1}, {"radius": -0.1}, {"variance_weight": -2}, {"low": 1, "high": 0}):
        with pytest.raises(InvalidConfig, match=f"{next(iter(bad))}={next(iter(bad.values()))}"):
            UDIM(**bad)
    draw = drawn()
    tokens = Draw(
        {n: {**b, "x": torch.ones(len(b["y"]), 4, dtype=torch.long)} for n, b in draw.fit.items()},
        {},
    )
    with pytest.raises(InvalidData, match="embeddings"):
        UDIM().step(model(), tokens, classify)
