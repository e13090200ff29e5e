"""What an influence report says is true for the kind of target; copies among the top are marked."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import unseen
from unseen import Axis, Budget, Columns, Split, Subject, Task, Use
from unseen.objectives import classify, regress
from unseen.questions.influence.of_text import mark_copies
from unseen.questions.influence.results import Influencer
from unseen.task import Objective

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
OF_PROBABILITY = ("log-probability", "probability 1 %", "nats")


def words_of(objective: Objective, outputs: int, y: torch.Tensor) -> str:
    data = Columns(x=X, y=y)
    splits = {"train": Split(data, Use.TRAIN, "a"), "new": Split(data, Use.EVALUATE, "b")}
    task = Task(name="t", axis=Axis.SITE, splits=splits, objective=objective)
    subject = Subject(task=task, model=lambda: nn.Linear(4, outputs), budget=Budget(steps=20))
    return unseen.influence(subject, worst=2, progress=False).summary()


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path))


def test_a_number_has_a_squared_error_and_no_probability():
    text = words_of(regress, 1, X[:, 0] * 2)
    assert not [word for word in OF_PROBABILITY if word in text]
    assert "half squared error" in text


def test_a_class_has_a_log_probability():
    assert "log-probability" in words_of(classify, 2, (X[:, 0] > 0).long())


def test_a_loss_of_the_users_own_is_only_a_loss():
    def absolute(model, batch):
        return (model(batch["x"])[:, 0] - batch["y"]).abs()

    text = words_of(replace(regress, loss=absolute, relabel=None), 1, X[:, 0])
    assert not [word for word in OF_PROBABILITY if word in text]
    assert "loss" in text


def test_copies_among_the_top_name_the_first_of_them():
    def one(source: str, shown: str) -> Influencer:
        return Influencer(index=0, score=1.0, source=source, shown=shown)

    found = mark_copies([one("a", "to be"), one("b", "or not"), one("c", " to  be")])
    assert [each.copy_of for each in found] == ["", "", "a"]
