import pytest
import torch
from torch import nn
from torch.testing import assert_close

from unseen.engine.batches import Columns
from unseen.engine.loop import Budget, Optimizer, erm_step, train
from unseen.engine.retrain import query_outputs, restrict_task, retrain
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.objectives import squared_error
from unseen.stats import slope
from unseen.task import Axis, Objective, Split, Task, Use

LAB = Lab(seed=3, dtype=torch.float64)
BUDGET = Budget(steps=15, batch_size=4, lr=0.05, optimizer=Optimizer.SGD, momentum=0.5)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=Lab(seed).generator(), dtype=torch.float64)


def task(n: int = 12, splits: int = 1) -> Task:
    fit = {
        f"train{k}": Split(Columns(x=normal(n, 3, seed=k), y=normal(n, 1, seed=9 + k)), Use.TRAIN)
        for k in range(splits)
    }
    judged = {"test": Split(Columns(x=normal(5, 3, seed=7), y=normal(5, 1, seed=8)), Use.EVALUATE)}
    return Task(
        name="t",
        axis=Axis.IID,
        splits={**fit, **judged},
        objective=Objective(squared_error, squared_error),
    )


def make() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


def output(model: nn.Module, batch: dict) -> torch.Tensor:
    return model(batch["x"]).squeeze(1)


def test_each_model_is_the_one_that_plain_training_on_its_examples_gives():
    whole, kept = task(), torch.rand(4, 12, generator=Lab().generator()).argsort(1) < 8
    found = retrain(make, whole, kept, BUDGET, LAB, repeats=2)
    for rows, pair in zip(kept, found, strict=True):
        data = whole.splits["train0"].data.columns
        alone = Task(
            name="alone",
            axis=Axis.IID,
            splits={"train0": Split(Columns(**{k: v[rows] for k, v in data.items()}), Use.TRAIN)},
            objective=whole.objective,
        )
        for r, each in enumerate(pair):
            with LAB.child("init", r).seeded():
                model = make()
            train(model, alone, erm_step, BUDGET, LAB.child("fit", r))
            for a, b in zip(model.parameters(), each.model.parameters(), strict=True):
                assert_close(a, b, rtol=1e-8, atol=1e-10)
    values = query_outputs(found, whole.splits["test"].data, output, LAB)
    assert values.shape == (4, 2, 5)
    assert_close(
        values[3, 1], output(found[3][1].model, whole.splits["test"].data.columns).detach()
    )


def test_subsets_go_through_several_splits_and_their_order_does_not_matter():
    whole = task(6, splits=2)
    rows = torch.tensor([1, 0, 1, 1, 0, 0, 0, 0, 1, 0, 1, 1], dtype=torch.bool)
    part = restrict_task(whole, rows)
    assert_close(
        part.splits["train0"].data.columns["x"], whole.splits["train0"].data.columns["x"][[0, 2, 3]]
    )
    assert_close(
        part.splits["train1"].data.columns["x"], whole.splits["train1"].data.columns["x"][[2, 4, 5]]
    )
    assert part.splits["test"] is whole.splits["test"]
    kept = torch.stack(
        [rows, rows.flip(0), torch.ones(12, dtype=torch.bool)]
    )  # of different sizes: one by one
    one = query_outputs(
        retrain(make, whole, kept, BUDGET, LAB), whole.splits["test"].data, output, LAB
    )
    other = query_outputs(
        retrain(make, whole, kept.flip(0), BUDGET, LAB), whole.splits["test"].data, output, LAB
    )
    assert_close(one, other.flip(0), rtol=1e-8, atol=1e-10)


def test_repeats_differ_and_subsets_share_their_start():
    found = retrain(make, task(), torch.ones(2, 12, dtype=torch.bool), BUDGET, LAB, repeats=2)
    first, second = (
        query_outputs(found, task().splits["test"].data, output, LAB)[:, r] for r in range(2)
    )
    assert_close(first[0], first[1])  # the same data, the same start, the same order
    assert abs(slope(first[0].numpy(), second[0].numpy()).value - 1) > 1e-6


@pytest.mark.parametrize("shape", [(0, 12), (3, 11)])
def test_subsets_of_other_data_are_refused(shape):
    with pytest.raises(InvalidData, match=r"for 12 examples"):
        retrain(make, task(), torch.ones(*shape, dtype=torch.bool), BUDGET, LAB)


def test_empty_subsets_streams_and_no_repeats_are_refused():
    with pytest.raises(InvalidData, match="no example of the TRAIN split `train0`"):
        retrain(make, task(), torch.zeros(1, 12, dtype=torch.bool), BUDGET, LAB)
    with pytest.raises(InvalidConfig, match="repeats=0"):
        retrain(make, task(), torch.ones(1, 12, dtype=torch.bool), BUDGET, LAB, repeats=0)

    class Endless(torch.utils.data.IterableDataset):
        def __iter__(self):
            yield {"x": torch.zeros(3), "y": torch.zeros(1)}

    endless = task()
    endless = Task(
        name="s",
        axis=Axis.IID,
        splits={"train0": Split(Endless(), Use.TRAIN), "test": endless.splits["test"]},
        objective=endless.objective,
    )
    with pytest.raises(InvalidData, match="is a stream"):
        retrain(make, endless, torch.ones(1, 12, dtype=torch.bool), BUDGET, LAB)
