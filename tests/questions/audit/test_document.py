"""The document of an audit: what a reader sees, from findings made by hand."""

from dataclasses import replace

import pytest
import torch

from unseen.document import Document, Note, Table, Tone
from unseen.engine.loop import Budget
from unseen.figure import Bars, Dots, Images
from unseen.methods import SAM
from unseen.questions.answer import Answer
from unseen.questions.audit.checks.leaks import Leak
from unseen.questions.audit.constant import CONSTANT
from unseen.questions.audit.document import document
from unseen.questions.audit.remedy_methods import settings_in_words
from unseen.questions.audit.results import (
    Feature,
    Findings,
    Gap,
    Outcome,
    Overlap,
    Score,
    WorstError,
)
from unseen.reading import Reading
from unseen.report.html import html
from unseen.report.markdown import markdown
from unseen.subjects.examples import Example


def reading(value: float, half: float = 0.05, n: int = 90) -> Reading:
    return Reading(value, value - half, value + half, n)


def example(index: int, shown: object = "age 50", **more: str) -> Example:
    return Example(split="train", index=index, shown=shown, label="ill", value=0.5, **more)  # type: ignore[arg-type]


def found(place: str = "Bern", metric: str = "accuracy", shown: object = "age 50") -> Findings:
    both = [(s, m) for s in ("seen", "unseen") for m in ("network", "forest")]
    error = WorstError(
        query=example(0, shown, predicted="well"),
        helpful=[example(1, shown)],
        harmful=[example(2, shown)],
    )
    change = Outcome(
        remedy="SAM", split="unseen", metric=metric, change=reading(0.01), note="SAM(0.05)"
    )
    return Findings(
        name="network",
        task=f"hearts: {place}",
        score_name=metric,
        seeds=3,
        sizes={"train": 200, "seen": 90, "unseen": 90},
        sites={"unseen": place},
        unseen=["unseen"],
        known=["seen"],
        scores=[Score(model=m, split=s, metric=metric, reading=reading(0.8)) for s, m in both],
        gaps=[Gap(metric=metric, reference="seen", split="unseen", worse=reading(0.1))],
        readings={
            "coherence α": reading(0.2),
            "calibration error: unseen": reading(0.1),
            "sharpness": reading(1.0),
        },
        conflicting=[example(3, shown)],
        overlaps=[Overlap(fitted="train", evaluated="unseen", exact=2, near=None, n=90)],
        worst=[error],
        features=[
            Feature(name="age", split="unseen", reliance=reading(0.2), shift=0.4, moved=True)
        ],
        outcomes=[change],
        comparisons=[
            Outcome(remedy="forest", split="unseen", metric=metric, change=reading(-0.01))
        ],
        skipped={"coherence": "no gradients", "remedy: SAM": "no gradients"},
        decisions=["Missing values are their own level."],
    )


def blocks(made: Document, kind: type) -> list:
    return [
        block for section in made.sections for block in section.blocks if isinstance(block, kind)
    ]


def test_the_lead_says_metric_gap_and_remedies():
    made = document([found(), found("Basel")])
    assert made.kicker
    assert "accuracy 0.80 (mean of 2 sites, weighted by their examples)" in made.lead
    assert "0.10 worse than on held-out examples of known sites on average" in made.lead
    assert "The one remedy tried does not improve it beyond chance." in made.lead


def test_the_lead_gives_no_second_interval_to_a_sites_own_score():
    """The interval of the lowest of several is not that of the site where the lowest was seen."""
    low = Reading(0.7, 0.4, 0.92, 50)
    bern = found()
    scores = [replace(s, reading=low) if s.split == "unseen" else s for s in bern.scores]
    bern = replace(bern, scores=scores)
    made = document([bern, found("Basel")])
    row = next(b for b in blocks(made, Table) if b.caption.startswith("Does it hold?")).rows[0]
    assert row["accuracy"] == low
    assert "0.70 [" not in made.lead
    assert (
        "The lowest accuracy is 0.70, at Bern; where it is lowest in truth, at whichever of the 2 "
        "sites, it lies in [0.40, 0.86]."
    ) in made.lead


def test_the_lead_calls_the_worst_error_the_highest():
    low, high = (Reading(v, v - 0.1, v + 0.1, 50, "years") for v in (0.4, 0.5))
    sites = [
        Findings(
            name="network",
            task=f"ages: {site}",
            score_name="mean absolute error",
            seeds=1,
            sizes={"unseen": 50},
            sites={"unseen": site},
            unseen=["unseen"],
            scores=[
                Score(model="network", split="unseen", metric="mean absolute error", reading=error)
            ],
        )
        for site, error in (("Bern", low), ("Basel", high))
    ]
    lead = document(sites).lead
    assert "The highest mean absolute error is 0.50, at Basel; where it is highest in truth" in lead


def test_a_leak_is_said_before_the_score_that_it_has_made():
    leaks = [Leak(features=[name], strength=reading(0.99)) for name in ("is_recid", "end")]
    lead = document([replace(found(), checked={"leaks": leaks})]).lead
    assert lead.startswith(
        "`is_recid` alone nearly gives the target away. 1 more finding of this kind below. No "
        "score here can be believed before that is explained. The network reaches accuracy 0.80"
    )


def test_a_later_time_is_no_site():
    made = document([replace(found("future"), task="hearts")])
    assert "on the rows after those it was trained on." in made.lead
    assert "than on earlier held-out examples" in made.lead
    table = next(b for b in blocks(made, Table) if b.caption.startswith("Does it hold?"))
    assert "earlier rows" in table.rows[0]
    assert "sites" not in made.lead + table.caption


def test_the_settings_of_a_remedy_are_words():
    assert settings_in_words(SAM(rho=0.1, budget=Budget(steps=7, lr=0.5))) == (
        "SAM: rho 0.1, steps 7, lr 0.5"
    )
    assert settings_in_words(SAM()) == "SAM"


def test_the_first_page_has_five_actions_a_chart_and_a_line_per_site():
    sites = [found(place) for place in ("Bern", "Basel", "Genf", "Lyon", "Rom", "Turin")]
    made = document(sites, margin=0.02)
    actions, by_site, *evidence = made.sections
    assert 1 <= len(actions.blocks) <= 5
    (chart,) = [block for block in by_site.blocks if isinstance(block, Dots)]
    (table,) = [block for block in by_site.blocks if isinstance(block, Table)]
    assert list(chart.rows) == [row["site"] for row in table.rows]
    assert all(row["answer"] == "does not hold" for row in table.rows)
    assert evidence
    assert all(section.folded for section in evidence)
    assert not actions.folded
    assert not by_site.folded


def test_small_subgroups_are_one_note_over_all_sites():
    def with_groups(place: str) -> Findings:
        one = found(place)
        scores = [
            Score(
                model="network",
                split="unseen",
                metric="accuracy",
                reading=reading(0.8, n=n),
                group="sex",
                level=level,
            )
            for level, n in (("female", 12), ("male", 30))
        ]
        return replace(one, scores=[*one.scores, *scores], small_groups=[f"sex other at {place}"])

    made = document([with_groups("Bern"), with_groups("Basel")])
    (section,) = [s for s in made.sections if s.title == "Subgroups"]
    assert [b.text for b in section.blocks if isinstance(b, Note)] == [
        "2 of 4 subgroups have fewer than 20 examples: read the interval there, not the value.",
        "Not reported, with one example only: sex other at Bern and sex other at Basel.",
    ]


def test_training_rows_are_no_known_sites():
    alone = found()
    gap = replace(alone.gaps[0], reference="train")
    score = Score(model="network", split="train", metric="accuracy", reading=reading(0.9))
    alone = replace(alone, gaps=[gap], known=[], scores=[*alone.scores, score])
    (table,) = [b for b in document([alone]).sections[1].blocks if isinstance(b, Table)]
    assert "training rows" in table.rows[0]
    assert "known sites" not in table.rows[0]
    assert "than on training rows" in table.caption


def test_two_comparison_models_stand_side_by_side_with_a_row_per_site():
    (table,) = [
        b
        for b in blocks(document([found(), found("Basel")]), Table)
        if b.caption.startswith("Comparison models")
    ]
    assert [row["site"] for row in table.rows] == ["Bern", "Basel", "mean"]
    assert table.rows[0]["forest"].value == -0.01


def test_markdown_has_the_codes_of_findings():
    made = document([found()])
    codes = {note.code for note in blocks(made, Note) if note.code}
    text = markdown(made)
    assert codes
    assert all(f"** {code}" in text for code in codes)


@pytest.mark.parametrize(
    ("place", "expected"),
    [("future", "collect later labelled examples"), ("Bern", "labelled examples from Bern")],
)
def test_labels_of_a_later_time_are_collected_later(place, expected):
    said = " ".join(note.detail for note in blocks(document([found(place)], margin=0.02), Note))
    assert expected in said
    assert "examples from future" not in said


def test_the_terminal_shows_the_first_page_and_the_report_everything():
    answer = Answer(results=None, document=document([found(), found("Basel")]))
    assert len(answer.summary().splitlines()) <= 45
    assert "The training data" not in answer.summary()
    assert "The training data" in html(answer.document)
    assert "How the data were treated" in answer.summary()  # where the skipped parts are explained


@pytest.mark.parametrize(("worse", "is_first"), [(-0.3, False), (0.02, True)])
def test_a_model_no_better_than_one_answer_for_everyone_is_the_first_finding(worse, is_first):
    change = Outcome(remedy=CONSTANT, split="unseen", metric="accuracy", change=reading(worse, 0.1))
    one = found()
    made = document([replace(one, comparisons=[change, *one.comparisons])])
    assert ("one answer for everyone" in made.sections[0].blocks[0].text) == is_first
    assert not any(CONSTANT in str(row) for t in blocks(made, Table) for row in t.rows)


def reversed_at(place: str, auc: float = 0.2, **more: object) -> Findings:
    """Not worse than at known sites, but as bad there, with a rival that is better."""
    scores = [
        Score(model="network", split=s, metric=m, reading=reading(auc))
        for s in ("seen", "unseen")
        for m in ("accuracy", "AUC")
    ]
    gap = Gap(metric="AUC", reference="seen", split="unseen", worse=reading(0.0, 0.01))
    rival = Outcome(remedy="forest", split="unseen", metric="AUC", change=reading(0.5))
    return replace(found(place), scores=scores, gaps=[gap], comparisons=[rival], **more)  # type: ignore[arg-type]


def test_a_model_that_orders_the_wrong_way_round_is_asked_for_its_class_first():
    made = document([reversed_at("Bern"), reversed_at("Basel")])
    asked = "are the probabilities those of the other class?"
    assert made.lead.startswith("AUC is clearly below 0.5 at every site (at most 0.20 [")
    assert asked in made.lead
    notes = blocks(made, Note)
    assert asked in notes[0].text
    assert (notes[0].code, notes[0].tone) == ("U201", Tone.BAD)
    assert not [note for note in notes if note.code == "U202"]
    assert "holds" not in str([row["answer"] for row in made.sections[1].blocks[1].rows])
    one_fine = document([reversed_at("Bern"), reversed_at("Basel", 0.8)])
    assert asked not in one_fine.lead


def test_recorded_predictions_are_asked_for_by_column_and_class():
    says = "`p` is read as the probability of `yes`, the second class; its model was not given."
    lead = document([reversed_at("Bern", mode="predictions as given", decisions=[says])]).lead
    assert (
        "`p` is read as the probability of `yes`, the second class. Is it that of the other class?"
    ) in lead


def test_nothing_good_is_said_of_a_site_where_a_constant_is_as_good():
    same = Outcome(remedy=CONSTANT, split="unseen", metric="accuracy", change=reading(0.0))
    holds = Gap(metric="accuracy", reference="seen", split="unseen", worse=reading(0.0, 0.01))
    made = document([replace(found(), gaps=[holds], comparisons=[same])])
    codes = [note.code for note in blocks(made, Note)]
    assert "U201" in codes
    assert "U202" not in codes
    assert made.sections[1].blocks[1].rows[0]["answer"] == "no better than a constant"


def test_a_warning_about_the_data_is_among_the_actions():
    made = document([replace(found(), warnings=["Column `code` gives the target away. Drop it."])])
    notes = [note for note in blocks(made, Note) if "`code`" in note.text]
    assert [(note.text, note.detail) for note in notes] == [
        ("Column `code` gives the target away.", "Drop it.")
    ]


def test_one_reason_for_many_skipped_parts_is_said_once():
    notes = [note for note in blocks(document([found()]), Note) if note.text.startswith("Skipped")]
    assert [note.text for note in notes] == ["Skipped: coherence and remedy: SAM."]


@pytest.mark.parametrize(
    ("metric", "sign"),
    [("accuracy", "above zero: better"), ("mean absolute error", "below zero: better")],
)
def test_figures_say_which_side_is_better(metric, sign):
    titles = [bars.title for bars in blocks(document([found(metric=metric)]), Bars)]
    assert [sign in title for title in titles] == [False, True, True]
    assert ("lower is better" in titles[0]) == (metric == "mean absolute error")


def test_comparisons_and_remedies_have_intervals_per_place_and_on_average():
    tables = [
        t
        for t in blocks(document([found(), found("Basel")]), Table)
        if "paired change" in t.caption
    ]
    assert len(tables) == 2
    for table, name in zip(tables, ("forest", "SAM"), strict=True):
        by_site = {row["site"]: row[name] for row in table.rows}
        assert list(by_site) == ["Bern", "Basel", "mean"]
        assert all(isinstance(change, Reading) for change in by_site.values())
        assert by_site["mean"].n == 180


def test_pictures_carry_role_and_label():
    (helped, *_) = [
        i
        for i in blocks(document([found(shown=torch.zeros(3, 3))]), Images)
        if "error 1" in i.title
    ]
    assert "recorded ill, predicted well" in helped.title
    assert [caption.split(" · ")[0] for caption in helped.captions] == ["error", "helped", "harmed"]
    assert all("ill" in caption for caption in helped.captions)


def test_every_writer_takes_it_and_missing_parts_leave_no_empty_section():
    bare = Findings(name="network", task="t", score_name="accuracy", seeds=1, sizes={"train": 3})
    for made in (document([found(), found("Basel")]), document([bare])):
        assert all(section.blocks for section in made.sections)
        assert "<html" in html(made)
        assert markdown(made).startswith("# ") or made.kicker in markdown(made)
