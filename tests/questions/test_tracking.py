"""An answer in a tracker: every reading with its interval, codes, verdicts, files; nothing else."""

from pathlib import Path

import pytest
from stored_audits import findings

import unseen
from unseen.cli.main import main
from unseen.document import Document, Note, Section, Tone
from unseen.errors import MissingExtra, UnknownName
from unseen.questions.tracking import scalars_of, texts_of, track_answer, verdicts_of
from unseen.reading import Reading
from unseen.report.json import plain
from unseen.runs import trackers
from unseen.runs.trackers import Scalars, check_tracker, name_of
from unseen.tasks.hospitals import write_heart_csv

ESTIMATOR = "sklearn.naive_bayes:GaussianNB"

PAGE = Document(
    title="Network on clinics",
    kicker="audit",
    lead="It holds.",
    sections=[
        Section(
            "What to do next",
            [
                Note("Leak.", Tone.CAUTION, code="U101"),
                Note("Fine.", Tone.GOOD, code="U001"),
            ],
        )
    ],
    facts={"command": "unseen audit clinics.csv"},
)


class Recorder(Scalars):
    """A tracker in memory."""

    location = "memory"

    def __init__(self, name="unseen"):
        super().__init__()
        self.name, self.sent, self.texts, self.files = name, {}, {}, {}
        self.is_closed = False

    def send(self, name, value, step):
        assert step == 0, f"{name} was sent twice"
        self.sent[name] = value

    def describe(self, texts):
        self.texts |= texts

    def file(self, path: Path):
        self.files[path.name] = path.read_text("utf-8")

    def close(self):
        self.is_closed = True


@pytest.fixture
def recorder(monkeypatch):
    made = []

    def make(name):
        made.append(Recorder(name))
        return made[-1]

    monkeypatch.setitem(trackers.TRACKERS, "memory", ("json", make))
    return made


def test_every_score_of_an_audit_arrives_with_its_interval(recorder):
    found = findings(0, 1.0)
    assert track_answer("memory", "audit", PAGE, {"findings": found}) == "memory"
    (run,) = recorder
    assert run.name == "unseen-audit"
    assert run.is_closed
    scores = {
        name_of(("findings", one.task, "network", "scores", *(s.model, s.split, s.metric), end)): v
        for one in found
        for s in one.scores
        for end, v in (
            ("value", s.reading.value),
            ("low", s.reading.low),
            ("high", s.reading.high),
        )
    }
    assert len(scores) >= 12
    assert {name: run.sent[name] for name in scores} == pytest.approx(scores)
    assert {*run.files} == {"report.html", "results.json"}
    assert run.sent["raised/U101"] == 1
    assert "raised/U001" not in run.sent
    assert run.texts["findings"] == "U101"
    assert run.texts["command"] == "unseen audit clinics.csv"


def test_readings_are_the_scalars_and_a_missing_interval_sends_no_ends():
    value = plain(
        {
            "cells": [
                {"method": "ERM", "column": "Basel", "reading": Reading(0.5, 0.4, 0.6)},
                {"method": "ERM", "column": "Chur", "reading": Reading(0.7)},
            ],
            "seeds": 3,
            "checked": {"detail": Reading(1.0)},
        }
    )
    assert {"/".join(path): v for path, v in scalars_of(value)} == {
        "cells/ERM/Basel/value": 0.5,
        "cells/ERM/Basel/low": 0.4,
        "cells/ERM/Basel/high": 0.6,
        "cells/ERM/Chur/value": 0.7,
    }


def test_entries_of_equal_names_are_numbered():
    value = [plain({"name": "a", "x": Reading(float(k))}) for k in range(2)]
    assert [path for path, _ in scalars_of(value)] == [
        ("a", "0", "x", "value"),
        ("a", "1", "x", "value"),
    ]


def test_verdicts_of_claims_and_sites_are_texts():
    numbers = {
        "claims": [{"says": "It holds.", "verdict": "supported", "value": 1.0}],
        "equivalence": [{"site": "Basel", "metric": "AUC", "verdict": "holds"}],
    }
    assert dict(verdicts_of(numbers)) == {
        ("claims", "It holds."): "supported",
        ("equivalence", "Basel", "AUC"): "holds",
    }
    texts = texts_of("run", PAGE, numbers)
    assert texts["verdict: claims/It holds."] == "supported"


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        (("São Paulo", "AUC"), "São Paulo/AUC"),
        (("a/b", "50 %"), "a_2f_b/50 _25_"),
        (("..", "", "x"), "_2e__2e_/_/x"),
    ],
)
def test_names_are_plain(parts, name):
    assert name_of(parts) == name


def test_long_names_stay_apart():
    first, second = (name_of(("x" * 400 + end,)) for end in "ab")
    assert first != second
    assert len(first) <= trackers.LONGEST


def test_unknown_and_missing_trackers_are_refused_before_any_work(monkeypatch, capsys):
    with pytest.raises(UnknownName, match="tensorboard"):
        check_tracker("tensorbord")
    monkeypatch.setitem(trackers.TRACKERS, "absent", ("no_such_library", Recorder))
    with pytest.raises(MissingExtra, match=r"pip install .unseen\[absent\]"):
        check_tracker("absent")
    assert main(["audit", "no-such-file.csv", "--track", "absent"]) == 2
    assert "absent is not installed" in capsys.readouterr().err


def test_an_audit_from_the_command_line_is_tracked_once(recorder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    table = str(write_heart_csv(tmp_path / "heart.csv"))
    named = ["--target", "disease", "--site", "hospital", "--holdout", "Cleveland"]
    quick = ["--estimator", ESTIMATOR, "--seeds", "1", "--no-remedies", "--quiet"]
    assert main(["audit", table, *named, *quick, "--track", "memory"]) == 0
    (run,) = recorder
    assert "memory: memory" in capsys.readouterr().err
    assert run.files["report.html"] == Path("unseen-report.html").read_text("utf-8")
    assert any(name.endswith("AUC/value") for name in run.sent)


def test_a_study_is_tracked_with_its_verdicts(recorder, store, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    main(["run", "fake_counting", "--scale", "smoke", "--home", str(store.root), "--no-report",
          "--track", "memory"])  # fmt: skip
    (run,) = recorder
    assert any(name.startswith("verdict: claims/") for name in run.texts)
    assert any(name.startswith("claims/") for name in run.sent)


def test_python_asks_by_track(recorder, tmp_path):
    columns = {"target": "disease", "site": "hospital", "holdout": "Cleveland"}
    unseen.audit(
        write_heart_csv(tmp_path / "heart.csv"),
        estimator=ESTIMATOR,
        seeds=1,
        remedies={},
        progress=False,
        track="memory",
        **columns,
    )
    (run,) = recorder
    assert run.name == "unseen-audit"
