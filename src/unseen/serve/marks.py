"""What a session of the compass is made of: boards of images, questions, named directions."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, ClassVar

from unseen.errors import InvalidData, UnknownName
from unseen.models.generator import Direction
from unseen.reading import Reading

STRONGEST = 20.0


class OtherModel(InvalidData):
    """A session of another model."""

    status: ClassVar[int] = 409
    """Of the answer over HTTP."""


@dataclass(frozen=True)
class Board:
    """Samples shown together."""

    kind: str
    samples: tuple[int, ...]


@dataclass
class Question:
    """Images in an order that only the server knows, and the answer when there is one."""

    order: tuple[str, ...]
    sample: int = 0
    fits: int = 0
    """The fit that it asks about: answers of an earlier direction say nothing of this one."""
    answer: str = ""


@dataclass(frozen=True)
class SavedDirection:
    """A name for the marks that give a direction."""

    name: str
    marks: Mapping[int, int]
    direction: Direction


def require_strength(strength: float) -> float:
    if not (isfinite(strength) and abs(strength) <= STRONGEST):
        raise InvalidData(
            f"A strength of {strength} is out of range.",
            why="images far from the data say nothing.",
            fix=f"use -{STRONGEST:g} to {STRONGEST:g}.",
        )
    return strength


def reading_json(reading: Reading) -> dict[str, Any]:
    """Value, limits (None where there are none), number and unit."""
    ends = {"value": reading.value, "low": reading.low, "high": reading.high}
    finite = {name: end if isfinite(end) else None for name, end in ends.items()}
    return {**finite, "n": reading.n, "unit": reading.unit}


def find_question(questions: list[Question], number: int) -> Question:
    if not 0 <= number < len(questions):
        raise UnknownName(
            f"There is no question {number}.",
            f"{len(questions)} were asked.",
            "ask for a new one.",
        )
    return questions[number]


def require_current(question: Question, fits: int) -> None:
    if question.fits != fits:
        raise InvalidData(
            "This question is about an earlier direction.",
            why="marks were fitted again since.",
            fix="ask for a new one.",
        )


def require_unanswered(question: Question) -> None:
    if question.answer:
        raise InvalidData(
            "This question has an answer already.",
            why="a second one would not be blind.",
            fix="ask for a new one.",
        )


def describe_missing(
    marks: int, *, few: int, least: int, is_blind: bool, has_encoder: bool
) -> list[str]:
    """What keeps the page from saying more, one sentence each; `marks` are those of the side that
    has fewer.
    """
    if not marks:
        return ["Mark at least one image in each group."]
    found = []
    if marks < few:
        found.append(
            f"With fewer than {few} marks on a side the direction is only the difference of two "
            "means."
        )
    if marks < least:
        found.append(f"At least {least} marks on each side are needed to test them against chance.")
    if not is_blind:
        found.append(
            "No blind answer yet: whether the direction means to you what you marked is open."
        )
    if not has_encoder:
        found.append("The safe range is read from coarse pixels: this model has no encoder.")
    return found
