"""Published items: their counts, and that every annotation of ARC finds its question."""

import os
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest

from unseen.tasks.graded_questions import (
    ai2_science,
    arc,
    asdiv,
    chance,
    piqa,
    sentiment,
    strategyqa,
)
from unseen.tasks.graded_questions.published import wrong_results


def needs(folder):
    """Skips unless the data set lies in UNSEEN_DATA."""
    here = (Path(os.environ.get("UNSEEN_DATA", "/nonexistent")) / folder).is_dir()
    return pytest.mark.skipif(not here, reason=f"{folder} is not in UNSEEN_DATA")


@needs("arc")
@needs("easy-to-hard")
def test_every_annotation_of_arc_joins():
    items = arc(("Easy", "Challenge"))
    assert len(items) == 5_120
    assert Counter(item.level("grade") for item in items) == {
        3: 194, 4: 277, 5: 963, 6: 263, 7: 792, 8: 2_032, None: 599,
    }  # fmt: skip
    assert {item.level("bloom") for item in items} == {1, 2, 3, 4, 5}
    assert {item.level("depth_of_knowledge") for item in items} == {1, 2, 3}
    assert {item.level("difficulty") for item in items} == {1, 2, 3}
    assert len(arc(("Easy",))) == 3_361
    assert len(arc(("Easy", "Challenge"), graded=False)) == 7_787


@needs("ai2-science")
def test_science_items_have_their_school():
    grades = Counter(item.level("grade") for item in ai2_science())
    assert grades == {5: 516, 8: 358}


@needs("piqa")
def test_piqa_has_two_choices():
    items = piqa()
    assert len(items) == 1_838
    assert chance(items) == 0.5
    assert Counter(item.answer for item in items) == {1: 928, 0: 910}


@needs("strategyqa")
def test_steps_are_counted():
    items = strategyqa()
    assert Counter(item.level("steps") for item in items) == {
        1: 18,
        2: 626,
        3: 1_219,
        4: 342,
        5: 85,
    }


@needs("asdiv")
def test_division_hardly_occurs_in_easy_word_problems():
    items = asdiv()
    assert all(len(item.choices) == 4 for item in items)
    division = Counter(
        item.level("grade") <= 2
        for item in items
        if "Division" in str(dict(item.annotations)["operation"])
    )
    assert division[True] == 3
    assert division[False] > 200
    by_position = Counter(item.answer for item in items)
    assert min(by_position.values()) > len(items) / 5  # the right one stands anywhere


def test_wrong_results_are_those_of_other_operations():
    a, b = Fraction(12), Fraction(4)
    assert wrong_results(a, b, a / b) == [16, 8, 48]
    assert wrong_results(Fraction(0), Fraction(0), Fraction(0)) == [1, 2, 3]


@needs("instruction-induction")
def test_sentiments_are_sentences_with_one_of_two_words():
    items = sentiment()
    assert len(items) == 400
    assert {item.choices for item in items} == {("positive", "negative")}
    assert 0.4 < sum(item.answer for item in items) / 400 < 0.6
    assert items[0].prompt.endswith("\nSentiment:")
