"""Learning order on histories whose answer is plain, against loops, and recorded from a training
run.
"""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from unseen.engine.batches import Columns
from unseen.engine.loop import Budget, erm_step, train
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.measures.learning_order import (
    HitRecorder,
    LearningOrder,
    final_learning_time,
    first_learning_time,
    forgetting_events,
)
from unseen.models.mlp import mlp
from unseen.objectives import classify
from unseen.task import Axis, Split, Task, Use

HISTORY = torch.tensor(
    [[1, 0, 0, 0, 1], [1, 1, 0, 1, 0], [1, 0, 0, 1, 1], [1, 1, 0, 1, 0]], dtype=torch.bool
)  # always, in and out, never, from 1 on, lost at the end


def table(evaluations, examples, seed):
    return torch.rand(evaluations, examples, generator=torch.Generator().manual_seed(seed)) > 0.4


def test_closed_cases():
    assert first_learning_time(HISTORY).tolist() == [0, 1, 4, 1, 0]
    assert final_learning_time(HISTORY).tolist() == [0, 3, 4, 1, 4]
    assert forgetting_events(HISTORY).tolist() == [0, 1, 0, 0, 2]


@given(evaluations=st.integers(1, 7), examples=st.integers(1, 9), seed=st.integers(0, 999))
def test_times_and_counts_equal_a_loop(evaluations, examples, seed):
    hits = table(evaluations, examples, seed)
    for k in range(examples):
        column = hits[:, k].tolist()
        assert first_learning_time(hits)[k] == next(
            (t for t, hit in enumerate(column) if hit), evaluations
        )
        assert final_learning_time(hits)[k] == next(
            t for t in range(evaluations + 1) if all(column[t:])
        )
        assert forgetting_events(hits)[k] == sum(a and not b for a, b in pairwise(column))
    assert (final_learning_time(hits) >= first_learning_time(hits)).all()


@pytest.mark.parametrize("stays", [False, True])
def test_agreement_is_the_mean_spearman_over_pairs(stays):
    runs = [table(9, 40, seed) for seed in range(3)]
    time = final_learning_time if stays else first_learning_time
    reading = LearningOrder(stays)(runs, Lab())
    pairs = [spearmanr(time(runs[a]), time(runs[b])).statistic for a, b in ((0, 1), (0, 2), (1, 2))]
    assert reading.value == pytest.approx(sum(pairs) / 3)
    assert reading.low < reading.value < reading.high
    assert reading.detail.tolist() == pytest.approx(
        torch.stack([time(hits).double() for hits in runs]).mean(0).tolist()
    )


def test_agreement_ignores_the_order_of_runs_and_of_examples_and_the_grid_of_evaluations():
    a, b = table(6, 30, 0), table(6, 30, 1)
    value = LearningOrder()([a, b], Lab()).value
    shuffled = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    assert LearningOrder()([b, a], Lab()).value == pytest.approx(value)
    assert LearningOrder()([a[:, shuffled], b[:, shuffled]], Lab()).value == pytest.approx(value)
    assert LearningOrder()([a, b.repeat_interleave(2, 0)], Lab()).value == pytest.approx(
        value
    )  # only ranks count


def test_equal_and_reversed_orders_are_the_extremes():
    steps = torch.arange(5)
    order = steps[:, None] >= steps  # example k is learned at evaluation k
    assert LearningOrder()([order, order], Lab()).value == pytest.approx(1)
    assert LearningOrder()([order, order.flip(1)], Lab()).value == pytest.approx(-1)


@pytest.mark.parametrize(
    "runs",
    [
        [table(3, 5, 0)],
        [table(3, 5, 0), table(3, 6, 0)],
        [table(3, 5, 0).float(), table(3, 5, 1).float()],
        [torch.zeros(0, 5, dtype=torch.bool)] * 2,
        [torch.ones(3, 5, dtype=torch.bool)] * 2,  # all learned at once: there is no order
    ],
)
def test_what_has_no_order_is_refused(runs):
    with pytest.raises(InvalidData):
        LearningOrder()(runs, Lab())


def test_recorder_keeps_what_the_model_got_right_and_nothing_recorded_is_refused():
    lab = Lab()
    x = torch.randn(20, 3, generator=lab.generator())
    split = Split(Columns(x=x, y=(x[:, 0] > 0).long()), Use.TRAIN)
    task = Task(name="t", axis=Axis.IID, splits={"train": split}, objective=classify)
    recorder = HitRecorder(split, classify.score, lab)
    with pytest.raises(InvalidData):
        _ = recorder.hits
    with lab.seeded():
        model = mlp([3, 8, 2])
    trained = train(
        model,
        task,
        erm_step,
        Budget(30, lr=0.05, watch_at=(0, 15, 30)),
        lab,
        {"accuracy": recorder},
    )
    assert recorder.hits.shape == (3, 20)
    assert recorder.hits.float().mean(1).tolist() == pytest.approx(trained.curves["accuracy"])
    assert torch.equal(recorder.hits[-1], classify.score(trained.model, split.data.columns) > 0.5)


def test_means_are_the_shares_of_hits_among_the_marked_examples():
    hits = torch.rand(5, 20, generator=Lab().generator()) > 0.4
    marked = torch.arange(20) % 3 == 0
    split = Split(Columns(x=torch.zeros(20, 1)), Use.TRAIN)
    recorder = HitRecorder(split, classify.score, Lab(), list(hits))
    assert recorder.means(marked) == pytest.approx([sum(row[::3].tolist()) / 7 for row in hits])
    with pytest.raises(InvalidData, match="table of hits"):
        HitRecorder(split, classify.score, Lab()).means(marked)
