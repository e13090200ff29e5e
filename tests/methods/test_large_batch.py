"""The √ rule, regime adaptation and what is refused."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis.strategies import integers, lists
from torch import nn

from unseen.engine.batches import Columns
from unseen.engine.evaluate import per_example
from unseen.engine.loop import Budget, Optimizer
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.methods.ghost_batch_norm import GhostBatchNorm1d
from unseen.methods.large_batch import (
    LargeBatch,
    adapt_regime,
    keep_epochs,
    root_lr,
    updates_per_rate,
)
from unseen.models.mlp import mlp
from unseen.objectives import classify
from unseen.task import Axis, Split, Task, Use

SMALL = Budget(
    steps=2_560, batch_size=32, lr=0.1, optimizer=Optimizer.SGD, drops=(1_280, 2_048), warmup=64
)


def task(n=256):
    x = torch.randn(n, 4, generator=Lab(seed=3).generator())
    data = Columns(x=x, y=(x[:, 0] > 0).long())
    return Task(
        name="t", axis=Axis.IID, objective=classify, splits={"train": Split(data, Use.TRAIN)}
    )


def model():
    with Lab(seed=1).seeded():
        return mlp([4, 8, 2], norm=nn.BatchNorm1d)


def test_same_epochs_make_fewer_updates_and_adaptation_as_many_at_each_rate():
    large = keep_epochs(SMALL, 1_024)
    assert (large.steps, large.drops, large.warmup, large.batch_size) == (80, (40, 64), 2, 1_024)
    assert large.steps * large.batch_size == SMALL.steps * SMALL.batch_size
    long = adapt_regime(SMALL, 1_024)
    assert updates_per_rate(long) == updates_per_rate(SMALL) == [1_280, 768, 512]
    assert replace(long, batch_size=32) == SMALL


@given(
    small=integers(1, 64),
    ratio=integers(1, 40),
    rest=integers(0, 63),
    drops=lists(integers(0, 900), max_size=3),
)
def test_adaptation_multiplies_epochs_by_the_rounded_up_ratio(small, ratio, rest, drops):
    budget = Budget(steps=1_000, batch_size=small, drops=tuple(sorted(drops)))
    size = small * ratio + min(rest, small - 1)
    long, short = adapt_regime(budget, size), keep_epochs(budget, size)
    epochs = -(-size // small)
    exact = epochs * small / size  # 1 for whole ratios
    assert 1 <= exact < 2
    for got, one in zip((long.steps, *long.drops), (1_000, *sorted(drops)), strict=True):
        assert abs(got - one * exact) <= 0.5
    # the same epochs, up to the rounding of a single update
    assert abs(short.steps - 1_000 * small / size) <= 0.5 or short.steps == 1
    if size % small == 0:
        assert updates_per_rate(long) == updates_per_rate(budget)


def test_root_rule_keeps_the_covariance_of_an_update():
    # Cov(Δw) = η²/B Σ: drawn gradients, with replacement so that B ≪ N holds
    generator = Lab(seed=2).generator()
    gradients = torch.randn(1_000, generator=generator) * 3

    def spread(lr, size):
        drawn = gradients[torch.randint(1_000, (4_000, size), generator=generator)]
        return (lr * drawn.mean(1)).var().item()

    # 4,000 draws: relative error of a variance √(2/4000) = 0.022
    assert spread(root_lr(0.1, 8, 128), 128) == pytest.approx(spread(0.1, 8), rel=0.15)
    assert spread(0.1, 128) < spread(0.1, 8) / 8
    assert root_lr(0.1, 128, 128) == 0.1


def test_variants_differ_as_said():
    plain = LargeBatch(SMALL, 512, root=False, adapt=False, ghost=None).budget
    assert plain == keep_epochs(SMALL, 512)
    assert LargeBatch(SMALL, 512, adapt=False).budget.lr == pytest.approx(0.4)
    full = LargeBatch(SMALL, 512).budget
    assert (full.steps, full.lr, full.batch_size) == (2_560, pytest.approx(0.4), 512)
    assert LargeBatch(SMALL, 32, ghost=None).budget == SMALL


def test_fit_makes_that_many_updates_logs_the_rate_and_leaves_ghosts():
    logged = {}

    class Sink:
        def log(self, path, scalars):
            logged.update(scalars)

        def track(self, path, items, total):
            return iter(items)

    small = Budget(steps=40, batch_size=16, lr=0.05, optimizer=Optimizer.SGD, drops=(30,), clip=5.0)
    trained = LargeBatch(small, batch_size=64, ghost=16).fit(model(), task(), Lab(sink=Sink()))
    assert logged["lr"] == pytest.approx(0.1)
    assert len(trained.curves["loss"]) == logged["updates"] == 40
    assert [type(m) for m in trained.model if isinstance(m, nn.BatchNorm1d)] == [GhostBatchNorm1d]
    assert (
        per_example(trained.model, task().splits["train"].data, classify.score, Lab()).mean() > 0.8
    )
    short = LargeBatch(small, batch_size=64, adapt=False, ghost=None).fit(model(), task(), Lab())
    assert len(short.curves["loss"]) == 10
    assert not any(isinstance(m, GhostBatchNorm1d) for m in short.model)


def test_the_small_batch_as_large_batch_is_the_plain_regime():
    small = Budget(steps=20, batch_size=16, lr=0.05, optimizer=Optimizer.SGD)
    a = LargeBatch(small, batch_size=16, ghost=None).fit(model(), task(), Lab())
    b = LargeBatch(small, batch_size=16, root=False, adapt=False, ghost=16).fit(
        model(), task(), Lab()
    )
    assert a.curves["loss"] == b.curves["loss"]


@pytest.mark.parametrize("bad", [{"batch_size": 16}, {"ghost": 1}, {"ghost": -8}, {"ghost": 0}])
def test_impossible_batches_are_refused(bad):
    with pytest.raises(InvalidConfig, match="out of range"):
        LargeBatch(SMALL, **bad)


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(InvalidConfig, match="larger than the 256 examples of split `train`"):
        LargeBatch(SMALL, 512).fit(model(), task(), Lab())
