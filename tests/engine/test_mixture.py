"""Mixtures: whole batches of one part, with the shares that were given."""

import math
from itertools import islice

import pytest
import torch
from torch import nn

from unseen.engine.batches import Columns, forever, once, size
from unseen.engine.loop import Budget, erm_step, train
from unseen.engine.mixture import Mixture, Phases
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.objectives import regress
from unseen.task import Axis, Split, Task, Use


def constant(value: float, n: int = 10) -> Columns:
    return Columns(x=torch.full((n, 1), value), y=torch.full((n, 1), 2 * value))


def uniform(n: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    x = torch.rand(n, 1, generator=generator)
    return {"x": x, "y": 2 * x}


def values(mixture: Mixture, n: int, lab: Lab = Lab()) -> list[float]:
    """The first entry of each of the first batches, all of which are of one part."""
    found = []
    for batch in islice(forever(mixture, 4, lab), n):
        assert size(batch) == 4
        found.append(float(batch["x"][0]))
    return found


def test_every_batch_is_of_one_part_and_parts_come_with_their_shares():
    mixture = Mixture({"zero": constant(0.0), "one": constant(1.0)}, {"zero": 1, "one": 3})
    for batch in islice(forever(mixture, 4, Lab()), 20):
        assert batch["x"].unique().numel() == 1
    share = sum(values(mixture, 1000)) / 1000
    # five standard errors of a share of 0.75
    assert abs(share - 0.75) < 5 * math.sqrt(0.75 * 0.25 / 1000)


def test_equal_labs_draw_equal_batches_and_shares_do_not_move_a_part_s_examples():
    parts = {"drawn": uniform, "zero": constant(0.0)}
    one = [x for x in values(Mixture(parts), 200) if x]
    assert one == [x for x in values(Mixture(parts), 200) if x]
    other = [x for x in values(Mixture(parts, {"drawn": 1, "zero": 4}), 200) if x]
    assert len(other) < len(one)
    assert other == one[: len(other)]
    assert one[:5] != [x for x in values(Mixture(parts), 200, Lab(1)) if x][:5]


def test_phases_follow_one_another_and_the_last_stays():
    shares = Phases([(3, {"zero": 1}), (2, {"one": 1}), (1, {"zero": 1})])
    mixture = Mixture({"zero": constant(0.0), "one": constant(1.0)}, shares)
    assert values(mixture, 8) == [0, 0, 0, 1, 1, 0, 0, 0]


def test_a_part_may_be_a_mixture_and_read_one_by_one_rows_have_one_width():
    inside = Mixture({"a": constant(1.0), "b": uniform})
    mixture = Mixture({"zero": constant(0.0), "inside": inside}, width=3)
    batch = next(once(mixture, 1_000, Lab()))
    assert batch["x"].shape == (1_000, 3)
    assert (batch["x"][:, 1:] == 0).all()
    assert {0.0, 1.0} <= set(batch["x"][:, 0].tolist())
    again = next(once(mixture, 1_000, Lab(5)))
    assert torch.equal(batch["x"], again["x"])


def test_training_on_a_mixture():
    task = Task(
        name="twice",
        axis=Axis.TASK,
        splits={"train": Split(Mixture({"drawn": uniform, "one": constant(1.0)}), Use.TRAIN)},
        objective=regress,
    )
    trained = train(nn.Linear(1, 1), task, erm_step, Budget(steps=300, lr=0.05), Lab())
    assert trained.curves["loss"][-1] < 1e-3


@pytest.mark.parametrize(
    "shares", [{"two": 1.0}, {"one": -1.0}, {"one": 0.0}, {"one": float("nan")}]
)
def test_shares_out_of_range_are_refused_with_the_names_of_the_parts(shares):
    with pytest.raises(InvalidConfig, match="one"):
        Mixture({"one": constant(1.0)}, shares)


def test_no_parts_and_no_phases_are_refused():
    with pytest.raises(InvalidConfig, match="no parts"):
        Mixture({})
    with pytest.raises(InvalidConfig, match="at least one phase"):
        Phases([])
