"""Numbers of questions by name, so that a model need not read them, and other numbers in their
place.
"""

import re
from fractions import Fraction

import numpy as np

from unseen.engine.programs import Program, Statement, Value, execute, read_number
from unseen.tasks.math_programs.problem import MathProblem, name_values

WRITTEN = re.compile(r"(?<![\w.])(?:\d+(?:,\d{3})+|\d+)(?:\.\d+)?(?!\w)")
TRIES = 200


def name_numbers(problem: MathProblem) -> MathProblem:
    """The problem with `number0`, `number1`, … for the numbers of its question, and for the same
    numbers in its program. Others of the program (7 days, 100 per cent) stay.
    """
    if problem.constants:
        return problem
    constants: dict[str, Value] = {}

    def name(found: re.Match[str]) -> str:
        value = read_number(found.group())
        if value is None:
            return found.group()
        constants[f"number{len(constants)}"] = value
        return f" number{len(constants) - 1} "

    question = " ".join(WRITTEN.sub(name, problem.question).split())
    # of equal numbers the first: which of them is meant is not known
    names = {value: key for key, value in reversed(constants.items())}
    # what stands behind the answer is never run, and need be no arithmetic
    run = problem.program.first(len(problem.run(problem.program).values))
    lines = (Statement(one.name, name_values(one.expression, names)) for one in run.statements)
    return MathProblem(question, Program(tuple(lines)), problem.answer, problem.name, constants)


def draw_variant(problem: MathProblem, rng: np.random.Generator) -> MathProblem | None:
    """The problem with other numbers of the same size and the answer that its program computes.

    Whole numbers stay whole and positive ones positive, those of every step included; None where
    no such numbers were found, or where a number is not in the question or occurs twice in it.
    """
    if not problem.constants or len(set(problem.constants.values())) < len(problem.constants):
        return None
    trace = problem.run(problem.program)
    for _ in range(TRIES):
        constants = {name: _redraw(value, rng) for name, value in problem.constants.items()}
        other = execute(problem.program, constants)
        if other.answer is None or constants == dict(problem.constants):
            continue
        if all(_is_alike(a, b) for a, b in zip(trace.values, other.values, strict=True)):
            # one text for all of them: numbers are named in it
            return MathProblem(
                problem.question, problem.program, other.answer, problem.name, constants
            )
    return None


def _redraw(value: Value, rng: np.random.Generator) -> Value:
    """Between half and twice the number, with as many decimals."""
    scale = value.denominator
    low, high = sorted((value.numerator // 2, 2 * value.numerator))
    return Fraction(int(rng.integers(min(low, high - 1) + (low == 0), high + 1)), scale)


def _is_alike(value: Value, other: Value) -> bool:
    """Whether a number may stand for another: whole for whole, positive for positive."""
    whole = other.denominator == 1 or value.denominator > 1
    return whole and (other > 0 or value <= 0)
