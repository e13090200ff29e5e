"""Scores of explanations, and what is chosen by them."""

from collections.abc import Sequence

import numpy as np

from unseen.engine.exams import answers_of, different_programs, true_answers
from unseen.engine.program_writing import ProgramSamples
from unseen.engine.programs import Program, execute, is_correct
from unseen.engine.teaching import Explanations, Rule, score_rules
from unseen.lab import Lab
from unseen.study import Value
from unseen.tasks.math_programs import MathProblem
from unseen.tasks.math_programs.numbers import draw_variant


def read_choices(scored: Sequence[Explanations], found: ProgramSamples) -> dict[str, Value]:
    """Share of problems that each rule answers right, and the gain of the sum over the count."""
    scores = score_rules(scored, true_answers(found.problems))
    majority = scores.rules[Rule.COUNT]
    return {
        "majority": majority,
        **{str(rule): scores.rules[rule] for rule in (Rule.MAX, Rule.SUM, Rule.MEAN)},
        "oracle": scores.oracle,
        "gain": scores.rules[Rule.SUM] - majority,
        "not examined": scores.unexamined,
        "problems": len(scored),
    }


def add_scores(one: Sequence[Explanations], other: Sequence[Explanations]) -> list[Explanations]:
    """What two students get right together."""
    return [
        Explanations(a.answers, _sum(a.scores, b.scores), a.name)
        for a, b in zip(one, other, strict=True)
    ]


def _sum(
    one: tuple[float, ...] | None, other: tuple[float, ...] | None
) -> tuple[float, ...] | None:
    if one is None or other is None:
        return None
    return tuple(a + b for a, b in zip(one, other, strict=True))


def share_right(scored: Sequence[Explanations], exams: int) -> float:
    """Of the exam questions, over explanations with an answer."""
    values = _scores(scored)
    return float(np.mean(values)) / exams if len(values) else 0.0


def score_correlation(one: Sequence[Explanations], other: Sequence[Explanations]) -> float | None:
    """Over explanations; None where a student gets all alike."""
    a, b = _scores(one), _scores(other)
    if len(a) < 2 or not a.std() or not b.std():
        return None
    return float(np.corrcoef(a, b)[0, 1])


def _scores(scored: Sequence[Explanations]) -> np.ndarray:
    return np.array(
        [
            score
            for problem in scored
            for answer, score in zip(problem.answers, problem.scores or (), strict=False)
            if answer is not None
        ]
    )


def other_explanations(found: ProgramSamples, lab: Lab) -> list[tuple[str, list[Program]]]:
    """For every problem the question and the programs of another one that has any."""
    rows = [
        (problem.question, different_programs(problem, row))
        for problem, row in zip(found.problems, found.programs, strict=True)
    ]
    able = [k for k, (_, programs) in enumerate(rows) if programs]
    # along a cycle through them in random order nobody meets his own
    order = lab.numpy().permutation(able).tolist()
    following = dict(zip(order, order[1:] + order[:1], strict=True))
    return [rows[following[k]] if k in following else ("", []) for k in range(len(rows))]


def random_scores(
    scored: Sequence[Explanations], exams: int, rate: float, lab: Lab
) -> list[Explanations]:
    """As many exam questions, each right with chance `rate` whatever was explained; equal answers
    of a problem have equal scores.
    """
    rng = lab.numpy()

    def draw(problem: Explanations) -> tuple[float, ...]:
        drawn = {
            answer: float(rng.binomial(exams, rate)) for answer in dict.fromkeys(problem.answers)
        }
        return tuple(drawn[answer] for answer in problem.answers)

    return [
        Explanations(one.answers, None if one.scores is None else draw(one), one.name)
        for one in scored
    ]


def executed_scores(
    problems: Sequence[MathProblem], found: ProgramSamples, exams: int, lab: Lab
) -> list[Explanations]:
    """Right answers of the programs themselves on the problem with other numbers."""
    rng = lab.numpy()
    scored = []
    for problem, row in zip(problems, found.programs, strict=True):
        drawn = [draw_variant(problem, rng) for _ in range(exams)]
        variants = [one for one in drawn if one is not None]
        scores = tuple(
            float(sum(is_correct(execute(p, v.constants), v.answer) for v in variants))
            if p is not None
            else 0.0
            for p in row
        )
        scored.append(
            Explanations(answers_of(problem, row), scores if variants else None, problem.name)
        )
    return scored


def without_exam(found: ProgramSamples) -> list[Explanations]:
    """Without an exam the count decides."""
    return [
        Explanations(answers_of(problem, row), None, problem.name)
        for problem, row in zip(found.problems, found.programs, strict=True)
    ]
