"""Pipelines on a table's own columns: given by name, fitted before or trained again, of
scikit-learn or of others.
"""

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import LabelEncoder, OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

import unseen
from unseen.engine.batches import whole
from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.lab import Lab
from unseen.models.estimator import Estimator, class_positions
from unseen.subjects.sources import read_subjects
from unseen.subjects.table_models import is_estimator, is_fitted
from unseen.subjects.tables import TableColumns
from unseen.task import Use

R = np.random.default_rng(0)
N = 240
FRAME = pd.DataFrame({"age": R.integers(20, 90, N), "sex": R.choice(["f", "m"], N)})
FRAME["site"] = R.choice(["A", "B", "C"], N)
FRAME["ill"] = np.where(FRAME.age + R.normal(0, 10, N) > 55, "yes", "no")
FRAME["days"] = 200 + 3 * FRAME.age + R.normal(0, 5, N)
BY_NAME = ColumnTransformer(
    [("number", StandardScaler(), ["age"]), ("word", OneHotEncoder(), ["sex"])]
)
INPUTS = ["age", "sex"]
COLUMNS = TableColumns(target="ill", site="site", drop="days")


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def pipeline(last=None):
    return make_pipeline(BY_NAME, LogisticRegression() if last is None else last)


def audited(model, frame=FRAME, **options):
    settings = {"target": "ill", "site": "site", "drop": "days", "seeds": 1} | options
    return unseen.audit(model, frame, progress=False, **settings)


def subjects(model, mode=None, columns=COLUMNS, frame=FRAME):
    return read_subjects(model, Lab(), columns, table=frame, mode=mode)


def test_an_unfitted_pipeline_reads_columns_by_name_and_nothing_without_gradients_is_skipped():
    found = audited(pipeline()).results
    assert [one.name for one in found] == ["LogisticRegression"] * 3
    first = found[0]
    assert set(first.skipped) == {
        "coherence",
        "self-influence",
    }
    assert "has no gradients" in first.unmeasured["largest curvature"]
    assert {one.name for one in first.features} == {"age", "sex"}
    assert max(first.features, key=lambda one: one.reliance.value).name == "age"
    assert first.checked["suspected labels"].n == first.sizes["train"]
    assert len(first.worst) == 5
    assert first.error_explanation is not None
    assert {one.remedy for one in first.outcomes} == {"site reweighting"}
    assert any("Trained again without the site" in text for text in first.decisions)


def test_the_subject_gives_the_answers_of_the_pipeline_itself():
    model = pipeline().fit(FRAME[INPUTS], FRAME.ill)
    (subject,) = [one for one in subjects(model, "as-it-is") if one.held_out == "B"]
    here = FRAME[FRAME.site == "B"]
    batch = whole(subject.task.splits["unseen"].data, Lab())
    assert batch["index"].tolist() == here.index.tolist()
    expected = model.predict_log_proba(here[INPUTS])
    np.testing.assert_allclose(subject.trained(batch["x"]).exp(), np.exp(expected), atol=1e-6)


def test_a_copy_trained_again_has_not_seen_the_site():
    (subject,) = [one for one in subjects(pipeline()) if one.held_out == "C"]
    batch = whole(subject.task.splits["train"].data, Lab())
    model = subject.model()
    model.learn(batch["x"], batch["y"])
    rows = FRAME.iloc[batch["index"]]
    assert "C" not in set(rows.site)
    expected = pipeline().fit(rows[INPUTS], rows.ill).predict_proba(FRAME[INPUTS])
    every = Lab(), subject.task.splits["unseen"]
    x = whole(every[1].data, every[0])
    np.testing.assert_allclose(model(x["x"]).exp(), expected[x["index"]], atol=1e-6)


def test_a_model_fitted_on_all_rows_is_refused_or_named():
    model = pipeline().fit(FRAME[INPUTS], FRAME.ill)
    with pytest.raises(InvalidData, match="very rows it is evaluated on") as error:
        subjects(model)
    assert "trained-again" in error.value.fix
    assert "in-sample" in subjects(model, "as-it-is")[0].warnings[0]
    assert subjects(model, "trained-again")[0].trained is None


def test_of_a_model_fitted_without_one_site_that_site_is_audited():
    rest = FRAME[FRAME.site != "B"]
    found = subjects(pipeline().fit(rest[INPUTS], rest.ill))
    assert [one.held_out for one in found] == ["B"]
    assert "all rows here but those of B" in found[0].warnings[0]
    # the other rows are its training examples: none of them stands for new ones of known sites
    uses = {name: split.use for name, split in found[0].task.splits.items()}
    assert uses == {
        "train": Use.TRAIN,
        "select": Use.TRAIN,
        "seen": Use.TRAIN,
        "unseen": Use.EVALUATE,
    }


def test_what_cannot_be_known_is_said():
    part = FRAME.sample(60, random_state=1)
    found = subjects(pipeline().fit(part[INPUTS], part.ill))
    assert len(found) == 3
    assert "cannot be known" in found[0].warnings[0]
    deep = pipeline(RandomForestClassifier(60, random_state=3))
    part = FRAME.sample(frac=0.9, random_state=2)
    found = subjects(deep.fit(part[INPUTS], part.ill))
    assert "clearly better than a copy" in found[0].warnings[0]


def test_a_regression_is_audited_in_its_own_unit():
    found = audited(pipeline(Ridge()), target="days", drop="ill").results[0]
    assert found.score(next(iter(found.unseen)), "mean absolute error").value == pytest.approx(
        4, abs=1.5
    )


class Nearest:
    """Has `fit`, `predict`, `predict_proba` and `classes_`, and nothing of scikit-learn."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.means_ = np.array([X.age[np.asarray(y) == one].mean() for one in self.classes_])
        return self

    def predict_proba(self, X):
        distance = np.abs(X.age.to_numpy()[:, None] - self.means_)
        scores = np.exp(-distance / 10)
        return scores / scores.sum(1, keepdims=True)

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(1)]


def test_estimators_of_others_are_audited():
    assert is_estimator(Nearest())
    assert not is_fitted(Nearest())
    assert is_fitted(Nearest().fit(FRAME, FRAME.ill))
    assert audited(Nearest()).results[0].name == "Nearest"


class OnlyNumbers(Nearest):
    """Takes no words as classes, as xgboost."""

    def fit(self, X, y):
        if np.asarray(y).dtype.kind != "i":
            raise ValueError("Invalid classes inferred from unique values of `y`.")
        return super().fit(X, y)


def test_classes_as_numbers_where_words_are_refused():
    (first, *_) = subjects(OnlyNumbers())
    batch = whole(first.task.splits["train"].data, Lab())
    model = first.model()
    model.learn(batch["x"], batch["y"])
    assert (model(batch["x"]).argmax(1) == batch["y"]).float().mean() > 0.7


def test_numbered_classes_of_a_fitted_model_are_read_in_the_order_of_the_words():
    part = FRAME.sample(100, random_state=4)
    model = OnlyNumbers().fit(part, (part.ill == "yes").to_numpy().astype(int))
    (first, *_) = subjects(model)
    assert any("0 for `no` and 1 for `yes`" in text for text in first.decisions)
    batch = whole(first.task.splits["unseen"].data, Lab())
    assert (first.trained(batch["x"]).argmax(1) == batch["y"]).float().mean() > 0.7


@pytest.mark.parametrize(
    ("package", "kind", "quiet"),
    [("xgboost", "XGBClassifier", 0), ("lightgbm", "LGBMClassifier", -1)],
)
def test_boosted_trees_of_other_packages(package, kind, quiet):
    trees = getattr(pytest.importorskip(package), kind)(n_estimators=10, verbosity=quiet)
    found = audited(make_pipeline(BY_NAME, trees)).results[0]
    assert found.score("unseen", "AUC").value > 0.8
    trees.fit(FRAME[["age"]], FRAME.ill == "yes")
    (first, *_) = subjects(trees, "as-it-is")
    batch = whole(first.task.splits["unseen"].data, Lab())
    expected = trees.predict_proba(FRAME[["age"]].iloc[batch["index"]])
    np.testing.assert_allclose(first.trained(batch["x"]).exp(), expected, atol=1e-6)


def test_what_is_refused():
    with pytest.raises(InvalidConfig, match="without a table"):
        unseen.audit(pipeline(), target="ill", progress=False)
    with pytest.raises(InvalidConfig, match="is not fitted"):
        subjects(pipeline(), "as-it-is")
    with pytest.raises(UnknownName, match="mode"):
        subjects(pipeline(), "as-is")
    with pytest.raises(InvalidConfig, match="without a model"):
        read_subjects(FRAME, Lab(), COLUMNS, mode="as-it-is")
    with pytest.raises(InvalidConfig, match="before the table"):
        read_subjects(LogisticRegression, Lab(), COLUMNS, table=FRAME)
    with pytest.raises(InvalidConfig, match="Two models"):
        audited(pipeline(), estimator="sklearn.svm:SVC")
    renamed = FRAME[INPUTS].rename(columns={"sex": "gender"})
    with pytest.raises(UnknownName, match="gender"):
        subjects(make_pipeline(OneHotEncoder(), LogisticRegression()).fit(renamed, FRAME.ill))
    leaky = FRAME[["age"]].assign(ill=FRAME.ill == "yes")
    with pytest.raises(InvalidData, match="target `ill` itself"):
        subjects(LogisticRegression().fit(leaky, FRAME.ill))
    with pytest.raises(InvalidData, match="on 1 columns without names"):
        subjects(LogisticRegression().fit(FRAME[["age"]].to_numpy(), FRAME.ill))
    with pytest.raises(InvalidData, match="gives no probabilities"):
        subjects(LinearSVC().fit(FRAME[["age"]], FRAME.ill))
    with pytest.raises(InvalidData, match="cannot be fitted") as error:
        audited(LogisticRegression())
    assert "ColumnTransformer" in error.value.fix


def test_probabilities_are_added_where_copies_are_trained():
    model = make_pipeline(BY_NAME, LinearSVC()).fit(FRAME[INPUTS], FRAME.ill)
    (first, *_) = subjects(model, "trained-again")
    assert any("gives no probabilities" in text for text in first.decisions)
    assert isinstance(first.model(), Estimator)


def test_a_column_that_the_model_does_not_read_is_no_feature():
    part = FRAME.sample(60, random_state=5)
    model = LogisticRegression().fit(part[["age"]], part.ill)
    (first, *_) = subjects(model)
    assert list(first.features) == ["age"]
    assert any("does not read `sex`" in text for text in first.decisions)


def test_a_file_is_read_as_pandas_reads_it(tmp_path):
    FRAME.to_csv(tmp_path / "t.csv", index=False)
    part = pd.read_csv(tmp_path / "t.csv").sample(60, random_state=1)
    model = pipeline().fit(part[INPUTS], part.ill)
    of_file, of_frame = (
        subjects(model, frame=source)[0] for source in (str(tmp_path / "t.csv"), FRAME)
    )
    x = [whole(one.task.splits["unseen"].data, Lab())["x"] for one in (of_file, of_frame)]
    np.testing.assert_allclose(of_file.trained(x[0]), of_frame.trained(x[1]), atol=1e-6)


@pytest.mark.parametrize(
    ("found", "cells", "places"),
    [
        ([0, 1, 2], [10, 20, 100], [0, 1, 2]),
        ([0, 1], [-2, -1], [0, 1]),
        ([0, 1, 2], ["10", "20", "100"], [0, 2, 1]),
        ([0, 1], ["well", "ill"], [1, 0]),
    ],
)
def test_numbered_classes_are_in_the_order_of_a_label_encoder(found, cells, places):
    encoder = LabelEncoder().fit(cells)
    assert [cells[k] for k in class_positions(found, cells, len(cells))] == list(encoder.classes_)
    assert class_positions(found, cells, len(cells)).tolist() == places


def test_a_pipeline_that_fails_at_a_site_is_said_there_and_audited_elsewhere():
    frame = FRAME.assign(sex=FRAME.sex.where(FRAME.site != "C", "x"))
    known = frame[frame.site != "C"]
    pipe = pipeline().fit(known[INPUTS], known.ill)
    found = audited(pipe, frame).results
    (there,) = [one for one in found if one.sites["unseen"] == "C"]
    assert any("predict_proba failed: Found unknown" in why for why in there.skipped.values())
    assert any(one.score("unseen", "accuracy") for one in found if one is not there)
