"""Texts that show several skills at once (Zhao et al., 2024, arXiv:2409.19808), with a program as
the grader.

Skill j is a motif of three signs around the topic t, with a letter a that four skills share, so
that motifs can interfere: `a t a` (echo), `a a t` (pair), `t a t` (frame) or `a f a` (call, with a
filler f of the topic). A text for k skills holds their motifs in any order, with at most one filler
between neighbours. Held-out skills and topics are shown one skill at a time only.

Columns of every split: `tokens`, `mask`, `length`, and `k`, the number of skills.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np
import torch

from unseen.engine.batches import Columns
from unseen.engine.mixture import Mixture
from unseen.engine.token_pairs import TO, Pair, Vocabulary, encode_pairs
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.objectives import exact_match
from unseen.task import Axis, Split, Task, Use

FAMILIES = 4
LETTERS = 4
SKILLS = FAMILIES * LETTERS
TOPICS = 10
FILLERS = 10
HELD_OUT_TOPICS = (8, 9)
TRIES = 10_000

Text = tuple[str, ...]


def motif(skill: int, topic: int) -> Text:
    """What shows the skill on the topic."""
    a, t = f"c{skill // FAMILIES}", f"t{topic}"
    shapes = ((a, t, a), (a, a, t), (t, a, t), (a, f"f{(topic + skill) % FILLERS}", a))
    return shapes[skill % FAMILIES]


@cache
def skills_by_motif(topic: int) -> dict[Text, int]:
    return {motif(skill, topic): skill for skill in range(SKILLS)}


def visible_skills(text: Sequence[str], topic: int) -> set[int]:
    """The skills whose motif stands in the text, its signs next to each other."""
    known = skills_by_motif(topic)
    windows = (tuple(text[k : k + 3]) for k in range(len(text) - 2))
    return {known[window] for window in windows if window in known}


def longest(k: int) -> int:
    """Signs of a text for k skills at most: three a motif, one between neighbours."""
    return 4 * k - 1


@dataclass(frozen=True)
class Prompt:
    """The skills that a text must show, and its topic."""

    skills: tuple[int, ...]
    topic: int

    def __post_init__(self) -> None:
        known = all(0 <= skill < SKILLS for skill in self.skills) and 0 <= self.topic < TOPICS
        if not self.skills or len(set(self.skills)) < len(self.skills) or not known:
            raise InvalidConfig(
                f"A prompt asks for the skills {self.skills} on topic {self.topic}.",
                why=f"skills are different ones of 0 … {SKILLS - 1}, topics 0 … {TOPICS - 1}.",
                fix="name every skill once.",
            )

    @property
    def source(self) -> Text:
        return (*(f"s{skill}" for skill in self.skills), "topic", f"t{self.topic}")


def grade(prompt: Prompt, text: Sequence[str]) -> dict[str, bool]:
    """One point per skill that is asked for (`s3`), and one each for `topic` (no sign of another),
    `length` and `clean` (no skill that is not asked for).
    """
    topics = {sign for sign in text if sign.startswith("t")}
    found = visible_skills(text, prompt.topic)
    return {
        **{f"s{skill}": skill in found for skill in prompt.skills},
        "topic": topics <= {f"t{prompt.topic}"},
        "length": len(text) <= longest(len(prompt.skills)),
        "clean": found <= set(prompt.skills),
    }


def compose(prompt: Prompt, rng: np.random.Generator) -> Text:
    """A text with full marks: motifs in random order, drawn again where a skill that is not asked
    for has arisen between them.
    """
    for _ in range(TRIES):
        text: list[str] = []
        for n, skill in enumerate(rng.permutation(prompt.skills).tolist()):
            if n and rng.random() < 0.5:
                text.append(f"f{rng.integers(FILLERS)}")
            text += motif(skill, prompt.topic)
        if visible_skills(text, prompt.topic) == set(prompt.skills):
            return tuple(text)
    raise InvalidData(
        f"No clean text for {prompt} in {TRIES} draws.",
        why="its motifs make another one in every order.",
        fix="ask for other skills.",
    )


VOCABULARY = Vocabulary(
    (
        *(f"s{k}" for k in range(SKILLS)),
        *(f"t{k}" for k in range(TOPICS)),
        *(f"f{k}" for k in range(FILLERS)),
        *(f"c{k}" for k in range(LETTERS)),
        "topic",
    )
)


Sets = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Parts:
    """Which prompts are for training."""

    skills: tuple[int, ...]
    held_out: tuple[int, ...]
    subsets: Mapping[int, Sets]
    """Sets of training skills for training, by their size."""
    unseen: Mapping[int, Sets]
    """The other sets of training skills; of four and more, all."""

    @property
    def topics(self) -> tuple[int, ...]:
        return tuple(t for t in range(TOPICS) if t not in HELD_OUT_TOPICS)


@dataclass(frozen=True)
class SkillMix:
    """Training texts for one to `most` skills, some of the sets held back; beside them single
    skills of everything (`replay`), without which held-out ones are forgotten. Every minibatch
    holds texts for one number of skills.

    Evaluation splits: `k=1, everything`, and for every k from 2 on `training sets` (up to three),
    `unseen sets`, `held-out topics` (of unseen sets) and `held-out skills` (on held-out topics).
    """

    most: int = 3
    """0: the base model's data, one skill of everything."""
    replay: float = 0.25
    """Share of training batches with a single skill, held-out ones and topics among them."""
    weights: tuple[float, ...] = (1.0, 1.0, 2.0)
    """How often one, two and three skills are asked for in the other batches."""
    share: float = 0.8
    """Of the sets of two and three training skills that training holds."""
    n_train: int = 20_000
    """Training texts for every number of skills, which come again and again."""
    n_test: int = 300
    """Prompts of every evaluation split at most; all where there are fewer."""
    asked: int = 5
    """The largest number of skills in evaluation."""

    def __post_init__(self) -> None:
        largest = SKILLS - FAMILIES
        if not 0 <= self.most <= len(self.weights) <= self.asked <= largest:
            raise InvalidConfig(
                f"SkillMix(most={self.most}, asked={self.asked}) with {len(self.weights)} weights.",
                why=f"there are {largest} training skills; training shows at most as many at once "
                "as there are weights, and evaluation asks as many or more.",
                fix=f"0 ≤ most ≤ {len(self.weights)} ≤ asked ≤ {largest}.",
            )
        within = 0 <= self.replay <= 1 and 0 < self.share < 1 and min(self.weights) > 0
        if not within or min(self.n_train, self.n_test) < 1:
            raise InvalidConfig(
                f"SkillMix(replay={self.replay}, share={self.share}, weights={self.weights}, "
                f"n_train={self.n_train}, n_test={self.n_test}) is out of range.",
                why="shares lie in [0, 1], weights and numbers are positive.",
                fix="correct the value.",
            )

    @property
    def vocabulary(self) -> Vocabulary:
        return VOCABULARY

    def parts(self, lab: Lab) -> Parts:
        """Held-out skills are one of every family, each with another letter."""
        rng = lab.child("parts").numpy()
        letters = rng.permutation(LETTERS).tolist()
        held_out = tuple(sorted(FAMILIES * letters[f] + f for f in range(FAMILIES)))
        skills = tuple(s for s in range(SKILLS) if s not in held_out)
        subsets: dict[int, Sets] = {1: tuple(combinations(skills, 1))}
        unseen: dict[int, Sets] = {}
        for k in range(2, self.asked + 1):
            sets = list(combinations(skills, k))
            order = rng.permutation(len(sets))
            n = round(self.share * len(sets)) if k <= len(self.weights) else 0
            subsets[k] = tuple(sets[i] for i in order[:n])
            unseen[k] = tuple(sets[i] for i in order[n:])
        return Parts(skills, held_out, subsets, unseen)

    def build(self, lab: Lab) -> Task:
        parts = self.parts(lab)
        splits = {"train": Split(self.mixture(parts, lab), Use.TRAIN, "training")}
        for name, prompts in self.prompts(parts, lab).items():
            rng = lab.child(name).numpy()
            data = encode([(prompt, compose(prompt, rng)) for prompt in prompts])
            splits[name] = Split(data, Use.EVALUATE, name)
        return Task(name="skill mix", axis=Axis.COMPOSITION, splits=splits, objective=exact_match)

    def mixture(self, parts: Parts, lab: Lab) -> Mixture:
        """Training batches of one number of skills each, with these shares."""
        single = ((s,) for s in range(SKILLS))
        found = {"replay": self.texts(tuple(single), range(TOPICS), lab.child("replay"))}
        shares = {"replay": self.replay if self.most else 1.0}
        for k in range(1, self.most + 1):
            name = f"k={k}"
            found[name] = self.texts(parts.subsets[k], parts.topics, lab.child(name))
            total = sum(self.weights[: self.most])
            shares[name] = (1 - self.replay) * self.weights[k - 1] / total
        width = max(data.columns["tokens"].shape[1] for data in found.values())
        return Mixture(found, shares, width=width, lab=lab.child("stream"))

    def texts(self, sets: Sets, topics: Sequence[int], lab: Lab) -> Columns:
        rng = lab.numpy()
        examples = []
        for _ in range(self.n_train):
            skills, topic = sets[rng.integers(len(sets))], topics[int(rng.integers(len(topics)))]
            prompt = Prompt(tuple(rng.permutation(skills).tolist()), topic)
            examples.append((prompt, compose(prompt, rng)))
        return encode(examples)

    def prompts(self, parts: Parts, lab: Lab) -> dict[str, list[Prompt]]:
        """Prompts of every evaluation split, skills in random order; an empty one is left out."""
        single: Sets = tuple((s,) for s in range(SKILLS))
        asked: dict[str, tuple[Sets, Sequence[int]]] = {"k=1, everything": (single, range(TOPICS))}
        for k in range(2, self.asked + 1):
            held_out: Sets = tuple(combinations(parts.held_out, k))
            asked[f"k={k}, training sets"] = parts.subsets[k], parts.topics
            asked[f"k={k}, unseen sets"] = parts.unseen[k], parts.topics
            asked[f"k={k}, held-out topics"] = parts.unseen[k], HELD_OUT_TOPICS
            asked[f"k={k}, held-out skills"] = held_out, HELD_OUT_TOPICS
        found = {}
        for name, (sets, topics) in asked.items():
            rng = lab.child("prompts", name).numpy()
            every = [(skills, topic) for skills in sets for topic in topics]
            order = rng.permutation(len(every))[: self.n_test]
            if every:
                found[name] = [
                    Prompt(tuple(rng.permutation(every[i][0]).tolist()), every[i][1]) for i in order
                ]
        return found


def encode(examples: Sequence[tuple[Prompt, Text]]) -> Columns:
    columns = encode_pairs([Pair(prompt.source, text) for prompt, text in examples], VOCABULARY)
    k = torch.tensor([len(prompt.skills) for prompt, _ in examples])
    return Columns(**columns.columns, k=k)


def prompts_of(data: Columns) -> list[Prompt]:
    """The prompts behind the rows of a split."""
    found = []
    for row in data.columns["tokens"].tolist():
        signs = VOCABULARY.decode(row[: row.index(TO)])
        skills = tuple(int(sign[1:]) for sign in signs[:-2])
        found.append(Prompt(skills, int(signs[-1][1:])))
    return found


def example() -> SkillMix:
    return SkillMix(n_train=100, n_test=20)
