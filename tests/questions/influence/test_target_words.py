"""What an influence report says is true for the kind of target; copies among the top are marked."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import unseen
from unseen import Axis, Budget, Columns, Split, Subject, Task, Use
from unseen.objectives import classify, regress
from unseen.questions.answer import Answer
from unseen.questions.influence.document import SUMMARY_SECTIONS, document
from unseen.questions.influence.of_text import mark_copies
from unseen.questions.influence.results import Influencer, InfluenceReport, QueryInfluence
from unseen.reading import Reading
from unseen.report.terminal import as_text
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


def influences(sites: int) -> list[InfluenceReport]:
    """Five answers at each of several sites, each with five examples on either side."""

    def example(k: int, size: float) -> Influencer:
        value = Reading(size, size - 0.1, size + 0.1, 8)
        return Influencer(index=k, score=size, source=f"row {k}", shown="x " * 60, retrained=value)

    answers = [
        QueryInfluence(
            title=f"row {k}",
            asked="x " * 60,
            label="no",
            predicted="yes",
            log_probability=-3.0,
            helpful=[example(j, 1.0) for j in range(5)],
            harmful=[example(j, -1.0) for j in range(5)],
        )
        for k in range(5)
    ]
    return [
        InfluenceReport(
            name="net",
            answers=answers,
            examples=90,
            scored=90,
            settings={"errors on": f"site {k}"},
            caveat="The order is by influence functions. " * 4,
        )
        for k in range(sites)
    ]


def test_the_terminal_has_a_line_per_answer_and_the_report_all_examples():
    found = influences(sites=4)
    page = document(found)
    answer = Answer(results=found, document=page, summary_sections=SUMMARY_SECTIONS)
    lines = answer.summary().splitlines()
    assert len(lines) <= 45
    assert sum("row 0: +1.00 [+0.90, +1.10]" in line for line in lines) == 8  # two of each site
    assert any("8 of 20 answers" in line for line in lines)
    assert len(as_text(page).splitlines()) > 130
