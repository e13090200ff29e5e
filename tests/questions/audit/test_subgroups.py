"""Subgroups, named and unnamed: a planted one reaches the headline, exchangeable ones do not."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

import unseen
from unseen.questions.audit.check import CheckResult
from unseen.questions.audit.checks.subgroups import LevelScores, SubgroupCheck
from unseen.questions.audit.results import Findings
from unseen.reading import Reading

LINEAR = "sklearn.linear_model:LogisticRegression"


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path))


def table(seed: int, inverted: bool) -> pd.DataFrame:
    """Three sites; the relation to the target is inverted for 15 % of the rows, or for none."""
    rng, n = np.random.default_rng(seed), 600
    eth = rng.choice(["x", "y"], n, p=[0.15, 0.85])
    age, lab = rng.normal(55, 12, n).round(), rng.normal(size=n)
    z = (age - 55) / 8 + lab
    z = np.where((eth == "x") & inverted, -z, z)
    site = rng.choice(["Aarau", "Basel", "Chur"], n)
    ill = (rng.random(n) < expit(z)).astype(int)
    return pd.DataFrame({"site": site, "eth": eth, "age": age, "lab": lab, "ill": ill})


def audited(frame: pd.DataFrame, **options: object):
    return unseen.audit(
        frame,
        target="ill",
        site="site",
        estimator=LINEAR,
        seeds=1,
        remedies={},
        measures={},
        progress=False,
        **options,  # type: ignore[arg-type]
    )


def codes(answer, *wanted: str) -> list[tuple[str, str]]:
    notes = answer.machine["notes"]
    return [(note["code"], note["text"]) for note in notes if note["code"] in wanted]


def test_an_inverted_subgroup_is_named_in_advice_and_headline():
    answer = audited(table(0, inverted=True), groups="eth")
    ((code, text),) = codes(answer, "U210", "U211")
    assert code == "U210"
    assert "worse for eth = x: AUC 0." in text
    assert text in answer.document.lead


def test_an_inverted_part_is_found_without_naming_it():
    answer = audited(table(0, inverted=True))
    ((code, text),) = codes(answer, "U210", "U211")
    assert code == "U211"
    assert "where `eth` is x (" in text
    assert "AUC 0." in text
    searched = json.loads(answer.json())["findings"][0]["checked"]["slices"]
    assert searched.keys() == {"kind", "n"}  # the arrays that were searched stay out of it


def test_exchangeable_subgroups_raise_nothing():
    for seed in (1, 2, 3):
        assert not codes(audited(table(seed, inverted=False), groups="eth"), "U210", "U211")


def level(name: str, inside: float, rest: float, metric: str = "AUC") -> LevelScores:
    def near(value: float) -> Reading:
        return Reading(value, value - 0.05, value + 0.05, 100)

    return LevelScores(group="g", level=name, metric=metric, inside=near(inside), rest=near(rest))


def texts(*levels: LevelScores) -> list[str]:
    one = Findings(name="net", task="t", score_name="AUC", seeds=1)
    return [note.text for note in SubgroupCheck().notes([CheckResult(one, list(levels))])]


def test_a_difference_must_outlast_the_number_of_subgroups():
    barely = level("a", 0.72, 0.80)
    assert texts(barely)
    assert not texts(barely, *(level(f"n{k}", 0.8, 0.8) for k in range(30)))


def test_of_errors_the_larger_is_worse():
    (text,) = texts(level("a", 3.0, 2.0, "mean absolute error"))
    assert "worse for g = a: mean absolute error 3.00" in text
    assert not texts(level("a", 2.0, 3.0, "mean absolute error"))
