"""Sentences that follow from numbers: the right direction, no overclaiming, readable."""

import pytest

from unseen.document import Tone
from unseen.questions.audit.advice import (
    advice,
    gap_reference,
    helpful,
    limits,
    mean_change,
    metric_of,
)
from unseen.questions.audit.results import Findings, Gap, Outcome, Overlap, Score, gain
from unseen.reading import Reading
from unseen.stats import widen
from unseen.text import count_noun, format_reading, join_words


def reading(value: float, half: float = 0.02, n: int = 100) -> Reading:
    return Reading(value, value - half, value + half, n)


def found(metric: str = "accuracy", worse: Reading | None = None, **more: object) -> Findings:
    scores = [
        Score(model="network", split=s, metric=metric, reading=reading(0.8))
        for s in ("seen", "unseen")
    ]
    gaps = (
        [] if worse is None else [Gap(metric=metric, reference="seen", split="unseen", worse=worse)]
    )
    basic = {
        "name": "network",
        "task": "t",
        "score_name": metric,
        "seeds": 2,
        "sizes": {"seen": 100, "unseen": 100},
    }
    basic |= {
        "sites": {"unseen": "Bern"},
        "unseen": ["unseen"],
        "known": ["seen"],
        "scores": scores,
        "gaps": gaps,
    }
    return Findings(**{**basic, **more})  # type: ignore[arg-type]


def sentences(*findings: Findings) -> str:
    return "\n".join(f"{note.tone}: {note.text} {note.detail}" for note in advice(findings))


def remedies(metric: str = "accuracy", **changes: Reading) -> list[Outcome]:
    return [Outcome(remedy=k, split="unseen", metric=metric, change=r) for k, r in changes.items()]


@pytest.mark.parametrize(
    ("worse", "tone", "said"),
    [
        (reading(0.2), Tone.BAD, "worse than on held-out examples of known sites"),
        (reading(0.04), Tone.CAUTION, "worse than"),
        (reading(0.04, 0.06), Tone.NEUTRAL, "do not show"),
        (reading(0.0), Tone.GOOD, "holds at Bern within 0.05"),
        (reading(-0.2), Tone.GOOD, "Bern is easier"),
    ],
)
def test_a_gap_speaks_by_its_interval(worse, tone, said):
    note = next(note for note in advice([found(worse=worse)]) if "Bern" in note.text)
    assert note.tone == tone
    assert said in note.text


def test_undecided_sites_share_a_note():
    one = found(worse=reading(0.04, 0.06))
    other = found(worse=reading(0.01, 0.08), sites={"unseen": "Chur"})
    notes = [note for note in advice([one, other]) if note.code == "U203"]
    assert [note.text for note in notes] == [
        "The data do not show whether accuracy is worse at Bern and Chur."
    ]
    assert "Bern 0.800 [0.780, 0.820] with 100 examples, worse by" in notes[0].detail
    alone = next(note for note in advice([one]) if note.code == "U203")
    assert "at Bern: 0.800 [0.780, 0.820] with 100 examples" in alone.text


def test_two_seeds_are_said_to_be_too_few_for_an_interval():
    undecided = reading(0.04, 0.06)
    for seeds, is_said in ((2, True), (3, False)):
        one = found(worse=undecided, seeds=seeds)
        assert ("three seeds or more" in sentences(one)) == is_said
        assert any("three seeds or more" in text for text in limits([one])) == is_said


def test_a_gap_that_is_one_of_many_needs_a_wider_interval():
    barely = reading(0.021)
    assert "Expect" in sentences(found(worse=barely))
    assert "Expect" not in sentences(*[found(worse=barely)] * 8)


@pytest.mark.parametrize(("metric", "better"), [("accuracy", 0.1), ("mean absolute error", -0.1)])
def test_a_remedy_is_recommended_in_the_direction_in_which_the_metric_is_better(metric, better):
    one = found(metric, outcomes=remedies(metric, SAM=reading(better), decay=reading(-better)))
    text = sentences(one)
    assert "good: Try SAM" in text
    assert "Decay made" in text
    assert text.index("Decay made") < text.index("Try SAM")  # cautions first


def test_the_best_of_many_remedies_is_no_help_if_chance_explains_it():
    lucky = remedies(**{f"r{k}": reading(0.0) for k in range(7)}, lucky=reading(0.021))
    assert "Try" not in sentences(found(outcomes=lucky))
    assert helpful({"lucky": reading(0.021)}, "accuracy") == ["lucky"]


def test_another_model_is_better_only_by_a_paired_interval():
    better = found(comparisons=remedies(forest=reading(0.1)))
    same = found(comparisons=remedies(forest=reading(0.01)))
    worse = found(comparisons=remedies(forest=reading(-0.1)))
    assert "Forest is better than the network" in sentences(better)
    assert "Forest cannot be told from the network: its accuracy differs by +0.010" in sentences(
        same
    )
    assert "orest" not in sentences(worse)


def miscalibrated(p_value: float, error: float = 0.1) -> Findings:
    readings = {
        "calibration error: unseen": reading(error),
        "calibration error by chance: unseen": reading(0.05),
        "calibration slope: unseen": reading(0.5, 0.2),
        "calibration intercept: unseen": reading(-0.4, 0.3),
    }
    return found(readings=readings, calibration_p_values={"unseen": p_value})


def test_miscalibration_is_told_beyond_chance_beyond_the_sites_and_where_it_matters():
    said = "at Bern. Bern: slope 0.50 [0.30, 0.70], too confident, intercept −0.40 [−0.70"
    assert said in sentences(miscalibrated(0.04))
    assert "probabilities" not in sentences(miscalibrated(0.06))
    assert "probabilities" not in sentences(miscalibrated(0.04), miscalibrated(0.5))
    assert "probabilities" in sentences(miscalibrated(0.02), miscalibrated(0.5))
    assert "probabilities" not in sentences(miscalibrated(0.001, error=0.01))


def test_one_is_not_many():
    overlap = Overlap(fitted="train", evaluated="unseen", exact=1, near=0, n=10)
    text = sentences(found(overlaps=[overlap]))
    assert "1 evaluation example has" in text
    assert count_noun(2, "site") == "2 sites"
    assert join_words(["a", "b", "c"]) == "a, b and c"


def test_limits_name_what_was_not_judged():
    here = found(unseen=[], sites={})
    assert "nothing here speaks about a new site" in limits([here])[0]
    assert "1 unseen site (Bern) says little" in limits([found()])[0]
    assert any("One trained model" in text for text in limits([found(seeds=1)]))


def test_places_are_averaged_with_independent_errors():
    together = mean_change(remedies(a=reading(0.1, 0.03), b=reading(0.3, 0.04)))
    assert (together.value, together.high - together.value, together.n) == pytest.approx(
        (0.2, 0.025, 200)
    )


def test_widened_is_bonferronis():
    wide = widen(reading(0.0, 1.96), 5)
    assert wide.high == pytest.approx(2.576, abs=1e-3)  # 1 − 0.05/(2·5) = 0.995
    assert widen(reading(0.0), 1).high == pytest.approx(0.02)


def test_numbers_are_written_with_the_digits_that_their_interval_supports():
    assert format_reading(reading(48.77, 6.0)) == "49 [43, 55]"
    assert format_reading(reading(-0.0123, 0.004), "+") == "−0.0123 [−0.0163, −0.0083]"
    assert format_reading(Reading(0.5, n=3)) == "0.50"  # no interval, none pretended
    assert format_reading(reading(-0.001, 0.05)) == "0.00 [−0.05, 0.05]"  # zero has no sign


@pytest.mark.parametrize(
    ("mode", "known", "than"),
    [
        ("", ["seen"], "held-out examples of known sites"),
        ("trained-again", ["seen"], "held-out examples of known sites"),
        ("as-it-is", ["seen"], "rows of the other sites, which it may have been fitted on"),
        ("as-it-is, not fitted on the site", [], "its training rows"),
        ("predictions as given", ["seen"], "rows of the other sites"),
    ],
)
def test_rows_that_a_model_was_fitted_on_are_not_called_held_out(mode, known, than):
    one = found(worse=reading(0.2), mode=mode, known=known)
    assert gap_reference(one, one.gaps[0]) == than
    assert f"worse than on {than}" in sentences(one)


def test_gain_turns_errors_around():
    assert gain("loss", Reading(1, 0.5, 2, 9)) == Reading(-1, -2, -0.5, 9)
    assert gain("AUC", Reading(1, 0.5, 2, 9)) == Reading(1, 0.5, 2, 9)


def test_auc_is_quoted_only_if_every_unseen_place_has_one():
    assert metric_of(found()) == "accuracy"
    with_auc = [
        *found().scores,
        Score(model="network", split="unseen", metric="AUC", reading=reading(0.9)),
    ]
    assert metric_of(found(scores=with_auc)) == "AUC"
