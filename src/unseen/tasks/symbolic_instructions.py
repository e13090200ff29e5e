"""Instructions in English for functions of strings, split by function: `sort it then keep vowels :
d a b e` asks for `a e` (in the manner of Mishra et al., 2022, arXiv:2104.08773).

Eight primitives make 64 ordered pairs, which are only 43 functions: counting a sorted string is
counting, sorting a reversed one is sorting, and many pairs commute. Pairs that are unseen by name
would leak, so functions are told apart by what they return. Those that equal one primitive or
return one string for all inputs are left out; of the other 34 ten are unseen, whatever their names.

Columns of every split: `tokens`, `mask` (the answer with its end token), `length` (letters of the
answer), `function` (its number in `names_of`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import NamedTuple

import numpy as np
import torch

from unseen.engine.batches import Columns
from unseen.engine.token_pairs import Pair, Vocabulary, encode_pairs
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.objectives import exact_match
from unseen.task import Axis, Split, Task, Use

VOWELS, CONSONANTS = "aeio", "bcdf"
LETTERS = VOWELS + CONSONANTS
SHORTEST, LONGEST = 3, 5
LINK = ("it", "then")
COLON = ":"
TRIES = 1_000

PRIMITIVES: dict[str, Callable[[str], str]] = {
    "reverse": lambda text: text[::-1],
    "sort": lambda text: "".join(sorted(text)),
    "keep vowels": lambda text: "".join(c for c in text if c.lower() in VOWELS),
    "uppercase": str.upper,
    "first two": lambda text: text[:2],
    "count": lambda text: str(len(text)),
    "dedupe": lambda text: "".join(dict.fromkeys(text)),
    "join": "-".join,
}


class Name(NamedTuple):
    """One way to write a function: primitives in the order in which they are applied."""

    steps: tuple[str, ...]

    def __call__(self, text: str) -> str:
        for step in self.steps:
            text = PRIMITIVES[step](text)
        return text

    @property
    def definition(self) -> tuple[str, ...]:
        """The words of the instruction: `sort it then keep vowels`."""
        words = list(self.steps[0].split())
        for step in self.steps[1:]:
            words += [*LINK, *step.split()]
        return tuple(words) if len(self.steps) > 1 else (*words, LINK[0])


class Function(NamedTuple):
    """A function of strings by all its names of two primitives, or by its one primitive."""

    names: tuple[Name, ...]

    def __call__(self, text: str) -> str:
        return self.names[0](text)

    @property
    def title(self) -> str:
        return " = ".join(" then ".join(name.steps) for name in self.names)


@cache
def strings() -> tuple[str, ...]:
    """Every string of the task: 37,376."""
    return tuple(
        "".join(letters)
        for size in range(SHORTEST, LONGEST + 1)
        for letters in product(LETTERS, repeat=size)
    )


@cache
def functions() -> tuple[Function, ...]:
    """The 34 functions of two primitives that equal no primitive and are not constant."""
    # every 100th string tells all of them apart; the test compares them on all
    probes = strings()[::100]

    def outputs(name: Name) -> tuple[str, ...]:
        return tuple(name(text) for text in probes)

    found: dict[tuple[str, ...], list[Name]] = {}
    for pair in product(PRIMITIVES, repeat=2):
        found.setdefault(outputs(Name(pair)), []).append(Name(pair))
    single = {outputs(Name((step,))) for step in PRIMITIVES}
    return tuple(
        Function(tuple(names))
        for values, names in found.items()
        if values not in single and len(set(values)) > 1
    )


def single_functions() -> tuple[Function, ...]:
    """The primitives themselves."""
    return tuple(Function((Name((step,)),)) for step in PRIMITIVES)


def positions(chosen: Sequence[Function]) -> set[tuple[int, str]]:
    """Where each primitive stands in the names of these functions."""
    return {at for function in chosen for name in function.names for at in enumerate(name.steps)}


VOCABULARY = Vocabulary(
    (
        *dict.fromkeys(word for step in PRIMITIVES for word in step.split()),
        *LINK,
        COLON,
        *LETTERS,
        *LETTERS.upper(),
        *"0123456789-",
    )
)


@dataclass(frozen=True)
class SymbolicInstructions:
    """Training shows the primitives and some functions of two, evaluation the others, all on
    strings that training does not show. Equal labs give equal unseen functions whatever the
    number of seen ones, and fewer are the first of more.
    """

    definitions: bool = True
    """Whether a prompt holds the instruction, or the string only."""
    unseen: int = 10
    seen: int = 24
    """Functions of two primitives in training."""
    upper_bound: bool = False
    """Whether training shows the unseen functions, too (on other strings)."""
    n_train: int = 100_000
    n_test: int = 300
    """Strings that are held out for evaluation, the same for every function."""

    def __post_init__(self) -> None:
        most = len(functions())
        if self.seen < 0 or self.unseen < 2 or self.seen + self.unseen > most:
            raise InvalidConfig(
                f"{self.seen} seen and {self.unseen} unseen functions.",
                why=f"there are {most} functions of two primitives; another definition needs "
                "a second unseen one.",
                fix=f"ask for at least 2 unseen ones and at most {most} together.",
            )
        if self.n_train < 1 or not 0 < self.n_test < len(strings()):
            raise InvalidConfig(
                f"{self.n_train} training examples and {self.n_test} strings for evaluation.",
                why=f"there are {len(strings()):,} strings, and training needs some.",
                fix="correct the number.",
            )

    def split_functions(self, lab: Lab) -> tuple[list[Function], list[Function]]:
        """Seen and unseen functions. Every primitive stands in a seen one at each position that
        it can have, where all functions that are not unseen are seen.
        """
        every = functions()
        rng = lab.child("functions").numpy()
        for _ in range(TRIES):
            order = [every[k] for k in rng.permutation(len(every))]
            unseen, rest = order[: self.unseen], order[self.unseen :]
            if positions(rest) == positions(every):
                return rest[: self.seen], unseen
        raise InvalidData(
            f"No {self.unseen} functions can be unseen: in {TRIES} draws a primitive was left "
            "without a position.",
            why="an instruction is understood from parts that training shows.",
            fix="ask for fewer unseen functions.",
        )

    def build(self, lab: Lab) -> Task:
        seen, unseen = self.split_functions(lab)
        order = lab.child("strings").numpy().permutation(len(strings()))
        held_out = [strings()[k] for k in order[: self.n_test]]
        rest = [strings()[k] for k in order[self.n_test :]]
        primitives = list(single_functions())
        shown = [*primitives, *seen, *(unseen if self.upper_bound else ())]
        numbers = {f: k for k, f in enumerate([*primitives, *functions()])}
        train = self._train_rows(shown, rest, lab.child("train").numpy())
        parts = {"primitives": primitives, "seen functions": seen, "unseen functions": unseen}
        splits = {"train": Split(self._encode(train, numbers), Use.TRAIN, "seen functions")}
        for name, part in parts.items():
            if part:
                rows = [(f, name_of, s) for f in part for name_of in f.names[:1] for s in held_out]
                at = name if name == "unseen functions" else "seen functions"
                splits[name] = Split(self._encode(rows, numbers), Use.EVALUATE, at)
        if self.definitions:
            other = dict(zip(unseen, [*unseen[1:], unseen[0]], strict=True))
            rows = [(f, other[f].names[0], s) for f in unseen for s in held_out]
            splits[OTHER] = Split(self._encode(rows, numbers), Use.EVALUATE, "unseen functions")
        return Task(
            name="symbolic_instructions", axis=Axis.TASK, splits=splits, objective=exact_match
        )

    def _train_rows(
        self, shown: Sequence[Function], pool: Sequence[str], rng: np.random.Generator
    ) -> list[tuple[Function, Name, str]]:
        """Functions equally often, each under all its names."""
        chosen = rng.integers(len(shown), size=self.n_train)
        text, name = rng.integers(len(pool), size=self.n_train), rng.random(self.n_train)
        return [
            (f, f.names[int(u * len(f.names))], pool[k])
            for f, u, k in zip((shown[k] for k in chosen), name, text, strict=True)
        ]

    def _encode(
        self, rows: Sequence[tuple[Function, Name, str]], numbers: Mapping[Function, int]
    ) -> Columns:
        pairs = [
            Pair(
                (*(name.definition if self.definitions else ()), COLON, *text),
                tuple(function(text)),
            )
            for function, name, text in rows
        ]
        columns = encode_pairs(pairs, VOCABULARY).columns
        return Columns(**columns, function=torch.tensor([numbers[f] for f, _, _ in rows]))


OTHER = "unseen functions, other definitions"
"""The split in which every unseen function comes with the definition of another one."""


def names_of() -> list[str]:
    """The functions by their number in the column `function`."""
    return [function.title for function in (*single_functions(), *functions())]


def example() -> SymbolicInstructions:
    return SymbolicInstructions(n_train=200, n_test=5, unseen=3)
