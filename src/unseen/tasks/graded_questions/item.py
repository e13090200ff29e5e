"""A multiple-choice item with its annotations, and how hard it is."""

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite

from unseen.errors import InvalidData, UnknownName
from unseen.text import count_noun

Annotation = float | str
BLOOM = ("remembering", "understanding", "applying", "analyzing", "evaluating", "creating")
"""Bloom's levels of a task for the mind, from 1 on."""
QUESTION_TEMPLATE = "Question: {question}\nAnswer:"
SCALES: tuple[tuple[str, ...], ...] = (
    BLOOM,
    ("easy", "medium", "hard"),
    ("low", "medium", "high"),
    ("i", "ii", "iii", "iv"),
)
"""Ordered words; the first of a scale is level 1."""


@dataclass(frozen=True)
class Item:
    """A question, its choices and which of them is right."""

    question: str
    choices: tuple[str, ...]
    answer: int
    """Index of the right choice."""
    name: str = ""
    annotations: tuple[tuple[str, Annotation], ...] = ()
    template: str = QUESTION_TEMPLATE
    """What a language model reads before a choice."""

    def __post_init__(self) -> None:
        self._refuse_choices()
        if not 0 <= self.answer < len(self.choices):
            raise InvalidData(
                f"The answer {self.answer} of {self.title} is not among its "
                f"{len(self.choices)} choices.",
                why="an index counts the choices from 0.",
                fix=f"give an index from 0 to {len(self.choices) - 1}, a label or the text.",
            )

    def _refuse_choices(self) -> None:
        if len(self.choices) < 2:
            raise InvalidData(
                f"{self.title} has {count_noun(len(self.choices), 'choice')}.",
                why="with one choice every model is right.",
                fix="give at least two, or leave the item out.",
            )
        empty = [k for k, choice in enumerate(self.choices) if not choice.strip()]
        if empty:
            raise InvalidData(
                f"Choice {empty[0]} of {self.title} is empty.",
                why="a model predicts no token of it, so it has no likelihood.",
                fix="write the choice out, or leave the item out.",
            )
        if len(set(self.choices)) < len(self.choices):
            raise InvalidData(
                f"{self.title} has a choice twice.",
                why="both have the same likelihood, and one of them counts as wrong.",
                fix="remove one of the two.",
            )

    @property
    def title(self) -> str:
        """How errors name the item."""
        short = self.question if len(self.question) <= 60 else self.question[:59] + "…"
        return f"item {self.name}" if self.name else f"the item `{short}`"

    @property
    def prompt(self) -> str:
        """What a language model reads before the choice."""
        return self.template.format(question=self.question)

    @property
    def continuations(self) -> tuple[str, ...]:
        """The choices as they follow the prompt: a space joins them where neither has one."""
        bare = not self.prompt[-1:].isspace()
        return tuple(
            f" {choice}" if bare and not choice[0].isspace() else choice for choice in self.choices
        )

    @property
    def words(self) -> int:
        """Words of the question."""
        return len(self.question.split())

    def level(self, annotation: str) -> float | None:
        """An annotation as a number; None where the item has none, or one that has no order."""
        value = dict(self.annotations).get(annotation)
        return None if value is None else annotation_level(value)


def annotation_level(value: Annotation) -> float | None:
    """A number as it is; of a text its place on a known scale (Bloom's words, easy to hard, low to
    high, I to IV), else the only number in it ("Grade 08": 8), else None, as for NaN.
    """
    with suppress(ValueError):
        number = float(value)  # with its sign: −0.4 is easier than 0.3
        return number if isfinite(number) else None
    assert isinstance(value, str)
    word = value.strip().lower()
    for scale in SCALES:
        if word in scale:
            return scale.index(word) + 1.0
    numbers = re.findall(r"\d+(?:\.\d+)?", word)
    return float(numbers[0]) if len(numbers) == 1 else None


def chance(items: Sequence[Item]) -> float:
    """Accuracy of guessing: the mean of 1 / number of choices, as items may differ in it."""
    if not items:
        raise InvalidData("There are no items.", why="a mean of nothing.", fix="give items.")
    return sum(1 / len(item.choices) for item in items) / len(items)


def remove_repeats(items: Iterable[Item]) -> tuple[Item, ...]:
    """The first of the items with equal question and choices, whatever their case and spaces."""
    unique: dict[tuple[str, ...], Item] = {}
    for item in items:
        unique.setdefault(content(item), item)
    return tuple(unique.values())


def contradictions(items: Iterable[Item]) -> list[Item]:
    """Copies of an earlier item whose right choice is another: one of the two is wrong."""
    first: dict[tuple[str, ...], str] = {}
    answers = [(item, " ".join(item.choices[item.answer].lower().split())) for item in items]
    return [item for item, answer in answers if first.setdefault(content(item), answer) != answer]


def content(item: Item) -> tuple[str, ...]:
    """Question and choices without what a copy may change: case, spaces, order of the choices."""
    question, *choices = (" ".join(t.lower().split()) for t in (item.question, *item.choices))
    return question, *sorted(choices)


class Stratum(StrEnum):
    """A part of the items by hardness."""

    EASY = "easy"
    MEDIUM = "medium"
    HARD = "hard"


def stratum_of(name: str) -> Stratum:
    """The stratum of this name."""
    if name not in list(Stratum):
        raise UnknownName.near("stratum", name, list(Stratum))
    return Stratum(name)


@dataclass(frozen=True)
class Strata:
    """Items by hardness: easy up to `low`, hard from `high` on."""

    easy: tuple[int, ...]
    medium: tuple[int, ...]
    hard: tuple[int, ...]
    without: tuple[int, ...]
    """Items without a hardness."""
    low: float
    high: float

    def of(self, stratum: Stratum) -> tuple[int, ...]:
        """The items' indices."""
        return {Stratum.EASY: self.easy, Stratum.MEDIUM: self.medium, Stratum.HARD: self.hard}[
            stratum
        ]


def stratify(hardness: Sequence[float | None], cuts: tuple[float, float] | None = None) -> Strata:
    """Easy: hardness ≤ low; hard: hardness ≥ high; so ties are never divided.

    Without cuts low and high are such that about 30, 40 and 30 % of the items fall into the three.
    """
    values = sorted(value for value in hardness if value is not None)
    if not values:
        raise InvalidData(
            "No item has a hardness.",
            why="easy and hard cannot be told apart.",
            fix="choose an annotation that the items have, or length.",
        )
    low, high = cuts or _quantile_cuts(values)
    if not low < high:
        raise InvalidData(
            f"Easy ends at {low:g} and hard begins at {high:g}.",
            why="then an item would be easy and hard, or all are alike.",
            fix="give cuts with low < high, or another hardness.",
        )
    index = {k: value for k, value in enumerate(hardness) if value is not None}
    return Strata(
        easy=tuple(k for k, value in index.items() if value <= low),
        medium=tuple(k for k, value in index.items() if low < value < high),
        hard=tuple(k for k, value in index.items() if value >= high),
        without=tuple(k for k, value in enumerate(hardness) if value is None),
        low=low,
        high=high,
    )


def _quantile_cuts(values: Sequence[float]) -> tuple[float, float]:
    """The values below which 30 and from which 30 % of the items lie, apart where any differ."""
    low = values[max(0, round(0.3 * len(values)) - 1)]
    high = values[min(len(values) - 1, round(0.7 * len(values)))]
    if low == high:  # one value fills the middle: it stays on the side where fewer others are
        above = [value for value in values if value > high]
        below = [value for value in values if value < low]
        if above and len(above) >= len(below):
            high = above[0]
        elif below:
            low = below[-1]
    return low, high


def level_hardness(items: Sequence[Item], annotation: str) -> tuple[float | None, ...]:
    """Each item's annotation as a number; refuses one that no item has or that has no order."""
    present = {name for item in items for name, _ in item.annotations}
    if annotation not in present:
        raise UnknownName.near("annotation", annotation, present)
    levels = tuple(item.level(annotation) for item in items)
    if all(level is None for level in levels):
        values = list(dict.fromkeys(str(dict(item.annotations)[annotation]) for item in items))
        raise InvalidData(
            f"The annotation `{annotation}` has no order: {', '.join(values[:4])}.",
            why="easy and hard are told apart by a number.",
            fix="write numbers, or words of a known scale such as easy, medium, hard.",
        )
    return levels
