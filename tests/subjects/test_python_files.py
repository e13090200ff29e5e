"""A person's Python file is read as `python file.py` reads it."""

import sys
from pathlib import Path

import pytest

from unseen.lab import Lab
from unseen.questions.audit.job import Audit
from unseen.subjects.python_files import from_file

SUBJECT = """
import torch
from torch import nn
from unseen import Axis, Budget, Columns, Split, Subject, Task, Use
from unseen.objectives import classify

X = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
DATA = Columns(x=X, y=(X[:, 0] > 0).long())
SPLITS = {"train": Split(DATA, Use.TRAIN, "a"), "new": Split(DATA, Use.EVALUATE, "b")}
TASK = Task(name="t", axis=Axis.SITE, splits=SPLITS, objective=classify)
"""
LAZY = """
def make():
    from package_beside_the_file import Net
    return Net()

def subject():
    return Subject(task=TASK, model=make, budget=Budget(steps=5))
"""
DATACLASS = """
from dataclasses import dataclass

@dataclass
class Config:
    width: int = 4

def subject():
    return Subject(task=TASK, model=lambda: nn.Linear(Config().width, 2), budget=Budget(steps=5))
"""


@pytest.fixture(autouse=True)
def _path_and_modules_as_before(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    known = set(sys.modules)
    yield
    for name in set(sys.modules) - known:
        if name.split(".")[0] in ("mine", "package_beside_the_file", "random.py"):
            del sys.modules[name]


def written(folder: Path, text: str, name: str = "mine.py") -> str:
    (folder / name).write_text(text)
    return f"{folder / name}:subject"


def test_a_factory_may_import_the_package_beside_the_file_when_it_is_called(tmp_path):
    (tmp_path / "package_beside_the_file").mkdir()
    (tmp_path / "package_beside_the_file" / "__init__.py").write_text(
        "from torch import nn\nclass Net(nn.Linear):\n"
        "    def __init__(self):\n        super().__init__(4, 2)\n"
    )
    (subject,) = from_file(written(tmp_path, SUBJECT + LAZY))
    assert Audit(seeds=1, remedies={}, measures={})(subject, Lab()).scores


@pytest.mark.parametrize("name", ["mine.py", "random.py"])
def test_dataclasses_with_postponed_annotations_work(tmp_path, name):
    text = "from __future__ import annotations\n" + SUBJECT + DATACLASS
    for _ in range(2):  # read again, it is executed again
        (subject,) = from_file(written(tmp_path, text, name))
        assert subject.model().in_features == 4
    import random  # the standard library's stays what it is

    assert hasattr(random, "shuffle")


def test_a_list_of_subjects(tmp_path):
    text = SUBJECT + LAZY + "\ndef several():\n    return [subject(), subject()]\n"
    written(tmp_path, text, "mine.py")
    assert len(from_file(f"{tmp_path / 'mine.py'}:several")) == 2
