"""`unseen serve`, and which commands store an answer for it."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

import unseen
from unseen.cli.main import main
from unseen.runs.answers import Answers


def answers() -> list:
    return Answers(Path(os.environ["UNSEEN_HOME"])).listing()


@pytest.fixture
def table(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    lines = ["x,ill,clinic"]
    lines += [f"{k % 7},{int(k % 7 > 3)},{'Basel' if k % 2 else 'Chur'}" for k in range(60)]
    path = tmp_path / "clinics.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


AUDIT = ["audit", "clinics.csv", "--target", "ill", "--site", "clinic", "--no-remedies"]
AUDIT += ["--seeds", "1", "--estimator", "sklearn.naive_bayes:GaussianNB", "--quiet"]


def test_an_audit_is_stored_with_what_pairs_it(table, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["unseen", *AUDIT])
    assert main(AUDIT) == 0
    (stored,) = answers()
    assert stored.question == "audit"
    assert stored.command == "unseen " + " ".join(AUDIT)
    assert stored.folder == str(table.parent)
    assert stored.version == unseen.__version__
    assert stored.facts["data"].startswith("clinics.csv, SHA-256")
    results = Answers(Path(os.environ["UNSEEN_HOME"])).results(stored.key)
    splits = {(one["subject"], one["split"]) for one in results["predictions"]}
    assert {("clinics: Basel", "unseen"), ("clinics: Chur", "unseen")} <= splits
    assert main(AUDIT) == 0
    assert [one.key for one in answers()] == [stored.key], "the same answer, once"


def test_a_study_is_stored_also_without_a_report_file(store, capsys):
    assert main(["run", "fake_counting", "--scale", "smoke", "--no-report", "--json"]) == 0
    (stored,) = answers()
    assert (stored.question, stored.title) == ("run", "fake_counting")
    assert stored.command == "unseen run fake_counting --scale smoke"
    json.loads(capsys.readouterr().out)


def test_answers_go_where_the_cells_go(store, tmp_path):
    home = str(tmp_path / "elsewhere")
    assert main(["run", "fake_counting", "--scale", "smoke", "--home", home]) == 0
    assert answers() == []
    assert len(Answers(Path(home)).listing()) == 1


def test_a_home_that_cannot_be_written_costs_the_answer_nothing(store, capsys, monkeypatch):
    from unseen.errors import MissingFile
    from unseen.questions import storage

    def refuse(*_: object) -> None:
        raise MissingFile("The disk is full.", why="nothing is free.", fix="free some.")

    monkeypatch.setattr(storage, "store_answer", refuse)
    assert main(["run", "fake_counting", "--scale", "smoke"]) == 0
    printed = capsys.readouterr()
    assert "not stored for `unseen serve`: The disk is full." in printed.err
    assert "report: reports/fake_counting/smoke.html" in printed.out


@pytest.mark.parametrize("port", ["-1", "65536"])
def test_a_port_that_does_not_exist_is_refused(port, capsys):
    pytest.importorskip("uvicorn")
    assert main(["serve", "--port", port]) == 2
    assert "There is no port" in capsys.readouterr().err


def test_the_page_is_served_until_ctrl_c(tmp_path):
    pytest.importorskip("uvicorn")
    process = subprocess.Popen(
        [sys.executable, "-m", "unseen.cli.main", "serve", "--port", "0", "--json"],
        env=os.environ | {"UNSEEN_HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        assert url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(url) as answer:
            assert b"Nothing is stored yet" in answer.read()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=600)
        assert process.returncode == 0
        assert "Traceback" not in said
    finally:
        process.kill()
        process.communicate()
