"""Exams: a student reads an explained problem, then answers questions whose answers are known.

What it reads is `question, program, exam question`, one text for a model from scratch and for a
language model, so a student is any model that writes programs (Ning et al., 2024,
arXiv:2406.14629).
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import nn

from unseen.engine.decode import greedy
from unseen.engine.program_writing import Notation, WordNotation, read_program, tokens_of
from unseen.engine.programs import Program, Value, execute, is_correct
from unseen.engine.solution_buffer import Executable
from unseen.engine.teaching import Explanations
from unseen.engine.token_pairs import Pair, Vocabulary
from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.lab import Lab

WORD = re.compile(r"[^\W\d_]+")
Problem = TypeVar("Problem", bound=Executable)
Exams = Sequence[Sequence[Problem]]
"""Exam problems of each problem; none where nothing is alike."""


@dataclass(frozen=True)
class Lesson:
    """An exam problem behind an explained one: a problem like any other."""

    exam: Executable
    shown: str
    """The question that is explained."""
    explanation: Program

    @property
    def question(self) -> str:
        return f"{self.shown}\nProgram: {self.explanation}\n\nQuestion: {self.exam.question}"

    @property
    def name(self) -> str:
        return self.exam.name

    @property
    def program(self) -> Program:
        return self.exam.program

    @property
    def answer(self) -> Value:
        return self.exam.answer

    @property
    def constants(self) -> Mapping[str, Value]:
        return self.exam.constants


@dataclass(frozen=True)
class Student:
    """A model that reads explanations and writes programs."""

    model: nn.Module
    notation: Notation
    length: int = 60
    """Most tokens of a program."""

    def answer(self, asked: Sequence[Lesson]) -> list[bool]:
        """Whether the likeliest program computes the answer, question by question."""
        if not asked:
            return []
        prompts = [self._prompt(one) for one in asked]
        # of similar length together: less padding
        order = sorted(range(len(prompts)), key=lambda k: len(prompts[k]))
        written = greedy(self.model, [prompts[k] for k in order], self.length, self.notation.end)
        right = [False] * len(asked)
        for k, row in zip(order, written, strict=True):
            # a language model goes on with a question of its own behind the line
            line = self.notation.decode(row).strip().partition("\n")[0]
            program = read_program(line)
            right[k] = program is not None and _answers(asked[k], program)
        return right

    def _prompt(self, one: Lesson) -> list[int]:
        try:
            return self.notation.prompt(one.question)
        except UnknownName as error:
            raise InvalidData(
                f"The student cannot read what it is asked in problem `{one.name}`: {error.what}",
                why="its vocabulary is not the teacher's, and it reads what the teacher wrote.",
                fix="build both on one vocabulary, of all questions and programs, or use a "
                "language model, which reads any text.",
            ) from None


def _answers(problem: Executable, program: Program) -> bool:
    return is_correct(execute(program, problem.constants), problem.answer)


def shared_notation(problems: Sequence[Executable]) -> WordNotation:
    """One vocabulary for a teacher and its students: words of questions, programs and
    explanations.
    """
    pairs = [Pair(tokens_of(p.question), tokens_of(str(p.program))) for p in problems]
    return WordNotation(Vocabulary.of([*pairs, Pair(tokens_of("Program: ; Question:"), ())]))


def neighbour_exams(
    problems: Sequence[Executable], bank: Sequence[Problem], count: int = 3
) -> list[list[Problem]]:
    """For each problem the `count` problems of the bank with the most similar phrases (cosine of
    the counts of one to three words), among those with as many numbers by name and another
    question; fewer, or none, where no more of them share a word.
    """
    if not 1 <= count <= len(bank):
        raise InvalidConfig(
            f"{count} exam questions were asked for, of {len(bank)} problems with known answers.",
            why="they are the nearest of these.",
            fix="ask for at least 1 and at most as many as there are.",
        )
    if not problems or not any(WORD.search(p.question) for p in bank):
        return [[] for _ in problems]
    # frequent phrases say how something is asked, rare words what it is about: no inverse frequency
    vectorizer = TfidfVectorizer(token_pattern=WORD.pattern, ngram_range=(1, 3), use_idf=False)
    words = vectorizer.fit_transform([p.question for p in bank])
    alike = (vectorizer.transform([p.question for p in problems]) @ words.T).toarray()
    numbers = np.array([len(p.constants) for p in bank])
    found = []
    for problem, row in zip(problems, alike, strict=True):
        row = np.where(numbers == len(problem.constants), row, 0.0)
        # stable: of equals the earlier
        nearest = [bank[k] for k in np.argsort(-row, kind="stable") if row[k] > 0]
        found.append([p for p in nearest if p.question != problem.question][:count])
    return found


def score_explanations(
    student: Student,
    problems: Sequence[Executable],
    programs: Sequence[Sequence[Program | None]],
    exams: Exams[Executable],
    shown: Sequence[tuple[str, Sequence[Program]]] | None = None,
) -> list[Explanations]:
    """Answers of the sampled programs, and how many exam questions the student gets right with each
    in front. Equal programs are examined once.

    `shown` (a question and programs for every problem) replaces what the student reads, as a
    control: the score of the k-th different program is then that of another explanation.
    """
    asked: list[Lesson] = []
    owner: list[tuple[int, str]] = []
    if shown is not None:  # nothing is read where nobody else has written anything
        exams = [one if others else [] for one, (_, others) in zip(exams, shown, strict=True)]
    for p, (problem, row, exam) in enumerate(zip(problems, programs, exams, strict=True)):
        for k, program in enumerate(different_programs(problem, row) if exam else ()):
            question, written = problem.question, program
            if shown is not None:
                question, others = shown[p]
                written = others[k % len(others)]
            asked += [Lesson(one, question, written) for one in exam]
            owner += [(p, str(program))] * len(exam)
    scores: dict[tuple[int, str], float] = defaultdict(float)
    for key, right in zip(owner, student.answer(asked), strict=True):
        scores[key] += right
    return [
        Explanations(
            answers_of(problem, row),
            tuple(scores.get((p, str(program)), 0.0) for program in row) if exam else None,
            problem.name,
        )
        for p, (problem, row, exam) in enumerate(zip(problems, programs, exams, strict=True))
    ]


def different_programs(problem: Executable, programs: Sequence[Program | None]) -> list[Program]:
    """Each program that has an answer once, in order."""
    found = {
        str(program): program
        for program in programs
        if program is not None and _answer(problem, program) is not None
    }
    return list(found.values())


def answers_of(problem: Executable, programs: Sequence[Program | None]) -> tuple[Value | None, ...]:
    """What each of them computes."""
    return tuple(_answer(problem, program) for program in programs)


def _answer(problem: Executable, program: Program | None) -> Value | None:
    return None if program is None else execute(program, problem.constants).answer


def true_answers(problems: Sequence[Executable]) -> list[Value | None]:
    """What the given programs compute: exact, where a written answer may be rounded."""
    return [_answer(problem, problem.program) for problem in problems]


def draw_lessons(
    problems: Sequence[Executable], count: int, lab: Lab, alike: float = 0.7
) -> list[Lesson]:
    """`count` problems to train a student on, each behind another one, which in the share `alike`
    of cases has the same program where there is one.
    """
    if len(problems) < 2:
        raise InvalidData(
            "There are fewer than 2 problems.",
            why="one is explained and another one asked.",
            fix="give more problems to train the student on.",
        )
    rng = lab.numpy()
    by_program: dict[str, list[int]] = defaultdict(list)
    for k, problem in enumerate(problems):
        by_program[str(problem.program)].append(k)
    found = []
    for exam in rng.integers(len(problems), size=count).tolist():
        others = by_program[str(problems[exam].program)]
        if len(others) < 2 or rng.random() >= alike:
            others = list(range(len(problems)))
        shown = others[int(rng.integers(len(others)))]
        while shown == exam:
            shown = others[int(rng.integers(len(others)))]
        found.append(Lesson(problems[exam], problems[shown].question, problems[shown].program))
    return found
