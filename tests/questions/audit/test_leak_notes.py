"""What a leak looks like on the first page: consequences of the outcome, and numbered rows."""

import numpy as np
import pandas as pd
import pytest

from unseen.lab import Lab
from unseen.questions.audit.check import CheckResult
from unseen.questions.audit.checks.leaks import LeakCheck
from unseen.questions.audit.results import Findings
from unseen.subjects.session import open_session
from unseen.subjects.sources import read_subjects
from unseen.subjects.tables import TableColumns


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path))


def texts(frame: pd.DataFrame) -> list[str]:
    (subject,) = read_subjects(frame, Lab(), TableColumns(target="ill"), steps=1)
    session = open_session(subject, Lab(), seeds=1)
    one = Findings(name="net", task="t", score_name="AUC", seeds=1)
    return [n.text for n in LeakCheck().notes([CheckResult(one, LeakCheck().find(session))])]


def test_a_flag_that_follows_the_outcome_is_named():
    rng = np.random.default_rng(0)
    ill = (rng.random(4_000) < 0.45).astype(int)
    returned = np.where((ill == 1) | (rng.random(4_000) < 0.05), "yes", "no")
    frame = pd.DataFrame(
        {"age": rng.normal(50, 9, 4_000).round(), "returned": returned, "ill": ill}
    )
    assert texts(frame) == ["`returned` alone settles the target for half of one class and more."]


def test_rows_numbered_by_outcome_are_named_though_the_number_is_no_input():
    rng = np.random.default_rng(0)
    ill = np.repeat([0, 1], 150)
    frame = pd.DataFrame({"id": np.arange(300), "age": rng.normal(50, 9, 300).round(), "ill": ill})
    (text,) = texts(frame)
    assert "`id` numbers the rows, and its numbers sort with the target: AUC 1.0" in text
    assert not texts(frame.assign(ill=rng.permutation(ill)))
