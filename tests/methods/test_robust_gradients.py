"""Robust means of gradients against loops over coordinates, and the steps against per-example
gradients.
"""

from collections import deque
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from unseen.engine.batches import Columns
from unseen.engine.loop import Budget, Draw, Optimizer, erm_step, train
from unseen.engine.parameters import trainable
from unseen.errors import InvalidConfig, UnsupportedLayer
from unseen.lab import Lab
from unseen.methods import robust_gradients
from unseen.methods.robust_gradients import (
    MedianOfMicrobatches,
    RollingMedian,
    WinsorizedMean,
    median,
    microbatch_median_step,
    rolling_median_step,
    winsorized_mean,
    winsorized_step,
)
from unseen.models.mlp import mlp
from unseen.objectives import classify
from unseen.task import Axis, Objective, Split, Task, Use


def by_definition(rows, c):
    """Column by column: sort, clip to the (c + 1)-th smallest and largest, average."""
    out = []
    for column in rows.T:
        ordered = sorted(column.tolist())
        low, high = ordered[c], ordered[-c - 1]
        out.append(sum(min(max(value, low), high) for value in column.tolist()) / len(column))
    return np.array(out)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


sizes = st.integers(1, 9).flatmap(lambda b: st.tuples(st.just(b), st.integers(0, (b - 1) // 2)))


@given(bc=sizes, p=st.integers(1, 12), part=st.integers(1, 30), seed=st.integers(0, 999))
def test_winsorized_mean_is_the_definition_for_any_chunking(bc, p, part, seed):
    b, c = bc
    rows = normal(b, p, seed=seed).round(decimals=1)  # with ties
    before, robust_gradients.PART = robust_gradients.PART, part
    try:
        found = winsorized_mean(rows, c)
    finally:
        robust_gradients.PART = before
    np.testing.assert_allclose(found.numpy(), by_definition(rows.numpy(), c), atol=1e-12)
    assert torch.equal(
        rows, normal(b, p, seed=seed).round(decimals=1)
    )  # the input is not sorted in place


@given(bc=sizes, shift=st.floats(-5, 5), scale=st.floats(0.1, 10), seed=st.integers(0, 99))
def test_winsorized_mean_moves_and_scales_with_its_input(bc, shift, scale, seed):
    b, c = bc
    rows = normal(b, 5, seed=seed)
    torch.testing.assert_close(
        winsorized_mean(scale * rows + shift, c), scale * winsorized_mean(rows, c) + shift
    )
    torch.testing.assert_close(winsorized_mean(-rows, c), -winsorized_mean(rows, c))


@pytest.mark.parametrize("b", [1, 2, 3, 4, 7, 8])
def test_the_extreme_levels_are_mean_and_median(b):
    rows = normal(b, 6)
    torch.testing.assert_close(winsorized_mean(rows, 0), rows.mean(0))
    torch.testing.assert_close(
        winsorized_mean(rows, (b - 1) // 2), torch.from_numpy(np.median(rows.numpy(), 0))
    )
    torch.testing.assert_close(median(list(rows)), torch.from_numpy(np.median(rows.numpy(), 0)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_dtypes_take_the_same_way(dtype):
    rows = normal(7, 40, dtype=torch.float32).to(dtype)
    expected = by_definition(rows.float().numpy(), 2)
    np.testing.assert_allclose(
        winsorized_mean(rows, 2).float().numpy(),
        expected,
        atol=3e-2 if dtype != torch.float32 else 1e-6,
    )


def test_one_wild_gradient_has_bounded_weight():
    rows = torch.zeros(5, 3, dtype=torch.float64)
    rows[0] = torch.tensor([1e30, float("inf"), -1e30])
    assert winsorized_mean(rows, 1).tolist() == [0, 0, 0]


@pytest.mark.parametrize(("b", "c"), [(4, 2), (3, 2), (1, 1), (5, -1)])
def test_impossible_levels_are_refused(b, c):
    with pytest.raises(InvalidConfig, match="impossible"):
        winsorized_mean(torch.zeros(b, 2), c)


def small(n=9, seed=0):
    """A model, a batch and the gradients of its examples, one by one, in float64."""
    with Lab(seed).seeded():
        model = mlp([4, 5, 3]).double()
    batch = {"x": normal(n, 4, seed=seed), "y": torch.arange(n) % 3}
    rows = {name: [] for name in trainable(model)}
    for k in range(n):
        loss = classify.loss(
            model, {name: tensor[k : k + 1] for name, tensor in batch.items()}
        ).sum()
        for name, g in zip(
            rows, torch.autograd.grad(loss, list(trainable(model).values())), strict=True
        ):
            rows[name].append(g)
    return model, batch, {name: torch.stack(g) for name, g in rows.items()}


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("c", [0, 1, 4])
def test_winsorized_step_uses_the_gradients_of_single_examples(c, parts):
    model, batch, rows = small()
    cut = {0: slice(0, 9)} if parts == 1 else {0: slice(0, 4), 1: slice(4, 9)}
    fit = {
        str(k): {name: tensor[where] for name, tensor in batch.items()} for k, where in cut.items()
    }
    loss = winsorized_step(model, Draw(fit, {}), classify, c=c)
    torch.testing.assert_close(loss, classify.loss(model, batch).mean().detach())
    for name, p in model.named_parameters():
        np.testing.assert_allclose(
            p.grad.flatten().numpy(), by_definition(rows[name].flatten(1).numpy(), c), atol=1e-12
        )


def test_microbatch_steps_use_the_mean_gradients_of_consecutive_parts():
    model, batch, rows = small(8)
    means = {
        name: torch.stack([g[:3].mean(0), g[3:6].mean(0), g[6:].mean(0)])
        for name, g in rows.items()
    }
    for step in (
        partial(microbatch_median_step, k=3),
        partial(winsorized_step, c=1, microbatches=3),
    ):
        model.zero_grad()
        loss = step(model, Draw({"train": batch}, {}), classify)
        torch.testing.assert_close(loss, classify.loss(model, batch).mean().detach())
        for name, p in model.named_parameters():
            np.testing.assert_allclose(
                p.grad.numpy(), np.median(means[name].numpy(), 0), atol=1e-12
            )


def test_rolling_median_is_over_the_last_three_minibatches():
    model, batch, rows = small(8)
    past, means = deque(maxlen=3), []
    for part in range(4):
        model.zero_grad()
        where = slice(2 * part, 2 * part + 2)
        draw = Draw({"train": {name: tensor[where] for name, tensor in batch.items()}}, {})
        rolling_median_step(model, draw, classify, past=past)
        means.append({name: g[where].mean(0).numpy() for name, g in rows.items()})
        for name, p in model.named_parameters():
            expected = np.median([m[name] for m in means[-3:]], 0)
            np.testing.assert_allclose(p.grad.numpy(), expected, atol=1e-12)


def test_too_many_microbatches_are_refused():
    model, batch, _ = small(3)
    with pytest.raises(InvalidConfig, match="cannot be cut into 4"):
        microbatch_median_step(model, Draw({"train": batch}, {}), classify, k=4)
    with pytest.raises(InvalidConfig, match="window=0"):
        RollingMedian(window=0)


def task(n=12):
    data = Columns(x=normal(n, 4), y=torch.arange(n) % 3)
    return Task(
        name="t", axis=Axis.IID, splits={"train": Split(data, Use.TRAIN)}, objective=classify
    )


def weights(fit, lab):
    with lab.seeded():
        model = mlp([4, 5, 3])
    trained = fit(model)
    return torch.cat([p.detach().flatten() for p in trained.model.parameters()])


BUDGET = Budget(steps=15, batch_size=6, lr=0.2, optimizer=Optimizer.SGD)
FLOAT64 = Lab(dtype=torch.float64)


def test_level_0_and_one_microbatch_are_plain_descent():
    plain = weights(lambda model: train(model, task(), erm_step, BUDGET, FLOAT64), FLOAT64)
    for method in (
        WinsorizedMean(c=0, budget=BUDGET),
        MedianOfMicrobatches(k=1, budget=BUDGET),
        RollingMedian(1, BUDGET),
    ):
        torch.testing.assert_close(
            weights(lambda model, m=method: m.fit(model, task(), FLOAT64), FLOAT64), plain
        )


def test_rolling_median_of_a_constant_stream_is_plain_descent_on_a_linear_loss():
    """With f(w) = ⟨w, x⟩ the gradient never changes, so its rolling median is itself."""
    model = nn.Linear(3, 1, bias=False).double()
    data = Columns(x=normal(1, 3))
    linear = Objective(lambda m, batch: m(batch["x"])[:, 0], lambda m, batch: m(batch["x"])[:, 0])
    flat = Task(name="t", axis=Axis.IID, splits={"train": Split(data, Use.TRAIN)}, objective=linear)
    start = model.weight.detach().clone()
    RollingMedian(3, Budget(steps=10, lr=0.1, optimizer=Optimizer.SGD)).fit(model, flat, FLOAT64)
    torch.testing.assert_close(model.weight.detach(), start - 10 * 0.1 * data.columns["x"])


def test_gradient_clipping_does_not_reach_the_gradients_of_the_window():
    model, batch, rows = small(4)
    past = deque(maxlen=3)
    rolling_median_step(model, Draw({"train": batch}, {}), classify, past=past)
    nn.utils.clip_grad_norm_(model.parameters(), 1e-6)
    for name, g in past[0].items():
        torch.testing.assert_close(g, rows[name].mean(0))


def test_a_lonely_direction_is_suppressed():
    """Ten examples ask for the first weight, one asks for the second: the median moves the first
    only.
    """
    model = nn.Linear(2, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    x = torch.tensor([[1.0, 0.0]] * 10 + [[0.0, 1.0]], dtype=torch.float64)
    linear = Objective(lambda m, batch: -m(batch["x"])[:, 0], lambda m, batch: m(batch["x"])[:, 0])
    flat = Task(
        name="t", axis=Axis.IID, splits={"train": Split(Columns(x=x), Use.TRAIN)}, objective=linear
    )
    WinsorizedMean(1, budget=Budget(steps=1, batch_size=11, lr=1.0, optimizer=Optimizer.SGD)).fit(
        model, flat, FLOAT64
    )
    assert model.weight.tolist() == [[1.0, 0.0]]


def test_batch_normalisation_is_refused_by_per_example_gradients_only():
    with FLOAT64.seeded():
        model = mlp([4, 5, 3], norm=nn.BatchNorm1d)
    with pytest.raises(UnsupportedLayer, match="BatchNorm1d"):
        WinsorizedMean(budget=BUDGET).fit(model, task(), FLOAT64)
    assert MedianOfMicrobatches(budget=BUDGET).fit(model, task(), FLOAT64).curves["loss"][-1] < 2


def test_example_trains():
    with Lab().seeded():
        model = mlp([4, 5, 3])
    curve = robust_gradients.example().fit(model, task(), Lab()).curves["loss"]
    assert len(curve) == 20
    assert curve[-1] < curve[0]


def test_labels_tell_the_rules_apart():
    rules = (WinsorizedMean(4), WinsorizedMean(2), MedianOfMicrobatches(5), RollingMedian(3))
    assert [rule.label for rule in rules] == ["winsorized c=4", "winsorized c=2", "M5", "RM3"]
