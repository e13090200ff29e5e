"""Sampled programs of a problem chosen by how well a student does with them.

The student reads a problem with one of the programs and then answers problems like it whose
answers are known. From scratch it learns from half of the training texts and is examined on the
other half; a language model is examined on all training problems and trained on none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from unseen.engine.exams import (
    Student,
    draw_lessons,
    neighbour_exams,
    score_explanations,
    shared_notation,
    true_answers,
)
from unseen.engine.loop import Budget
from unseen.engine.program_writing import ProgramRows, ProgramSamples, TextNotation
from unseen.engine.teaching import Explanations, Rule, right_choices
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.methods.self_sampling import SelfSampling
from unseen.models.encoder_decoder import t5
from unseen.models.pretrained import CausalLM
from unseen.objectives import exact_match
from unseen.task import Axis, Split, Task, Use
from unseen.tasks.math_programs import MathProblem, MathPrograms
from unseen.tasks.math_programs.published import text_key

SCRATCH_STUDENT = "scratch"
EXAMS = 3
ORACLE = "any sample (oracle)"
MAJORITY, SUM = "most frequent answer", "sum of scores"
CHOICES = {
    MAJORITY: Rule.COUNT,
    "best score": Rule.MAX,
    SUM: Rule.SUM,
    "mean score": Rule.MEAN,
}


@dataclass(frozen=True)
class Choices:
    """Which problems are answered right by each choice, and how many had no exam."""

    right: Mapping[str, Float[Tensor, " problem"]]
    not_examined: int


@dataclass(frozen=True)
class Examiner:
    """A student with the problems that it is examined on, made when they are needed."""

    spec: MathPrograms
    language: CausalLM | None
    """None: a student from scratch."""
    budget: Budget
    length: int
    lab: Lab

    @cached_property
    def parts(self) -> tuple[list[MathProblem], list[MathProblem]]:
        """Problems to learn from, and for exams: no text is in both."""
        if self.language is not None:
            return [], list(self.spec.train)
        texts = sorted({text_key(p.question) for p in self.spec.train})
        if len(texts) < 4:
            raise InvalidData(
                f"The training problems have {len(texts)} different texts, numbers aside.",
                why="half of them are for the student to learn from, the others for exams.",
                fix="give more problems, or a language model as student: --teach FOLDER.",
            )
        order = self.lab.child("exams").numpy().permutation(len(texts))
        lessons = {texts[k] for k in order[: len(texts) // 2]}
        train = self.spec.train
        return (
            [p for p in train if text_key(p.question) in lessons],
            [p for p in train if text_key(p.question) not in lessons],
        )

    @cached_property
    def student(self) -> Student:
        if self.language is not None:
            return Student(self.language, TextNotation(self.language), self.length)
        notation = shared_notation([*self.spec.train, *self.spec.unseen])
        with self.lab.child("init").seeded():
            model = t5(len(notation.vocabulary), dropout=0.1)
        count = max(1, self.budget.steps * self.budget.batch_size // 2)
        lessons = draw_lessons(self.parts[0], count, self.lab.child("lessons"))
        split = Split(ProgramRows(lessons, notation), Use.TRAIN)
        task = Task(name="lessons", axis=Axis.IID, splits={"train": split}, objective=exact_match)
        method = SelfSampling(samples=0, budget=self.budget, length=self.length)
        return Student(method.fit(model, task, self.lab.child("fit")).model, notation, self.length)

    def choose(self, found: ProgramSamples) -> Choices:
        scores = self.score(found)
        right = right_choices(scores, true_answers(found.problems))
        return Choices(
            {
                **{name: torch.tensor(right[rule]).float() for name, rule in CHOICES.items()},
                ORACLE: found.correct.any(1).float(),
            },
            sum(one.scores is None for one in scores),
        )

    def score(self, found: ProgramSamples) -> list[Explanations]:
        bank = self.parts[1]
        exams = neighbour_exams(found.problems, bank, min(EXAMS, len(bank)))
        return score_explanations(self.student, found.problems, found.programs, exams)
