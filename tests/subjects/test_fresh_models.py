"""A person's trained model is never trained in place, and no fold starts from what it was to be
tested on.
"""

import copy

import pytest
import torch
from torch import nn

from unseen.engine.batches import Columns
from unseen.engine.loop import Budget
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.measures.label_errors import out_of_fold_loss
from unseen.objectives import classify
from unseen.questions.audit.job import Audit, Subject
from unseen.questions.compare.sweep import network_of
from unseen.task import Axis, Split, Task, Use

G = torch.Generator().manual_seed(0)
X = torch.randn(60, 4, generator=G)
DATA = Columns(x=X, y=(X[:, 0] > 0).long())
TASK = Task(
    name="t",
    axis=Axis.SITE,
    objective=classify,
    splits={"train": Split(DATA, Use.TRAIN, "a"), "new": Split(DATA, Use.EVALUATE, "b")},
)
BUDGET = Budget(steps=10, batch_size=20)


class Around(nn.Module):
    """A new module around an old one."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, x):
        return self.inside(x)


@pytest.mark.parametrize(
    "make", [lambda net: net, Around, copy.deepcopy], ids=["itself", "around", "copy"]
)
def test_folds_do_not_start_from_the_trained_model(make):
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    before = copy.deepcopy(net.state_dict())
    trained = make(net)
    subject = Subject(task=TASK, model=lambda: make(net), trained=trained, budget=BUDGET)
    found = Audit(seeds=1, remedies={}, measures={})(subject, Lab())
    assert "suspected labels" in found.skipped
    assert "trained" in found.skipped["suspected labels"]
    assert found.scores
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)


def test_remedies_and_comparisons_refuse_the_trained_model_as_their_start():
    net = nn.Linear(4, 2)
    subject = Subject(task=TASK, model=lambda: net, trained=net, budget=BUDGET)
    with pytest.raises(InvalidData, match="returned the trained model itself"):
        Audit(seeds=1)(subject, Lab())
    with pytest.raises(InvalidData, match="returned the trained model itself"):
        network_of(subject)


def test_a_frozen_part_may_be_shared():
    body = nn.Linear(4, 8).requires_grad_(False)
    subject = Subject(
        task=TASK,
        model=lambda: nn.Sequential(body, nn.ReLU(), nn.Linear(8, 2)),
        trained=nn.Sequential(body, nn.ReLU(), nn.Linear(8, 2)),
        budget=BUDGET,
    )
    found = Audit(seeds=1, remedies={}, measures={})(subject, Lab())
    assert "suspected labels" not in found.skipped
    assert found.checked["suspected labels"].n == 60


def test_two_folds_may_not_share_weights():
    net = nn.Linear(4, 2)
    with pytest.raises(InvalidData, match="for two folds"):
        out_of_fold_loss(lambda: Around(net), TASK, Lab())
