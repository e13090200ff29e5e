"""Numbers by name, and variants of problems with other numbers."""

from fractions import Fraction

import numpy as np
import pytest

from unseen.data.files import data_folders
from unseen.tasks.math_programs import problem_of
from unseen.tasks.math_programs.numbers import draw_variant, name_numbers
from unseen.tasks.math_programs.published import gsm8k

HERE = any((folder / "gsm8k/train.jsonl.gz").is_file() for folder in data_folders())


def problem(question, program, answer):
    return problem_of({"question": question, "program": program, "answer": answer}, "p 1")


def test_numbers_get_names_in_question_and_program():
    question = "Ann has 1,200 plums, eats 2.5 a day for a week."
    plain = problem(question, "answer = 1200 - 2.5*7", "1182.5")
    found = name_numbers(plain)
    assert found.question == "Ann has number0 plums, eats number1 a day for a week."
    assert str(found.program) == "answer = number0 - number1 * 7"
    assert found.constants == {"number0": 1200, "number1": Fraction(5, 2)}
    assert name_numbers(found) is found


def test_of_equal_numbers_the_first_is_named():
    found = name_numbers(problem("2 cats and 2 dogs, B2 and 3rd", "answer = 2 + 2", "4"))
    assert str(found.program) == "answer = number0 + number0"
    assert found.question == "number0 cats and number1 dogs, B2 and 3rd"
    # which of them is meant is not known: no variant
    assert draw_variant(found, np.random.default_rng(0)) is None


@pytest.mark.skipif(not HERE, reason="GSM8K is not in UNSEEN_DATA")
def test_a_thousand_variants_execute_to_their_answers():
    """Other numbers; whole and positive steps stay so; question and program have the same names."""
    rng = np.random.default_rng(0)
    problems = [name_numbers(p) for p in gsm8k("train")[0][:1800]]
    found = [(p, v) for p in problems if (v := draw_variant(p, rng)) is not None][:1000]
    assert len(found) == 1000
    for original, variant in found:
        trace = variant.run(variant.program)
        assert trace.answer == variant.answer
        assert variant.constants != original.constants
        assert set(variant.constants) == set(original.constants)
        for before, after in zip(original.run(original.program).values, trace.values, strict=True):
            assert after > 0 or before <= 0
            assert after.denominator == 1 or before.denominator > 1


@pytest.mark.parametrize("seed", range(3))
def test_variants_depend_on_the_generator_alone(seed):
    plain = name_numbers(problem("Share 12 plums among 4.", "answer = 12 / 4", "3"))
    first, again = (draw_variant(plain, np.random.default_rng(seed)) for _ in range(2))
    assert first == again
    assert first is not None
    assert first.answer.denominator == 1
