"""Gradient similarity against a plain loop over autograd, and against what a gradient step really
does.
"""

import copy

import pytest
import torch
from oracles import gradients as oracle
from torch.testing import assert_close

from unseen.attributions.gradient_similarity import GradientSimilarity
from unseen.engine.batches import Columns, whole
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.models.mlp import mlp
from unseen.objectives import classify
from unseen.task import Axis, Split, Task, Use

LAB = Lab(dtype=torch.float64)


def trained(n: int = 11) -> Trained:
    g = LAB.generator()
    x, y = torch.randn(n, 5, generator=g, dtype=torch.float64), torch.randint(3, (n,), generator=g)
    splits = {
        "a": Split(Columns(x=x[:6], y=y[:6]), Use.TRAIN),
        "b": Split(Columns(x=x[6:], y=y[6:]), Use.TRAIN),
    }
    with LAB.child("init").seeded():
        model = mlp([5, 7, 3]).double().eval()
    return Trained(model, Task(name="t", axis=Axis.IID, splits=splits, objective=classify))


def queries() -> dict[str, torch.Tensor]:
    g = LAB.child("queries").generator()
    return {
        "x": torch.randn(4, 5, generator=g, dtype=torch.float64),
        "y": torch.randint(3, (4,), generator=g),
    }


def test_dots_and_cosines_equal_a_loop():
    run, loss = trained(), classify.loss
    asked = rows(run.model, queries())
    given = torch.cat([rows(run.model, whole(run.task.splits[name].data, LAB)) for name in "ab"])
    for cosine, want in ((False, -asked @ given.T), (True, -_unit(asked) @ _unit(given).T)):
        credits = GradientSimilarity(cosine, batch_size=4).prepare(run, LAB)(queries(), loss)
        assert_close(credits.scores, want)


def rows(model, batch) -> torch.Tensor:
    return oracle.flattened(oracle.per_example_gradients(model, batch, classify.loss))


def _unit(rows: torch.Tensor) -> torch.Tensor:
    return rows / rows.norm(dim=1, keepdim=True)


def test_the_score_is_the_rate_of_change_under_a_step_on_the_example():
    run, step = trained(), 1e-6
    scores = GradientSimilarity(cosine=False).prepare(run, LAB)(queries(), likelihood).scores[:, 0]
    model = copy.deepcopy(run.model)
    first = {k: v[:1] for k, v in run.task.splits["a"].data[:1].items()}
    before = likelihood(model, queries()).detach()
    classify.loss(model, first).sum().backward()
    with torch.no_grad():
        for p in model.parameters():
            p -= step * p.grad
    assert_close(
        (likelihood(model, queries()).detach() - before) / step, scores, rtol=1e-3, atol=1e-5
    )


def likelihood(model, batch):
    return -classify.loss(model, batch)


def test_a_constant_behaviour_gets_no_credit():
    credits = GradientSimilarity().prepare(trained(), LAB)(
        queries(), lambda m, b: 0 * classify.loss(m, b)
    )
    assert_close(credits.scores, torch.zeros(4, 11, dtype=torch.float64))


def test_overflowing_losses_are_refused():
    run = trained()
    with pytest.raises(InvalidData):
        GradientSimilarity(cosine=False).prepare(run, LAB)(
            queries(), lambda m, b: classify.loss(m, b) * float("inf")
        )
