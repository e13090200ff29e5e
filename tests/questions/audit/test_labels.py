"""Flipped labels at one site: named with a rate, listed in full; honest tables raise nothing."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

import unseen


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path))


def table(flips: int, rows: int = 300) -> tuple[pd.DataFrame, set[int]]:
    """Three sites of so many rows; so many labels of Basel are turned."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(3 * rows, 4))
    ill = (rng.random(3 * rows) < expit(2.5 * x @ np.array([1.0, -0.8, 0.6, 0.5]))).astype(int)
    site = np.repeat(["Aarau", "Basel", "Chur"], rows)
    wrong = rng.choice(np.flatnonzero(site == "Basel"), flips, replace=False)
    ill[wrong] = 1 - ill[wrong]
    frame = pd.DataFrame(x, columns=list("abcd")).assign(site=site, ill=ill)
    return frame, {int(row) for row in wrong}


def audited(frame: pd.DataFrame):
    return unseen.audit(
        frame,
        target="ill",
        site="site",
        estimator="sklearn.linear_model:LogisticRegression",
        seeds=1,
        remedies={},
        measures={},
        progress=False,
    )


def test_flipped_labels_are_counted_named_and_listed_alike():
    frame, wrong = table(30)
    answer = audited(frame)
    (note,) = [n for n in answer.machine["notes"] if n["code"] == "U103"]
    assert "labels at Basel" in note["text"]
    assert "Aarau" not in note["text"]
    listed = [one["row"] for one in json.loads(answer.json())["suspected_labels"]]
    assert f"Check the {len(listed)} listed labels" in note["detail"]
    assert "% of them are expected to be wrong" in note["detail"]
    assert f"All {len(listed)} suspected labels" in str(answer.document)
    found = wrong & set(listed)
    assert len(found) >= 20
    assert len(found) >= 0.4 * len(listed)


def test_no_precision_is_told_where_a_relation_differs_at_a_site():
    frame, _ = table(60, rows=600)
    frame.loc[frame.site == "Chur", "c"] *= -1
    answer = audited(frame)
    notes = {note["code"]: note for note in answer.machine["notes"]}
    assert "Chur" in notes["U206"]["text"]
    detail = notes["U103"]["detail"]
    assert "cannot be told" in detail
    assert "Chur (U206)" in detail
    assert "% of them are expected to be wrong" not in detail


def test_honest_labels_raise_nothing():
    notes = audited(table(0)[0]).machine["notes"]
    assert "U103" not in {note["code"] for note in notes}
