"""Exams: what a student reads, which questions it gets, and what its answers are worth."""

from fractions import Fraction

import pytest

from unseen.engine import exams
from unseen.engine.exams import (
    Lesson,
    Student,
    different_programs,
    draw_lessons,
    neighbour_exams,
    score_explanations,
    shared_notation,
    true_answers,
)
from unseen.engine.program_writing import ProgramRows, TextNotation, WordNotation
from unseen.engine.programs import Program
from unseen.engine.teaching import LearnByTeaching, Rule, score_rules
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.models.encoder_decoder import t5
from unseen.models.tiny_causal import tiny_causal
from unseen.tasks import math_programs
from unseen.tasks.math_programs.problem import problem_of


def problem(question, program, **constants):
    numbers = {name: str(value) for name, value in constants.items()}
    values = {name: Fraction(value) for name, value in constants.items()}
    answer = math_programs.problem.execute(Program.parse(program), values).answer
    entry = {"question": question, "program": program, "answer": str(answer)}
    return problem_of({**entry, "constants": numbers}, question)


ADD, TAKE = "answer = number0 + number1", "answer = number0 - number1"
BANK = [
    problem(f"{who} {verb} number0 and number1 {what}", program, number0=a, number1=b)
    for who, what in (("Ann", "nuts"), ("Bob", "pens"))
    for verb, program in (("adds", ADD), ("takes", TAKE))
    for a, b in ((9, 4),)
]
ASKED = problem("Cleo adds number0 and number1 cups", ADD, number0=5, number1=2)


class Copyist(Student):
    """Writes the program that it was shown."""

    def answer(self, asked):
        return [one.exam.run(one.explanation).answer == one.exam.answer for one in asked]


def copyist():
    notation = shared_notation([*BANK, ASKED])
    return Copyist(t5(len(notation.vocabulary), width=8, layers=1, heads=1), notation)


def test_scores_are_right_answers_with_each_program_in_front():
    """Against a loop over programs and exam questions; equal programs have equal scores."""
    programs = [[Program.parse(ADD), Program.parse(TAKE), None, Program.parse(ADD)]]
    asked = neighbour_exams([ASKED], BANK, 3)
    (found,) = score_explanations(copyist(), [ASKED], programs, asked)
    expected = [
        0.0 if p is None else float(sum(e.run(p).answer == e.answer for e in asked[0]))
        for p in programs[0]
    ]
    assert found.scores == tuple(expected)
    assert found.answers == (7, 3, None, 7)
    assert expected[0] > expected[1]
    assert LearnByTeaching().select(found) == 7


def test_neighbours_have_similar_phrases_as_many_numbers_and_another_question():
    (nearest,) = neighbour_exams([ASKED], BANK, 2)
    assert [str(p.program) for p in nearest] == [ADD, ADD]
    other = problem("Cleo adds number0 to itself", "answer = 2 * number0", number0=3)
    assert neighbour_exams([other], BANK, 2) == [[]]
    assert neighbour_exams([problem("0 ?", "answer = 0")], BANK, 1) == [[]]
    (found,) = neighbour_exams([BANK[0]], BANK, 4)
    assert BANK[0] not in found
    order = [p.name for p in neighbour_exams([ASKED], BANK[::-1], 4)[0]]
    assert sorted(order) == sorted(p.name for p in neighbour_exams([ASKED], BANK, 4)[0])


def test_a_problem_without_an_exam_is_decided_by_majority_and_counted():
    programs = [[Program.parse(TAKE), Program.parse(ADD), Program.parse(TAKE)]] * 2
    asked = [neighbour_exams([ASKED], BANK, 2)[0], []]
    found = score_explanations(copyist(), [ASKED, ASKED], programs, asked)
    assert found[1].scores is None
    assert [LearnByTeaching(Rule.MEAN).select(one) for one in found] == [7, 3]
    scores = score_rules(found, true_answers([ASKED, ASKED]))
    assert scores.unexamined == 1
    assert (scores.rules[Rule.COUNT], scores.rules[Rule.MEAN], scores.oracle) == (0.0, 0.5, 1.0)


def test_other_explanations_take_the_place_of_the_real_ones():
    programs = [[Program.parse(ADD), Program.parse(TAKE)]]
    asked = neighbour_exams([ASKED], BANK, 2)
    shown = [("another question", [Program.parse(TAKE)])]
    (found,) = score_explanations(copyist(), [ASKED], programs, asked, shown)
    assert found.scores == (0.0, 0.0)
    (found,) = score_explanations(copyist(), [ASKED], programs, asked, [("none", [])])
    assert found.scores is None


def test_a_student_reads_question_program_and_exam_question():
    one = Lesson(BANK[0], ASKED.question, ASKED.program)
    assert one.question == (f"{ASKED.question}\nProgram: {ADD}\n\nQuestion: {BANK[0].question}")
    notation = shared_notation([*BANK, ASKED])
    rows = ProgramRows([one], notation)
    assert rows.problems[0].answer == 13
    student = Student(t5(len(notation.vocabulary), width=8, layers=1, heads=1), notation, 8)
    assert student.answer([one] * 3) in ([True] * 3, [False] * 3)
    assert student.answer([]) == []


def test_the_first_line_alone_is_the_program(monkeypatch):
    """A language model that was not trained writes on: another question, another program."""
    notation = TextNotation(tiny_causal())
    written = f" {ADD}\n\nQuestion: What else?\nProgram: answer = 1"
    monkeypatch.setattr(exams, "greedy", lambda *_: [notation.model.encode(written)])
    student = Student(notation.model, notation)
    assert student.answer([Lesson(BANK[0], ASKED.question, ASKED.program)]) == [True]


def test_lessons_share_the_program_as_often_as_asked():
    lessons = draw_lessons(BANK, 400, Lab(), alike=1.0)
    assert all(one.explanation == one.exam.program for one in lessons)
    assert all(one.shown != one.exam.question for one in lessons)
    mixed = draw_lessons(BANK, 400, Lab(), alike=0.0)
    assert 0 < sum(one.explanation == one.exam.program for one in mixed) < 400


def test_different_programs_with_an_answer():
    row = [Program.parse(ADD), None, Program.parse("answer = 1 / 0"), Program.parse(ADD)]
    assert different_programs(ASKED, row) == [Program.parse(ADD)]


def test_what_cannot_be_examined_is_refused():
    with pytest.raises(InvalidConfig, match=r"5 exam questions .* of 4 problems"):
        neighbour_exams([ASKED], BANK, 5)
    with pytest.raises(InvalidData, match="fewer than 2 problems"):
        draw_lessons(BANK[:1], 3, Lab())
    foreign: WordNotation = shared_notation(BANK)
    student = Student(t5(len(foreign.vocabulary), width=8, layers=1, heads=1), foreign)
    with pytest.raises(InvalidData, match="no token `cleo`"):
        student.answer([Lesson(BANK[0], ASKED.question, ASKED.program)])
