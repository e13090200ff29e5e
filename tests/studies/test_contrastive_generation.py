"""The splits of the study."""

from unseen.lab import Lab
from unseen.studies.contrastive_generation import (
    SAME,
    SHIFTED,
    TEXTS,
    prepare,
    split_equations,
    sums,
    tiny,
)
from unseen.tasks.math_programs.published import text_key


def test_a_text_is_on_one_side_and_asked_once():
    pairs = [*sums(8), *sums(8)]
    found = split_equations(pairs, sums(4, "so"), 0.25, Lab())
    asked = found.questions[SAME]
    keys = [text_key(" ".join(one.source)) for one in asked]
    assert len(set(keys)) == len(keys) == 4
    assert not set(keys) & {text_key(" ".join(one.source)) for one in found.train}
    assert len(found.train) == 24
    assert len(found.questions[SHIFTED]) == 8


def test_sentences_of_a_restaurant_are_all_its_right_answers():
    found = prepare(tiny(TEXTS), Lab())
    (asked,) = found.questions.values()
    assert all(len(one.answers) == 2 for one in asked)
    assert not {one.source for one in asked} & {one.source for one in found.train}
