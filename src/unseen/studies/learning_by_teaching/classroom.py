"""A teacher, two students and their problems: what all arms share."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

from torch import nn

from unseen.engine.exams import Student, shared_notation
from unseen.engine.loop import Budget
from unseen.engine.program_writing import ProgramRows, ProgramSamples, WordNotation
from unseen.engine.programs import Program, execute
from unseen.engine.solution_buffer import Executable
from unseen.lab import Lab
from unseen.methods.self_sampling import SelfSampling
from unseen.models.encoder_decoder import EncoderDecoder, t5
from unseen.objectives import exact_match
from unseen.study.trial import untrained_model
from unseen.task import Axis, Split, Task, Use
from unseen.tasks.math_programs import MathProblem
from unseen.tasks.math_programs.published import asdiv_a, text_key

SHARES = 0.5, 0.3
"""Of the texts: to learn from, and for exams; the rest is the test."""


class Problems(StrEnum):
    """Where problems come from."""

    ASDIV = "ASDiv-A"
    GENERATED = "sums, products and differences"


@dataclass(frozen=True)
class Parts:
    """No text, numbers aside, is in two of them."""

    train: tuple[MathProblem, ...]
    bank: tuple[MathProblem, ...]
    test: tuple[MathProblem, ...]
    notation: WordNotation


def divide(problems: Problems, lab: Lab) -> Parts:
    """Half of the texts to learn from, three tenths for exams, the rest to test; a question that
    occurs twice is tested once.
    """
    found = asdiv_a() if problems is Problems.ASDIV else generate_problems()
    texts = sorted({text_key(p.question) for p in found})
    order = [texts[k] for k in lab.numpy().permutation(len(texts))]
    first = round(SHARES[0] * len(texts))
    second = first + round(SHARES[1] * len(texts))
    train, bank, test = (
        [p for p in found if text_key(p.question) in set(part)]
        for part in (order[:first], order[first:second], order[second:])
    )
    once = {p.question: p for p in test}
    return Parts(tuple(train), tuple(bank), tuple(once.values()), shared_notation(found))


def generate_problems() -> list[MathProblem]:
    signs = {"add": "+", "multiply": "*", "subtract": "-"}
    constants = {"number0": Fraction(7), "number1": Fraction(3)}
    programs = {word: Program.parse(f"answer = number0 {s} number1") for word, s in signs.items()}
    return [
        MathProblem(
            f"{word} number0 and number1 in case {letter}",
            program,
            execute(program, constants).values[-1],
            f"{word} {letter}",
            constants,
        )
        for word, program in programs.items()
        for letter in "abcdefghij"
    ]


@dataclass(frozen=True)
class Classroom:
    """Trained models with their problems."""

    parts: Parts
    teacher: EncoderDecoder
    small: Student
    large: Student
    samples: int
    exams: int
    length: int

    def explain(
        self, teacher: nn.Module, problems: Sequence[Executable], lab: Lab
    ) -> ProgramSamples:
        return ProgramSamples.of(
            teacher,
            problems,
            self.parts.notation,
            lab,
            samples=self.samples,
            temperature=1.0,
            length=self.length,
        )

    def copy_teacher(self) -> EncoderDecoder:
        return copy.deepcopy(self.teacher)


def untrained_writer(
    notation: WordNotation, width: int, layers: int, heads: int, lab: Lab
) -> EncoderDecoder:
    return untrained_model(lambda: t5(len(notation.vocabulary), width, layers, heads), lab)


def train_writer(
    model: nn.Module,
    problems: Sequence[Executable],
    notation: WordNotation,
    budget: Budget,
    lab: Lab,
) -> None:
    """Maximum likelihood of the given programs."""
    split = Split(ProgramRows(problems, notation), Use.TRAIN)
    task = Task(name="programs", axis=Axis.IID, splits={"train": split}, objective=exact_match)
    SelfSampling(samples=0, budget=budget, part_tokens=1600).fit(model, task, lab)
