"""Unrolled effects are derivatives of training, and segments of a quadratic are exact."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from unseen.attributions.influence import Curvature, Fisher, Influence
from unseen.attributions.influence.segments import gather, pass_through, segment_scores
from unseen.engine.batches import Columns
from unseen.engine.kron import KroneckerBlock
from unseen.engine.loop import Budget, Optimizer, Schedule
from unseen.engine.operation_count import CountOperations
from unseen.engine.retrain import retrain_reweighted
from unseen.engine.unrolled import record_descent, unrolled_effects
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.models.mlp import mlp
from unseen.objectives import classify, cross_entropy, regress
from unseen.task import Axis, Split, Task, Use

LAB = Lab(seed=3, dtype=torch.float64)
SGD = Budget(
    steps=12,
    batch_size=4,
    lr=0.1,
    optimizer=Optimizer.SGD,
    momentum=0.8,
    weight_decay=0.01,
    schedule=Schedule.COSINE,
)


def images(n: int, seed: str) -> dict[str, torch.Tensor]:
    g = LAB.child(seed).generator()
    x = torch.randn(n, 4, generator=g, dtype=torch.float64)
    return {"x": x, "y": torch.randint(3, (n,), generator=g)}


def task_of(columns, objective=classify) -> Task:
    return Task(
        name="t",
        axis=Axis.IID,
        splits={"a": Split(Columns(**columns), Use.TRAIN)},
        objective=objective,
    )


def make_model() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def test_unrolled_effects_are_central_differences_of_retraining():
    task, asked = task_of(images(10, "data")), images(3, "queries")
    with LAB.child("init", 0).seeded():
        model = make_model()
    descent = record_descent(model, task, SGD, LAB.child("fit", 0))
    found = unrolled_effects(descent, asked, cross_entropy, LAB)
    step, eye = 1e-4, torch.eye(10, dtype=torch.float64)
    weights = torch.cat([torch.ones(1, 10, dtype=torch.float64), 1 + step * eye, 1 - step * eye])
    models = retrain_reweighted(make_model, task, weights, SGD, LAB, seeds=[0])
    outputs = torch.stack([cross_entropy(one[0].model, asked).detach() for one in models])
    assert_close(cross_entropy(descent.trained.model, asked).detach(), outputs[0])
    # a set of weights is scaled to a mean of 1: the difference has the mean effect taken away
    want = ((outputs[1:11] - outputs[11:]) / (2 * step)).T
    assert_close(found - found.mean(1, keepdim=True), want, rtol=1e-4, atol=1e-6)


def test_effects_add_up_over_queries_and_splits_of_them():
    task, asked = task_of(images(10, "data")), images(3, "queries")
    with LAB.child("init", 0).seeded():
        model = make_model()
    descent = record_descent(model, task, SGD, LAB.child("fit", 0))
    found = unrolled_effects(descent, asked, cross_entropy, LAB)
    alone = {name: tensor[1:2] for name, tensor in asked.items()}
    assert_close(unrolled_effects(descent, alone, cross_entropy, LAB), found[1:2])
    twice = unrolled_effects(descent, asked, lambda m, b: 2 * cross_entropy(m, b), LAB)
    assert_close(twice, 2 * found)


def test_segments_of_a_line_are_its_unrolled_descent():
    """One parameter and a quadratic loss: curvature is the same everywhere, and small steps follow
    the flow that segments integrate."""
    g = LAB.child("line").generator()
    x = torch.ones(6, 1, dtype=torch.float64)
    y = torch.randn(6, 1, generator=g, dtype=torch.float64)
    task = task_of({"x": x, "y": y}, regress)
    budget = replace(SGD, steps=100, batch_size=6, lr=0.02, momentum=0.0, weight_decay=0.02,
                     schedule=Schedule.CONSTANT)  # fmt: skip
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(model.weight, 3.0)
    descent = record_descent(model, task, budget, LAB.child("fit", 0))
    asked = {"x": x[:2], "y": y[:2]}

    def answer(model: nn.Module, batch) -> torch.Tensor:
        return model(batch["x"])[:, 0]

    exact = unrolled_effects(descent, asked, answer, LAB)
    plug = Influence(Curvature.EKFAC, Fisher.SAMPLED, draws=100, damping=0.0)
    errors = [
        float((segment_scores(descent, plug, k, asked, answer, LAB) - exact).norm() / exact.norm())
        for k in (1, 8)
    ]
    assert errors[1] < errors[0]
    assert errors[1] < 0.1  # gradients change within a segment, and labels are drawn
    block = KroneckerBlock(None, None, torch.tensor([[0.0, 2.0]]))
    v = torch.ones(1, 1, 2)
    assert_close(gather(block, v, 3.0, 0.0), torch.tensor([[[3.0, (1 - math.exp(-6)) / 2]]]))
    assert_close(pass_through(block, v, 3.0, 0.0), torch.tensor([[[1.0, math.exp(-6)]]]))
    with pytest.raises(InvalidConfig, match="segments=0"):
        segment_scores(descent, plug, 0, asked, answer, LAB)


def test_other_descents_are_refused():
    task = task_of(images(10, "data"))
    for other in (Budget(), replace(SGD, clip=1.0)):
        with pytest.raises(InvalidConfig, match="unrolled"):
            record_descent(make_model(), task, other, LAB)


def test_operations_are_counted_below_transforms():
    a, b = torch.randn(3, 4), torch.randn(4, 5)
    with CountOperations() as counter:
        a @ b
    assert counter.total == 2 * 3 * 4 * 5
    with CountOperations() as counter:
        torch.func.vmap(lambda row: torch.func.jvp(lambda r: r @ b, (row,), (row,))[1])(a)
    assert counter.total >= 2 * 2 * 3 * 4 * 5  # value and tangent
    model, batch = mlp([4, 3]), {"x": a, "y": torch.tensor([0, 1, 2])}
    with CountOperations() as counter:
        torch.autograd.grad(cross_entropy(model, batch).sum(), list(model.parameters()))
    assert counter.total == 2 * 2 * 3 * 4 * 3
