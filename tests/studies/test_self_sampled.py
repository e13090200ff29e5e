"""The split and the ratio of the study."""

import pytest

from unseen.lab import Lab
from unseen.studies.self_sampled import CLAIMS, split_by_text
from unseen.tasks.math_programs.problem import problem_of
from unseen.tasks.math_programs.published import text_key


def test_a_text_is_on_one_side_whatever_its_numbers():
    problems = [
        problem_of(
            {
                "question": f"{word} number0 and {k} apples",
                "program": "answer = n + 1",
                "answer": "3",
                "constants": {"n": "2"},
            },
            f"{word} {k}",
        )
        for word in "abcdefghij"
        for k in (3, 4, 4)
    ]
    spec = split_by_text(problems, Lab())
    train, unseen = ({text_key(p.question) for p in part} for part in (spec.train, spec.unseen))
    assert (len(train), len(unseen)) == (8, 2)
    assert not train & unseen
    assert (len(spec.train), len(spec.unseen)) == (24, 4)  # an equal question is asked once


def test_a_fifth_more_programs_are_a_ratio_of_counts():
    rows = [
        {"seed": seed, "arm": arm, "distinct": count}
        for seed, counts in enumerate(((1.8, 2.7), (2.0, 3.0)))
        for arm, count in zip(("MLE", "MLE-Aug"), counts, strict=True)
    ]
    assert CLAIMS[1].effect(rows).value == pytest.approx(1.5)
