"""Sentences that follow from results: the right direction, nothing beyond chance."""

from dataclasses import replace

import pytest
from questions.compare.results_by_hand import by_hand

from unseen.document import Tone
from unseen.questions.compare.advice import (
    advice,
    clear,
    group_by_reason,
    limits,
    metric_of,
    recommend,
)
from unseen.questions.compare.document import document, summary
from unseen.questions.compare.protocols import Protocol
from unseen.questions.compare.results import AVERAGE
from unseen.report.terminal import as_text


def told(results, tone=None) -> str:
    return "\n".join(
        f"{n.text} {n.detail}" for n in advice(results) if tone is None or n.tone is tone
    )


def test_a_clear_gain_is_recommended():
    results = by_hand(gain=0.05, half=0.01)
    assert recommend(results) == "new_one"
    assert "Train with new_one instead of ERM: accuracy changes by +0.050 [+0.040, +0.060]" in told(
        results, Tone.GOOD
    )


def test_of_errors_less_is_better():
    def as_error(part):
        return replace(part, metric="mean absolute error")

    results = by_hand(gain=-0.05, half=0.01)
    cells, changes = ([as_error(part) for part in p] for p in (results.cells, results.changes))
    errors = replace(results, metrics=["mean absolute error"], cells=cells, changes=changes)
    assert recommend(errors) == "new_one"
    assert clear(errors, AVERAGE) == (["new_one"], [])
    assert "mean absolute error changes by −0.050 [−0.060, −0.040]" in told(errors, Tone.GOOD)
    assert "where it is highest of the 2 sites" in told(errors)
    page = as_text(document(errors))
    assert "Mean absolute error (lower is better)" in page
    assert "below zero: better" in page
    assert "above zero" not in page
    assert "minus" not in page


@pytest.mark.parametrize(("gain", "half"), [(0.05, 0.06), (0.0, 0.01), (0.01, 0.0099)])
def test_what_may_be_chance_is_not_recommended(gain, half):
    """The last one is clear alone, but not after the choice among two methods."""
    results = by_hand(gain, half)
    assert recommend(results) == "ERM"
    assert clear(results, AVERAGE) == ([], [])
    assert "stay with ERM" in told(results, Tone.NEUTRAL)
    assert "Train with" not in told(results)


def test_a_clear_loss_is_a_caution():
    results = by_hand(gain=-0.05)
    assert clear(results, AVERAGE) == ([], ["new_one"])
    assert "Clearly worse than ERM on average over the sites left out: new_one (−0.050" in told(
        results, Tone.CAUTION
    )


def test_where_every_rival_is_clearly_worse_nothing_says_that_it_cannot_be_told_apart():
    results = by_hand(gain=-0.05)
    assert "told apart" not in told(results)
    assert "Stay with ERM." in told(results, Tone.CAUTION)
    two = replace(results, methods=["ERM", "new_one"])
    assert document(two).lead.endswith("new_one is clearly worse.")
    assert "Stay with" not in told(by_hand(gain=0.05))


def test_the_lead_gives_no_second_interval_to_a_sites_own_score():
    lead = document(by_hand()).lead
    assert "0.750 [0.720, 0.780] at" not in lead
    assert "; the lowest value is 0.750, at west (where it is lowest in truth, at whichever" in lead


def test_bold_is_explained_only_where_something_is_bold():
    tables = [summary(by_hand(gain, 0.01)) for gain in (0.05, 0.0)]
    explained = [any("Bold" in text for text in table.footnotes) for table in tables]
    assert explained == [True, False]


def test_the_worst_place_diverged_runs_and_missing_parts_are_told():
    text = told(by_hand(), Tone.CAUTION)
    assert "Expect accuracy in [0.720, 0.780] where it is lowest of the 2 sites" in text
    assert "at whichever of them; the lowest value here is 0.750, at west" in text
    assert "gone: 20 of 24 runs diverged." in text
    assert "gone · west: it needs <two> domains." in text


def with_oracle(results, gain: float):
    """The oracle reaches so much more than the other protocols."""
    cells = [
        replace(c, reading=replace(c.reading, value=c.reading.value + gain))
        if c.protocol is Protocol.ORACLE and c.reading is not None
        else c
        for c in results.cells
    ]
    return replace(results, cells=cells)


@pytest.mark.parametrize("gain", [0.0, -0.01, 1e-6])
def test_an_oracle_that_is_no_higher_promises_nothing(gain):
    assert "could give" not in told(with_oracle(by_hand(), gain))


def test_selection_on_the_new_place_is_told_as_nothing_to_expect():
    results = with_oracle(by_hand(), 0.1)
    assert "nothing to expect" in told(results)
    assert "a better choice among the same draws could give" in told(results)
    only = replace(results, protocols=[results.protocols[2]])
    assert "nothing to expect" not in told(only)


def test_urgent_notes_come_first():
    order = [Tone.BAD, Tone.CAUTION, Tone.GOOD, Tone.NEUTRAL]
    ranks = [order.index(note.tone) for note in advice(by_hand())]
    assert ranks == sorted(ranks)


def test_limits_name_the_smallest_place_and_few_seeds():
    text = " ".join(limits(by_hand()))
    assert "east has only 40 evaluation examples" in text
    assert "2 sites (west and east)" in text
    assert "One run per method" in " ".join(limits(replace(by_hand(), seeds=1)))
    large = " ".join(limits(replace(by_hand(), sizes={"west": 60_000, "east": 4_000})))
    assert "only" not in large
    one = " ".join(limits(replace(by_hand(), sites=["west"], sizes={"west": 60})))
    assert "One site was evaluated" in one
    assert "worst site" not in one


def test_the_metric_is_auc_only_where_every_place_has_one():
    results = by_hand()
    assert metric_of(results) == "accuracy"
    auc = [replace(cell, metric="AUC") for cell in results.cells]
    both = replace(results, cells=[*results.cells, *auc], metrics=["accuracy", "AUC"])
    assert metric_of(both) == "AUC"
    part = [cell for cell in auc if cell.column != "west"]
    assert metric_of(replace(both, cells=[*results.cells, *part])) == "accuracy"


def test_one_reason_at_several_places_is_told_once():
    parts = {f"DivDis · {place}": "the task has no ADAPT split." for place in ("a", "b", "c", "d")}
    assert group_by_reason(parts) == {
        "DivDis · a, DivDis · b and 2 more": "the task has no ADAPT split."
    }
    assert group_by_reason({"x": "1", "y": "2"}) == {"x": "1", "y": "2"}
