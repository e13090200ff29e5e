"""Of many rows the parts that train anew use a sample; it is told, and small tables have none."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from unseen.engine.loop import Budget
from unseen.lab import Lab
from unseen.measures.site_shift import label_noise
from unseen.models.estimator import Estimator
from unseen.questions.audit import local_labels, performance, site_shift, trial_sample
from unseen.questions.audit.checks import labels
from unseen.questions.audit.job import Audit
from unseen.questions.audit.remedy_methods import standard_remedies
from unseen.questions.audit.trial_sample import shorter_budget, trial_session
from unseen.subjects.session import open_session
from unseen.subjects.tables import TableColumns, of_table

MOST = 60
BUDGET = Budget(steps=40, batch_size=16, select_every=10)


def logistic() -> Estimator:
    return Estimator(LogisticRegression(), 2)


@pytest.fixture(scope="module")
def subject():
    """Three sites of 150 rows; the model is trained without the first."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(450, 3))
    frame = pd.DataFrame(x, columns=list("abc"))
    frame["y"] = (x[:, 0] + rng.normal(size=450) > 0.8).astype(int)
    frame["site"] = np.repeat(["Bern", "Chur", "Genf"], 150)
    columns = TableColumns(target="y", site="site", holdout="Bern")
    (found,) = of_table(frame, Lab(), columns)
    return replace(found, budget=BUDGET, references={})


def test_a_table_below_the_cap_is_its_own_trial(subject):
    session = open_session(subject, Lab(), seeds=1, retrain=True)
    assert trial_session(session) is session
    assert session.caps == []


def test_a_trial_has_every_site_and_class_and_is_paired_with_its_own_model(subject, monkeypatch):
    monkeypatch.setattr(trial_sample, "MOST_ROWS", MOST)
    session = open_session(subject, Lab(), seeds=2, retrain=True)
    trial, again = trial_session(session), trial_session(session)
    for name, split in session.task.splits.items():
        whole, few = split.data.columns, trial.task.splits[name].data.columns
        assert len(few["y"]) == min(MOST, len(whole["y"]))
        assert torch.equal(few["x"], again.task.splits[name].data.columns["x"])
        for column in ("site", "y"):
            assert set(few[column].tolist()) == set(whole[column].tolist())
    assert len(trial.retrained) == 2
    assert trial.baseline_predictions("unseen").score.shape == (2, MOST)
    assert session.baseline_predictions("unseen").score.shape == (2, 150)
    # the same start as the audited model of that seed
    start = [next(iter(run.start.values())) for run in (session.first, trial.first)]
    assert torch.equal(*start)


def test_an_audit_names_both_samples_and_still_rates_every_label(subject, monkeypatch):
    monkeypatch.setattr(trial_sample, "MOST_ROWS", MOST)
    monkeypatch.setattr(label_noise, "MOST_RATED", 100)
    monkeypatch.setattr(labels, "MOST_RATED", 100)
    remedies = {"SAM": standard_remedies()["SAM"]}
    found = Audit(seeds=1, remedies=remedies, measures={})(subject, Lab())
    n = len(subject.task.splits["train"].data)
    said = " ".join(found.decisions)
    for sentence in (
        f"are trained for 40 steps on 60 of the {n} examples of `train`, drawn at random",
        "Remedies are evaluated on 60 of the 150 examples of `unseen`, drawn at random within site",
        f"The models that suspect labels are trained for 40 steps on 60 of {n - -(-n // 3)}",
        f"Rates of wrong labels are estimated from 100 of the {n} examples of `train`",
    ):
        assert sentence in said
    assert {one.change.n for one in found.outcomes if one.split == "unseen"} >= {60}
    assert len(found.checked["suspected labels"].detail) == n
    assert not [part for part in found.skipped if part.startswith(("remedy", "suspected"))]


def test_a_shorter_budget_makes_as_many_passes_and_never_more_steps():
    table = Budget(steps=3_000, batch_size=256, select_every=150, warmup=300, drops=(1_500,))
    # fifteen passes over 20,000 rows, where 3,000 steps are one and a half over 520,000
    few = shorter_budget(table, 20_000, 520_000)
    assert (few.steps, few.select_every, few.warmup, few.drops) == (1_172, 59, 117, (586,))
    many = shorter_budget(Budget(steps=10_000, batch_size=100), 20_000, 25_000)
    assert many.steps == 8_000
    assert shorter_budget(Budget(steps=100, batch_size=100), 20_000, 50_000).steps == 100


def test_resampled_parts_say_how_many_examples_they_read(subject, monkeypatch):
    for part, cap in ((performance, "MOST_TESTED"), (site_shift, "MOST_DECOMPOSED")):
        monkeypatch.setattr(part, cap, 50)
    monkeypatch.setattr(performance, "MOST_FITTED", 80)
    subject = replace(subject, references={"logistic regression": logistic})
    monkeypatch.setattr(local_labels, "MOST_EVALUATED", 70)
    found = Audit(seeds=1, remedies={}, measures={})(subject, Lab())
    said = " ".join(found.decisions)
    for sentence in (
        "Whether `unseen` is miscalibrated is tested on 50 of its 150 examples, drawn at random",
        "The gap is decomposed with 50 of the 150 evaluated examples of `unseen`",
        "Comparison models are fitted on 80 of the 195 examples of `train`, drawn at random within",
        "What labels of a site bring is evaluated on 70 of the 150 examples of `unseen`",
    ):
        assert sentence in said
    (gains,) = found.checked["labels of a site"]
    left = {(gain.labels, change.n) for gain in gains.gains for change in gain.change.values()}
    assert left == {(30, 70), (100, 50)}
    (shift,) = found.checked["why sites differ"]
    assert shift.gaps["accuracy"].gap.n == 100
    assert found.readings["calibration error: unseen"].n == 150
