"""Decision thresholds per site: rates as scikit-learn counts them, and a finding where a threshold
does not carry over.
"""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.metrics import confusion_matrix, precision_score, recall_score, roc_curve

import unseen
from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.questions.audit.check import CheckResult
from unseen.questions.audit.checks.thresholds import (
    Origin,
    Thresholds,
    check,
    falls,
    site_point,
)
from unseen.questions.audit.operating_points import (
    ScoredExamples,
    cross_fit,
    operating_point,
    youden_threshold,
)
from unseen.reading import Reading

from .test_document import found

LINEAR = "sklearn.linear_model:LogisticRegression"


def draw(
    rng: np.random.Generator,
    n: int,
    models: int = 1,
    shift: float = 0.0,
    prevalence: float = 0.5,
    together: int = 1,
) -> ScoredExamples:
    """Log odds with AUC 0.83; `together` examples have one outcome and a common part."""
    groups = -(-n // together)
    cluster = np.repeat(np.arange(groups), together)[:n]
    y = (rng.random(groups) < prevalence)[cluster]
    common = rng.normal(size=groups)[cluster]
    noise = common if together == 1 else 0.8 * common + 0.6 * rng.normal(size=n)
    own = 0.3 * rng.normal(size=(models, n)) * (models > 1)
    return ScoredExamples(1.35 * y + noise + shift + own, y, cluster)


def test_youdens_threshold_is_that_of_the_roc_curve():
    for seed in range(5):
        one = draw(np.random.default_rng(seed), 80)
        false, true, cuts = roc_curve(one.is_positive, one.margin[0], drop_intermediate=False)
        cut = youden_threshold(one.margin, one.is_positive)
        called = one.margin[0] > cut
        mine = called[one.is_positive].mean() - called[~one.is_positive].mean()
        assert mine == pytest.approx((true - false).max())
        near = cuts[np.flatnonzero(np.isclose(true - false, (true - false).max()))]
        assert (near >= cut).any()  # roc_curve calls from its threshold on, we above ours


def test_a_threshold_needs_both_classes():
    with pytest.raises(InvalidData, match="one class"):
        youden_threshold(np.zeros((1, 4)), np.ones(4, dtype=bool))


def test_rates_are_those_of_scikit_learn():
    one, cut = draw(np.random.default_rng(0), 200), 0.7
    called = one.margin > cut
    (tn, fp), (fn, tp) = confusion_matrix(one.is_positive, called[0])
    points = operating_point(called, one, cut)
    assert points["sensitivity"].value == pytest.approx(recall_score(one.is_positive, called[0]))
    assert points["specificity"].value == pytest.approx(tn / (tn + fp))
    assert points["PPV"].value == pytest.approx(precision_score(one.is_positive, called[0]))
    assert points["prevalence"].value == pytest.approx((tp + fn) / 200)
    odds = expit(cut) / (1 - expit(cut))
    assert points["net benefit"].value == pytest.approx((tp - odds * fp) / 200)


def test_rates_do_not_depend_on_the_order_nor_on_a_common_shift():
    rng = np.random.default_rng(1)
    one, order = draw(rng, 60, models=3), rng.permutation(60)
    other = ScoredExamples(one.margin[:, order], one.is_positive[order], one.cluster[order])
    cut = youden_threshold(one.margin, one.is_positive)
    assert youden_threshold(other.margin + 2, other.is_positive) == pytest.approx(cut + 2)
    mine = operating_point(one.margin > cut, one, cut)
    theirs = operating_point(other.margin > cut, other, cut)
    for name, reading in mine.items():
        assert theirs[name].value == pytest.approx(reading.value)
        assert theirs[name].low == pytest.approx(reading.low)


def test_nobody_called_has_no_predictive_value_and_no_benefit():
    one = draw(np.random.default_rng(2), 30)
    points = operating_point(one.margin > 99, one, 0.0)
    assert "PPV" not in points
    assert points["net benefit"].value == 0
    assert points["net benefit"].low < 0 < points["net benefit"].high


@pytest.mark.parametrize(
    ("n", "prevalence", "models", "together"),
    [(10, 0.5, 1, 1), (50, 0.5, 1, 1), (50, 0.1, 1, 1), (225, 0.1, 3, 1), (225, 0.5, 1, 5)],
)
def test_intervals_hold_the_truth(n, prevalence, models, together):
    """At least 93 % less two errors of 200 repeats."""
    rng, cut = np.random.default_rng(3), 0.7
    everyone = draw(rng, 100_000, 1, prevalence=prevalence, together=together)
    if models > 1:
        everyone = draw(rng, 100_000, models, prevalence=prevalence)
    truth = operating_point(everyone.margin > cut, everyone, cut)
    held: dict[str, list[bool]] = {}
    for _ in range(200):
        one = draw(rng, n, models, prevalence=prevalence, together=together)
        for name, reading in operating_point(one.margin > cut, one, cut).items():
            held.setdefault(name, []).append(reading.low <= truth[name].value <= reading.high)
    for name, hits in held.items():
        assert np.mean(hits) >= 0.93 - 2 * (0.93 * 0.07 / len(hits)) ** 0.5, name


def audited_sites(
    rng: np.random.Generator, shift: float = 0.0, prevalence: float = 0.5
) -> list[CheckResult[Thresholds]]:
    """Four sites of 225, of which one has log odds that are all higher."""
    results = []
    for k in range(4):
        known = draw(rng, 150, prevalence=prevalence)
        fit = cross_fit(known, rng)
        cut = youden_threshold(known.margin, known.is_positive)
        there = draw(rng, 225, shift=shift if k == 0 else 0.0, prevalence=prevalence)
        points = operating_point(fit.called, known, cut)
        at = site_point(f"site {k}", there, cut, points, fit.thresholds)
        result = Thresholds(
            positive="ill", threshold=expit(cut), origin=Origin.CHOSEN, known=points, sites=[at]
        )
        results.append(CheckResult(found(f"site {k}"), result))
    return results


@pytest.mark.parametrize("prevalence", [0.5, 0.1])
def test_equal_sites_are_not_said_to_need_another_threshold(prevalence):
    rng = np.random.default_rng(4)
    raised = [bool(falls(audited_sites(rng, prevalence=prevalence))) for _ in range(100)]
    assert np.mean(raised) <= 0.05  # 1 to 3 % of 300 repeats


def test_a_shift_of_the_log_odds_is_found_and_its_action_is_another_threshold():
    (note,) = check.notes(audited_sites(np.random.default_rng(5), shift=1.2))
    assert note.code == "U302"
    assert "does not carry over to site 0" in note.text
    assert "specificity 0." in note.text
    assert "choose the threshold anew" in note.detail


def test_the_margin_decides_which_fall_matters():
    results = audited_sites(np.random.default_rng(5), shift=1.2)
    wide = [CheckResult(one.findings, one.result, margin=0.9) for one in results]
    assert falls(results)
    assert not falls(wide)


def test_a_fall_without_a_rise_is_no_matter_of_the_threshold():
    known = {rate: Reading(0.9, 0.85, 0.95, 100) for rate in ("sensitivity", "specificity")}
    rng = np.random.default_rng(6)
    there = draw(rng, 200)
    noise = ScoredExamples(rng.normal(size=(1, 200)), there.is_positive, there.cluster)
    at = site_point("far", noise, 0.0, known, [0.0])
    result = Thresholds(
        positive="ill", threshold=0.5, origin=Origin.CHOSEN, known=known, sites=[at]
    )
    (note,) = check.notes([CheckResult(found("far"), result)])
    assert "the model itself must become better there" in note.detail


# whole audits -----------------------------------------------------------------------------------


@pytest.fixture
def frame(tmp_path, monkeypatch) -> pd.DataFrame:
    """Three sites; at one of them the outcome is much rarer than its features say."""
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path))
    rng, n = np.random.default_rng(0), 900
    site = rng.choice(["Aarau", "Basel", "Chur"], n)
    lab = rng.normal(size=n)
    p = expit(1.5 * lab)
    ill = rng.random(n) < p
    said = np.where(site == "Chur", expit(np.log(p / (1 - p)) + 2), p)
    target = np.where(ill, "ill", "well")
    return pd.DataFrame({"site": site, "lab": lab, "state": target, "said": said})


def audited(frame: pd.DataFrame, **options: object):
    return unseen.audit(frame, target="state", site="site", progress=False, **options)  # type: ignore[arg-type]


def test_the_named_class_is_called_and_a_shifted_score_raises_u302(frame):
    named = frame.assign(said=1 - frame["said"])  # the probability of the second class: well
    answer = audited(named, predictions="said", positive="ill")
    (note,) = [one for one in answer.machine["notes"] if one["code"] == "U302"]
    assert "Chur" in note["text"]
    assert "called ill" in note["detail"]
    found = json.loads(answer.json())["findings"][0]["checked"]["decision threshold"]
    assert found["positive"] == "ill"
    rows = named[named["site"] == found["sites"][0]["site"]]
    assert found["sites"][0]["points"]["prevalence"]["value"] == pytest.approx(
        (rows["state"] == "ill").mean()
    )


def test_a_threshold_of_ones_own_is_the_one_that_is_used(frame):
    frame = frame[:300].drop(columns="said")
    answer = audited(frame, estimator=LINEAR, seeds=1, remedies={}, measures={}, threshold=0.3)
    found = answer.results[0].checked["decision threshold"]
    assert found.threshold == pytest.approx(0.3)
    assert found.origin is Origin.NAMED
    at = found.sites[0]
    calling_all = at.points["prevalence"].value * (1 + 3 / 7) - 3 / 7
    assert at.calling_all == pytest.approx(calling_all)


def test_what_is_no_class_or_no_probability_is_refused(frame):
    with pytest.raises(UnknownName, match="sick"):
        audited(frame, positive="sick")
    with pytest.raises(InvalidConfig, match=r"threshold=1\.5"):
        audited(frame, threshold=1.5)


def test_several_classes_need_the_name_of_one(frame):
    rng = np.random.default_rng(1)
    frame = frame[:300].drop(columns="said")
    frame = frame.assign(state=rng.choice(["a", "b", "c"], len(frame)))
    options = {"estimator": LINEAR, "seeds": 1, "remedies": {}, "measures": {}}
    answer = audited(frame, **options)
    assert "--positive" in answer.results[0].skipped["decision threshold"]
    named = audited(frame, **options, positive="b")
    found = named.results[0].checked["decision threshold"]
    rows = frame[frame["site"] == found.sites[0].site]
    prevalence = found.sites[0].points["prevalence"].value
    assert prevalence == pytest.approx((rows["state"] == "b").mean())
