"""Programs that are kept for a problem: those with the right answer, and beginnings of programs
that reach a state of a right one (Ni et al., 2023, arXiv:2205.14318).
"""

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, runtime_checkable

from unseen.engine.programs import (
    TOLERANCE,
    NotExecutable,
    Program,
    StateKey,
    Statement,
    Trace,
    Value,
    execute,
    is_correct,
)
from unseen.errors import InvalidConfig, InvalidData

EMPTY = Program(())


@runtime_checkable
class Executable(Protocol):
    """A problem with a program that answers it."""

    @property
    def name(self) -> str: ...

    @property
    def question(self) -> str: ...

    @property
    def program(self) -> Program: ...

    @property
    def answer(self) -> Value: ...

    @property
    def constants(self) -> Mapping[str, Value]:
        """Numbers that programs call by name."""


class Outcome(StrEnum):
    """What became of a program."""

    CORRECT = "correct"
    """Kept: another way to the right answer."""
    PARTIAL = "partial"
    """A beginning was kept: it reaches a known state in another way."""
    KNOWN = "known"
    """It, or what would be kept of it, is there already."""
    WRONG = "wrong"
    """Neither the answer nor a known state."""
    LONG = "too long"
    FULL = "no room"


@dataclass
class SolutionBuffer:
    """The right programs (the given one first) and the right beginnings of one problem."""

    problem: Executable
    partial: bool = True
    """Whether beginnings are kept."""
    most: int = 10
    """Most programs of each kind."""
    longer: int = 0
    """Statements that a program may have more than the shortest right one."""
    correct: list[Program] = field(default_factory=list)
    beginnings: list[Program] = field(default_factory=list)
    states: set[StateKey] = field(default_factory=set)
    """Of kept programs, without the final one of right ones."""

    def __post_init__(self) -> None:
        if self.most < 1 or self.longer < 0:
            raise InvalidConfig(
                f"SolutionBuffer(most={self.most}, longer={self.longer}).",
                why="the given program stays, and a program may be longer by 0 or more statements.",
                fix="SolutionBuffer(problem, most=10, longer=0).",
            )
        trace = execute(self.problem.program, self.problem.constants)
        if not is_correct(trace, self.problem.answer):
            raise InvalidData(
                f"The program of problem `{self.problem.name}` does not compute its answer.",
                why=trace.failure or "it stands for the correct solution.",
                fix=f"correct `{self.problem.program}`, or leave the problem out.",
            )
        self._keep_correct(self.problem.program, trace)

    def insert(self, program: Program) -> Outcome:
        """Executes a program and keeps of it what is new and right."""
        trace = execute(program, self.problem.constants)
        if trace.answer is not None and is_correct(trace, self.problem.answer, TOLERANCE):
            return self._insert_correct(program.first(len(trace.values)), trace)
        if not self.partial:
            return Outcome.WRONG
        length = self._known_length(program, trace)
        return self._insert_beginning(program.first(length)) if length else Outcome.WRONG

    def targets(self) -> list[tuple[Program, bool]]:
        """Right programs (True: they end), then beginnings; at most `most`."""
        found = [(program, True) for program in self.correct]
        return [*found, *((program, False) for program in self.beginnings)][: self.most]

    def prefixes(self) -> list[Program]:
        """What sampling may go on from: nothing, or a kept beginning."""
        return [EMPTY, *self.beginnings]

    @property
    def _longest(self) -> int:
        return min(map(len, self.correct)) + self.longer

    def _insert_correct(self, program: Program, trace: Trace) -> Outcome:
        if program in self.correct:
            return Outcome.KNOWN
        if len(program) > self._longest:
            return Outcome.LONG
        if len(self.correct) == self.most:
            return Outcome.FULL
        self._keep_correct(program, trace)
        return Outcome.CORRECT

    def _keep_correct(self, program: Program, trace: Trace) -> None:
        self.correct.append(program)
        self.states.update(trace.keys[:-1])
        self._drop_beginnings_of(program)

    def _known_length(self, program: Program, trace: Trace) -> int:
        """Statements up to the furthest known state; 0 where there is none. A wrong answer is no
        state, nor is a beginning that only copies numbers.
        """
        states = trace.keys[:-1] if trace.answer is not None else trace.keys
        known = [k + 1 for k, key in enumerate(states) if key in self.states]
        if not known or not any(map(_computes, program.first(known[-1]).statements)):
            return 0
        return known[-1]

    def _insert_beginning(self, program: Program) -> Outcome:
        if any(kept.starts_with(program) for kept in (*self.correct, *self.beginnings)):
            return Outcome.KNOWN
        if len(program) > self._longest:
            return Outcome.LONG
        self._drop_beginnings_of(program)
        if len(self.beginnings) == self.most:
            return Outcome.FULL
        self.beginnings.append(program)
        self.states.update(execute(program, self.problem.constants).keys)
        return Outcome.PARTIAL

    def _drop_beginnings_of(self, program: Program) -> None:
        self.beginnings = [kept for kept in self.beginnings if not program.starts_with(kept)]


def _computes(statement: Statement) -> bool:
    """Whether it is more than a copy of a number."""
    try:
        return any(isinstance(node, ast.BinOp) for node in ast.walk(statement.tree))
    except NotExecutable:
        return False
