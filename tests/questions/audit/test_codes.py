"""Findings have codes that can be muted, that a pipeline can fail on, and that the docs explain."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from unseen.document import Note, Table, Tone
from unseen.engine.loop import Budget
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.questions.audit.checks.leaks import Leak, check
from unseen.questions.audit.codes import alarms, coded_notes, codes, parse_codes, refuse_muted
from unseen.questions.audit.document import document
from unseen.questions.audit.results import Gap
from unseen.reading import Reading
from unseen.subjects.session import open_session
from unseen.subjects.tables import TableColumns, of_table

from .test_document import found, reading

PAGE = Path(__file__).parents[3] / "docs" / "findings.md"
LEAK = Leak(features=["code"], strength=Reading(0.99, 0.98, 1.0, 200, "AUC"))


def test_the_docs_explain_every_code_and_no_other():
    sections = re.findall(r"^## (U\d{3}):", PAGE.read_text("utf-8"), re.MULTILINE)
    assert sections == list(codes())


def test_codes_are_read_from_a_list_and_unknown_ones_refused():
    assert parse_codes("U101, u202") == {"U101", "U202"}
    assert parse_codes(["U101"]) == {"U101"}
    assert parse_codes("") == set()
    with pytest.raises(InvalidConfig, match="U999"):
        parse_codes("U101,U999")


def test_a_code_that_is_muted_cannot_be_made_fatal():
    refuse_muted({"U101"}, {"U102"})
    with pytest.raises(InvalidConfig, match="U101 stands in --fail-on and in --ignore"):
        refuse_muted({"U101", "U201"}, {"U101"})


def test_every_note_about_the_data_or_model_has_a_code_of_the_list():
    made = document([found(), found("Basel")])
    named = {one["code"] for one in coded_notes(made)}
    assert named <= codes().keys()
    actions = made.sections[0].blocks
    assert all(isinstance(note, Note) and note.code for note in actions)


def test_a_leak_is_the_first_finding_once_over_the_sites_and_can_be_muted_or_fatal():
    sites = [replace(found(place), checked={"leaks": [LEAK]}) for place in ("Bern", "Basel")]
    made = document(sites)
    first = made.sections[0].blocks[0]
    assert (first.code, first.tone) == ("U101", Tone.BAD)
    assert "`code` alone nearly gives the target away" in first.text
    assert len([one for one in coded_notes(made) if one["code"] == "U101"]) == 1
    assert alarms(made, {"U101", "U301"}) == ["U101"]
    assert alarms(document(sites, ignore={"U101"}), {"U101"}) == []


def results(made):
    (section,) = [s for s in made.sections if s.title == "What was checked"]
    (table,) = [block for block in section.blocks if isinstance(block, Table)]
    return {row["code"]: row["result"] for row in table.rows}


def test_what_was_checked_says_found_fine_muted_or_why_not():
    one = replace(
        found(), checked={"leaks": [LEAK]}, skipped={"suspected labels": "it has no gradients"}
    )
    said = results(document([one], ignore={"U102"}))
    assert said["U101"] == "found"
    assert said["U102"] == "muted"
    assert said["U103"] == "not applicable: it has no gradients"
    assert said["U301"] == "fine"


@pytest.mark.parametrize(("worse", "is_found"), [(0.3, True), (0.05, False)])
def test_overfitting_is_a_large_clear_fall_from_training_to_known_sites(worse, is_found):
    gap = Gap(metric="accuracy", reference="train", split="seen", worse=reading(worse, 0.02))
    one = found()
    made = document([replace(one, gaps=[*one.gaps, gap])])
    assert (results(made)["U204"] == "found") == is_found


def test_columns_of_a_table_that_give_its_target_away_are_found():
    rng = np.random.default_rng(0)
    x = rng.normal(size=200)
    y = (x + rng.normal(size=200) > 0).astype(int)
    frame = pd.DataFrame(
        {
            "x": x,
            "code": np.where(y == 1, "P", "N"),
            "count": y * 10 + np.arange(200) % 5,
            "filled": np.where(y == 1, rng.normal(size=200), np.nan),
            "y": y,
        }
    )
    (subject,) = of_table(frame, Lab(), TableColumns(target="y"))
    session = open_session(replace(subject, budget=Budget(steps=1)), Lab())
    assert {leak.features for leak in check.find(session)} == {("code",), ("count",), ("filled",)}


def site(worse: float, half: float, place: str = "Bern"):
    gap = Gap(metric="accuracy", reference="seen", split="unseen", worse=reading(worse, half))
    return replace(found(place), gaps=[gap])


@pytest.mark.parametrize(
    ("worse", "half", "raised", "undecided"),
    [(0.0, 0.2, ["U203"], "noted"), (0.0, 0.01, [], "fine"), (0.3, 0.1, ["U202"], "fine")],
    ids=["undecided", "holds", "worse"],
)
def test_only_an_undecided_site_raises_undecided(worse, half, raised, undecided):
    made = document([site(worse, half)])
    assert alarms(made, {"U202", "U203"}) == raised
    assert results(made)["U203"] == undecided
    assert results(made)["U202"] == ("found" if raised == ["U202"] else "fine")


def test_a_remedy_that_helps_is_a_finding_but_no_alarm():
    one = found()
    helped = replace(one.outcomes[0], change=reading(0.2, 0.01))
    made = document([replace(one, outcomes=[helped])])
    assert results(made)["U401"] == "noted"
    assert alarms(made, {"U401"}) == []
