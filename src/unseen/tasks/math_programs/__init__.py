"""Word problems as pairs of a question and a program that computes the answer.

`MathPrograms(problems)` trains on questions and programs; an answer is judged by what its program
computes, so `program_of(tokens)` and `MathProblem.run` belong to it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from unseen.engine.programs import Program
from unseen.engine.token_pairs import Pair
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.task import Axis, Task
from unseen.tasks.math_programs.problem import MathProblem, problem_of, read_problems
from unseen.tasks.token_pairs import TokenPairs

__all__ = ["MathProblem", "MathPrograms", "problem_of", "program_of", "read_problems", "tokens_of"]

TOKEN = re.compile(r"[a-z]+\d*|\d+(?:\.\d+)?|[^\sa-z\d]")


@dataclass(frozen=True)
class MathPrograms:
    """Problems for training, and others for evaluation ("unseen").

    Exact match of programs is the task's score; whether another program gives the answer is asked
    of the problem.
    """

    train: tuple[MathProblem, ...]
    unseen: tuple[MathProblem, ...]
    name: str = "math programs"

    def __post_init__(self) -> None:
        if shared := {p.question for p in self.train} & {p.question for p in self.unseen}:
            raise InvalidData(
                f"{len(shared)} questions are in training and among the unseen ones.",
                why="an answer that was trained on says nothing about unseen problems.",
                fix="split by the text of the question.",
            )

    @property
    def pairs(self) -> TokenPairs:
        train, unseen = (tuple(map(pair_of, part)) for part in (self.train, self.unseen))
        return TokenPairs(self.name, train, {"unseen": unseen}, Axis.IID)

    def build(self, lab: Lab) -> Task:
        return self.pairs.build(lab)


def pair_of(problem: MathProblem) -> Pair:
    return Pair(tokens_of(problem.question), tokens_of(str(problem.program)))


def tokens_of(text: str) -> tuple[str, ...]:
    """Words, numbers and signs of a text in lower case."""
    return tuple(TOKEN.findall(text.lower()))


def program_of(tokens: Sequence[str]) -> Program | None:
    """The program that tokens spell; None where they spell none."""
    try:
        return Program.parse(" ".join(tokens))
    except InvalidData:
        return None


def example() -> MathPrograms:
    """Sums and products of two numbers."""
    problems = [
        problem_of(
            {
                "question": f"{word} number0 and number1 in case {k}",
                "program": f"answer = number0 {sign} number1",
                "answer": str(a + b if sign == "+" else a * b),
                "constants": {"number0": str(a), "number1": str(b)},
            },
            f"problem {k}",
        )
        for k in range(12)
        for word, sign in (("add", "+"), ("multiply", "*"))
        for a, b in ((k + 2, k + 5),)
    ]
    return MathPrograms(tuple(problems[:16]), tuple(problems[16:]), "sums and products")
