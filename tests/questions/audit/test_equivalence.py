"""Three answers per site: closed cases, words, and labels that decide as often as promised."""

from dataclasses import replace

import numpy as np
import pytest
from questions.audit.test_advice import found, reading, sentences

from unseen import stats
from unseen.errors import InvalidConfig
from unseen.questions.audit.document import document
from unseen.questions.audit.equivalence import (
    Verdict,
    answer,
    check_margin,
    in_words,
    site_answers,
)
from unseen.questions.audit.results import Gap, Resolution
from unseen.reading import Reading
from unseen.report.markdown import markdown


def gap(worse: Reading, resolution: Resolution | None = None) -> Gap:
    return Gap(
        metric="accuracy", reference="seen", split="unseen", worse=worse, resolution=resolution
    )


@pytest.mark.parametrize(
    ("worse", "margin", "verdict"),
    [
        (reading(0.0), 0.05, Verdict.HOLDS),
        (reading(0.04), 0.07, Verdict.HOLDS),
        (reading(0.04), 0.05, Verdict.UNDECIDED),
        (reading(0.04), 0.01, Verdict.FAILS),
        (reading(-0.2), 0.01, Verdict.HOLDS),
        (Reading(0.0), 0.05, Verdict.UNDECIDED),  # no interval is known
    ],
)
def test_three_answers(worse, margin, verdict):
    assert answer(found(), gap(worse), 1, margin).verdict is verdict


def test_the_more_sites_the_less_is_decided():
    assert answer(found(), gap(reading(0.0, 0.045)), 1, 0.05).verdict is Verdict.HOLDS
    assert answer(found(), gap(reading(0.0, 0.045)), 8, 0.05).verdict is Verdict.UNDECIDED


def test_an_undecided_site_says_what_is_excluded_and_what_would_decide():
    one = found(worse=reading(0.03, 0.06))
    one = replace(
        one, gaps=[replace(one.gaps[0], resolution=Resolution(fixed=1e-4, per_label=0.3))]
    )
    (here,) = site_answers([one], "accuracy")
    # 0.3 / ((0.05 / (1 + 0.842 / 1.96))² − 0.0001) = 267.2
    assert (here.n, here.labels) == (100, 270)
    text = sentences(one)
    assert (
        "The data exclude that it is worse by more than 0.09; whether it holds within 0.05" in text
    )
    assert (
        "about 270 labelled examples from there (today 100) would change in 80 % of cases" in text
    )
    assert "270" in markdown(document([one]))
    assert "within 0.08 is undecided" in in_words(site_answers([one], "accuracy", 0.08)[0])


def test_where_the_reference_is_too_uncertain_no_number_of_labels_helps():
    unsure = gap(reading(0.0, 0.2), Resolution(fixed=0.01, per_label=0.3))
    here = answer(found(), unsure, 1, 0.05)
    assert here.labels is None
    assert "labels from there alone cannot show" in in_words(here)


def test_an_error_in_the_targets_unit_has_a_relative_margin():
    one = found("mean absolute error", worse=reading(0.0, 0.2))
    (here,) = site_answers([one], "mean absolute error")
    assert here.margin == pytest.approx(0.08)  # a tenth of 0.8


@pytest.mark.parametrize("margin", [0.0, -0.1, float("nan"), float("inf")])
def test_what_is_no_margin_is_refused(margin):
    with pytest.raises(InvalidConfig, match="margin"):
        check_margin(margin)


@pytest.mark.parametrize("sites", [1, 12])
def test_the_labels_that_are_named_decide_about_as_often_as_promised(sites):
    """Two accuracies of 0.8, the known one from 20,000 examples."""
    rng = np.random.default_rng(0)
    here = stats.proportion(16_000, 20_000)

    def worse(n: int, hits: float) -> Reading:
        return stats.independent_difference(here, stats.proportion(hits, n))

    half2 = [((g := worse(n, 0.8 * n)).high - g.value) ** 2 for n in (400, 800)]
    per_label = 800 * (half2[0] - half2[1])
    resolution = Resolution(fixed=half2[0] - per_label / 400, per_label=per_label)
    labels = answer(found(), gap(worse(100, 74), resolution), sites, 0.05).labels
    assert labels is not None
    holds = [
        answer(found(), gap(worse(labels, float(rng.binomial(labels, 0.8)))), sites, 0.05).verdict
        is Verdict.HOLDS
        for _ in range(1_000)
    ]
    assert 0.77 < np.mean(holds) < 0.86


def test_an_area_cannot_be_worse_by_more_than_one():
    one = found(worse=reading(0.1, 0.7))
    (here,) = site_answers(
        [replace(one, gaps=[gap(reading(0.1, 1.1), Resolution(fixed=0.0, per_label=1.0))])],
        "accuracy",
    )
    assert (here.worse.low, here.worse.high) == (-1.0, 1.0)
    assert here.labels == 820  # 1 / (0.05 / (1 + 0.842 / 1.96))² = 817.3, of the whole interval
    assert in_words(here) == "The intervals are so wide that the data exclude nothing."


def test_the_interval_beside_an_answer_is_the_one_that_decides():
    names = ("Bern", "Basel", "Chur", "Davos")
    sites = [replace(found(worse=reading(0.0, 0.045)), sites={"unseen": name}) for name in names]
    wide = stats.widen(sites[0].gaps[0].worse, 4)
    assert wide.high > 0.05 > sites[0].gaps[0].worse.high
    text = markdown(document(sites, margin=0.05))
    page_one = text[: text.index("How well it holds")]
    assert "undecided" in page_one
    assert "0.00 \\[−0.06, 0.06\\]" in page_one
    assert "−0.045" not in page_one


@pytest.mark.parametrize(
    ("worse", "words"),
    [
        (
            0.0,
            "That is as good as on held-out examples of known sites on average; it is clearly "
            "worse at none of 2 sites.",
        ),
        (
            0.2,
            "worse than on held-out examples of known sites on average; it is clearly worse at 2 "
            "of 2 sites.",
        ),
    ],
)
def test_the_lead_says_how_the_sites_compare(worse, words):
    sites = [
        replace(found(worse=reading(worse)), sites={"unseen": name}) for name in ("Bern", "Basel")
    ]
    assert words in document(sites).lead


@pytest.mark.parametrize(
    ("worse", "words"),
    [
        (0.2, "That is 0.200 [0.180, 0.220] worse than on held-out examples of known sites."),
        (-0.2, "That is 0.200 [0.180, 0.220] better than on held-out examples of known sites."),
        (
            -0.01,
            "That is 0.010 [−0.010, 0.030] better than on held-out examples of known sites, which "
            "may be chance.",
        ),
        (
            0.0,
            "That is as good as on held-out examples of known sites: worse by 0.000 "
            "[−0.020, 0.020].",
        ),
    ],
)
def test_the_lead_says_a_difference_once(worse, words):
    lead = document([found(worse=reading(worse))]).lead
    assert words in lead
    assert "the difference is" not in lead
