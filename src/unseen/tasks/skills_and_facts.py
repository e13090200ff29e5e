"""Twelve skills and a knowledge base as instructions: what broad general data do for one target (in
the manner of Shi et al., 2023, arXiv:2310.15326).

Eight skills turn a string into a string, three more answer about it, the twelfth looks a fact up.
General data show single skills in four wordings each. A target is narrow or broad by the number of
different skills in it: one composition of two skills, those of four skills, or all; or facts.

Columns of every split: `tokens`, `mask` (the answer with its end token), `length` (tokens of the
answer), `skill` (its number: of `Skill`, of compositions behind them).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from itertools import product
from typing import NamedTuple

import numpy as np
import torch

from unseen.engine.batches import Columns
from unseen.engine.token_pairs import Pair, Vocabulary, encode_pairs
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.objectives import exact_match
from unseen.task import Axis, Split, Task, Use

LETTERS, VOWELS = "aeibcd", "aei"
SIZES = (3, 4)
"""Letters of a string."""

STRING_SKILLS: dict[str, Callable[[str], str]] = {
    "copy": lambda text: text,
    "reverse": lambda text: text[::-1],
    "sort": lambda text: "".join(sorted(text)),
    "first": lambda text: text[:2],
    "last": lambda text: text[-2:],
    "consonants": lambda text: "".join(c for c in text if c.lower() not in VOWELS),
    "double": lambda text: "".join(2 * c for c in text),
    "uppercase": str.upper,
}
OTHER_SKILLS = ("count", "compare", "sum", "fact")
SKILLS = (*STRING_SKILLS, *OTHER_SKILLS)
FRAMES = ((), ("please",), ("now",), ("kindly", "do"))
"""What stands before the name of a skill: four wordings."""

ENTITIES, RELATIONS, VALUES = 50, 8, 10
"""A fact is a value of a relation of an entity; every relation has values of its own."""


class Target(StrEnum):
    """What the specialist is for."""

    NARROW = "narrow"
    """One composition of two skills, in one wording."""
    MID = "mid"
    """Compositions of four skills."""
    BROAD = "broad"
    """Compositions of all string skills."""
    FACTS = "facts"
    """Facts of the knowledge base."""


class Example(NamedTuple):
    """An instruction with its input, the answer, and the number of its skill."""

    source: tuple[str, ...]
    answer: tuple[str, ...]
    skill: int


VOCABULARY = Vocabulary(
    (
        *SKILLS,
        *dict.fromkeys(word for frame in FRAMES for word in frame),
        "then",
        "of",
        "has",
        ":",
        "+",
        "more",
        "fewer",
        "equal",
        *LETTERS,
        *LETTERS.upper(),
        *"0123456789",
        *(f"e{k}" for k in range(ENTITIES)),
        *(f"r{k}" for k in range(RELATIONS)),
        *(f"v{r}.{k}" for r in range(RELATIONS) for k in range(VALUES)),
    )
)


@cache
def strings() -> tuple[str, ...]:
    """Every string: 1,512."""
    return tuple("".join(one) for size in SIZES for one in product(LETTERS, repeat=size))


@cache
def compositions() -> tuple[tuple[str, str], ...]:
    """Ordered pairs of string skills that compute what no single one does."""
    single = {tuple(map(skill, strings())) for skill in STRING_SKILLS.values()}
    return tuple(
        (one, two)
        for one, two in product(STRING_SKILLS, repeat=2)
        if tuple(STRING_SKILLS[two](STRING_SKILLS[one](text)) for text in strings()) not in single
    )


FOUR = ("reverse", "first", "double", "uppercase")


def compositions_of(target: Target) -> list[tuple[str, str]]:
    """The compositions that a target consists of."""
    if target is Target.NARROW:
        return [("double", "reverse")]
    within = FOUR if target is Target.MID else tuple(STRING_SKILLS)
    return [pair for pair in compositions() if set(pair) <= set(within)]


@dataclass(frozen=True)
class SkillsAndFacts:
    """A target with `n` examples, and beside it general data of which the loss sees as many
    examples in every step. Equal labs give equal examples: fewer are the first of more.
    """

    target: Target = Target.BROAD
    n: int = 100
    general: int = 8_000
    """Examples of general data; 0: none, the specialist."""
    hallucination: float = 0.0
    """Share of the general data's facts whose value is wrong, and of the right type."""
    replace: float = 0.0
    """Share of the target's examples that are replaced by general ones: constant size."""
    fact_share: float = 0.25
    """Share of facts in the general data."""
    n_test: int = 500
    pool: int = 4_000
    """Target examples that there are."""

    def __post_init__(self) -> None:
        if self.target not in list(Target):
            raise InvalidConfig(
                f"There is no target `{self.target}`.",
                why="a target is a set of skills.",
                fix=f"choose from {', '.join(Target)}.",
            )
        shares = (self.hallucination, self.replace, self.fact_share)
        if min(shares) < 0 or max(shares) > 1:
            raise InvalidConfig(
                f"hallucination={self.hallucination}, replace={self.replace}, "
                f"fact_share={self.fact_share}.",
                why="they are shares.",
                fix="give numbers from 0 to 1.",
            )
        most = FACTS_TRAIN if self.target is Target.FACTS else self.pool
        if not 1 <= self.n <= most or self.general < 0 or self.n_test < 1:
            raise InvalidConfig(
                f"{self.n} target examples, {self.general} general ones, {self.n_test} of a test.",
                why=f"the pool of the target `{self.target}` holds {most}, and a test needs one.",
                fix=f"ask for 1 to {most} target examples.",
            )

    def build(self, lab: Lab) -> Task:
        world = World.draw(lab.child("world"))
        target = self._target_rows(world, lab)
        splits = {"target": Split(encode(target), Use.TRAIN, "target")}
        if self.general:
            rows = self.general_rows(world, lab.child("general"))
            splits["general"] = Split(encode(rows), Use.TRAIN, "general")
        splits["test"] = Split(encode(self.test_rows(world, lab)), Use.EVALUATE, "target")
        return Task(name="skills_and_facts", axis=Axis.TASK, splits=splits, objective=exact_match)

    def pretraining(self, lab: Lab, n: int = 20_000) -> Task:
        """Strings with what a skill makes of them, without an instruction, so that skills are there
        but have no names; and every fact, truly, in two kinds of sentences.
        """
        world, rng = World.draw(lab.child("world")), lab.child("pretraining").numpy()
        rows = [
            world.sentence(rng) if rng.random() < SENTENCES else world.nameless_pair(rng)
            for _ in range(n)
        ]
        split = Split(encode_pairs(rows, VOCABULARY), Use.TRAIN)
        return Task(
            name="pretraining", axis=Axis.TASK, splits={"train": split}, objective=exact_match
        )

    def single_task(self, lab: Lab) -> Task:
        """The general data alone, evaluated on single skills as well as on the target's test."""
        world = World.draw(lab.child("world"))
        rows = self.general_rows(world, lab.child("general"))
        rng = lab.child("singles").numpy()
        singles = [
            world.single(skill, rng, held_out=True) for skill in SKILLS[:-1] for _ in range(40)
        ]
        return Task(
            name="general",
            axis=Axis.TASK,
            splits={
                "general": Split(encode(rows), Use.TRAIN, "general"),
                "singles": Split(encode(singles), Use.EVALUATE, "general"),
                "test": Split(encode(self.test_rows(world, lab)), Use.EVALUATE, "target"),
            },
            objective=exact_match,
        )

    def _target_rows(self, world: "World", lab: Lab) -> list[Example]:
        rng = lab.child("target").numpy()
        if self.target is Target.FACTS:
            rows = [world.fact(at, rng) for at in world.train[: self.n]]
        else:
            pairs = compositions_of(self.target)
            rows = [world.composition(pairs, self.frames, rng) for _ in range(self.n)]
        other = lab.child("replace").numpy()
        for k in range(round(self.replace * self.n)):  # rows are in random order already
            rows[k] = world.single(SKILLS[int(other.integers(len(SKILLS) - 1))], other)
        return rows

    @property
    def frames(self) -> tuple[tuple[str, ...], ...]:
        return FRAMES[:1] if self.target is Target.NARROW else FRAMES

    def general_rows(self, world: "World", lab: Lab) -> list[Example]:
        """Single skills and facts that neither training nor test of the target asks."""
        rng, wrong = lab.numpy(), lab.child("wrong").numpy()
        rows = []
        for _ in range(self.general):
            if rng.random() < self.fact_share:
                at = world.general[int(rng.integers(len(world.general)))]
                # drawn for every fact: another share changes no other example
                u, shift = wrong.random(), int(wrong.integers(1, VALUES))
                rows.append(world.fact(at, rng, shift if u < self.hallucination else 0))
            else:
                rows.append(world.single(SKILLS[int(rng.integers(len(SKILLS) - 1))], rng))
        return rows

    def test_rows(self, world: "World", lab: Lab) -> list[Example]:
        rng = lab.child("test").numpy()
        if self.target is Target.FACTS:
            rows = [world.fact(at, rng) for _ in FRAMES for at in world.test]
            return rows[: self.n_test]
        pairs = compositions_of(self.target)
        found: dict[Example, None] = {}
        for _ in range(20 * self.n_test):
            found[world.composition(pairs, self.frames, rng, held_out=True)] = None
            if len(found) == self.n_test:
                break
        return list(found)


FACTS_TRAIN, FACTS_TEST = 100, 150
SENTENCES = 0.5
"""Share of sentences in pretraining."""


@dataclass(frozen=True)
class World:
    """The values of all facts, who asks which of them, and the strings that are held out."""

    values: np.ndarray
    train: tuple[tuple[int, int], ...]
    test: tuple[tuple[int, int], ...]
    general: tuple[tuple[int, int], ...]
    strings: tuple[str, ...]
    held_out: tuple[str, ...]

    @classmethod
    def draw(cls, lab: Lab) -> "World":
        rng = lab.numpy()
        values = rng.integers(VALUES, size=(ENTITIES, RELATIONS))
        cells = [divmod(int(k), RELATIONS) for k in rng.permutation(ENTITIES * RELATIONS)]
        order = [strings()[k] for k in rng.permutation(len(strings()))]
        few = len(order) // 5
        first, second = FACTS_TRAIN, FACTS_TRAIN + FACTS_TEST
        return cls(
            values,
            tuple(cells[:first]),
            tuple(cells[first:second]),
            tuple(cells[second:]),
            tuple(order[few:]),
            tuple(order[:few]),
        )

    def text(self, rng: np.random.Generator, held_out: bool = False) -> str:
        pool = self.held_out if held_out else self.strings
        return pool[int(rng.integers(len(pool)))]

    def nameless_pair(self, rng: np.random.Generator) -> Pair:
        """A string with what one of the string skills makes of it; nothing says which."""
        text = self.text(rng)
        skill = list(STRING_SKILLS.values())[int(rng.integers(len(STRING_SKILLS)))]
        return Pair(tuple(text), tuple(skill(text)))

    def sentence(self, rng: np.random.Generator) -> Pair:
        """A fact whose value has to be known."""
        e, r = int(rng.integers(ENTITIES)), int(rng.integers(RELATIONS))
        source = (f"r{r}", "of", f"e{e}") if rng.random() < 0.5 else (f"e{e}", "has", f"r{r}")
        return Pair(source, (f"v{r}.{self.values[e, r]}",))

    def fact(self, at: tuple[int, int], rng: np.random.Generator, shift: int = 0) -> Example:
        """A question about a fact; its value `shift` further where it is wrong."""
        (e, r), frame = at, FRAMES[int(rng.integers(len(FRAMES)))]
        value = (int(self.values[e, r]) + shift) % VALUES
        source = (*frame, "fact", ":", f"r{r}", "of", f"e{e}")
        return Example(source, (f"v{r}.{value}",), SKILLS.index("fact"))

    def composition(
        self,
        pairs: Sequence[tuple[str, str]],
        frames: Sequence[tuple[str, ...]],
        rng: np.random.Generator,
        held_out: bool = False,
    ) -> Example:
        one, two = pairs[int(rng.integers(len(pairs)))]
        text = self.text(rng, held_out)
        frame = frames[int(rng.integers(len(frames)))]
        answer = STRING_SKILLS[two](STRING_SKILLS[one](text))
        number = len(SKILLS) + compositions().index((one, two))
        return Example((*frame, one, "then", two, ":", *text), tuple(answer), number)

    def single(self, skill: str, rng: np.random.Generator, held_out: bool = False) -> Example:
        frame = (*FRAMES[int(rng.integers(len(FRAMES)))], skill, ":")
        number = SKILLS.index(skill)
        if skill == "sum":
            a, b = (int(k) for k in rng.integers(5, size=2))
            return Example((*frame, str(a), "+", str(b)), (str(a + b),), number)
        text = self.text(rng, held_out)
        if skill == "count":  # of the first letter
            return Example((*frame, *text), (str(text.count(text[0])),), number)
        if skill == "compare":
            vowels = sum(c in VOWELS for c in text)
            rest = len(text) - vowels
            word = "more" if vowels > rest else "fewer" if vowels < rest else "equal"
            return Example((*frame, *text), (word,), number)
        return Example((*frame, *text), tuple(STRING_SKILLS[skill](text)), number)


def encode(rows: Sequence[Example]) -> Columns:
    columns = encode_pairs([Pair(row.source, row.answer) for row in rows], VOCABULARY).columns
    return Columns(**columns, skill=torch.tensor([row.skill for row in rows]))


def example() -> SkillsAndFacts:
    return SkillsAndFacts(n=40, general=60, n_test=10)
