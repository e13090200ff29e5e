"""The parts of the study: its split, its controls and the oracle."""

from fractions import Fraction

import pytest
import torch

from unseen.engine.program_writing import ProgramSamples
from unseen.engine.programs import Program
from unseen.engine.teaching import Explanations
from unseen.lab import Lab
from unseen.studies.learning_by_teaching.classroom import Problems, divide
from unseen.studies.learning_by_teaching.exam_scores import (
    add_scores,
    executed_scores,
    other_explanations,
    random_scores,
    read_choices,
    score_correlation,
    share_right,
    without_exam,
)
from unseen.tasks.math_programs.published import text_key

ADD, TAKE, TIMES = (Program.parse(f"answer = number0 {sign} number1") for sign in "+-*")


@pytest.fixture(scope="module")
def parts():
    return divide(Problems.GENERATED, Lab())


@pytest.fixture
def found(parts):
    """Samples of every test problem: mostly wrong, right once."""
    rows = [(TAKE, TAKE, ADD, TIMES, None)] * len(parts.test)
    return ProgramSamples(parts.test, tuple(rows))


def test_a_text_is_in_one_part(parts):
    texts = [{text_key(p.question) for p in part} for part in (parts.train, parts.bank, parts.test)]
    assert [len(one) for one in texts] == [15, 9, 6]
    assert len(set.union(*texts)) == 30
    for problem in (*parts.train, *parts.test):
        parts.notation.prompt(f"{problem.question}\nProgram: {ADD}\n\nQuestion: ")


def test_nobody_meets_own_explanations(parts, found):
    shown = other_explanations(found, Lab())
    questions = [p.question for p in parts.test]
    assert sorted(question for question, _ in shown) == sorted(questions)
    assert all(question != own for (question, _), own in zip(shown, questions, strict=True))
    silent = ProgramSamples(parts.test, tuple([(None,)] * len(parts.test)))
    assert other_explanations(silent, Lab()) == [("", [])] * len(parts.test)


def test_programs_on_variants_are_the_oracle(parts, found):
    """Only the right program computes the answers to the question with other numbers."""
    scored = executed_scores(parts.test, found, 3, Lab())
    read = read_choices(scored, found)
    assert read["sum"] == read["max"] == read["oracle"] == 1.0
    assert read["gain"] == 1.0 - read["majority"]
    counts = read_choices(without_exam(found), found)
    assert (counts["majority"], counts["gain"]) == (read["majority"], 0.0)
    assert counts["not examined"] == len(parts.test)


def test_two_students_are_added_and_compared():
    answers = (Fraction(1), Fraction(2), None)
    one = [Explanations(answers, (3.0, 0.0, 0.0)), Explanations(answers)]
    other = [Explanations(answers, (1.0, 2.0, 0.0)), Explanations(answers)]
    assert [x.scores for x in add_scores(one, other)] == [(4.0, 2.0, 0.0), None]
    assert share_right(one, exams=3) == 0.5  # without an answer there is nothing to score
    assert score_correlation(one, other) == pytest.approx(-1.0)
    alike = [Explanations(answers, (1.0, 1.0, 0.0))]
    assert score_correlation(one[:1], alike) is None


def test_random_scores_are_equal_for_equal_answers_and_as_many_on_average():
    answers = tuple(Fraction(k % 50) for k in range(100))
    scored = [Explanations(answers, (0.0,) * 100), Explanations(answers)]
    drawn = [random_scores(scored, 3, 0.4, Lab(seed)) for seed in range(20)]
    assert all(one.scores[:50] == one.scores[50:] for one, _ in drawn)
    assert all(other.scores is None for _, other in drawn)
    mean = torch.tensor([one.scores for one, _ in drawn]).mean().item()
    assert mean == pytest.approx(1.2, abs=5 * (3 * 0.24 / 1000) ** 0.5)  # five standard errors
