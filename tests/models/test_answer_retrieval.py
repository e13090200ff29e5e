"""Answers from training pairs: the nearest one, and edited by what words stand for."""

import pytest

from unseen.engine.token_pairs import pair
from unseen.errors import InvalidData
from unseen.models.answer_retrieval import EditedAnswer, NearestAnswer, associations
from unseen.tasks.scan import clauses

PAIRS = [
    pair("walk left", "L WALK"),
    pair("run left", "L RUN"),
    pair("walk twice", "WALK WALK"),
    pair("run", "RUN"),
    pair("jump", "JUMP"),
    pair("walk left twice", "L WALK L WALK"),
]


def test_training_sources_have_their_own_answers():
    pairs = list(clauses())
    for learner in (NearestAnswer(pairs), EditedAnswer(pairs)):
        assert all(learner.answer(source) == target for source, target in pairs)


def test_the_nearest_answer_comes_from_the_source_with_the_same_letters():
    learner = NearestAnswer(PAIRS)
    assert learner.answer(["jumps"]) == ("JUMP",)
    assert learner.answer(["xyz"]) == ("L", "WALK")  # nothing in common: the first


def test_words_are_replaced_by_what_stands_for_them():
    meaning = associations(PAIRS)
    assert meaning["walk"] == "WALK"
    assert meaning["jump"] == "JUMP"
    assert meaning["left"] == "L"
    learner = EditedAnswer(PAIRS)
    assert learner.answer(["jump", "left", "twice"]) == ("L", "JUMP", "L", "JUMP")
    assert learner.answer(["jump", "twice"]) == ("JUMP",)  # `jump` shares more with it
    assert learner.answer(["unknown", "twice"]) == ("WALK", "WALK")  # nothing to put there


def test_no_pairs_are_refused():
    for learner in (NearestAnswer, EditedAnswer):
        with pytest.raises(InvalidData, match="no pairs"):
            learner([])
