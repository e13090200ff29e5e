"""Predictions without their model: a class, a probability, a column per class, a number."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

import unseen
from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.subjects.table_predictions import match_classes

R = np.random.default_rng(0)
N = 240
FRAME = pd.DataFrame({"age": R.integers(20, 90, N), "sex": R.choice(["f", "m"], N)})
FRAME["site"] = R.choice(["A", "B", "C"], N)
LOG_ODDS = (FRAME.age - 55) / 8
FRAME["ill"] = np.where(R.random(N) < 1 / (1 + np.exp(-LOG_ODDS)), "yes", "no")
P = 1 / (1 + np.exp(-LOG_ODDS))


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def audited(predictions="p", frame=None, target="ill", **columns):
    frame = (FRAME if frame is None else frame).assign(**columns)
    return unseen.audit(
        frame, target=target, site="site", predictions=predictions, progress=False
    ).results


def test_a_probability_is_evaluated_as_it_stands_there():
    (one, *_) = [one for one in audited(p=P) if one.sites["unseen"] == "B"]
    here = FRAME.site == "B"
    y = FRAME.ill[here] == "yes"
    assert one.score("unseen", "AUC").value == pytest.approx(roc_auc_score(y, P[here]))
    assert one.score("unseen", "accuracy").value == pytest.approx(((P[here] > 0.5) == y).mean())
    expected = -np.log(np.where(y, P[here], 1 - P[here])).mean()
    assert one.score("unseen", "loss").value == pytest.approx(expected, rel=1e-5)
    assert any("the probability of `yes`" in text for text in one.decisions)
    assert one.readings["calibration error: unseen"].value < 0.3
    assert len(one.worst) == 5
    assert one.comparisons
    assert one.mode == "predictions as given"
    assert len(set(one.skipped.values())) == 1
    assert {"features", "remedies", "suspected labels", "coherence"} <= set(one.skipped)
    assert set(one.features) == set()


def test_columns_of_classes_are_matched_by_their_names_in_any_order():
    columns = {"p_yes": P.round(2), "p_no": 1 - P.round(2)}
    found = audited(["p_yes", "p_no"], **columns)[0]
    assert any("`p_no` for `no` and `p_yes` for `yes`" in text for text in found.decisions)
    assert found.score("unseen", "AUC").value > 0.8


@pytest.mark.parametrize(
    ("names", "classes", "matched"),
    [
        (["p_B", "p_A", "p_AB"], ["A", "AB", "B"], ["p_A", "p_AB", "p_B"]),
        (["p_unknown", "p_not ill", "p_ill"], ["ill", "not ill", "unknown"], None),
        (["first", "second"], ["x", "y"], ["first", "second"]),
    ],
)
def test_a_column_is_of_the_longest_class_that_its_name_ends_with(names, classes, matched):
    found = match_classes(names, classes)
    assert found == (matched or ["p_ill", "p_not ill", "p_unknown"])
    assert match_classes(names[::-1], classes) == (found if "p" in names[0] else names[::-1])


def test_columns_that_fit_no_class_beside_one_that_does_are_refused():
    with pytest.raises(InvalidData, match="cannot be told"):
        match_classes(["p_A", "other"], ["A", "B"])


def test_zeros_and_ones_are_the_predicted_class():
    found = audited(p=(P > 0.5).astype(int))[0]
    assert {s.metric for s in found.scores if s.model == found.name} == {"accuracy"}
    assert any("1 for `yes`" in text for text in found.decisions)


@pytest.mark.parametrize(
    ("there", "said"), [(np.nan, "lacks a prediction in 30 rows"), (80.0, "holds 80 in row")]
)
def test_predictions_at_an_unlabelled_new_site_are_checked(there, said):
    new = FRAME.assign(p=P).drop(columns="ill")[:60].copy()
    new.loc[::2, "p"] = there
    with pytest.raises(InvalidData, match=said):
        unseen.audit(
            FRAME.assign(p=P),
            against=new,
            target="ill",
            site="site",
            predictions="p",
            progress=False,
        )


def test_of_predicted_classes_there_is_accuracy_only():
    found = audited(p=np.where(P > 0.5, "yes", "no"))[0]
    metrics = {s.metric for s in found.scores if s.model == found.name}
    assert metrics == {"accuracy"}
    assert "probabilities" in found.skipped["calibration"]
    assert {o.metric for o in found.comparisons} == {"accuracy"}


def test_a_number_in_its_own_unit():
    days = 3 * FRAME.age + R.normal(0, 5, N) + 1_000
    found = audited(target="days", days=days, p=3 * FRAME.age + 1_000, frame=FRAME)[0]
    assert found.score("unseen", "mean absolute error").value == pytest.approx(4, abs=0.8)


def test_rows_without_a_prediction_are_left_out_and_counted():
    found = audited(p=P.where(FRAME.index > 9))
    assert sum(one.sizes["unseen"] for one in found) == N - 10
    assert any("10 rows without a prediction" in text for text in found[0].decisions)


def test_the_other_half_of_the_known_sites_is_evaluated():
    found = audited(p=P)[0]
    assert found.sizes["seen"] > 0.4 * (N - found.sizes["unseen"])


def test_what_is_refused():
    with pytest.raises(InvalidData, match=r"3\.7 in row 5"):
        audited(p=P.where(FRAME.index != 5, 3.7))
    with pytest.raises(InvalidData, match="sum to"):
        audited(["a", "b"], a=P, b=P / 2)
    with pytest.raises(InvalidData, match="3 columns of predictions"):
        audited(["p", "q", "r"], p=P, q=P, r=P)
    with pytest.raises(UnknownName, match="prediction"):
        audited("prediction", p=P)
    with pytest.raises(InvalidData, match="both the target and the predictions"):
        audited("ill")
    with pytest.raises(InvalidData, match="holds perhaps"):
        audited(p=np.where(P > 0.5, "perhaps", "not"))
    with pytest.raises(InvalidConfig, match="without a table"):
        unseen.audit(predictions="p", progress=False)
    with pytest.raises(InvalidConfig, match="beside a model"):
        unseen.audit(FRAME.assign(p=P), target="ill", estimator="sklearn.svm:SVC", predictions="p")
