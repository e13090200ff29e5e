"""A new site's file beside the table, with labels or without."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

import unseen
from unseen.cli.audit import main
from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.lab import Lab
from unseen.measures.site_shift.expected_performance import expected_auc
from unseen.questions.audit.advice import limits
from unseen.questions.audit.checks.new_site import labels_that_decide
from unseen.subjects.new_site import join_new_site
from unseen.subjects.sources import read_subjects
from unseen.subjects.tables import TableColumns
from unseen.task import Use
from unseen.text import format_reading

COLUMNS = TableColumns(target="ill", site="site")


def rows(n, site, seed, shift=0.0):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"age": rng.integers(20, 90, n) + shift, "sex": rng.choice(["f", "m"], n)})
    frame["site"] = rng.choice(site, n)
    frame["ill"] = np.where(rng.random(n) < 1 / (1 + np.exp(-(frame.age - 55) / 8)), "yes", "no")
    return frame


KNOWN, NEW = rows(600, ["A", "B"], 0), rows(200, ["D"], 1, 12.0)
UNLABELLED = NEW.drop(columns=["ill", "site"])


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def subjects(known=KNOWN, against=NEW, columns=COLUMNS, **more):
    return read_subjects(known, Lab(), columns, against=against, **more)


def audited(model=KNOWN, *table, **options):
    settings = {"target": "ill", "site": "site", "seeds": 1, "remedies": {}, "measures": {}}
    return unseen.audit(model, *table, progress=False, **settings, **options)


def test_only_the_named_site_is_held_out():
    found = read_subjects(KNOWN, Lab(), TableColumns(target="ill", site="site", holdout="B"))
    assert [one.held_out for one in found] == ["B"]
    with pytest.raises(UnknownName, match="site `C`"):
        read_subjects(KNOWN, Lab(), TableColumns(target="ill", site="site", holdout="C"))
    with pytest.raises(InvalidConfig, match="without a site column"):
        read_subjects(KNOWN, Lab(), TableColumns(target="ill", holdout="B"))


def test_a_labelled_file_is_the_only_site_that_is_held_out():
    (one,) = subjects()
    assert one.held_out == "D"
    assert len(one.task.splits["unseen"].data) == len(NEW)
    evaluated = set(one.task.splits["unseen"].data.columns["index"].tolist())
    assert evaluated == set(range(len(KNOWN), len(KNOWN) + len(NEW)))


def test_without_a_site_column_the_files_are_the_sites(tmp_path):
    KNOWN.drop(columns="site").to_csv(tmp_path / "train.csv", index=False)
    NEW.drop(columns="site").to_csv(tmp_path / "geneva.csv", index=False)
    (one,) = subjects("train.csv", "geneva.csv", TableColumns(target="ill"))
    assert one.held_out == "geneva"
    assert set(one.features) == {"age", "sex"}


def test_a_site_of_the_same_name_is_told_apart():
    joined, columns = join_new_site(KNOWN, NEW.assign(site="A"), COLUMNS)
    assert columns.holdout == "A (new)"
    assert (joined.frame.site == "A (new)").sum() == len(NEW)


@pytest.mark.parametrize("model", ["network", "pipeline", "predictions"])
def test_without_labels_the_report_says_what_to_expect_and_what_it_assumes(model):
    if model == "pipeline":
        found = audited(LogisticRegression(), KNOWN, against=UNLABELLED, drop="sex")
    elif model == "predictions":
        known, new = (f.assign(p=1 / (1 + np.exp(-(f.age - 55) / 8))) for f in (KNOWN, UNLABELLED))
        found = audited(known, against=new, predictions="p")
    else:
        found = audited(against=UNLABELLED)
    (one,) = found.results
    (site,) = one.checked["new site"]
    assert (site.site, site.n) == ("new site", len(NEW))
    p = 1 / (1 + np.exp(-(NEW.age.to_numpy() - 55) / 8))
    truth = expected_auc(NEW.age.to_numpy(), p[None], np.ones((1, len(p))))[0]
    assert site.expected["AUC"].value == pytest.approx(truth, abs=0.05)
    assert site.known["AUC"] == one.score("seen", "AUC")
    few, more = (labels_that_decide(site, "AUC", margin) for margin in (0.2, 0.1))
    assert few is None or few > 0
    assert more is None or few is None or more > few
    assert [drift.feature for drift in site.drift if drift.is_clear] == ["age"]
    text = " ".join(found.summary().split())
    assert "no concept shift" in text
    assert "U209" in text


def test_rows_of_the_new_site_train_nothing():
    (one,) = subjects(against=UNLABELLED)
    new = len(KNOWN)
    for split in one.task.splits.values():
        index = split.data.columns["index"]
        assert ((index >= new) == (split.use is Use.ADAPT)).all()
    assert "y" not in one.task.splits["new"].data.columns


def test_an_audit_without_a_new_site_says_nothing_of_one():
    found = audited()
    assert all(one.checked.get("new site") == [] for one in found.results)
    assert "U209" not in found.summary()


def test_the_first_page_answers_about_the_new_site():
    found = audited(against=UNLABELLED)
    (site,) = found.results[0].checked["new site"]
    lead = found.document.lead
    assert lead.startswith("At new site, without labels, AUC 0.")
    assert "is to be expected if the target depends on the features there as at known" in lead
    (chart, table) = found.document.sections[1].blocks[:2]
    row = table.rows[-1]
    assert (row["site"], row["answer"]) == ("new site", "expected, without labels")
    assert row["AUC"] == site.expected["AUC"]
    assert chart.rows[-1] == "new site"
    assert chart.values["expected, without labels"][-1] == site.expected["AUC"]
    assert {len(values) for values in chart.values.values()} == {len(chart.rows)}
    assert any("new site is known by features only" in text for text in limits(found.results))
    report = str(found.document)
    assert "nothing here speaks about a new site" not in report
    assert "No site and no time" not in report
    assert "The new site has no labels" in found.results[0].skipped["why sites differ"]


def test_a_unit_is_told_without_labels():
    rng = np.random.default_rng(3)
    known = KNOWN.assign(weight=rng.normal(75, 8, len(KNOWN)))
    new = UNLABELLED.assign(weight=rng.normal(75, 8, len(NEW)) * 2.20462)
    found = audited(known, against=new)
    (site,) = found.results[0].checked["new site"]
    assert [change.feature for change in site.recorded] == ["weight"]
    assert "Before, look at `weight`, recorded otherwise there." in found.document.lead
    text = " ".join(found.summary().split())
    (change,) = site.recorded
    assert change.size.low < 2.20462 < change.size.high
    said = f"`weight` is {format_reading(change.size)} × theirs (pounds for kilograms)"
    assert f"Recorded otherwise than in the labelled rows: {said}" in text
    assert "What is expected means nothing before that is mended" in text
    (unit,) = [note for note in found.machine["notes"] if note["code"] == "U105"]
    assert "Convert `weight` at new site" in unit["text"]


def test_equal_probabilities_let_nothing_be_expected():
    known, new = KNOWN.assign(p=KNOWN.age / 100), UNLABELLED.assign(p=0.3)
    found = audited(known, against=new, predictions="p")
    (site,) = found.results[0].checked["new site"]
    assert not site.expected
    assert found.document.lead.startswith(
        "At new site, without labels, nothing can be expected: all probabilities there are equal."
    )


def test_a_number_has_no_expectation_but_its_drift_is_said():
    known = KNOWN.assign(days=KNOWN.age * 3 + 0.5 * KNOWN.index)
    found = unseen.audit(
        known, target="days", drop=["ill", "site"], against=UNLABELLED,
        seeds=1, remedies={}, measures={}, progress=False,
    )  # fmt: skip
    (site,) = found.results[0].checked["new site"]
    assert site.why_not
    assert site.drift
    assert "Nothing can be expected at new site" in found.summary()


def test_the_command(tmp_path, capsys):
    KNOWN.to_csv("train.csv", index=False)
    UNLABELLED.to_csv("new.csv", index=False)
    call = ["train.csv", "--target", "ill", "--site", "site", "--against", "new.csv"]
    assert main([*call, "--seeds", "1", "--steps", "20", "--no-remedies"]) == 0
    said = capsys.readouterr().out
    assert "Without labels at new, expect AUC" in " ".join(said.split())


def test_what_is_refused():
    with pytest.raises(UnknownName, match="column `sex`"):
        subjects(against=NEW.drop(columns="sex"))
    with pytest.raises(InvalidData, match="none of the columns"):
        subjects(against=pd.DataFrame({"a": [1, 2], "b": [1, 2]}))
    with pytest.raises(InvalidConfig, match="--holdout"):
        subjects(columns=TableColumns(target="ill", site="site", holdout="A"))
    with pytest.raises(InvalidConfig, match="without a table"):
        unseen.audit(against=NEW, target="ill", progress=False)
