"""Heads per domain and their steering against their definitions."""

import copy
from dataclasses import replace
from math import inf, log

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from unseen.engine.loop import Budget, Optimizer, draws, erm_step, train
from unseen.engine.toy import toy_model, toy_task
from unseen.engine.vectorized.loop import TrainingRuns, train_stacked
from unseen.errors import InvalidConfig, InvalidData, UnsupportedLayer
from unseen.lab import Lab
from unseen.methods.drm import DRM, drm_criterion, prototypes
from unseen.models.ensemble_model import (
    Committee,
    MeanLogit,
    MeanProbability,
    SingleMember,
    mixture,
)
from unseen.models.test_time_weighting import (
    EntropySteering,
    Granularity,
    Metric,
    OnlineSteering,
    Part,
    SimilaritySteering,
    entropies,
    sharpen,
)
from unseen.objectives import classify
from unseen.task import Task

LAB = Lab(dtype=torch.float64)
SGD = Budget(steps=10, batch_size=16, lr=0.1, optimizer=Optimizer.SGD, momentum=0.9)


def model(seed: int = 1) -> nn.Module:
    return toy_model(Lab(seed)).double()


def outputs(members: int = 3, n: int = 10, c: int = 4) -> torch.Tensor:
    return 2 * torch.randn(members, n, c, generator=Lab(2).generator(), dtype=torch.float64)


def test_criterion_by_hand():
    net = DRM().surgery(model(), toy_task(), LAB)
    with torch.no_grad():
        for k, head in enumerate(net.members):
            head.weight.mul_(1 + k)
    draw = next(draws(toy_task(), SGD, LAB))
    wanted = 0.0
    for head, batch in zip(net.members, draw.fit.values(), strict=False):
        h = net.encoder(batch["x"])
        each = [nn.functional.cross_entropy(one(h), batch["y"]) for one in (head, net.members[2])]
        wanted += (0.7 * each[0] + 0.3 * each[1]) / 2
    assert_close(drm_criterion(net, draw, classify, shared=0.3), wanted)


def test_the_common_head_alone_is_erm():
    trained = DRM(shared=1.0, rule=SingleMember(2), budget=SGD).fit(model(), toy_task(), LAB).model
    reference = train(model(), toy_task(), erm_step, SGD, LAB).model
    x = toy_task().splits["unseen"].data.columns["x"].double()
    assert_close(trained(x), reference(x), rtol=1e-10, atol=1e-12)


def test_many_at_once_equal_one_after_the_other():
    methods = [DRM(shared=s, budget=SGD) for s in (0.2, 0.5, 0.9)]
    labs, nets = [Lab(k, dtype=torch.float64) for k in range(3)], [model(k) for k in range(3)]
    alone = [
        m.fit(copy.deepcopy(net), toy_task(), lab)
        for m, net, lab in zip(methods, nets, labs, strict=True)
    ]
    models = [
        m.surgery(net, toy_task(), lab) for m, net, lab in zip(methods, nets, labs, strict=True)
    ]
    many = train_stacked(
        TrainingRuns(models, [toy_task()] * 3, [m.training for m in methods], [SGD] * 3, labs)
    )
    for one, other in zip(alone, many, strict=True):
        assert_close(
            dict(other.model.state_dict()), dict(one.model.state_dict()), rtol=1e-9, atol=1e-11
        )


def test_entropy_of_known_distributions():
    z = torch.zeros(1, 1, 4, dtype=torch.float64)
    assert entropies(z).item() == pytest.approx(log(4))
    p = torch.tensor([[[0.9, 0.1]]], dtype=torch.float64)
    wanted = -0.9 * log(0.9) - 0.1 * log(0.1)
    assert entropies(p.log()).item() == pytest.approx(wanted)
    assert entropies(torch.tensor([[[log(9.0)]]], dtype=torch.float64)).item() == pytest.approx(
        wanted
    )  # one log odds


@pytest.mark.parametrize("granularity", Granularity)
def test_limits_of_entropy_steering(granularity):
    z, h = outputs(), torch.zeros(10, 1)
    for gamma in (0.0, 1.0, 50.0, inf):
        weights = EntropySteering(granularity, gamma, size=4).weights(z)
        assert_close(weights.sum(0), torch.ones(10, dtype=torch.float64))
    assert_close(EntropySteering(granularity, 0.0)(z, h, None), MeanProbability()(z, h, None))
    sharp, top = (EntropySteering(granularity, gamma, size=4).weights(z) for gamma in (5e3, inf))
    assert_close(sharp, top, rtol=0, atol=1e-6)
    same = z[:1].expand(3, -1, -1)
    assert_close(EntropySteering(granularity)(same, h, None), same[0].log_softmax(1))


def test_steering_by_a_loop():
    z, h = outputs(), torch.zeros(10, 1)
    cost = entropies(z)
    by_sample = EntropySteering(Granularity.SAMPLE)(z, h, None)
    for i in range(10):
        assert_close(by_sample[i], z[int(cost[:, i].argmin()), i].log_softmax(0))
    by_batch = EntropySteering(Granularity.BATCH, size=4)(z, h, None)
    for i in range(10):
        rows = slice(i // 4 * 4, i // 4 * 4 + 4)
        assert_close(by_batch[i], z[int(cost[:, rows].mean(1).argmin()), i].log_softmax(0))
    assert_close(EntropySteering(Granularity.BATCH, size=1)(z, h, None), by_sample)


def test_order_inside_a_batch_does_not_matter():
    z, order = outputs(), torch.randperm(10, generator=Lab(1).generator())
    rule = EntropySteering(gamma=2.0)
    assert_close(rule(z, z, None)[order], rule(z[:, order], z, None))


def test_mixtures_of_probabilities_also_as_log_odds():
    z = outputs(c=2)
    w = sharpen(entropies(z), 1.0)
    assert_close(mixture(z, w).exp(), (w[..., None] * z.softmax(-1)).sum(0))
    odds = mixture(z[..., 1:] - z[..., :1], w)
    assert_close(odds[:, 0].sigmoid(), (w[..., None] * z.softmax(-1)).sum(0)[:, 1])
    assert_close(MeanLogit()(z, z, None), z.mean(0))


@pytest.mark.parametrize("metric", Metric)
def test_similarity_takes_the_head_of_the_nearest_prototype(metric):
    p = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]], dtype=torch.float64)
    h = torch.tensor([[2.0, 0.1, 0.0], [0.1, 1.0, 0.0], [0.9, 0.0, 0.1]], dtype=torch.float64)
    z = outputs(n=3)
    got = SimilaritySteering(metric)(z, h, p)
    nearest = [0, 1, 0]
    assert_close(got, torch.stack([z[k, i] for i, k in enumerate(nearest)]).log_softmax(1))
    trained = DRM(rule=SimilaritySteering(metric), budget=SGD).fit(model(), toy_task(), LAB)
    first = trained.model.encoder(toy_task().splits["train:a"].data.columns["x"].double()).mean(0)
    assert_close(prototypes(trained.model, toy_task(), LAB)[0], first)
    assert_close(trained.model.prototypes[0], first)


def test_online_steering_learns_from_sure_examples_only_and_leaves_the_original():
    original = DRM(budget=SGD).fit(model(), toy_task(), LAB).model
    x = toy_task().splits["unseen"].data.columns["x"].double()
    parts = list(x.split(16))
    before = {name: tensor.clone() for name, tensor in original.state_dict().items()}
    still = OnlineSteering(beta=1.0)(copy.deepcopy(original), parts)
    assert not still.confident.any()
    with torch.no_grad():
        assert_close(still.outputs, torch.cat([original(part) for part in parts]))
    for part in Part:
        moved = copy.deepcopy(original)
        found = OnlineSteering(beta=0.6, steps=3, lr=0.01, part=part)(moved, parts)
        with torch.no_grad():
            p = original(parts[0]).exp().max(1).values
        assert_close(found.confident[:16], p >= 0.6)
        same = all(
            torch.equal(a, b)
            for a, b in zip(moved.encoder.parameters(), original.encoder.parameters(), strict=True)
        )
        assert same == (part is Part.HEADS)
        with torch.no_grad():  # what was learned first shows in the second batch only
            assert_close(found.outputs[:16], original(parts[0]))
            assert not torch.equal(found.outputs[16:32], original(parts[1]))
    assert_close(before, dict(original.state_dict()), rtol=0, atol=0)


class Scaled(nn.Module):
    """A last layer whose output is not the model's."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * self.head(x)


def alone() -> Task:
    task = toy_task()
    return replace(task, splits={n: s for n, s in task.splits.items() if n != "train:b"})


def test_refusals():
    with pytest.raises(InvalidData, match="two training domains"):
        DRM(budget=SGD).fit(model(), alone(), LAB)
    with pytest.raises(UnsupportedLayer, match="`head` is not that of the model"):
        DRM(budget=SGD).fit(Scaled(), toy_task(), LAB)
    with pytest.raises(UnsupportedLayer, match="taken off"):
        DRM(budget=SGD).fit(nn.Linear(4, 2), toy_task(), LAB)
    for make, word in (
        (lambda: DRM(shared=1.5), "shared=1.5"),
        (lambda: EntropySteering(gamma=-1), "gamma=-1"),
        (lambda: OnlineSteering(beta=2), "beta=2"),
        (lambda: Committee([], SingleMember()), "without members"),
    ):
        with pytest.raises(InvalidConfig, match=word):
            make()
    with pytest.raises(InvalidData, match="prototypes"):
        SimilaritySteering()(outputs(), outputs()[0], None)
    with pytest.raises(InvalidData, match="empty"):
        OnlineSteering()(Committee([model()], SingleMember()), [])
