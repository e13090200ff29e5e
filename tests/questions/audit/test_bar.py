"""A bar set before: which sites meet it, miss it, or are undecided, in numbers and words."""

from dataclasses import replace

import pytest

from unseen.questions.audit.bar import compare_with_bar
from unseen.questions.audit.results import Score

from .test_document import found, reading


def scored(place: str, value: float, metric: str = "accuracy"):
    score = Score(model="network", split="unseen", metric=metric, reading=reading(value))
    return replace(found(place, metric), scores=[score])


@pytest.mark.parametrize(
    ("bar", "is_met", "words"),
    [
        (0.5, True, "bar of accuracy 0.5: met at every site"),
        (
            0.72,
            None,
            "bar of accuracy 0.72: undecided at Basel (0.70 [0.65, 0.75]); met at 1 site",
        ),
        (
            0.8,
            False,
            "bar of accuracy 0.8: missed at Basel (0.70 [0.65, 0.75]); met at 1 site",
        ),
    ],
)
def test_a_bar_is_answered_in_words_that_name_the_sites(bar, is_met, words):
    answer = compare_with_bar([scored("Bern", 0.9), scored("Basel", 0.7)], bar)
    assert answer.is_met is is_met
    assert str(answer) == words


def test_a_bar_of_an_error_is_an_upper_one():
    sites = [scored("Bern", 2.0, "mean absolute error")]
    assert compare_with_bar(sites, 3.0).is_met is True
    assert compare_with_bar(sites, 1.0).is_met is False


def test_no_score_is_no_met_bar():
    nothing = compare_with_bar([replace(found(), scores=[])], 0.5)
    assert nothing.is_met is None
    assert "no score" in str(nothing)
