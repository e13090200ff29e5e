"""`unseen measure --difficulty`: how hard a task is, and what its models supply."""

import json
import re

import pytest
import torch
from torch import nn

import unseen
from unseen.cli.measure import main
from unseen.engine.batches import Columns
from unseen.errors import InvalidConfig, InvalidData
from unseen.measures.difficulty import DifficultyReading
from unseen.objectives import classify
from unseen.questions.audit.results import Score
from unseen.questions.measure.difficulty import BitsSupplied, bits_supplied, bits_text, error_of
from unseen.reading import Reading
from unseen.subjects.subject import Subject
from unseen.task import Axis, Split, Task, Use


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path / "home"))


def subject(same: bool = False) -> Subject:
    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    x[1] = x[0] if same else x[1]
    y = (x[:, 0] > 0).long()
    y[1] = 1 - y[0] if same else y[1]
    splits = {
        "train": Split(Columns(x=x[:120], y=y[:120]), Use.TRAIN),
        "new": Split(Columns(x=x[120:], y=y[120:]), Use.EVALUATE),
    }
    task = Task(name="halves", axis=Axis.IID, splits=splits, objective=classify)
    budget = unseen.Budget(steps=30, batch_size=16, lr=1e-2)
    return Subject(task=task, model=lambda: nn.Linear(3, 2), budget=budget)


def test_the_difficulty_needs_no_model_and_falls_with_the_error():
    def bits(eps: float) -> float:
        (found,) = unseen.difficulty(subject(), eps=eps, models=False, progress=False).results
        assert not found.supplied
        return found.difficulty.value

    assert bits(1e-3) > bits(1e-2) > 0


def test_a_model_with_fewer_errors_supplies_more():
    answer = unseen.difficulty(subject(), seeds=1, progress=False)
    (found,) = answer.results
    bits = {told.model: (told.error.value, told.bits.log2_bits) for told in found.supplied}
    assert {"network", "constant answer"} <= {*bits}
    (few, more), (many, less) = bits["network"], bits["constant answer"]
    assert few < many
    assert more > less
    assert "Bits relative to" in answer.document.lead


def test_no_error_gives_a_lower_bound():
    (found,) = unseen.difficulty(subject(), models=False, progress=False).results
    perfect = error_of(Reading(1.0, 0.95, 1.0, 80, "fraction"))
    score = Score(model="m", split="new", metric="error", reading=perfect)
    told = bits_supplied(found.difficulty, score)
    assert isinstance(told, BitsSupplied)
    assert told.is_lower_bound
    assert told.bits.eps == pytest.approx(0.05)


def test_bad_input_is_refused():
    with pytest.raises(InvalidConfig, match="eps=0"):
        unseen.difficulty(subject(), eps=0.0, progress=False)
    with pytest.raises(InvalidData, match=r"0 \(0\) and 1 \(1\) of the training part have"):
        unseen.difficulty(subject(same=True), models=False, progress=False)
    with pytest.raises(InvalidConfig, match="--difficulty was given with --against"):
        main(["--difficulty", "--against", "x.py:y"])


def test_the_command_prints_json(capsys):
    unseen_table = unseen.tasks.table.clinics()
    unseen_table.to_csv("table.csv", index=False)
    arguments = ["table.csv", "--target", "ill", "--difficulty", "--no-models"]
    assert main([*arguments, "--json", "--report", "page.md"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["difficulty"][0]["log2_bits"] > 0
    assert said["supplied"] == []


def test_the_closest_pair_is_named_by_rows_of_the_table_and_classes():
    table = unseen.tasks.table.clinics()
    asked = {"target": "ill", "models": False, "progress": False}
    (found,) = unseen.difficulty(table, **asked).results
    a, b = (int(text) for text in re.findall(r"(\d+) \(", found.pair))
    classes = re.findall(r"\((\w+)\)", found.pair)
    assert classes == [str(table["ill"].iloc[row]) for row in (a, b)]
    assert classes[0] != classes[1]
    same = table.copy()
    inputs = [name for name in table.columns if name != "ill"]
    same.loc[same.index[b], inputs] = same.loc[same.index[a], inputs]
    with pytest.raises(InvalidData, match="have equal inputs and different classes") as caught:
        unseen.difficulty(same, **asked)
    assert f"{min(a, b)} (" in caught.value.what
    assert f"{max(a, b)} (" in caught.value.what
    assert "--separation" in caught.value.fix


def test_the_numbers_of_a_cell_have_one_format():
    mixed = DifficultyReading(8_963_442.0, 4_022_367.0, 2.27e7, 9, "bits")
    assert bits_text(mixed) == "8.96e+06 [4.02e+06, 2.27e+07]"
    assert bits_text(DifficultyReading(1500.4, 1200.0, 1800.0, 9, "bits")) == "1,500 [1,200, 1,800]"
    assert bits_text(DifficultyReading(1e9, unit="bits")) == "1.00e+09"
