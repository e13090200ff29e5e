"""No stale number: what is kept is used only where today's code, model, loss, settings and data
would give it again.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import unseen
from unseen.attributions.explanation import guide
from unseen.attributions.explanation.comparison import DRAWS
from unseen.attributions.influence import InfluenceScores
from unseen.attributions.influence.factors import Fit
from unseen.cli import audit, compare, explain, influence
from unseen.methods.erm import ERM
from unseen.questions.compare.sweep import Sweep
from unseen.subjects.training import TrainingRuns
from unseen.tasks.table import clinics

SUBJECT = """
import os
import torch
from torch import nn
from unseen.engine.batches import Columns
from unseen.engine.loop import Budget
from unseen.objectives import correct, cross_entropy, regress
from unseen.subjects.subject import Subject
from unseen.task import Axis, Objective, Split, Task, Use

from helping import damped

ACTIVATION = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid}[os.environ.get("ACTIVATION", "relu")]
WEIGHT = float(os.environ.get("WEIGHT", "1"))
SCALE = float(os.environ.get("SCALE", "1"))
BONUS = float(os.environ.get("BONUS", "1"))


def loss(model, batch):
    return cross_entropy(model, batch) * (1 + (WEIGHT - 1) * batch["y"])


def score(model, batch):
    return BONUS * correct(model, batch)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 6), ACTIVATION(), nn.Linear(6, 2))
        # neither parameter nor buffer
        self.mask = torch.tensor([1.0, float(os.environ.get("MASK", "1"))])

    def forward(self, x):
        return damped(SCALE * self.layers(x * self.mask))


def rows(seed, n=60):
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))
    return Columns(x=x, y=(x[:, 0] * (1 + x[:, 1]) > 0.3).long())


def subject():
    splits = {
        "train": Split(rows(0), Use.TRAIN, "Zurich"),
        "seen": Split(rows(1), Use.EVALUATE, "Zurich"),
        "Geneva": Split(rows(2), Use.EVALUATE, "Geneva"),
    }
    task = Task(name="toy", axis=Axis.SITE, splits=splits, objective=Objective(loss, score))
    return Subject(task=task, model=Net, budget=Budget(steps=30, batch_size=16, lr=2e-2))


def number():
    def values(seed):
        x = torch.randn(60, 2, generator=torch.Generator().manual_seed(seed))
        return Columns(x=x, y=x[:, 0])

    splits = {"train": Split(values(0), Use.TRAIN), "later": Split(values(1), Use.EVALUATE)}
    task = Task(name="number", axis=Axis.IID, splits=splits, objective=regress)
    unit = float(os.environ.get("UNIT", "1"))
    budget = Budget(steps=20, batch_size=16, lr=1e-2)
    return Subject(task=task, model=lambda: nn.Linear(2, 1), unit=unit, budget=budget)
"""
README = """
import torch
from torch import nn
from unseen.engine.batches import Columns
from unseen.objectives import classify
from unseen.subjects.subject import Subject
from unseen.task import Axis, Split, Task, Use

x, y = torch.randn(80, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(80) % 2

def subject() -> Subject:
    splits = {
        "train": Split(Columns(x=x[:40], y=y[:40]), Use.TRAIN, at="Zurich"),
        "seen": Split(Columns(x=x[40:60], y=y[40:60]), Use.EVALUATE, at="Zurich"),
        "Geneva": Split(Columns(x=x[60:], y=y[60:]), Use.EVALUATE, at="Geneva"),
    }
    task = Task(name="pneumonia", axis=Axis.SITE, splits=splits, objective=classify)
    return Subject(task=task, model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 2)))
"""
HELPER = """
def damped(z):
    return z
"""
CHANGED_HELPER = """
def damped(z):
    return z / (1 + z.abs())
"""


AUDIT = ["--seeds", "1", "--no-remedies"]
COMPARE = ["--seeds", "2", "--draws", "1", "--jobs", "1"]
EXPLAIN = ["--method", "occlusion", "--sample", "4", "--draws", "20", "--examples", "2"]
INFLUENCE = ["--worst", "2", "--top", "2"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a subject and its helper; `UNSEEN_HOME` lies beside it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path / "home"))
    write(SUBJECT, HELPER)
    yield tmp_path
    sys.modules.pop("helping", None)


def write(subject: str, helper: str) -> None:
    """Edits the files as a person would between two runs, each of which is a process of its own."""
    Path("mine.py").write_text(subject)
    Path("helping.py").write_text(helper)
    sys.modules.pop("helping", None)
    shutil.rmtree("__pycache__", ignore_errors=True)


def audited(capsys) -> object:
    found = said(capsys, audit, "mine.py:subject", *AUDIT)["findings"][0]
    return [(s["metric"], s["split"], s["reading"]["value"]) for s in found["scores"]]


def compared(capsys) -> object:
    found = said(capsys, compare, "mine.py:subject", "erm", *COMPARE)["results"]
    return [
        (cell["column"], cell["metric"], cell["reading"]["value"])
        for cell in found["cells"]
        if cell["reading"]
    ]


def explained(capsys, subject: str = "mine.py:subject") -> object:
    found = said(capsys, explain, subject, *EXPLAIN)
    return [(one["output"], one["credits"]) for one in found["examples"]]


def influenced(capsys) -> object:
    (found,) = said(capsys, influence, "mine.py:subject", *INFLUENCE)["answers"]
    return [
        (e["index"], round(e["score"], 6)) for answer in found["answers"] for e in answer["helpful"]
    ]


def said(capsys, command, *arguments: str):
    capsys.readouterr()
    assert command.main([*arguments, "--json", "--quiet", "--report", "page.md"]) == 0
    return json.loads(capsys.readouterr().out)


CHANGES = {
    "another activation": {"ACTIVATION": "sigmoid"},
    "another weight in the loss": {"WEIGHT": "6"},
    "another global in the forward pass": {"SCALE": "0.1"},
    "another tensor beside the weights": {"MASK": "0"},
}


@pytest.mark.parametrize(
    "run", [audited, compared, explained, influenced], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_a_subject_is_made_of_is_part_of_what_is_kept(run, change, place, capsys, monkeypatch):
    before = run(capsys)
    for name, value in change.items():
        monkeypatch.setenv(name, value)
    after = run(capsys)
    monkeypatch.setenv("UNSEEN_HOME", str(place / "fresh"))
    assert after == run(capsys)
    assert after != before


@pytest.mark.parametrize("edit", ["forward", "helper"])
def test_an_edited_file_is_another_subject(edit, place, capsys, monkeypatch):
    before = explained(capsys)
    if edit == "forward":
        write(SUBJECT.replace("damped(SCALE", "damped(0.5 * SCALE"), HELPER)
    else:
        write(SUBJECT, CHANGED_HELPER)
    after = explained(capsys)
    monkeypatch.setenv("UNSEEN_HOME", str(place / "fresh"))
    assert after == explained(capsys)
    assert after != before


def test_a_comment_and_another_place_in_the_file_change_nothing(place, capsys, monkeypatch):
    before, fits = explained(capsys), counted(monkeypatch, ERM, "fit")
    write("# a comment\n" + SUBJECT.replace("return BONUS", "# why\n    return BONUS"), HELPER)
    assert explained(capsys) == before
    assert fits == []


def test_another_score_is_another_objective(place, capsys, monkeypatch):
    before = compared(capsys)
    monkeypatch.setenv("BONUS", "0.5")
    after = compared(capsys)
    scores = [
        [value for _, metric, value in cells if metric == "score"] for cells in (before, after)
    ]
    assert scores[1] == pytest.approx([value / 2 for value in scores[0]], rel=1e-5)
    assert scores[0]


def test_another_unit_is_another_setting(place, capsys, monkeypatch):
    before = explained(capsys, "mine.py:number")
    monkeypatch.setenv("UNIT", "10")
    after = explained(capsys, "mine.py:number")
    assert [output for output, _ in after] == pytest.approx(
        [10 * output for output, _ in before], rel=1e-4
    )


def test_swapped_files_of_trained_weights_are_refused(place, capsys, monkeypatch, caplog):
    runs = []
    for weight in ("1", "6"):
        monkeypatch.setenv("WEIGHT", weight)
        runs.append(audited(capsys))
    a, b = (place / "home" / "audits").glob("training-run-*")
    (one, other) = a.read_bytes(), b.read_bytes()
    a.write_bytes(other)
    b.write_bytes(one)
    assert audited(capsys) == runs[1]
    assert "was made for something else (task)" in caplog.text
    monkeypatch.setenv("WEIGHT", "1")
    assert audited(capsys) == runs[0]


def test_an_edited_training_loop_of_unseen_trains_anew(place):
    copy = place / "copy" / "unseen"
    shutil.copytree(
        Path(unseen.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__")
    )

    def run() -> object:
        program = (
            "from unseen.cli.explain import main; "
            f"main({['mine.py:subject', *EXPLAIN, '--quiet', '--json']})"
        )
        told = os.environ | {"PYTHONPATH": str(copy.parent), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-c", program], env=told, capture_output=True, check=True
        )
        return [one["output"] for one in json.loads(done.stdout)["examples"]]

    before = run()
    loop = copy / "engine" / "loop.py"
    assert "optimizer.step()" in loop.read_text()
    loop.write_text(
        loop.read_text().replace("optimizer.step()", "optimizer.step(), optimizer.step()")
    )
    assert run() != before


FROM_THE_ENVIRONMENT = 'return float(os.environ.get("W", 1)) * cross_entropy(model'
OWN_DATA = "class Own(Columns):\n    pass\n\n\ndef rows"
UNKNOWN = {
    "reads os.environ.get": SUBJECT.replace("return cross_entropy(model", FROM_THE_ENVIRONMENT),
    "is a dataset of your own": SUBJECT.replace("Columns(x=x, y=(", "Own(x=x, y=(").replace(
        "def rows", OWN_DATA
    ),
}


@pytest.mark.parametrize("why", UNKNOWN)
def test_what_cannot_be_known_is_computed_every_time_and_that_is_said_once(
    why, place, capsys, monkeypatch, caplog
):
    write(UNKNOWN[why], HELPER)
    fits = counted(monkeypatch, TrainingRuns, "_fit")
    for n in (1, 2):
        caplog.clear()
        assert said(capsys, audit, "mine.py:subject", "--seeds", "2", "--no-remedies")
        assert len(fits) == 2 * n
        told = [line for line in caplog.messages if line.startswith("No training run is kept")]
        assert len(told) == 1
        assert why in told[0]
    assert not list((place / "home" / "audits").glob("training-run-*"))


def counted(monkeypatch, owner, name: str, stop: int = 0) -> list[int]:
    """Notes every call of a function; the call number `stop` is interrupted instead."""
    calls: list[int] = []
    function = getattr(owner, name)

    def counting(*arguments, **named):
        calls.append(len(calls))
        if len(calls) == stop:
            raise KeyboardInterrupt
        return function(*arguments, **named)

    monkeypatch.setattr(owner, name, counting)
    return calls


TABLE = ["table.csv", "--target", "ill", "--steps", "20"]


@pytest.fixture(params=["table", "readme"])
def subject(request, place) -> list[str]:
    """A table, or the subject that README shows."""
    clinics().head(80).to_csv("table.csv", index=False)
    Path("readme.py").write_text(README)
    return TABLE if request.param == "table" else ["readme.py:subject", "--steps", "20"]


def twice(capsys, command, arguments: list[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        said(capsys, command, *arguments)
    said(capsys, command, *arguments)


def test_a_killed_audit_goes_on(subject, capsys, monkeypatch):
    fits = counted(monkeypatch, TrainingRuns, "_fit", stop=2)
    twice(capsys, audit, [*subject, "--seeds", "2", "--no-remedies"])
    assert len(fits) == 3  # the first seed, the second one, and that again


def test_a_killed_comparison_goes_on(subject, capsys, monkeypatch):
    sweeps = counted(monkeypatch, Sweep, "train_groups", stop=2)
    twice(capsys, compare, [*subject, "--method", "erm", "--method", "sam", *COMPARE])
    assert len(sweeps) == 3


def test_a_killed_explanation_goes_on(subject, capsys, monkeypatch):
    fits, answers = (
        counted(monkeypatch, ERM, "fit"),
        counted(monkeypatch, guide, "solve_explanation", stop=3),
    )
    twice(capsys, explain, [*subject, *EXPLAIN[2:]])
    assert len(fits) == 1
    again = len(answers)
    said(capsys, explain, *subject, *EXPLAIN[2:])
    assert len(answers) == again
    # eight methods, the third one again, and the further draws of those that are close
    assert again >= 9
    assert (again - 9) % (DRAWS - 1) == 0


def test_a_killed_influence_run_goes_on(subject, capsys, monkeypatch):
    fits, curvatures = counted(monkeypatch, ERM, "fit"), counted(monkeypatch, Fit, "__call__")
    counted(monkeypatch, InfluenceScores, "top", stop=1)
    twice(capsys, influence, [*subject, *INFLUENCE])
    assert len(fits) == len(curvatures) == 1
