"""What models did on a split, against scikit-learn on the same rows."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torch import nn

from unseen import stats
from unseen.engine.batches import Columns
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.objectives import classify, regress
from unseen.subjects.predictions import SplitPredictions, predict
from unseen.task import Axis, Split, Task, Use


def task_of(objective, **columns):
    split = Split(Columns(**columns), Use.TRAIN)
    return Task(name="toy", axis=Axis.IID, splits={"train": split}, objective=objective), split


def models(seeds: int, outputs: int) -> list[nn.Module]:
    with Lab(seed=0).seeded():
        return [nn.Linear(4, outputs) for _ in range(seeds)]


def test_scores_of_classes_are_scikit_learns():
    rng = np.random.default_rng(0)
    x, y = (
        torch.tensor(rng.normal(size=(60, 4)), dtype=torch.float32),
        torch.tensor(rng.integers(0, 2, 60)),
    )
    task, split = task_of(classify, x=x, y=y)
    nets = models(3, 2)
    found = predict(nets, task, split, Lab()).metrics()
    p = [net(x).double().softmax(1).detach().numpy() for net in nets]
    assert found["accuracy"].value == pytest.approx(
        np.mean([sk.accuracy_score(y, q.argmax(1)) for q in p])
    )
    assert found["AUC"].value == pytest.approx(np.mean([sk.roc_auc_score(y, q[:, 1]) for q in p]))
    assert found["loss"].value == pytest.approx(np.mean([sk.log_loss(y, q) for q in p]), rel=1e-5)
    assert {reading.n for reading in found.values()} == {60}


def numbers(
    seeds: int = 2, unit: float = 10.0
) -> tuple[SplitPredictions, np.ndarray, list[np.ndarray]]:
    rng = np.random.default_rng(1)
    x = torch.tensor(rng.normal(size=(80, 4)), dtype=torch.float32)
    y = x.sum(1) + torch.tensor(rng.normal(size=80), dtype=torch.float32)
    task, split = task_of(regress, x=x, y=y)
    nets = models(seeds, 1)
    predicted = [unit * net(x).flatten().detach().double().numpy() for net in nets]
    return predict(nets, task, split, Lab(), unit), unit * y.double().numpy(), predicted


def test_scores_of_numbers_are_scikit_learns_in_the_targets_own_unit():
    found, y, predicted = numbers()
    want = np.mean([sk.mean_absolute_error(y, p) for p in predicted])
    assert found.metrics()["mean absolute error"].value == pytest.approx(want, rel=1e-5)
    assert found.metrics()["R²"].value == pytest.approx(
        np.mean([sk.r2_score(y, p) for p in predicted]), rel=1e-5
    )


def test_the_interval_of_r2_is_the_bootstraps():
    found, y, (predicted,) = numbers(seeds=1)
    rng = np.random.default_rng(2)
    rows = rng.integers(80, size=(2_000, 80))
    drawn = np.std([sk.r2_score(y[i], predicted[i]) for i in rows])
    reading = found.metrics()["R²"]
    assert (reading.high - reading.low) / 2 / 1.99 == pytest.approx(
        drawn, rel=0.25
    )  # delta method against resampling


def test_a_change_of_errors_keeps_its_sign_and_unit():
    found, *_ = numbers()
    better = SplitPredictions(found.loss, found.score + 1, found.y, unit=found.unit)
    change = better.changes(found)["mean absolute error"]
    assert (change.value, change.low, change.high) == pytest.approx((-10, -10, -10))
    assert found.changes(found)["R²"].value == 0


def test_the_order_of_examples_does_not_matter():
    found, *_ = numbers()
    order = np.random.default_rng(3).permutation(80)
    assert found.y is not None
    turned = SplitPredictions(
        found.loss[:, order], found.score[:, order], found.y[order], unit=found.unit
    )
    for name, reading in found.metrics().items():
        other = turned.metrics()[name]
        assert (other.value, other.low, other.high) == pytest.approx(
            (reading.value, reading.low, reading.high)
        )


def test_one_example_has_no_interval():
    found, *_ = numbers()
    with pytest.raises(InvalidData, match="1 example"):
        found.metrics(np.arange(80) == 3)


def test_a_score_that_is_not_finite_is_refused():
    x = torch.zeros(5, 4)
    task, split = task_of(classify, x=x, y=torch.zeros(5, dtype=torch.int64))
    net = nn.Linear(4, 2)
    nn.init.constant_(net.weight, torch.nan)
    with pytest.raises(InvalidData, match="not finite on 5"):
        predict([net], task, split, Lab())


@pytest.mark.parametrize("is_number", [False, True])
def test_blocks_widen_every_interval_and_change_no_value(is_number):
    rng = np.random.default_rng(0)
    block = np.repeat(np.arange(12), 10)
    sign = rng.choice([-1.0, 1.0], 120)
    # a month in which the models err, errs in most rows
    right = rng.normal(0.4, 1.0, 12)[block] + rng.normal(0, 0.3, (3, 120))
    alone = SplitPredictions(
        loss=np.abs(right),
        score=-np.abs(right) if is_number else (right > 0).astype(float),
        y=rng.normal(size=120) if is_number else (sign > 0).astype(float),
        margin=None if is_number else right * sign,
        unit=2.0 if is_number else None,
    )
    together = replace(alone, block=block)
    base = replace(together, score=alone.score[:, ::-1], loss=alone.loss[:, ::-1])
    pairs = [
        (alone.metrics(), together.metrics()),
        (alone.changes(replace(base, block=None)), together.changes(base)),
        (alone.metrics(block < 6), together.metrics(block < 6)),
    ]
    for narrow, wide in pairs:
        assert narrow.keys() == wide.keys()
        for name, reading in narrow.items():
            assert wide[name].value == reading.value
            assert wide[name].low <= reading.low
            assert wide[name].high >= reading.high
            assert wide[name].n == reading.n
    score = together.score_name
    narrow, wide = (one.metrics()[score] for one in (alone, together))
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)
    single = replace(alone, block=np.zeros(120, int)).metrics()[score]
    assert np.isnan([single.low, single.high]).all()


def test_repeated_examples_are_in_blocks_of_their_own():
    found = SplitPredictions(
        loss=np.arange(6.0)[None], score=np.zeros((1, 6)), y=np.arange(6.0), block=np.arange(6) // 2
    )
    many = found.repeat(np.array([1, 3]), 3)
    assert many.loss.tolist() == [[1.0, 3.0] * 3]
    assert many.y.tolist() == [1.0, 3.0] * 3
    assert many.block.tolist() == [0, 1, 3, 4, 6, 7]
    assert replace(found, block=None).repeat(np.array([1]), 2).block is None


def test_intervals_stay_where_the_number_can_be():
    """With two trainings t has one degree of freedom, and reaches far."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=50)
    errors = np.stack([0.1 * rng.normal(size=50), 0.5 + 0.1 * rng.normal(size=50)])
    found = SplitPredictions(errors**2 / 2, -np.abs(errors), y, unit=1.0).metrics()
    assert stats.mean_score(errors**2 / 2).low < 0
    assert found["loss"].low == 0
    assert found["R²"].low < found["R²"].value < found["R²"].high == 1
    below = SplitPredictions(errors, -np.abs(errors), y, unit=1.0).metrics()
    assert below["loss"].low < 0  # of losses that can be negative
