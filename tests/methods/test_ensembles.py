"""WiSE-FT, BANG and ensembles of weights and outputs: end points, linear models, soft targets."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from unseen.engine import parameters
from unseen.engine.loop import Budget, Draw, Optimizer, draws, erm_step, train
from unseen.engine.toy import toy_model, toy_task
from unseen.engine.vectorized.loop import TrainingRuns, train_stacked
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.methods.mixup import Mixup, mixing
from unseen.methods.output_ensemble import OutputEnsemble, Start, reinitialize
from unseen.methods.weight_average import (
    BANG,
    WeightEnsemble,
    WiSEFT,
    average_weights,
    interpolate_weights,
    soft_criterion,
)
from unseen.models.ensemble_model import MeanLogit
from unseen.models.mlp import mlp
from unseen.objectives import binary, classify, regress

LAB = Lab(dtype=torch.float64)
SGD = Budget(steps=10, batch_size=16, lr=0.1, optimizer=Optimizer.SGD, momentum=0.9)
X = toy_task().splits["unseen"].data.columns["x"].double()


def model(seed: int = 1) -> nn.Module:
    return toy_model(Lab(seed)).double()


def normed() -> nn.Module:
    """With running statistics and a counter."""
    with Lab(4).seeded():
        return mlp([4, 6, 2], norm=nn.BatchNorm1d).double()


@pytest.mark.parametrize("make", [model, normed])
def test_end_points_are_exact(make):
    before = parameters.state(make())
    after = train(make(), toy_task(), erm_step, SGD, LAB).model
    for alpha, wanted in ((0.0, before), (1.0, parameters.state(after))):
        got = WiSEFT(alpha=alpha, budget=SGD).fit(make(), toy_task(), LAB).model.state_dict()
        floating = [name for name, tensor in wanted.items() if tensor.is_floating_point()]
        assert_close(
            {n: got[n] for n in floating}, {n: wanted[n] for n in floating}, rtol=0, atol=0
        )
        counters = [name for name, tensor in wanted.items() if not tensor.is_floating_point()]
        assert all(torch.equal(got[n], after.state_dict()[n]) for n in counters)
    half = WiSEFT(alpha=0.25, budget=SGD).fit(make(), toy_task(), LAB).model.state_dict()
    for name in floating:
        assert_close(half[name], 0.75 * before[name] + 0.25 * after.state_dict()[name])


def test_for_a_linear_model_averages_of_weights_and_of_logits_agree():
    states = []
    for seed in (1, 2):
        with Lab(seed).seeded():
            states.append(nn.Linear(4, 2).double().state_dict())
    net = nn.Linear(4, 2).double()
    logits = []
    for state in states:
        net.load_state_dict(state)
        logits.append(net(X).detach())
    net.load_state_dict(interpolate_weights(states[0], states[1], 0.3))
    assert_close(net(X), 0.7 * logits[0] + 0.3 * logits[1])


def test_average_ignores_the_order_of_models_and_refuses_other_shapes():
    states = [parameters.state(model(k)) for k in range(3)]
    a = average_weights(states, [0.2, 0.3, 0.5])
    b = average_weights(states[::-1], [0.5, 0.3, 0.2])
    assert_close(a, b)
    with pytest.raises(InvalidData, match=r"3\.bias, 3\.weight"):
        average_weights([states[0], mlp([4, 8, 3]).state_dict()], [0.5, 0.5])


def drawn() -> Draw:
    return replace(next(draws(toy_task(), SGD, LAB)), generator=Lab(5).generator())


def test_soft_targets_by_hand():
    net, method = model(), BANG(smoothing=0.3, mixing_alpha=0.7)
    noise = mixing(drawn(), alpha=0.7)
    lam, j = float(noise["share"]), noise["partner"]
    x, y = (torch.cat([b[key] for b in drawn().fit.values()]) for key in ("x", "y"))
    soft = 0.7 * torch.eye(2, dtype=torch.float64)[y] + 0.3 / 2
    log_p = net(lam * x + (1 - lam) * x[j]).log_softmax(1)
    wanted = -((lam * soft + (1 - lam) * soft[j]) * log_p).sum(1).mean()
    assert method.training(net, drawn(), classify).item() == pytest.approx(wanted.item())


def test_label_smoothing_equals_torch():
    net = model()
    x, y = (torch.cat([b[key] for b in drawn().fit.values()]) for key in ("x", "y"))
    got = BANG(smoothing=0.2, mixing_alpha=0).training(net, drawn(), classify)
    assert got.item() == pytest.approx(
        nn.functional.cross_entropy(net(x), y, label_smoothing=0.2).item()
    )
    with Lab(3).seeded():
        odds = nn.Sequential(nn.Linear(4, 1)).double()
    got = BANG(smoothing=0.2, mixing_alpha=0).training(odds, drawn(), binary)
    soft = 0.8 * y.double() + 0.1
    assert got.item() == pytest.approx(
        nn.functional.binary_cross_entropy_with_logits(odds(x)[:, 0], soft).item()
    )


def test_bang_without_soft_labels_is_wise_ft_and_at_one_mixup():
    a = BANG(alpha=0.4, smoothing=0, mixing_alpha=0, budget=SGD).fit(model(), toy_task(), LAB).model
    b = WiSEFT(alpha=0.4, budget=SGD).fit(model(), toy_task(), LAB).model
    assert_close(dict(a.state_dict()), dict(b.state_dict()), rtol=1e-12, atol=1e-14)
    c = BANG(alpha=1, smoothing=0, mixing_alpha=0.7, budget=SGD).fit(model(), toy_task(), LAB).model
    d = Mixup(alpha=0.7, budget=SGD).fit(model(), toy_task(), LAB).model
    assert_close(dict(c.state_dict()), dict(d.state_dict()), rtol=1e-12, atol=1e-14)


def test_bang_at_once_equals_one_after_the_other():
    methods = [BANG(alpha=1, smoothing=0.1 * k, mixing_alpha=0.5 * k, budget=SGD) for k in range(3)]
    labs, nets = [Lab(k, dtype=torch.float64) for k in range(3)], [model(k) for k in range(3)]
    alone = [
        m.fit(copy.deepcopy(n), toy_task(), lab).model
        for m, n, lab in zip(methods, nets, labs, strict=True)
    ]
    train_stacked(
        TrainingRuns(nets, [toy_task()] * 3, [m.training for m in methods], [SGD] * 3, labs)
    )
    for one, other in zip(alone, nets, strict=True):
        assert_close(dict(other.state_dict()), dict(one.state_dict()), rtol=1e-9, atol=1e-11)


def test_ensembles_of_weights_and_of_outputs_are_the_means_of_their_members():
    models = [model() for _ in range(3)]
    for k, net in enumerate(models):
        train(net, toy_task(), erm_step, SGD, LAB.child("member", k) if k else LAB)
    soup = WeightEnsemble(3, SGD).fit(model(), toy_task(), LAB).model
    for name, tensor in soup.state_dict().items():
        assert_close(tensor, torch.stack([net.state_dict()[name] for net in models]).mean(0))
    given = OutputEnsemble(3, Start.GIVEN, budget=SGD).fit(model(), toy_task(), LAB)
    by_logits = OutputEnsemble(3, Start.GIVEN, MeanLogit(), SGD).fit(model(), toy_task(), LAB).model
    with torch.no_grad():
        assert_close(
            given.model(X).exp(), torch.stack([net(X).softmax(1) for net in models]).mean(0)
        )
        assert_close(by_logits(X), torch.stack([net(X) for net in models]).mean(0))
    assert given.curves["loss"] == given.curves["loss 0"]


def test_fresh_members_begin_elsewhere_and_the_first_is_erm():
    reference = train(model(), toy_task(), erm_step, SGD, LAB).model
    members = OutputEnsemble(2, budget=SGD).fit(model(), toy_task(), LAB).model.members
    assert_close(dict(members[0].state_dict()), dict(reference.state_dict()), rtol=0, atol=0)
    a, b = reinitialize(model(), LAB.child("x")), reinitialize(model(), LAB.child("x"))
    assert_close(dict(a.state_dict()), dict(b.state_dict()), rtol=0, atol=0)
    assert not torch.equal(a[1].weight, model()[1].weight)


class Bare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(4, 2))


def test_refusals():
    for make, word in (
        (lambda: WiSEFT(alpha=1.5), "alpha=1.5"),
        (lambda: BANG(alpha=-0.1), r"alpha=-0\.1"),
        (lambda: BANG(smoothing=1), "smoothing=1"),
        (lambda: WeightEnsemble(0), "members=0"),
        (lambda: OutputEnsemble(0), "members=0"),
    ):
        with pytest.raises(InvalidConfig, match=word):
            make()
    with pytest.raises(InvalidData, match="parameters w do not know"):
        reinitialize(Bare(), LAB)
    real = Draw({"a": {"x": X[:4], "y": X[:4, :1]}}, {})
    noise = {"share": torch.ones(()), "partner": torch.arange(4)}
    with pytest.raises(InvalidData, match="real-valued"):
        soft_criterion(model(), real, regress, smoothing=0.1, mixing_alpha=0.0, **noise)
