"""Texts with their authors, and what is done to them before anything is learned: passages, masks,
common beginnings."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from unseen.errors import InvalidConfig, InvalidData

WORD = re.compile(r"\w+")
SPACED = re.compile(r"\S+")


@dataclass(frozen=True)
class Passage:
    """A text, who wrote it, and what must stay on one side of a split: its book, topic or source.

    `order` says when it was written, where that is known.
    """

    text: str
    author: str
    group: str
    domain: str = ""
    order: int = 0
    disputed: bool = False


def cut_passages(text: str, author: str, group: str, *, words: int, most: int = 0) -> list[Passage]:
    """Consecutive pieces of so many words, evenly spaced where `most` are taken; the rest is left
    out."""
    if words < 1:
        raise InvalidConfig(
            f"Passages of {words} words.", why="a passage has some.", fix="use words=500."
        )
    ends = [found.end() for found in WORD.finditer(text)]
    pieces = [
        text[(ends[k - 1] if k else 0) : ends[k + words - 1]]
        for k in range(0, len(ends) - words + 1, words)
    ]
    if most and len(pieces) > most:
        pieces = [pieces[k * len(pieces) // most] for k in range(most)]
    return [Passage(piece.strip(), author, group) for piece in pieces]


def mask_topics(passages: Sequence[Passage], frequent: Sequence[str]) -> list[Passage]:
    """Each word that is not among the frequent ones, or is written large inside a sentence, becomes
    `*`: names and topics go, function words, punctuation and rhythm stay."""
    kept = frozenset(frequent)

    def mask(found: re.Match[str]) -> str:
        word = found[0]
        before = found.string[: found.start()].rstrip()
        inside = bool(before) and before[-1] not in ".!?\"'“”‘’"
        is_name = word[:1].isupper() and word != "I" and inside
        return word if word.lower() in kept and not is_name else "*"

    return [replace(one, text=WORD.sub(mask, one.text)) for one in passages]


def count_frequent(passages: Sequence[Passage], most: int = 3_000) -> list[str]:
    """The words that occur most often, in small letters."""
    counts: Counter[str] = Counter()
    for one in passages:
        counts.update(WORD.findall(one.text.lower()))
    return [word for word, _ in counts.most_common(most)]


@dataclass(frozen=True)
class Pair:
    """A person's text and a machine's continuation of its first words."""

    human: str
    machine: str
    domain: str
    generator: str

    @property
    def source(self) -> str:
        """What files of one domain share: the first 60 characters of the human text."""
        return self.human[:60]

    @property
    def prefix(self) -> int:
        """Characters of the machine's text that hold the words with which both begin: there the
        machine takes over."""
        words = [list(SPACED.finditer(text)) for text in (self.human, self.machine)]
        end = 0
        for one, other in zip(*words, strict=False):
            if one[0] != other[0]:
                break
            end = other.end()
        return end

    def tails(self) -> tuple[str, str]:
        """Human and machine after the common beginning, cut to equally many words."""
        human, machine = self.human.split(), self.machine.split()
        start = len(self.machine[: self.prefix].split())
        end = min(len(human), len(machine))
        return " ".join(human[start:end]), " ".join(machine[start:end])


def split_groups(groups: Sequence[str], share: float, order: Sequence[int]) -> set[str]:
    """The groups for evaluation: the first `share` of the distinct ones in this order."""
    distinct = list(dict.fromkeys(groups))
    if len(order) != len(distinct) or not 0 < share < 1:
        raise InvalidConfig(
            f"{len(distinct)} groups in an order of {len(order)}, of which {share:g} are evaluated "
            "on.",
            why="each group stands on one side.",
            fix="order the distinct groups, and take a share between 0 and 1.",
        )
    count = round(share * len(distinct))
    if not 0 < count < len(distinct):
        raise InvalidData(
            f"{len(distinct)} groups cannot be split with {share:g} of them for evaluation.",
            why="both sides need one.",
            fix="give more books, topics or sources.",
        )
    return {distinct[k] for k in order[:count]}
