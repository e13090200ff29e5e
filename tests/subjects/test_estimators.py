"""scikit-learn estimators as they are named on the command line."""

import numpy as np
import pandas as pd
import pytest

import unseen
from unseen.errors import InvalidData

R = np.random.default_rng(0)
FRAME = pd.DataFrame({"age": R.integers(20, 90, 90), "sex": R.choice(["f", "m"], 90)})
FRAME["site"] = R.choice(["A", "B"], 90)
FRAME["ill"] = np.where(FRAME.age + R.normal(0, 10, 90) > 55, "yes", "no")
OWN = """
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

def Pipe():
    columns = ColumnTransformer([("num", StandardScaler(), ["age"])])
    return make_pipeline(columns, LogisticRegression())

def Plain():
    return make_pipeline(StandardScaler(), LogisticRegression())
"""


def audited(estimator: str) -> unseen.Answer:
    return unseen.audit(
        FRAME, target="ill", site="site", estimator=estimator, seeds=1, remedies={}, progress=False
    )


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def test_a_classifier_without_probabilities_gets_them_by_calibration():
    found = audited("sklearn.svm:SVC").results[0]
    assert found.name == "SVC"
    assert {one.metric for one in found.scores if one.model == "SVC"} == {"accuracy", "AUC", "loss"}
    assert any("SVC gives no probabilities" in text for text in found.decisions)


def test_a_module_in_the_working_folder_is_found_and_columns_by_name_are_refused(
    tmp_path, monkeypatch
):
    (tmp_path / "own_pipelines.py").write_text(OWN)
    monkeypatch.setattr("sys.path", [p for p in __import__("sys").path if p not in ("", ".")])
    assert audited("own_pipelines:Plain").results[0].scores
    with pytest.raises(InvalidData, match="Specifying the columns using strings") as found:
        audited("own_pipelines:Pipe")
    assert "without names" in found.value.why
    assert "--estimator" in found.value.fix


def decisions(**options) -> str:
    found = unseen.audit(
        FRAME,
        target="ill",
        site="site",
        seeds=1,
        remedies={},
        measures={},
        progress=False,
        **options,
    )
    return " ".join(text for one in found.results for text in one.decisions)


def test_the_report_names_the_steps_that_were_asked_for():
    assert "for 7 steps of 64 examples" in decisions(steps=7)
    assert "for 60 steps of 64 examples" not in decisions(steps=7)


def test_no_network_is_described_where_an_estimator_is_audited():
    said = decisions(estimator="sklearn.linear_model:LogisticRegression")
    assert "multilayer perceptron" not in said
    assert "The comparison models are scikit-learn's" in said
