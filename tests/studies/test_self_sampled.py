"""The split of the study."""

from unseen.lab import Lab
from unseen.studies.self_sampled import split_by_text
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
