"""CDSAE: closed forms of its parts, PCA as its limit, its adversary, and what it refuses."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence
from torch.testing import assert_close

from unseen.engine.batches import Columns
from unseen.engine.loop import Budget, draws, train
from unseen.engine.vectorized.loop import TrainingRuns, train_stacked
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.methods.cdsae import (
    CDSAE,
    Adversary,
    adversary_inputs,
    attribute_levels,
    cdsae_criterion,
    code_noise,
    example,
    fairness_gap,
    nats,
    prior_means,
    reverse_gradient,
)
from unseen.models.sequential_autoencoder import Codes, Posterior, SequentialAutoencoder
from unseen.objectives import classify
from unseen.task import Task, Use

LAB = Lab(dtype=torch.float64)
ADAM = Budget(steps=12, batch_size=16, lr=0.01)
TASK = example()[1].task
GIVEN = example()[1].model


def made(method: CDSAE = CDSAE(), seed: int = 1) -> SequentialAutoencoder:
    return method.surgery(copy.deepcopy(GIVEN), TASK, replace(LAB, seed=seed))


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=Lab(seed).generator(), dtype=torch.float64)


def test_divergence_equals_torch_and_monte_carlo():
    q, prior = Posterior(normal(5, 3), normal(5, 3, seed=1)), normal(5, 3, seed=2)
    wanted = kl_divergence(
        Normal(q.mean, (q.log_variance / 2).exp()), Normal(prior, torch.ones_like(prior))
    )
    assert_close(q.divergence(prior), wanted)
    many = Posterior(q.mean.repeat(100_000, 1), q.log_variance.repeat(100_000, 1))
    u = many.sample(normal(500_000, 3, seed=3)).view(100_000, 5, 3)
    ratio = Normal(q.mean, (q.log_variance / 2).exp()).log_prob(u) - Normal(prior, 1.0).log_prob(u)
    assert ((q.divergence(prior) - ratio.mean(0)).abs() < 5 * ratio.std(0) / 100_000**0.5).all()


def test_flipping_twice_returns_the_attribute_and_the_decoder_answers_in_its_places():
    net, x = made(), TASK.splits["unseen"].data.columns["x"].double()
    assert net.sensitive == [3]
    other = net.counterfactual(x)
    assert_close(other[:, 3], 1 - x[:, 3])
    codes = net.posterior(x).mean
    assert_close(other[:, :3], net.reconstruct(codes, 1 - x[:, 3:]))
    assert_close(net.counterfactual(other)[:, 3], x[:, 3])
    middle = SequentialAutoencoder(
        4, 2, (1,), torch.tensor([[0.0], [1.0]]), k=1, width=4, hidden=2
    ).double()
    assert_close(
        middle.counterfactual(x)[:, [0, 2, 3]],
        middle.reconstruct(middle.posterior(x).mean, 1 - x[:, 1:2]),
    )


def test_expected_environment_rests_on_earlier_domains_only():
    net, means = made(), normal(4, 4)
    before = net.drift(means)
    later = means.clone()
    later[2] += 1
    after = net.drift(later)
    assert_close(after[:3], before[:3], rtol=0, atol=0)
    assert not torch.allclose(after[3], before[3])
    h = torch.zeros(8, dtype=torch.float64)
    for t in range(3):  # the equations of the unit, one domain after the other
        z, r = (
            torch.sigmoid(g.weight @ torch.cat([means[t], h]) + g.bias)
            for g in (net.recurrence.update, net.recurrence.reset)
        )
        g = net.recurrence.propose
        h = z * h + (1 - z) * torch.tanh(g.weight @ torch.cat([means[t], r * h]) + g.bias)
    assert_close(before[3], net.expected.weight @ h + net.expected.bias)


def test_criterion_is_the_sum_of_its_parts():
    net = made()
    draw = replace(next(draws(TASK, ADAM, LAB)), generator=Lab(5).generator())
    noise = code_noise(replace(draw, generator=Lab(6).generator()), k=2)["noise"]
    batches = list(draw.fit.values())
    x, y = torch.cat([b["x"] for b in batches]), torch.cat([b["y"] for b in batches])
    q = net.posterior(x)
    u = q.mean + (q.log_variance / 2).exp() * noise
    parts = {
        "reconstruction": (net.decoder(torch.cat([u, x[:, 3:]], 1)) - x[:, :3]).square().mean(),
        "beta": q.divergence(prior_means(net, q, [16, 16])).sum(1).mean(),
        "fairness": fairness_gap(net, x, u).mean(),
    }
    rest = nn.functional.cross_entropy(net.classifier(u[:, :4]), y)
    rest = rest + nn.functional.binary_cross_entropy_with_logits(
        net.discriminator(u[:, :4])[:, 0], x[:, 3]
    )
    weights = {"reconstruction": 2.0, "beta": 0.3, "fairness": 1.7}
    wanted = rest + sum(weights[name] * value for name, value in parts.items())
    got = cdsae_criterion(
        net,
        draw,
        classify,
        noise=noise,
        independence=4.0,
        k=2,
        adversary=Adversary.SEMANTIC,
        **weights,
    )
    assert_close(got, wanted)


def test_prior_of_semantic_codes_is_standard():
    net, q = made(), Posterior(normal(6, 8), normal(6, 8, seed=1))
    prior = prior_means(net, q, [2, 4])
    assert prior[:, :4].abs().max() == 0
    drift = net.drift(torch.stack([q.mean[:2, 4:].mean(0), q.mean[2:, 4:].mean(0)]))
    assert_close(prior[:, 4:], torch.cat([drift[:1].expand(2, -1), drift[1:].expand(4, -1)]))


def test_fairness_gap_is_the_change_of_the_positive_probability():
    net, x = made(), TASK.splits["unseen"].data.columns["x"].double()
    codes = net.posterior(x).mean
    p = net.classifier(codes[:, :4]).softmax(1)[:, 1]
    other = net.posterior(net.flip_group(x, codes)).mean
    assert_close(
        fairness_gap(net, x, codes), (p - net.classifier(other[:, :4]).softmax(1)[:, 1]).abs()
    )


def test_reversal_keeps_values_and_turns_gradients():
    u = normal(3, 2).requires_grad_()
    v = reverse_gradient(u, 2.5)
    assert_close(v, u)
    v.sum().backward()
    assert_close(u.grad, torch.full((3, 2), -2.5, dtype=torch.float64))


def test_adversary_watches_what_it_should():
    net, codes = made(), normal(3, 8)
    assert_close(adversary_inputs(net, codes, Adversary.SEMANTIC), codes[:, :4])
    wanted = torch.cat([net.group(codes, Codes.SEMANTIC), net.group(codes, Codes.ENVIRONMENT)], 1)
    assert_close(adversary_inputs(net, codes, Adversary.UNINFLUENCED), wanted)
    assert_close(wanted, codes[:, [2, 3, 6, 7]])


def test_without_noise_a_wide_decoder_reconstructs_as_well_as_principal_components():
    """Linear-Gaussian people: with β = 0 the error is at most that of as many components as there
    are codes.
    """
    x = normal(400, 8) @ (
        normal(8, 8, seed=1)
        * torch.tensor([3.0, 2, 1, 0.5, 0.3, 0.2, 0.1, 0.1], dtype=torch.float64)
    )
    x = torch.cat([x / x.std(), (torch.arange(400) % 2)[:, None].double()], 1)
    y = (x[:, 0] > 0).long()
    splits = {
        name: replace(
            TASK.splits[name], data=Columns(x=x[k::2], y=y[k::2], domain=torch.full((200,), k))
        )
        for k, name in enumerate(("train:a", "train:b"))
    }
    x[1::4, -1], x[3::4, -1] = 0, 1
    x[0::4, -1], x[2::4, -1] = 0, 1
    task = replace(TASK, splits=splits)
    budget = Budget(steps=900, batch_size=200, lr=5e-3)
    method = CDSAE(codes=1, reconstruction=100, beta=0, fairness=0, independence=0, budget=budget)
    net = method.surgery(nn.Linear(9, 2), task, LAB)
    step = replace(
        method.training, noise=lambda draw, **_: {"noise": torch.zeros(400, 4, dtype=torch.float64)}
    )
    train(net, task, step, method.budget, LAB)
    features = x[:, :8]
    with torch.no_grad():
        error = (net.reconstruct(net.posterior(x).mean, x[:, 8:]) - features).square().mean()
    centred = features - features.mean(0)
    lost = torch.linalg.svdvals(centred)[4:].square().sum() / centred.numel()
    assert error <= 1.05 * lost


def test_fairness_weight_lowers_the_models_own_effect():
    task, gaps = TASK, []
    for name, split in TASK.of(Use.TRAIN).items():  # labels that favour one group
        x = split.data.columns["x"]
        biased = Columns(**{**split.data.columns, "y": (x[:, 0] + 3 * x[:, 3] > 1.5).long()})
        task = replace(task, splits={**task.splits, name: replace(split, data=biased)})
    for weight in (0.0, 30.0):
        method = CDSAE(fairness=weight, independence=0, budget=replace(ADAM, steps=150))
        net = method.fit(copy.deepcopy(GIVEN), task, LAB).model
        x = torch.cat([s.data.columns["x"] for s in TASK.of(Use.TRAIN).values()]).double()
        with torch.no_grad():
            gaps.append(fairness_gap(net, x, net.posterior(x).mean).mean().item())
    assert gaps[1] < 0.01 < gaps[0]


def test_collapsed_codes_are_seen():
    trained = CDSAE(
        beta=50.0, reconstruction=0, fairness=0, budget=replace(ADAM, steps=150, lr=0.02)
    ).fit(copy.deepcopy(GIVEN), TASK, LAB)
    held = nats(trained.model, TASK, LAB)
    assert held == {name: trained.curves[name] for name in held}
    assert len(held) == 4
    assert max(value[0] for value in held.values()) < 0.01
    full = CDSAE(beta=0, budget=replace(ADAM, steps=100)).fit(copy.deepcopy(GIVEN), TASK, LAB)
    assert min(full.curves[name][0] for name in held) > 0.01


@pytest.mark.parametrize("adversary", Adversary)
def test_at_once_equals_one_after_the_other(adversary):
    methods = [
        CDSAE(fairness=w, independence=w / 2, adversary=adversary, budget=ADAM)
        for w in (0.0, 1.0, 3.0)
    ]
    labs = [Lab(k, dtype=torch.float64) for k in range(3)]
    alone = [
        m.fit(copy.deepcopy(GIVEN), TASK, lab).model for m, lab in zip(methods, labs, strict=True)
    ]
    nets = [
        m.surgery(copy.deepcopy(GIVEN), TASK, lab) for m, lab in zip(methods, labs, strict=True)
    ]
    train_stacked(TrainingRuns(nets, [TASK] * 3, [m.training for m in methods], [ADAM] * 3, labs))
    for one, other in zip(alone, nets, strict=True):
        assert_close(dict(other.state_dict()), dict(one.state_dict()), rtol=1e-7, atol=1e-9)


def changed(**columns: torch.Tensor) -> Task:
    split = TASK.splits["train:b"]
    return replace(
        TASK,
        splits={
            **TASK.splits,
            "train:b": replace(split, data=Columns(**{**split.data.columns, **columns})),
        },
    )


def test_refusals():
    x = TASK.splits["train:b"].data.columns["x"]
    constant, three, scaled = (x.clone() for _ in range(3))
    constant[:, 3], three[:5, 3], scaled[:, 3] = 1, 0.5, 2 * scaled[:, 3]
    cases = (
        (changed(x=constant), r"`train:b` the sensitive inputs have \[1\]"),
        (changed(x=three), r"\[3\] values"),
        (changed(x=scaled), "other values in other domains"),
        (changed(y=torch.ones(64, dtype=torch.long)), "the label 1"),
        (changed(domain=torch.zeros(64, dtype=torch.long)), "number 0 and comes after"),
        (
            replace(TASK, splits={n: s for n, s in TASK.splits.items() if n != "train:b"}),
            "one split to fit",
        ),
    )
    for task, words in cases:
        with pytest.raises(InvalidData, match=words):
            CDSAE(budget=ADAM).fit(copy.deepcopy(GIVEN), task, LAB)
    for position in ((4,), (-5,)):
        with pytest.raises(InvalidConfig, match="inputs have 4 numbers"):
            attribute_levels(TASK, position, LAB)
    with pytest.raises(InvalidConfig, match="fairness=-1"):
        CDSAE(fairness=-1)
    with pytest.raises(InvalidConfig, match="sensitive=\\(0, 0\\)"):
        SequentialAutoencoder(4, 2, (0, 0), torch.zeros(2, 2), k=1, width=4, hidden=2)
