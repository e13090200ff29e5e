"""Methods, studies and models of a person's own files on the command line."""

import re
from pathlib import Path

import pytest

import unseen
from unseen.cli import run as run_command
from unseen.errors import InvalidConfig, InvalidData, MissingFile, UnknownName
from unseen.questions.compare.candidates import methods_named
from unseen.questions.compare.inputs import Request, subjects_of
from unseen.runs import catalog
from unseen.subjects.python_files import from_file
from unseen.task import Use

METHOD = """
from dataclasses import dataclass, replace
from unseen import Budget
from unseen.methods.erm import ERM

@dataclass(frozen=True)
class HalfRate:
    factor: float = 0.5
    budget: Budget = Budget()

    def fit(self, model, task, lab):
        return ERM(replace(self.budget, lr=self.budget.lr * self.factor)).fit(model, task, lab)

def number():
    return 3
"""
SUBJECT = """
import torch
from torch import nn
from unseen import Axis, Budget, Columns, Split, Subject, Task, Use
from unseen.objectives import classify

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
DATA = Columns(x=X, y=(X[:, 0] > 0).long())
SPLITS = {"train": Split(DATA, Use.TRAIN, "a"), "new": Split(DATA, Use.EVALUATE, "b")}
TASK = Task(name="t", axis=Axis.SITE, splits=SPLITS, objective=classify)

def subject():
    return Subject(task=TASK, model=lambda: nn.Linear(4, 2), budget=Budget(steps=5))
"""


@pytest.fixture(autouse=True)
def _files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv(catalog.FILES, "")
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    Path("mine.py").write_text(METHOD)
    Path("own_subject.py").write_text(SUBJECT)


def test_a_method_of_a_file_takes_the_budget_and_arguments():
    plain, changed = methods_named(["mine.py:HalfRate", "mine.py:HalfRate(factor=0.1)"])
    budget = unseen.Budget(steps=7)
    assert (plain.name, changed.name) == ("HalfRate", "HalfRate(factor=0.1)")
    assert plain.make(budget).budget.steps == 7
    assert changed.make(budget).factor == 0.1


def test_what_is_no_method():
    with pytest.raises(InvalidData, match="gives a int"):
        methods_named(["mine.py:number"])
    with pytest.raises(UnknownName, match="HalfRat"):
        methods_named(["mine.py:HalfRat"])
    with pytest.raises(MissingFile):
        methods_named(["other.py:HalfRate"])


def test_a_subject_without_a_selection_split_gets_one_before_training():
    (found,) = subjects_of(Request(source="own_subject.py:subject"))
    sizes = {name: len(split.data) for name, split in found.task.splits.items()}
    assert sizes == {"train": 48, "new": 60, "select": 12}
    assert found.task.splits["select"].use is Use.SELECT
    chosen, kept = (found.task.splits[name].data.columns["x"] for name in ("select", "train"))
    assert not (chosen[:, None] == kept[None]).all(2).any()
    assert any("no split for selection" in text for text in found.decisions)


def test_nothing_is_trained_where_nothing_could_be_selected():
    with pytest.raises(InvalidConfig, match="No draw could be selected") as error:
        unseen.compare(
            "own_subject.py:subject", ["erm"], protocols=["oracle"], draws=2, progress=False
        )
    assert "training" in error.value.fix


def test_a_study_of_a_file_is_run(capsys):
    page = (Path(__file__).parents[2] / "docs" / "study.md").read_text("utf-8")
    code = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert code is not None
    Path("coins_of_mine.py").write_text('"""On coins."""\n' + code[1])
    assert run_command.main(["coins_of_mine.py:study", "--scale", "smoke"]) == 0
    assert "A fair coin is fair." in capsys.readouterr().out
    assert catalog.load("coins").name == "coins"


def test_a_study_that_is_none():
    with pytest.raises(InvalidConfig, match="does not say what") as error:
        catalog.load("mine.py")
    assert error.value.fix.endswith("mine.py:study")
    with pytest.raises(MissingFile):
        catalog.load("nothing.py:study")
    Path("no_study_here.py").write_text(METHOD)  # its name is no module of another test
    with pytest.raises(InvalidConfig, match="is a type"):
        catalog.load("no_study_here.py:HalfRate")
    Path("random.py").write_text("study = 1")
    with pytest.raises(InvalidConfig, match="Another module"):
        catalog.load("random.py:study")


def test_a_file_without_a_name_says_what_it_holds():
    with pytest.raises(InvalidConfig, match="does not say what") as error:
        from_file("own_subject.py")
    assert error.value.fix.endswith("own_subject.py:subject")


@pytest.mark.parametrize(
    "options", [{"target": "ill"}, {"target": "ill", "site": "clinic"}, {"predictions": "p"}]
)
def test_a_forgotten_table_is_an_error_that_says_where_it_goes(options):
    with pytest.raises(InvalidConfig) as error:
        unseen.audit(progress=False, **options)
    assert "table" in error.value.fix
