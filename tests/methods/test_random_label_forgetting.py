"""Random labels: uniform, drawn by name and not by order; forgetting that stops at its fit; the
control.
"""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from sklearn.metrics import mutual_info_score
from torch.testing import assert_close

from unseen.engine.batches import Columns
from unseen.engine.loop import Budget
from unseen.engine.responses import Exchange
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.methods.random_label_forgetting import (
    LabelDraw,
    RandomLabelForgetting,
    agreement,
    draw_labels,
    exchanges_of,
    item_labels,
    relabel_task,
    updates,
)
from unseen.models.mlp import mlp
from unseen.objectives import classify
from unseen.task import Axis, Split, Task, Use
from unseen.tasks.graded_questions import Item

NAMES = [f"item {k}" for k in range(1_000)]
TRUTH = [k % 4 for k in range(1_000)]
FOUR = [4] * 1_000


@pytest.mark.parametrize("draw", list(LabelDraw))
def test_labels_are_uniform(draw):
    drawn = draw_labels(TRUTH, FOUR, NAMES, draw, Lab())
    assert chisquare(np.bincount(drawn, minlength=4)).pvalue > 0.001


def test_independent_labels_say_nothing_about_the_truth_and_depend_on_the_name():
    drawn = draw_labels(TRUTH, FOUR, NAMES, LabelDraw.INDEPENDENT, Lab())
    assert mutual_info_score(TRUTH, drawn) < 0.02
    few = draw_labels(TRUTH[5:9], [4] * 4, NAMES[5:9], LabelDraw.INDEPENDENT, Lab())
    assert few == drawn[5:9]
    assert draw_labels(TRUTH, FOUR, NAMES, LabelDraw.INDEPENDENT, Lab(1)) != drawn


def test_stratified_labels_agree_with_the_truth_as_often_as_chance():
    truth = [0] * 7 + [1] * 10 + [2] * 13
    drawn = draw_labels(truth, [3] * 30, NAMES[:30], LabelDraw.STRATIFIED, Lab())
    for label in range(3):
        mine = [d for d, t in zip(drawn, truth, strict=True) if t == label]
        counts = np.bincount(mine, minlength=3)
        assert counts.max() - counts.min() <= 1
    order = np.random.default_rng(0).permutation(30)
    again = draw_labels(
        [truth[k] for k in order], [3] * 30, [NAMES[k] for k in order],
        LabelDraw.STRATIFIED, Lab(),
    )  # fmt: skip
    assert again == [drawn[k] for k in order]
    assert agreement(truth, drawn) == pytest.approx(1 / 3, abs=0.1)


def test_items_may_have_different_numbers_of_choices():
    drawn = draw_labels([0, 1, 2, 1], [2, 2, 3, 3], list("abcd"), LabelDraw.INDEPENDENT, Lab())
    assert all(d < c for d, c in zip(drawn, [2, 2, 3, 3], strict=True))


def test_labels_of_items_become_exchanges():
    items = [Item(f"{k} + 1?", (str(k + 1), str(k)), k % 2, f"n{k}") for k in range(4)]
    labels = item_labels(items, LabelDraw.STRATIFIED, Lab())
    assert sum(label == item.answer for label, item in zip(labels, items, strict=True)) == 2
    first = exchanges_of(items, [1, 0, 0, 0])[0]
    assert first == Exchange("Question: 0 + 1?\nAnswer:", " 0")


def known_task(n: int = 64) -> Task:
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(0))
    columns = Columns(x=x, y=(x.sum(1) > 0).long())
    return Task(
        name="signs", axis=Axis.TASK, splits={"train": Split(columns, Use.TRAIN)},
        objective=classify,
    )  # fmt: skip


def network():
    with Lab().child("init").seeded():
        return mlp([2, 64, 2])


def accuracy(model, task: Task) -> float:
    return classify.score(model, task.splits["train"].data.columns).mean().item()


def test_random_labels_are_memorised_and_training_stops_there():
    task = known_task(16)
    method = RandomLabelForgetting(Budget(steps=2_000, batch_size=16, lr=1e-2), stop_at=0.95)
    trained = method.fit(network(), task, Lab())
    done = updates(trained.curves["fit"], 0.95)
    assert done < 2_000
    drawn = relabel_task(task, LabelDraw.STRATIFIED, Lab().child("labels"))
    assert accuracy(trained.model, drawn) >= 0.95
    assert trained.task is task
    shorter = RandomLabelForgetting(Budget(steps=done, batch_size=16, lr=1e-2), stop_at=0.95)
    again = shorter.fit(network(), task, Lab())
    assert_close(dict(again.model.named_parameters()), dict(trained.model.named_parameters()))


def test_the_control_trains_on_the_true_labels_to_the_last_step():
    task = known_task()
    method = RandomLabelForgetting(Budget(steps=200, batch_size=64, lr=1e-2), true_labels=True)
    trained = method.fit(network(), task, Lab())
    assert accuracy(trained.model, task) == 1
    assert trained.curves["loss"][-1] < trained.curves["loss"][100]


def test_redrawn_labels_lead_to_the_uniform_answer():
    task = known_task()
    model = RandomLabelForgetting(
        Budget(steps=300, batch_size=64, lr=1e-2), true_labels=True
    ).fit(network(), task, Lab()).model  # fmt: skip
    x = task.splits["train"].data.columns["x"]
    assert model(x).softmax(1).amax(1).mean() > 0.9
    redrawn = RandomLabelForgetting(
        Budget(steps=600, batch_size=64, lr=3e-3), redraw=True, stop_at=1.0
    )
    trained = redrawn.fit(model, task, Lab())
    assert trained.model(x).softmax(1).amax(1).mean() <= 0.6


def test_what_cannot_be_forgotten_is_refused():
    with pytest.raises(InvalidData, match="label 3 alone"):
        draw_labels([3, 3], [4, 4], ["a", "b"], LabelDraw.STRATIFIED, Lab())
    with pytest.raises(InvalidData, match="called `a`"):
        draw_labels([0, 1], [2, 2], ["a", "a"], LabelDraw.STRATIFIED, Lab())
    with pytest.raises(InvalidData, match="`b` has 1 choices"):
        draw_labels([0, 1], [2, 1], ["a", "b"], LabelDraw.STRATIFIED, Lab())
    with pytest.raises(InvalidConfig, match="fit of 0"):
        RandomLabelForgetting(stop_at=0)
    numbers = Columns(x=torch.zeros(4, 2), y=torch.zeros(4))
    task = Task(
        name="n", axis=Axis.TASK, splits={"train": Split(numbers, Use.TRAIN)}, objective=classify
    )
    with pytest.raises(InvalidData, match="no column `y` of classes"):
        RandomLabelForgetting().fit(network(), task, Lab())
