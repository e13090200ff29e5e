"""How many of the skills that a prompt asks for a text shows, by a grader of one's own (Yu et al.,
2023, arXiv:2310.17567; Zhao et al., 2024, arXiv:2409.19808).

A grader is a function of a prompt and a text that returns one yes or no per skill of the prompt, by
its name, and one for every other point (such as topic, length, clean).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from unseen import stats
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.reading import Reading

Prompt = Mapping[str, Any]
"""What is asked, with its `skills` as a list of names."""
Grader = Callable[[Prompt, str], Mapping[str, bool]]


@dataclass(frozen=True)
class SkillMixScores:
    """Three numbers over texts; full marks ≤ all skills."""

    full_marks: Reading
    """Share of texts with every point."""
    all_skills: Reading
    """Share of texts that show every skill, whatever the other points."""
    skill_fraction: Reading
    """Mean share of skills shown, of texts with all other points; NaN where there is none."""


def skill_mix_score(
    texts: Sequence[str], prompts: Sequence[Prompt], grader: Grader
) -> SkillMixScores:
    """The three scores of texts, text k written for prompt k."""
    if len(texts) != len(prompts) or not texts:
        raise InvalidData(
            f"There are {len(texts)} texts and {len(prompts)} prompts.",
            why="text k answers prompt k.",
            fix="give two lists of equal length with at least one entry.",
        )
    marks = [
        mark(k, prompt, grader(prompt, text))
        for k, (prompt, text) in enumerate(zip(prompts, texts, strict=True))
    ]
    return score_marks(marks)


@dataclass(frozen=True)
class Mark:
    """Skills shown, skills asked for, and whether all other points are given."""

    shown: int
    asked: int
    others: bool


def mark(k: int, prompt: Prompt, points: Mapping[str, bool]) -> Mark:
    """The points of text k, after the refusals."""
    skills = list(prompt.get("skills", ()))
    if not skills or len(set(skills)) < len(skills):
        raise InvalidData(
            f"Prompt {k} asks for the skills {skills}.",
            why="a prompt names at least one skill, and each of them once.",
            fix='write {"skills": ["red herring", "metaphor"], …}.',
        )
    missing = [skill for skill in skills if skill not in points]
    if missing:
        raise InvalidData(
            f"The grader says nothing about `{missing[0]}` of prompt {k}.",
            why="every skill that is asked for is shown or not.",
            fix="return a yes or no for every skill of the prompt, under its name.",
        )
    given = {name: _point(k, name, value) for name, value in points.items()}
    others = [value for name, value in given.items() if name not in skills]
    return Mark(sum(given[skill] for skill in skills), len(skills), all(others))


def _point(k: int, name: str, value: Any) -> bool:
    """Any text but an empty one, "no" as well, is true for Python, and so is NaN."""
    if value not in (True, False):  # 1 and 0, of numpy and PyTorch, too
        raise InvalidData(
            f"The grader's point `{name}` of text {k} is {value!r}.",
            why="a point is given or not.",
            fix="return True or False (or 1 and 0).",
        )
    return bool(value)


def score_marks(marks: Sequence[Mark]) -> SkillMixScores:
    every = [one.shown == one.asked for one in marks]
    full = [shown and one.others for shown, one in zip(every, marks, strict=True)]
    fractions = [one.shown / one.asked for one in marks if one.others]
    fraction = stats.mean(fractions, within=(0, 1)) if fractions else Reading(float("nan"), n=0)
    return SkillMixScores(
        stats.proportion(sum(full), len(full)), stats.proportion(sum(every), len(every)), fraction
    )


@dataclass(frozen=True)
class SkillMixScore:
    """`skill_mix_score` of a table with `shown` and `asked` (numbers of skills) and `others` (1
    where all other points are given): the share of full marks.
    """

    def __call__(self, subject: Mapping[str, torch.Tensor], lab: Lab) -> Reading:
        columns = [subject[name].tolist() for name in ("shown", "asked", "others")]
        rows = list(zip(*columns, strict=True))
        if not rows or any(asked < 1 or not 0 <= shown <= asked for shown, asked, _ in rows):
            raise InvalidData(
                f"Marks of {len(rows)} texts.",
                why="every text is asked for one skill or more and shows no more than that.",
                fix="check the columns `shown` and `asked`.",
            )
        marks = [Mark(int(shown), int(asked), bool(others)) for shown, asked, others in rows]
        return score_marks(marks).full_marks


def example() -> tuple[SkillMixScore, dict[str, torch.Tensor]]:
    """Six texts for two or three skills, two of them with full marks."""
    return SkillMixScore(), {
        "shown": torch.tensor([2, 3, 2, 1, 2, 0]),
        "asked": torch.tensor([2, 3, 2, 2, 3, 2]),
        "others": torch.tensor([1, 1, 0, 1, 1, 1]),
    }
