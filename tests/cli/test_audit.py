"""`unseen audit` as a person uses it: tables, Python subjects, estimators, and everything that can
be wrong with them.
"""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import unseen
from unseen.cli.audit import main
from unseen.errors import InvalidConfig, InvalidData, MissingFile, UnknownName, UnseenError
from unseen.tasks.table import clinics

FAST = ["--seeds", "1", "--steps", "30", "--no-remedies"]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def written(frame: pd.DataFrame, name: str = "table.csv") -> str:
    frame.to_csv(name, index=False)
    return name


def two_sites() -> pd.DataFrame:
    return clinics().query("clinic != 'north'").head(100)


def run(*arguments: str) -> int:
    return main([*arguments, *FAST])


def test_a_table_with_sites_is_held_out_in_turn(capsys):
    code = run(
        written(clinics()),
        "--target",
        "ill",
        "--site",
        "clinic",
        "--group",
        "sex",
        "--group",
        "age:50",
        "--json",
    )
    said = json.loads(capsys.readouterr().out)
    assert code == 0
    assert [one["unseen"] for one in said["findings"]] == [["unseen"]] * 3
    assert {one["sites"]["unseen"] for one in said["findings"]} == {"east", "north", "west"}
    scores = said["findings"][0]["scores"]
    assert {score["model"] for score in scores} == {
        "network",
        "logistic regression",
        "gradient boosting",
        "constant answer",
    }
    assert {score["group"] for score in scores} == {"", "sex", "age:50"}
    known = [
        s["reading"] for s in scores if s["reading"]["low"] is not None
    ]  # one positive: an AUC without interval
    assert len(known) > len(scores) / 2
    assert all(r["low"] <= r["value"] <= r["high"] for r in known)
    text = Path("unseen-report.html").read_text()
    assert "<html" in text
    assert len(text) < 1_000_000


def test_same_seed_same_findings():
    def readings():
        found = unseen.audit("table.csv", target="ill", seeds=1, remedies={}, measures={}).results
        return [
            (s.model, s.split, s.metric, s.level, s.reading.value)
            for one in found
            for s in one.scores
        ]

    written(two_sites())
    assert readings() == readings()


def test_the_future_is_judged_by_time(capsys):
    frame = clinics().assign(year=np.repeat([2018, 2019, 2020, 2021], 60))
    assert run(written(frame), "--target", "ill", "--time", "year", "--json") == 0
    one = json.loads(capsys.readouterr().out)["findings"][0]
    assert one["sites"]["unseen"] == "future"


def test_a_number_as_target_is_a_regression(capsys):
    assert (
        run(written(clinics().dropna()), "--target", "pressure", "--site", "clinic", "--json") == 0
    )
    one = json.loads(capsys.readouterr().out)["findings"][0]
    assert {score["model"] for score in one["scores"]} == {
        "network",
        "ridge regression",
        "gradient boosting",
        "constant answer",
    }
    assert one["score_name"] == "mean absolute error"
    error = next(
        s["reading"]
        for s in one["scores"]
        if s["metric"] == "mean absolute error" and s["split"] == "unseen"
    )
    assert 3 < error["value"] < 40  # in units of blood pressure, whose deviation is about 16


def test_an_estimator_can_be_the_subject_and_says_what_needs_gradients(capsys):
    table = written(clinics())
    assert (
        run(
            table,
            "--target",
            "ill",
            "--estimator",
            "sklearn.ensemble:RandomForestClassifier",
            "--json",
        )
        == 0
    )
    one = json.loads(capsys.readouterr().out)["findings"][0]
    assert one["name"] == "RandomForestClassifier"
    assert "gradient" in one["skipped"]["coherence"]
    assert one["features"]


@pytest.mark.parametrize(
    ("target", "estimator", "missed", "met"),
    [
        ("ill", "sklearn.linear_model:LogisticRegression", "0.999", "0.01"),
        ("pressure", "sklearn.linear_model:Ridge", "0.01", "999"),
    ],
)
def test_a_bar_decides_the_exit_code(target, estimator, missed, met):
    """Of estimators: which model is scored does not matter, and parts that need gradients cost
    most of an audit.
    """
    table = written(clinics().dropna().head(120))
    asked = (table, "--target", target, "--estimator", estimator, "--quiet")
    assert run(*asked, "--bar", missed) == 1
    assert run(*asked, "--bar", met) == 0


def test_script_in_a_column_name_or_value_is_escaped():
    frame = two_sites().rename(columns={"sex": "<script>alert(1)</script>"})
    frame.iloc[:, frame.columns.get_loc("clinic")] = frame["clinic"].replace(
        "west", "<script>alert(2)</script>"
    )
    assert run(written(frame), "--target", "ill", "--site", "clinic", "--quiet") == 0
    text = Path("unseen-report.html").read_text()
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(2)" in text


SUBJECT = """
import torch
from torch import nn
from unseen import Axis, Budget, Columns, Split, Subject, Task, Use
from unseen.objectives import classify

g = torch.Generator().manual_seed(0)
x = torch.randn(120, 6, generator=g)
y = (x[:, 0] > 0).long()
splits = {
    "train": Split(Columns(x=x[:80], y=y[:80]), Use.TRAIN),
    "test": Split(Columns(x=x[80:], y=y[80:]), Use.EVALUATE),
}
task = Task(name="toy", axis=Axis.IID, splits=splits, objective=classify)

def subject():
    model = lambda: nn.Linear(6, 2)
    return Subject(task=task, model=model, trained=TRAINED, budget=Budget(steps=50))
"""


@pytest.mark.parametrize("trained", ["None", "nn.Linear(6, 2)"])
def test_a_python_subject(trained, capsys):
    Path("mine.py").write_text(SUBJECT.replace("TRAINED", trained))
    assert main(["mine.py:subject", "--seeds", "2", "--steps", "20", "--json"]) == 0
    one = json.loads(capsys.readouterr().out)["findings"][0]
    assert {outcome["remedy"] for outcome in one["outcomes"]} >= {
        "weight decay",
        "SAM",
        "robust gradients",
    }
    assert "group reweighting" in " ".join(
        one["skipped"]
    )  # no batch column names a site: said, not silently left out
    assert one["seeds"] == (2 if trained == "None" else 1)


def test_an_interrupted_audit_goes_on_where_it_stopped(monkeypatch):
    from unseen.methods.erm import ERM

    written(clinics())
    fits, fit = [], ERM.fit
    monkeypatch.setattr(ERM, "fit", lambda self, *a: (fits.append(self), fit(self, *a))[1])
    arguments = ["table.csv", "--target", "ill", "--seeds", "1", "--steps", "10", "--json"]
    written(clinics().head(90))
    main(arguments)
    first = len(fits)
    main(arguments)
    assert first > 0
    assert len(fits) == first  # every training run was kept


def bad(**columns: object) -> pd.DataFrame:
    return clinics().assign(**columns)


BAD_TABLES = {
    "no such column": (lambda: written(clinics()), ["--target", "il"], UnknownName, "ill"),
    "no target": (lambda: written(clinics()), [], InvalidConfig, 'target="COLUMN"'),
    "target as group": (
        lambda: written(clinics()),
        ["--target", "ill", "--group", "ill"],
        InvalidConfig,
        "both the target and a group",
    ),
    "labels that stand for none": (
        lambda: written(bad(ill=[*[-100] * 60, *clinics()["ill"][60:]])),
        ["--target", "ill"],
        InvalidData,
        "“-100” in 60 rows, first in row 0",
    ),
    "one class": (lambda: written(bad(ill=1)), ["--target", "ill"], InvalidData, "ill"),
    "one site beside a tiny one": (
        lambda: written(bad(clinic=["lonely", *["north"] * (len(clinics()) - 1)])),
        ["--target", "ill", "--site", "clinic"],
        InvalidData,
        "north",
    ),
    "infinite feature": (
        lambda: written(bad(pressure=[np.inf, *clinics()["pressure"][1:]])),
        ["--target", "ill"],
        InvalidData,
        "pressure",
    ),
    "all targets missing": (
        lambda: written(bad(ill=np.nan)),
        ["--target", "ill"],
        InvalidData,
        "ill",
    ),
    "empty file": (lambda: raw(b""), ["--target", "ill"], InvalidData, "table.csv"),
    "header only": (lambda: raw(b"a,ill\n"), ["--target", "ill"], InvalidData, "table.csv"),
    "one row": (lambda: raw(b"a,ill\n1,0\n"), ["--target", "ill"], InvalidData, "row"),
    "ragged line": (
        lambda: raw(b"a,ill\n1,0\n2,1,9\n3,0\n"),
        ["--target", "ill"],
        InvalidData,
        "Line 3",
    ),
    "binary file": (
        lambda: raw(bytes(range(256)) * 40),
        ["--target", "ill"],
        InvalidData,
        "table.csv",
    ),
    "no file": (lambda: "nowhere.csv", ["--target", "ill"], MissingFile, "nowhere.csv"),
    "unknown estimator": (
        lambda: written(clinics()),
        ["--target", "ill", "--estimator", "sklearn.svm:Nothing"],
        InvalidConfig,
        "Nothing",
    ),
    "neither table nor subject": (lambda: "model.bin", [], InvalidConfig, "model.bin"),
}


def raw(content: bytes) -> str:
    Path("table.csv").write_bytes(content)
    return "table.csv"


@pytest.mark.parametrize("case", BAD_TABLES)
def test_bad_input_says_what_why_and_fix_and_loses_nothing(case):
    make, arguments, kind, named = BAD_TABLES[case]
    Path("unseen-report.html").write_text("an earlier report")
    with pytest.raises(kind) as caught:
        run(make(), *arguments)
    error = caught.value
    assert isinstance(error, UnseenError)
    assert error.what
    assert error.why
    assert error.fix
    assert named in str(error)
    assert Path("unseen-report.html").read_text() == "an earlier report"


@pytest.mark.parametrize(
    ("code", "named"),
    [
        ("raise OSError('no disk')", "no disk"),
        ("subject = 3", "not a Subject"),
        ("def subject():\n    return 1 / 0", "line 2"),
        ("subjekt = 1", "subjekt"),
    ],
)
def test_a_subject_file_that_fails_says_where(code, named):
    Path("mine.py").write_text(code)
    with pytest.raises(UnseenError) as caught:
        run("mine.py:subject")
    assert named in str(caught.value)
    assert caught.value.fix


def test_a_report_that_cannot_be_written_is_an_error_with_a_fix(monkeypatch):
    table = written(clinics().head(60))
    Path("blocked").write_text("a file where a folder should be")
    with pytest.raises(UnseenError) as caught:
        run(table, "--target", "ill", "--report", "blocked/report.html")
    assert caught.value.fix

    def full(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UnseenError) as caught:
        run(table, "--target", "ill", "--report", "report.html")
    assert "space" in str(caught.value).lower()
    assert not Path("report.html").exists()


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(InvalidConfig) as caught:
        main(["--device", "cuda:77"])
    assert "cuda:77" in caught.value.what
    assert "doctor" in caught.value.fix


@pytest.mark.parametrize("role", ["site", "time", "entity"])
def test_a_target_with_a_second_role_is_refused_in_these_words(role):
    with pytest.raises(InvalidConfig, match=f"`ill` is both the target and the {role} column"):
        unseen.audit(clinics(), target="ill", **{role: "ill"}, seeds=1)


def test_a_report_that_cannot_be_written_is_refused_before_the_work(monkeypatch):
    refuse = lambda *_, **__: pytest.fail("work was done")  # noqa: E731
    monkeypatch.setattr("unseen.api.audit.read_subjects", refuse)
    Path("blocked").write_text("a file, not a folder")
    with pytest.raises(MissingFile, match="cannot be written"):
        unseen.audit(clinics(), target="ill", report="blocked/page.html")
