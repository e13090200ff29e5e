"""Held-out sites by several processes: the same numbers, in the same order."""

from dataclasses import replace

import pytest

import unseen
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.methods.erm import ERM
from unseen.questions.parallel import find_workers, refuse_own_objects
from unseen.report.json import plain
from unseen.subjects.sources import read_subjects
from unseen.tasks.table import clinics

COLUMNS = {"target": "ill", "site": "clinic"}
FEW = {"steps": 5, "seeds": 1, "remedies": {}, "progress": False}


def test_two_processes_give_the_numbers_of_one(tmp_path, monkeypatch):
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path))
    path = tmp_path / "table.csv"
    clinics().to_csv(path, index=False)
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path / "one"))
    alone = unseen.audit(path, **COLUMNS, **FEW)
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path / "two"))
    together = unseen.audit(path, **COLUMNS, **FEW, jobs=2)
    assert len(alone.results) > 1
    pairs = zip(alone.results, together.results, strict=True)
    for one, other in pairs:
        assert plain(replace(one, seconds={})) == plain(replace(other, seconds={}))


def test_what_cannot_be_sent_to_a_process_is_refused():
    subjects = read_subjects(None, Lab())
    with pytest.raises(InvalidConfig, match="cannot be sent to another process"):
        unseen.audit(subjects, jobs=2, **FEW)
    with pytest.raises(InvalidConfig, match="jobs=2 was given with lab"):
        unseen.audit(jobs=2, lab=Lab(), **FEW)
    workers = find_workers("", 2)
    with pytest.raises(InvalidConfig, match="remedies"):
        refuse_own_objects(workers, remedies={"more": lambda budget: ERM(budget)}, measures=None)
    refuse_own_objects(workers, lab=None, measures=None)
