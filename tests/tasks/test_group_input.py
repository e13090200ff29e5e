"""The group as the last input: what is merged, what is dropped, and the exchange of group means."""

import torch
from torch.testing import assert_close

from unseen.lab import Lab
from unseen.task import Use
from unseen.tasks.drifting_fairness import DriftingFairness
from unseen.tasks.group_input import FUTURE, HELD_OUT, INPUTS, PRESENT, GroupInput, example

LAB = Lab(seed=2)


def test_the_last_input_is_the_group_and_of_counterfactuals_the_other_one():
    task = example().build(LAB)
    assert set(task.splits) - set(task.of(Use.TRAIN)) == {FUTURE, PRESENT, HELD_OUT}
    for split in task.splits.values():
        people = split.data[:]
        assert_close(people["x"][:, -1], people["a"] - 0.5, check_dtype=False)
        for name in set(INPUTS[1:]) & set(people):
            assert_close(people[name][:, -1], -people["x"][:, -1])


def test_hidden_groups_leave_the_same_people():
    spec = DriftingFairness(fitted=3, future=2, n=50, n_evaluate=40, visible=False)
    shown, hidden = (GroupInput(spec, visible).build(LAB) for visible in (True, False))
    assert len(shown.split(FUTURE).data) == 2 * 40
    for name, split in hidden.splits.items():
        assert torch.equal(split.data[:]["x"], shown.splits[name].data[:]["x"][:, :-1])
        assert torch.equal(split.data[:]["a"], shown.splits[name].data[:]["a"])
