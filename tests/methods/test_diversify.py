"""DivDis and D-BAT against double loops, hard labels and hand-made committees."""

import copy
from dataclasses import replace
from math import log

import numpy as np
import pytest
import torch
from sklearn.metrics import mutual_info_score
from torch import nn
from torch.testing import assert_close

from unseen.engine.loop import Budget, Optimizer, draws, erm_step, train
from unseen.engine.prediction_diversity import disagreement, mutual_information, over_pairs
from unseen.engine.toy import toy_model, toy_task
from unseen.engine.vectorized.loop import TrainingRuns, train_stacked
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.methods.diversify import (
    DBAT,
    DivDis,
    Newcomer,
    agreement,
    dbat_criterion,
    divdis_criterion,
    member_scores,
    rank_by_disagreement,
    select_member,
)
from unseen.models.ensemble_model import Committee, SingleMember
from unseen.objectives import classify
from unseen.task import Task, Use

LAB = Lab(dtype=torch.float64)
SGD = Budget(steps=10, batch_size=16, lr=0.1, optimizer=Optimizer.SGD, momentum=0.9)


def model(seed: int = 1) -> nn.Module:
    return toy_model(Lab(seed)).double()


def probabilities(n: int, k: int, seed: int) -> torch.Tensor:
    return torch.randn(n, k, generator=Lab(seed).generator(), dtype=torch.float64).softmax(1)


def test_mutual_information_by_a_double_loop():
    p, q = probabilities(7, 3, 0), probabilities(7, 4, 1)
    total = 0.0
    for i in range(3):
        for j in range(4):
            joint = np.mean([float(p[n, i] * q[n, j]) for n in range(7)])
            total += joint * log(joint / (float(p[:, i].mean()) * float(q[:, j].mean())))
    assert float(mutual_information(p, q)) == pytest.approx(total, abs=1e-12)
    assert float(mutual_information(q, p)) == pytest.approx(total, abs=1e-12)
    order = torch.randperm(7, generator=Lab(2).generator())
    assert float(mutual_information(p[order], q[order])) == pytest.approx(total, abs=1e-12)


def test_mutual_information_of_known_heads():
    constant = torch.tensor([[0.3, 0.7]], dtype=torch.float64).expand(8, 2)
    assert float(mutual_information(constant, probabilities(8, 2, 3))) == pytest.approx(
        0, abs=1e-12
    )
    sure = torch.eye(2, dtype=torch.float64).repeat(4, 1)
    assert float(mutual_information(sure, sure)) == pytest.approx(log(2))
    assert float(mutual_information(sure, sure.flip(1))) == pytest.approx(log(2))
    a, b = (torch.randint(3, (50,), generator=Lab(s).generator()) for s in (4, 5))
    hard = float(mutual_information(torch.eye(3).double()[a], torch.eye(3).double()[b]))
    assert hard == pytest.approx(mutual_info_score(a.numpy(), b.numpy()))


def test_gradient_of_mutual_information_by_finite_differences():
    z = torch.randn(5, 3, generator=Lab(6).generator(), dtype=torch.float64, requires_grad=True)
    q = probabilities(5, 3, 7)
    assert torch.autograd.gradcheck(lambda z: mutual_information(z.softmax(1), q), (z,))


def test_disagreement_of_pairs():
    p = torch.stack([probabilities(6, 3, s) for s in range(3)])
    pairs = over_pairs(p, disagreement)
    assert_close(pairs[1], (p[0] - p[2]).abs().sum(1) / 2)
    assert pairs.shape == (3, 6)
    sure = torch.eye(2, dtype=torch.float64)
    assert disagreement(sure, sure.flip(0)).tolist() == [1, 1]


def test_divdis_criterion_by_hand():
    net = DivDis(members=3).surgery(model(), toy_task(), LAB)
    assert not torch.equal(net.members[1].weight, net.members[2].weight)
    draw = next(draws(toy_task(), SGD, LAB))
    x, y = (torch.cat([b[key] for b in draw.fit.values()]) for key in ("x", "y"))
    here = [m(net.encoder(x)) for m in net.members]
    there = [m(net.encoder(draw.adapt["bare"]["x"])).softmax(1) for m in net.members]
    ce = sum(nn.functional.cross_entropy(z, y) for z in here) / 3
    mi = (
        mutual_information(there[0], there[1])
        + mutual_information(there[0], there[2])
        + mutual_information(there[1], there[2])
    ) / 3
    kl = (
        sum(
            (u.mean(0) * (u.mean(0) / z.softmax(1).mean(0)).log()).sum()
            for u, z in zip(there, here, strict=True)
        )
        / 3
    )
    assert_close(
        divdis_criterion(net, draw, classify, dependence=4.0, prior=0.5), ce + 4 * mi + 0.5 * kl
    )


def test_one_hypothesis_is_erm():
    reference = train(model(), toy_task(), erm_step, SGD, LAB).model
    x = toy_task().splits["unseen"].data.columns["x"].double()
    for method in (DivDis(members=1, prior=0, budget=SGD), DBAT(members=1, budget=SGD)):
        assert_close(
            method.fit(model(), toy_task(), LAB).model(x), reference(x), rtol=1e-12, atol=1e-14
        )


def test_dbat_term():
    p = torch.tensor([1.0, 1.0, 0.5], dtype=torch.float64)
    q = torch.tensor([0.0, 1.0, 0.5], dtype=torch.float64)
    assert_close(
        agreement(p, q),
        torch.tensor([-log(1 + 1e-7), -log(1e-7), -log(0.5 + 1e-7)], dtype=torch.float64),
    )
    assert float(agreement(p, q)[1]) == pytest.approx(16.118, abs=1e-3)
    earlier, new = [model(2), model(3)], model(4)
    draw = next(draws(toy_task(), SGD, LAB))
    x, y = (torch.cat([b[key] for b in draw.fit.values()]) for key in ("x", "y"))
    u, terms = draw.adapt["bare"]["x"], []
    for old in earlier:
        for i in range(len(u)):
            a, b = old(u[i : i + 1]).softmax(1)[0], new(u[i : i + 1]).softmax(1)[0]
            top = int(a.argmax())
            terms.append(-torch.log(a[top] * (1 - b[top]) + b[top] * (1 - a[top]) + 1e-7))
    wanted = nn.functional.cross_entropy(new(x), y) + 0.7 * torch.stack(terms).mean()
    assert_close(dbat_criterion(Newcomer(new, earlier), draw, classify, weight=0.7), wanted)


def test_dbat_members_are_frozen_in_turn_and_disagree_more_with_weight():
    calm, opposed = (
        DBAT(weight=w, budget=SGD).fit(model(), toy_task(), LAB).model for w in (0.0, 30.0)
    )
    assert_close(
        dict(calm.members[0].state_dict()), dict(opposed.members[0].state_dict()), rtol=0, atol=0
    )
    assert all(p.requires_grad for p in opposed.parameters())
    x = toy_task().splits["bare"].data.columns["x"].double()
    apart = [
        over_pairs(m.member_outputs(x).softmax(-1), disagreement).mean() for m in (calm, opposed)
    ]
    assert apart[1] > apart[0]


def test_committees_at_once_equal_one_after_the_other():
    method = DBAT(members=3, budget=replace(SGD, steps=50))
    labs, nets = [Lab(k, dtype=torch.float64) for k in range(3)], [model(k) for k in range(3)]
    many = method.fit_many(copy.deepcopy(nets), toy_task(), labs)
    for one, net, lab in zip(many, nets, labs, strict=True):
        alone = method.fit(net, toy_task(), lab)
        assert_close(
            dict(one.model.state_dict()), dict(alone.model.state_dict()), rtol=1e-8, atol=1e-10
        )
        assert one.model.rule == alone.model.rule
    stackable = [Newcomer(model(k), [model(k + 5)]) for k in range(3)]
    results = train_stacked(
        TrainingRuns(stackable, [toy_task()] * 3, [method.training] * 3, [SGD] * 3, labs)
    )
    for k, result in enumerate(results):
        reference = train(
            Newcomer(model(k), [model(k + 5)]), toy_task(), method.training, SGD, labs[k]
        )
        assert_close(
            dict(result.model.state_dict()),
            dict(reference.model.state_dict()),
            rtol=1e-9,
            atol=1e-11,
        )


def test_divdis_at_once_equals_one_after_the_other():
    methods = [DivDis(dependence=w, prior=0.3, budget=SGD) for w in (0.0, 1.0, 20.0)]
    labs = [Lab(k, dtype=torch.float64) for k in range(3)]
    alone = [
        m.fit(model(k), toy_task(), lab)
        for k, (m, lab) in enumerate(zip(methods, labs, strict=True))
    ]
    nets = [
        m.surgery(model(k), toy_task(), lab)
        for k, (m, lab) in enumerate(zip(methods, labs, strict=True))
    ]
    train_stacked(
        TrainingRuns(nets, [toy_task()] * 3, [m.training for m in methods], [SGD] * 3, labs)
    )
    for one, net in zip(alone, nets, strict=True):
        assert_close(dict(net.state_dict()), dict(one.model.state_dict()), rtol=1e-9, atol=1e-11)


def test_committees_with_unlabelled_data_of_their_own():
    task = toy_task()
    columns = task.splits["bare"].data.columns
    other = replace(
        task.splits["bare"],
        data=type(task.splits["bare"].data)(**{**columns, "x": -columns["x"].flip(1)}),
    )
    tasks = [task, replace(task, splits={**task.splits, "bare": other})]
    for method in (DBAT(weight=5.0, budget=SGD), DivDis(budget=SGD)):
        many = method.fit_many([model(), model()], tasks, [LAB, LAB])
        alone = [method.fit(model(), own, LAB) for own in tasks]
        for one, reference, own in zip(many, alone, tasks, strict=True):
            assert one.task is own
            assert_close(
                dict(one.model.state_dict()),
                dict(reference.model.state_dict()),
                rtol=1e-9,
                atol=1e-11,
            )
        x = columns["x"].double()
        assert not torch.allclose(
            many[0].model.member_outputs(x)[1], many[1].model.member_outputs(x)[1]
        )
        assert_close(
            many[0].model.member_outputs(x)[0], many[1].model.member_outputs(x)[0]
        ) if isinstance(method, DBAT) else None


def two_rules() -> Committee:
    """One member reads x₀, the other x₁."""
    heads = [nn.Linear(4, 2, bias=False).double() for _ in range(2)]
    for k, head in enumerate(heads):
        head.weight.data.zero_()
        head.weight.data[1, k] = 5.0
    return Committee(heads, SingleMember(0)).double()


def test_selection():
    trained = Trained(two_rules(), toy_task())
    seen = toy_task().splits["seen:a"]
    x, y = seen.data.columns["x"], seen.data.columns["y"]
    wanted = [float(((x[:, k] > 0).long() == y).double().mean()) for k in range(2)]
    assert member_scores(trained, seen, LAB) == pytest.approx(wanted)
    best = select_member(trained, seen, LAB)
    assert best.model.rule == SingleMember(int(np.argmax(wanted))) == SingleMember(1)
    assert trained.model.rule == SingleMember(0)
    order = rank_by_disagreement(trained.model, toy_task().splits["bare"].data, 5, LAB)
    u = toy_task().splits["bare"].data.columns["x"].double()
    gap = ((5 * u[:, 0]).sigmoid() - (5 * u[:, 1]).sigmoid()).abs()
    assert order.tolist() == gap.argsort(descending=True)[:5].tolist()


def bare() -> Task:
    task = toy_task()
    return replace(task, splits={n: s for n, s in task.splits.items() if s.use is not Use.ADAPT})


def test_labels_of_unlabelled_data_do_not_matter_and_this_is_said_once(caplog):
    task = toy_task()
    columns = task.splits["bare"].data.columns
    wrong = replace(
        task.splits["bare"],
        data=type(task.splits["bare"].data)(**columns, y=torch.ones(64, dtype=torch.long)),
    )
    labelled = replace(task, splits={**task.splits, "bare": wrong})
    for method, name in ((DivDis(budget=SGD), "DivDis"), (DBAT(budget=SGD), "D-BAT")):
        a = method.fit(model(), task, LAB).model
        assert not caplog.messages
        b, _ = method.fit_many([model(), model()], labelled, [LAB, LAB])
        assert_close(dict(a.state_dict()), dict(b.model.state_dict()), rtol=1e-9, atol=1e-11)
        assert caplog.messages == [
            f"{name} does not read the labels of the unlabelled data (bare)."
        ]
        caplog.clear()


def test_refusals():
    for method in (DivDis(budget=SGD), DBAT(budget=SGD)):
        with pytest.raises(InvalidData, match="no ADAPT split"):
            method.fit(model(), bare(), LAB)
    for make, word in (
        (lambda: DivDis(members=0), "members=0"),
        (lambda: DBAT(weight=-1), "weight=-1"),
    ):
        with pytest.raises(InvalidConfig, match=word):
            make()
    with pytest.raises(InvalidData, match="1 example"):
        DivDis(budget=replace(SGD, batch_size=1)).fit(model(), toy_task(), LAB)
    with pytest.raises(InvalidData, match="no pair"):
        over_pairs(probabilities(4, 2, 0)[None], disagreement)
