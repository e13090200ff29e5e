"""What is kept of programs: cases by hand, and invariants under random insertions."""

from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import pytest

from unseen.engine.programs import Program, Value, execute, is_correct
from unseen.engine.solution_buffer import EMPTY, Outcome, SolutionBuffer
from unseen.errors import InvalidConfig, InvalidData


@dataclass(frozen=True)
class Problem:
    program: Program
    answer: Value
    constants: dict[str, Value] = field(default_factory=dict)
    name: str = "p 1"
    question: str = "?"


NUMBERS = {"a": Fraction(2), "b": Fraction(3), "c": Fraction(4)}


def parse(text):
    return Program.parse(text)


def problem(text="t0 = a * b; t1 = t0 + c; answer = t1 * 2", answer=20):
    return Problem(parse(text), Fraction(answer), NUMBERS)


def test_what_becomes_of_programs():
    buffer = SolutionBuffer(problem())
    gold = buffer.problem.program
    assert buffer.correct == [gold]
    assert buffer.states == {("6",), ("10", "6")}
    assert buffer.insert(gold) is Outcome.KNOWN
    # another way; what follows the answer is no part of it
    assert buffer.insert(parse("x = c + a * b; answer = x + x; y = 1")) is Outcome.CORRECT
    assert str(buffer.correct[1]) == "x = c + a * b; answer = x + x"
    # the shortest right program has two statements now
    assert buffer.insert(parse("t = a + b; s = 2 * c; answer = 20")) is Outcome.LONG
    # reaches 6 in another way before it goes wrong; variables and order do not count
    assert buffer.insert(parse("x = b * a; answer = x * 7")) is Outcome.PARTIAL
    assert buffer.beginnings == [parse("x = b * a")]
    # a beginning of a kept program, gold's among them
    assert buffer.insert(parse("x = b * a; z = 1 / 0")) is Outcome.KNOWN
    assert buffer.insert(parse("t0 = a * b; z = a")) is Outcome.KNOWN
    # the longer beginning replaces the shorter one
    assert buffer.insert(parse("x = b * a; y = x + c; z = q")) is Outcome.PARTIAL
    assert buffer.beginnings == [parse("x = b * a; y = x + c")]
    # a copied number is no computed state; a wrong answer is none either
    assert buffer.insert(parse("x = 6; z = 1 / 0")) is Outcome.WRONG
    assert buffer.insert(parse("answer = a * b")) is Outcome.WRONG
    assert buffer.prefixes() == [EMPTY, parse("x = b * a; y = x + c")]
    assert [ends for _, ends in buffer.targets()] == [True, True, False]


def test_a_right_program_takes_the_place_of_its_beginning():
    buffer = SolutionBuffer(problem(), longer=1)
    assert buffer.insert(parse("x = b * a; z = q")) is Outcome.PARTIAL
    assert buffer.insert(parse("x = b * a; y = x + c; answer = y + y")) is Outcome.CORRECT
    assert buffer.beginnings == []


def test_without_partial_programs_only_right_ones_are_kept():
    buffer = SolutionBuffer(problem(), partial=False)
    assert buffer.insert(parse("x = b * a; z = 1")) is Outcome.WRONG
    assert buffer.beginnings == []


NAMES = ("a", "b", "c", "t0", "t1", "2", "6")


def random_program(rng):
    lines = []
    for k in range(int(rng.integers(1, 5))):
        left, right = rng.choice(NAMES, 2)
        name = "answer" if rng.random() < 0.3 else f"t{k}"
        lines.append(f"{name} = {left} {rng.choice(list('+-*/'))} {right}")
    return parse("; ".join(lines))


@pytest.mark.parametrize("seed", range(4))
def test_invariants_under_random_insertions(seed):
    """1,000 in all: no duplicates, no beginning is one of a kept program, every beginning ends in a
    known state, sizes are bounded, the given program stays.
    """
    rng = np.random.default_rng(seed)
    buffer = SolutionBuffer(problem("t0 = a * b; answer = t0 + a", 8), most=5, longer=2)
    outcomes = set()
    for _ in range(250):
        outcomes.add(buffer.insert(random_program(rng)))
        kept = [*buffer.correct, *buffer.beginnings]
        assert len(set(kept)) == len(kept)
        assert buffer.correct[0] == buffer.problem.program
        assert max(len(buffer.correct), len(buffer.beginnings)) <= 5
        assert len(buffer.targets()) <= 5
        for program in buffer.correct:
            assert is_correct(execute(program, NUMBERS), buffer.problem.answer)
        for program in buffer.beginnings:
            assert execute(program, NUMBERS).keys[-1] in buffer.states
            assert not any(p.starts_with(program) for p in kept if p != program)
    assert {Outcome.CORRECT, Outcome.PARTIAL, Outcome.WRONG} <= outcomes


def test_what_cannot_be_kept_is_refused():
    with pytest.raises(InvalidData, match="problem `p 1` does not compute"):
        SolutionBuffer(problem(answer=21))
    with pytest.raises(InvalidConfig, match="most=0"):
        SolutionBuffer(problem(), most=0)
