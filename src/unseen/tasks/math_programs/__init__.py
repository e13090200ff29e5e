"""Word problems as pairs of a question and a program that computes the answer.

`MathPrograms` trains on questions and programs; whether what a model wrote is right is decided by
what it computes (`engine.program_writing.ProgramSamples`).
"""

from dataclasses import dataclass
from functools import cached_property

from unseen.engine.program_writing import ProgramRows, WordNotation, tokens_of
from unseen.engine.token_pairs import Pair, Vocabulary
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.objectives import exact_match
from unseen.task import Axis, Split, Task, Use
from unseen.tasks.math_programs.problem import MathProblem, problem_of, read_problems

__all__ = ["MathProblem", "MathPrograms", "problem_of", "read_problems"]


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

    @cached_property
    def notation(self) -> WordNotation:
        """Words of all problems: a model that meets a new one has an untrained embedding for it."""
        pairs = (Pair(tokens_of(p.question), tokens_of(str(p.program))) for p in self._all)
        # the sign between two statements is needed for beginnings, also where all have one
        return WordNotation(Vocabulary.of([*pairs, Pair((";",), ())]))

    @property
    def _all(self) -> tuple[MathProblem, ...]:
        return (*self.train, *self.unseen)

    def build(self, lab: Lab) -> Task:
        uses = {"train": (self.train, Use.TRAIN), "unseen": (self.unseen, Use.EVALUATE)}
        splits = {
            name: Split(ProgramRows(problems, self.notation), use, name)
            for name, (problems, use) in uses.items()
        }
        return Task(name=self.name, axis=Axis.IID, splits=splits, objective=exact_match)


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
