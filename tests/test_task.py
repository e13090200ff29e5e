import pytest
import torch
from hypothesis import given
from hypothesis.strategies import lists, sampled_from

from unseen.engine.batches import Columns
from unseen.errors import InvalidData, UnknownName
from unseen.objectives import classify
from unseen.task import Axis, Split, Task, Use

DATA = Columns(x=torch.zeros(2, 1), y=torch.zeros(2))


def task(splits: dict[str, Split]) -> Task:
    return Task(name="t", axis=Axis.SITE, splits=splits, objective=classify)


@given(uses=lists(sampled_from(list(Use)), max_size=6))
def test_every_split_is_of_one_use_in_order(uses):
    splits = {"fit": Split(DATA, Use.TRAIN)} | {
        str(k): Split(DATA, use) for k, use in enumerate(uses)
    }
    t = task(splits)
    assert sorted(name for use in Use for name in t.of(use)) == sorted(splits)
    for use in Use:
        assert list(t.of(use)) == [name for name, split in splits.items() if split.use is use]


def test_unseen_is_judged_where_nothing_was_fitted():
    t = task(
        {
            "a": Split(DATA, Use.TRAIN, "Zurich"),
            "held": Split(DATA, Use.SELECT, "Basel"),
            "same": Split(DATA, Use.EVALUATE, "Zurich"),
            "selected": Split(DATA, Use.EVALUATE, "Basel"),
            "new": Split(DATA, Use.EVALUATE, "Bern"),
            "nowhere": Split(DATA, Use.EVALUATE),
        }
    )
    assert list(t.unseen) == ["selected", "new", "nowhere"]


def test_refusals():
    with pytest.raises(InvalidData, match="no split to fit"):
        task({"test": Split(DATA, Use.EVALUATE)})
    with pytest.raises(UnknownName, match="no split `trian`") as error:
        task({"train": Split(DATA, Use.TRAIN)}).split("trian")
    assert "did you mean train" in str(error.value)
