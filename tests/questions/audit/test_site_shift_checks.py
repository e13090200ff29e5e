"""Why a site differs: the sentence names feature, site, size and action."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from unseen.document import Note, Table, Tone
from unseen.engine.loop import Budget
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.questions.audit.check import Check, CheckResult
from unseen.questions.audit.checks import copies, local_labels, recording, site_shift
from unseen.questions.audit.remedies import flagged_features, without_feature
from unseen.questions.audit.training_data import overlaps
from unseen.subjects.session import Session, open_session
from unseen.subjects.table_predictions import of_table_with_predictions
from unseen.subjects.tables import TableColumns, of_table

from .test_document import found as findings

SITES = ("Basel", "Bern", "R")
N = 150


def table(kind: str = "", seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    n = N * len(SITES)
    site = np.repeat(SITES, N)
    there = site == "R"
    age, dose = rng.normal(50, 10, n), rng.normal(3, 1, n)
    creatinine = np.exp(0.2 * rng.normal(size=n))
    if kind == "covariate":
        age[there] += 15
    z = (age - 50) / 10 + np.where(there & (kind == "relation"), -1, 1) * (dose - 3)
    z += 2.5 * (there & (kind == "prevalence"))
    if kind == "unit":
        creatinine[there] *= 1000
    if kind == "sentinel":
        creatinine[there & (rng.random(n) < 0.15)] = -1
    if kind == "empty":
        creatinine[there] = np.nan
    frame = pd.DataFrame({"age": age, "dose": dose, "creatinine": creatinine, "site": site})
    frame["ill"] = (rng.random(n) < 1 / (1 + np.exp(-z))).astype(int)
    if kind == "copies":
        frame.loc[frame.index[there][:7], ["age", "dose", "creatinine"]] = frame.iloc[:7][
            ["age", "dose", "creatinine"]
        ].to_numpy()
    return frame


def sessions(frame: pd.DataFrame, **options: object) -> list[Session]:
    columns = TableColumns(target="ill", site="site")
    subjects = of_table(frame, Lab(), columns)
    budget = Budget(steps=20, batch_size=64, lr=2e-2)
    return [open_session(replace(one, budget=budget, **options), Lab()) for one in subjects]


def notes(check: Check, frame: pd.DataFrame) -> list[Note]:
    results = [CheckResult(findings(), check.find(one)) for one in sessions(frame)]
    tables = check.evidence(results)
    assert all(isinstance(block, Table) and block.rows for block in tables)
    return check.notes(results)


PLANTED = {
    "relation": (site_shift.check, "U206", "`dose` has another relation to the target at R: it is"),
    "covariate": (site_shift.check, "U207", "`age` at R lies elsewhere"),
    "prevalence": (site_shift.check, "U208", "the target is commoner at R."),
    "unit": (recording.check, "U105", "Convert `creatinine` at R: its values are"),
    "sentinel": (recording.check, "U105", "`creatinine` is -1 in 1"),
    "empty": (recording.check, "U105", "`creatinine` is recorded at some sites only."),
    "copies": (copies.check, "U102", "14 rows have a copy, 14 of them at another site."),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_what_is_planted_is_named_once(kind: str) -> None:
    check, code, words = PLANTED[kind]
    (note,) = notes(check, table(kind))
    assert note.code == code
    assert words in note.text
    assert note.tone in (Tone.BAD, Tone.CAUTION) or code == "U207"
    action = {"U105": "audit again", "U102": "--entity", "U206": "--drop dose"}.get(code, "there")
    assert action in note.detail


def test_of_several_classes_the_one_that_is_commoner_is_named() -> None:
    frame = table("prevalence")
    score = frame["age"] / 10 + frame["dose"] + 3 * (frame["site"] == "R")
    frame["ill"] = np.where(frame["ill"] == 1, np.where(score > 9, "late", "early"), "none")
    (note,) = notes(site_shift.check, frame)
    assert "anew: `late` is commoner at R." in note.text or "`none` is rarer at R." in note.text
    assert note.detail.startswith(("R, `late`: 0.", "R, `none`: 0."))


def test_sites_of_one_kind_raise_nothing() -> None:
    frame = table()
    for check in (site_shift.check, recording.check, copies.check):
        assert notes(check, frame) == []


def test_a_column_in_another_unit_is_not_also_a_shift() -> None:
    assert notes(site_shift.check, table("unit")) == []


def test_what_tells_sites_apart_leaves_out_columns_that_are_recorded_otherwise() -> None:
    (there,) = site_shift.check.find(sessions(table("unit"))[-1])
    assert there.left_out == ["creatinine"]
    assert there.classifier is not None
    assert "creatinine" not in there.classifier.features
    assert there.classifier.auc.value < 0.7
    assert there.classifier.p > 0.001


@pytest.fixture(scope="module")
def recorded() -> list[Session]:
    """Rows of R copied from Basel, with predictions that give away where a row is from."""
    frame = table("copies")
    rng, there = np.random.default_rng(9), (frame["site"] == "R").to_numpy()
    frame["predicted"] = np.where(there, 0.9, 0.1) + 0.05 * rng.random(len(frame))
    columns = TableColumns(target="ill", site="site")
    subjects = of_table_with_predictions(frame, Lab(), columns, ["predicted"])
    return [open_session(one, Lab()) for one in subjects]


def test_copies_are_found_whatever_was_predicted_for_them(recorded: list[Session]) -> None:
    found = copies.check.find(recorded[-1])
    assert found.across == 14
    assert not found.are_coincidences
    assert sum(one.exact for one in overlaps(recorded[-1])) > 0


def test_predictions_do_not_tell_sites_apart(recorded: list[Session]) -> None:
    (there,) = site_shift.check.find(recorded[-1])
    assert there.classifier is not None
    assert there.classifier.auc.value < 0.7
    assert there.classifier.p > 0.001


def test_of_two_sites_either_may_have_the_other_unit() -> None:
    frame = table("unit")
    (note,) = notes(recording.check, frame[frame["site"] != "Bern"].reset_index(drop=True))
    assert note.tone is Tone.BAD
    assert note.text.startswith("`creatinine` at R and Basel differ by 1")
    assert note.text.endswith("×: one of them is recorded in another unit.")


def test_another_scale_is_a_shift_and_no_unit() -> None:
    frame = table()
    there = frame["site"] == "R"
    rng = np.random.default_rng(7)
    frame.loc[there, "age"] = rng.normal(5, 2, there.sum()).clip(0.5)
    assert notes(recording.check, frame) == []
    found = {note.code: note.text for note in notes(site_shift.check, frame)}
    assert "`age` at R lies elsewhere" in found["U207"]


def test_a_unit_that_is_unsure_is_a_caution_and_still_compared() -> None:
    frame = table()
    frame["creatinine"] = np.tile(np.exp(np.linspace(-0.6, 0.6, N)), len(SITES))
    frame.loc[frame["site"] == "R", "creatinine"] *= 1_200
    (note,) = notes(recording.check, frame)
    assert note.tone is Tone.CAUTION
    assert "If the unit is another" in note.detail
    found = {note.code: note.text for note in notes(site_shift.check, frame)}
    assert "`creatinine` at R" in found["U207"]


def test_a_gap_is_decomposed_by_score_and_by_area() -> None:
    session = sessions(table("relation"))[-1]
    (there,) = site_shift.check.find(session)
    assert there.obstacle == ""
    assert set(there.gaps) == {"accuracy", "AUC"}
    for gap in there.gaps.values():
        total = gap.covariate.value + gap.prevalence.value + gap.relation.value
        assert total == pytest.approx(gap.gap.value)
        assert gap.relation.value < min(gap.covariate.value, gap.prevalence.value)


def test_a_subject_without_sites_or_features_says_why_it_is_not_compared() -> None:
    frame = table()
    (alone,) = [
        open_session(replace(one, budget=Budget(steps=2)), Lab())
        for one in of_table(frame.drop(columns="site"), Lab(), TableColumns(target="ill"))
    ]
    with pytest.raises(InvalidData, match="unseen site"):
        site_shift.check.find(alone)
    for session in sessions(frame, features={})[:1]:
        with pytest.raises(InvalidData, match="names no features"):
            copies.check.find(session)


def test_the_future_is_compared_with_the_past() -> None:
    frame = table("covariate").drop(columns="site")
    frame["year"] = np.arange(len(frame))
    columns = TableColumns(target="ill", time="year")
    (subject,) = of_table(frame, Lab(), columns)
    session = open_session(replace(subject, budget=Budget(steps=2)), Lab())
    (there,) = site_shift.check.find(session)
    assert there.shifts[0].feature == "age"
    assert there.shifts[0].p == 0.001


@pytest.mark.parametrize("kind", ["network", "estimator"])
def test_a_reversed_feature_is_left_out_and_labels_of_the_site_help(kind: str) -> None:
    frame = table("relation")
    frame["dose"] *= 3  # the relation that is reversed is most of what the model learns
    columns = TableColumns(target="ill", site="site")
    subject = of_table(frame, Lab(), columns)[-1]
    budget = Budget(steps=40, batch_size=64, lr=2e-2)
    subject = replace(subject, budget=budget)
    if kind == "estimator":
        subject = replace(subject, model=LogisticRegression(), budget=budget)
    session = open_session(subject, Lab(), retrain=True)
    (there,) = site_shift.check.find(session)
    assert flagged_features(session, {"why sites differ": [there]}) == ["dose"]
    changes = {(one.split, one.metric): one.change for one in without_feature(session, "dose")}
    assert changes["unseen", "AUC"].low > 0
    assert changes["seen", "AUC"].value < 0
    result = local_labels.check.find(session)
    (labels,) = result
    assert labels.skipped == {}
    assert {(one.remedy, one.labels) for one in labels.gains} == {
        (remedy, count)
        for remedy in ("recalibration", "threshold", "local refit")
        for count in (30, 100)
    }
    (note,) = local_labels.check.notes([CheckResult(findings(), result)])
    assert note.text == "30 labels from R would help there."
    assert note.code == "U402"
    assert note.tone is Tone.GOOD
    (block,) = local_labels.check.evidence([CheckResult(findings(), result)])
    assert {"30 labels", "100 labels"} < set(block.columns)


def test_labels_are_not_drawn_from_a_site_that_leaves_too_few_to_evaluate_on() -> None:
    frame = table().drop(index=range(2 * N + 60, 3 * N))
    (last,) = sessions(frame)[-1:]
    with pytest.raises(InvalidData, match="60 examples are at the site"):
        local_labels.check.find(last)


def test_numbers_are_recalibrated_by_a_line() -> None:
    frame = table()
    there = frame["site"] == "R"
    frame["cost"] = frame["age"] + np.where(there, 40, 0) + 0.1 * frame["dose"]
    columns = TableColumns(target="cost", site="site", drop=("ill",))
    subject = of_table(frame, Lab(), columns)[-1]
    budget = Budget(steps=40, batch_size=64, lr=2e-2)
    session = open_session(replace(subject, budget=budget), Lab())
    (labels,) = local_labels.check.find(session)
    change = next(one.change for one in labels.gains if one.remedy == "recalibration")
    assert change["mean absolute error"].high < -20
    (there,) = site_shift.check.find(session)
    assert there.prevalence.change.value == pytest.approx(40, abs=5)
