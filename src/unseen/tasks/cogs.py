"""COGS: English sentences and their logical forms (Kim & Linzen, 2020, arXiv:2010.05465).

Training shows 24,155 sentences; `gen` asks 1,000 of each of 21 kinds in which a known word takes a
new role or a known structure goes deeper.
"""

import gzip
from collections.abc import Callable
from dataclasses import dataclass

from unseen.data.files import data_file
from unseen.engine.token_pairs import Pair, pair
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.task import Task
from unseen.tasks.token_pairs import TokenPairs

PARTS = ("train", "dev", "test", "gen")


@dataclass(frozen=True)
class Line:
    """A sentence with its form and the kind of generalization that it asks."""

    pair: Pair
    kind: str


def read_lines(text: str, file: str) -> tuple[Line, ...]:
    """Lines `sentence<tab>logical form<tab>kind`."""
    found = []
    for k, line in enumerate(text.splitlines(), 1):
        fields = line.split("\t")
        if len(fields) != 3:
            raise InvalidData(
                f"Line {k} of {file} has {len(fields)} fields.",
                why="a line of COGS holds a sentence, its logical form and its kind.",
                fix="separate them by tabs.",
            )
        found.append(Line(pair(fields[0], fields[1]), fields[2]))
    return tuple(found)


def published_part(part: str) -> tuple[Line, ...]:
    """One of the four files of the release."""
    name = f"cogs/{part}.tsv.gz"
    return read_lines(gzip.decompress(data_file(name).read_bytes()).decode(), name)


@dataclass(frozen=True)
class Cogs:
    """The release as a task: `test` of the training distribution, and `gen` by kind."""

    most: int = 0
    """Lines of every split at most, the first ones; 0: all."""
    kinds: tuple[str, ...] = ()
    """Kinds of generalization to ask; empty: all 21."""
    read: Callable[[str], tuple[Line, ...]] = published_part

    def pairs(self) -> TokenPairs:
        end = self.most or None
        gen: dict[str, list[Pair]] = {}
        for line in self.read("gen"):
            gen.setdefault(line.kind, []).append(line.pair)
        unknown = [kind for kind in self.kinds if kind not in gen]
        if unknown or self.most < 0:
            raise InvalidConfig(
                f"Cogs(most={self.most}, kinds={self.kinds}) does not fit the release.",
                why=f"it has the kinds {', '.join(sorted(gen))}.",
                fix="choose among them, and 0 or more lines.",
            )
        chosen = self.kinds or tuple(sorted(gen))
        train, test = ([line.pair for line in self.read(p)] for p in ("train", "test"))
        return TokenPairs(
            "COGS",
            tuple(train[:end]),
            {"test": tuple(test[:end]), **{kind: tuple(gen[kind][:end]) for kind in chosen}},
            at={"train": "known", "test": "known"},
        )

    def build(self, lab: Lab) -> Task:
        return self.pairs().build(lab)


def invent_part(part: str) -> tuple[Line, ...]:
    """A few sentences in the form of the release: names that smile, and one that training knows
    as a word only.
    """
    kind = "prim_to_subj_proper" if part == "gen" else "in_distribution"
    verbs = {"train": ("smile", "sleep", "run"), "test": ("laugh",)}.get(part, ("smile", "run"))
    names = ("Lina",) if part == "gen" else ("Ada", "Bo", "Emma", "Liam")
    lines = [
        Line(pair(f"{name} {verb}ed .", f"{verb} . agent ( x _ 1 , {name} )"), kind)
        for name in names
        for verb in verbs
    ]
    return (*lines, *([Line(pair("Lina", "Lina"), "primitive")] if part == "train" else []))


def example() -> Cogs:
    """On invented sentences: the data are not part of the package."""
    return Cogs(read=invent_part)
