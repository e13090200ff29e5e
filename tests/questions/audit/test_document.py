"""The document of an audit: what a reader sees, from findings made by hand."""

import pytest
import torch

from unseen.document import Document, Note, Table
from unseen.figure import Bars, Images
from unseen.questions.audit.document import document
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
        suspects=[example(4, shown)],
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
    assert "0.80 (mean of 2; worst 0.80 [0.75, 0.85] at Bern)" in made.lead
    assert "0.10 worse than on held-out examples of known sites on average" in made.lead
    assert "The one remedy tried does not improve it beyond chance." in made.lead


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
    for table in tables:
        (row,) = table.rows
        assert all(isinstance(row[name], Reading) for name in ("Bern", "Basel", "mean"))
        assert row["mean"].n == 180


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
