"""PCFG SET: nested edits of strings (Hupkes et al., 2020, arXiv:1908.08351).

`append swap_first_last A1 B2 C3 , repeat D4` is in prefix notation: a function stands before its
one or two arguments, runs of letters are strings, and a comma separates the two arguments.
"""

import io
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from types import MappingProxyType

import numpy as np

from unseen.data.files import data_file
from unseen.engine.token_pairs import Pair
from unseen.errors import CorruptFile, InvalidConfig, InvalidData, UnknownName
from unseen.lab import Lab
from unseen.task import Axis, Task
from unseen.tasks.token_pairs import TokenPairs

Letters = tuple[str, ...]
SMALL, LARGE = "pcfg/pcfg_10k.tar.xz", "pcfg/pcfg_100k_test_sets.tar.xz"
COMMA = ","
UNARY: Mapping[str, Callable[[Letters], Letters]] = MappingProxyType(
    {
        "copy": lambda x: x,
        "reverse": lambda x: x[::-1],
        "shift": lambda x: x[1:] + x[:1],
        "echo": lambda x: x + x[-1:],
        "swap_first_last": lambda x: x[-1:] + x[1:-1] + x[:1],
        "repeat": lambda x: x + x,
    }
)
BINARY: Mapping[str, Callable[[Letters, Letters], Letters]] = MappingProxyType(
    {
        "append": lambda x, y: x + y,
        "prepend": lambda x, y: y + x,
        "remove_first": lambda x, y: y,
        "remove_second": lambda x, y: x,
    }
)
FUNCTIONS = frozenset((*UNARY, *BINARY))


def meaning(source: Sequence[str]) -> Letters:
    """The string that the edits leave."""
    value, end = _evaluate(tuple(source), 0)
    if end != len(source):
        raise InvalidData(
            f"`{' '.join(source)}` goes on after its end, with `{source[end]}`.",
            why="one function and its arguments make a line.",
            fix="repair or remove the line.",
        )
    return value


def _evaluate(source: Letters, at: int) -> tuple[Letters, int]:
    """The value of the term that starts at `at`, and where it ends."""
    if at < len(source) and source[at] in UNARY:
        value, end = _evaluate(source, at + 1)
        return UNARY[source[at]](value), end
    if at < len(source) and source[at] in BINARY:
        first, end = _evaluate(source, at + 1)
        if end >= len(source) or source[end] != COMMA:
            raise InvalidData(
                f"`{' '.join(source)}` lacks the comma of `{source[at]}`.",
                why="it separates the two arguments.",
                fix="repair or remove the line.",
            )
        second, end = _evaluate(source, end + 1)
        return BINARY[source[at]](first, second), end
    end = at
    while end < len(source) and source[end] != COMMA and source[end] not in FUNCTIONS:
        end += 1
    if end == at:
        raise InvalidData(
            f"`{' '.join(source)}` has an empty argument.",
            why="a function needs a string to edit.",
            fix="repair or remove the line.",
        )
    return source[at:end], end


def depth(source: Sequence[str]) -> int:
    """The number of functions."""
    return sum(token in FUNCTIONS for token in source)


def longest_argument(source: Sequence[str]) -> int:
    """Letters of the longest string."""
    longest = run = 0
    for token in source:
        run = 0 if token in FUNCTIONS or token == COMMA else run + 1
        longest = max(longest, run)
    return longest


def number_letters(pair: Pair) -> Pair:
    """The pair with each letter as the number of its first occurrence in the source.

    520 letters become as many numbers as one line has letters: what an edit does never depends on
    which letters it moves.
    """
    names: dict[str, str] = {}
    for token in pair.source:
        if token not in FUNCTIONS and token != COMMA:
            names.setdefault(token, f"#{len(names)}")
    return Pair(*(tuple(names.get(token, token) for token in side) for side in pair))


@cache
def _texts(archive: str) -> Mapping[str, str]:
    try:
        with tarfile.open(fileobj=io.BytesIO(data_file(archive).read_bytes())) as tar:
            return {
                member.name.removeprefix("./"): tar.extractfile(member).read().decode()  # type: ignore[union-attr]
                for member in tar
                if member.name.endswith((".src", ".tgt"))
            }
    except (tarfile.TarError, EOFError) as error:
        raise CorruptFile(
            f"{archive} cannot be read.", why=str(error), fix="get it anew."
        ) from error


FILES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "train": (SMALL, "10K/random_split/train"),
        "small_dev": (SMALL, "10K/random_split/dev"),
        "small_test": (SMALL, "10K/random_split/test"),
        "dev": (LARGE, "pcfgset/dev"),
        "test": (LARGE, "pcfgset/test"),
        "systematicity": (LARGE, "systematicity/test"),
        "productivity": (LARGE, "productivity/test"),
    }
)
"""Parts of the releases: archive and path. The training part of the large release is not here."""


def published_part(part: str) -> tuple[Pair, ...]:
    """The lines of one part, source beside target."""
    if part not in FILES:
        raise UnknownName.near("part of PCFG SET", part, FILES)
    archive, path = FILES[part]
    texts = _texts(archive)
    sides = [texts[path + end].splitlines() for end in (".src", ".tgt")]
    if len(sides[0]) != len(sides[1]):
        raise InvalidData(
            f"{path}.src and .tgt have {len(sides[0])} and {len(sides[1])} lines.",
            why="line k of one is the answer to line k of the other.",
            fix="get the archive anew.",
        )
    return tuple(Pair(tuple(s.split()), tuple(t.split())) for s, t in zip(*sides, strict=True))


def draw_term(functions: int, rng: np.random.Generator) -> Letters:
    """A random term with so many functions, on strings of two to five different letters."""
    if functions == 0:
        letters = rng.permutation(26)[: rng.integers(2, 6)]
        return tuple(f"{chr(ord('A') + letter)}{rng.integers(1, 21)}" for letter in letters)
    if rng.random() < 0.5:
        return (str(rng.choice(sorted(UNARY))), *draw_term(functions - 1, rng))
    first = int(rng.integers(functions))
    arguments = (draw_term(first, rng), draw_term(functions - 1 - first, rng))
    return (str(rng.choice(sorted(BINARY))), *arguments[0], COMMA, *arguments[1])


GENERATED = {"train": (1_500, 1, 4), "productivity": (300, 9, 14)}
"""Lines, and functions from and to; of every other part 300 lines with 1 to 8."""


def generate_part(part: str) -> tuple[Pair, ...]:
    """Lines of the same language, drawn here: for where the releases are not at hand."""
    n, low, high = GENERATED.get(part, (300, 1, 8))
    rng = np.random.default_rng(sorted(FILES).index(part))
    sources = [draw_term(int(rng.integers(low, high + 1)), rng) for _ in range(n)]
    sources = [source for source in sources if _is_systematic(source) == (part == "systematicity")]
    return tuple(Pair(source, meaning(source)) for source in sources)


SYSTEMATIC = frozenset(
    (
        ("swap_first_last", "repeat"),
        ("append", "remove_second"),
        ("repeat", "remove_second"),
        ("append", "swap_first_last"),
    )
)
"""Neighbouring functions that the training part of the systematicity test lacks."""


def _is_systematic(source: Letters) -> bool:
    return any(two in SYSTEMATIC for two in pairwise(source))


@dataclass(frozen=True)
class PcfgSet:
    """Trained on lines of the small release with few functions, evaluated on lines of the large one
    with more.
    """

    functions: int = 3
    """Most functions in a training line."""
    letters: int = 5
    """Most letters of an argument in training."""
    unseen: tuple[int, ...] = (4, 5, 6)
    """Numbers of functions in the evaluation split "more functions"."""
    numbers: bool = True
    """Whether letters become the numbers of their first occurrence (`number_letters`)."""
    most: int = 0
    """Lines of an evaluation split at most, the first ones; 0: all."""
    read: Callable[[str], tuple[Pair, ...]] = published_part

    def __post_init__(self) -> None:
        if self.functions < 1 or not self.unseen or min(self.unseen) <= self.functions:
            raise InvalidConfig(
                f"PcfgSet(functions={self.functions}, unseen={self.unseen}).",
                why="evaluation asks more functions than training shows, at least one.",
                fix="for example functions=3, unseen=(4, 5, 6).",
            )

    def pairs(self) -> TokenPairs:
        """Training lines, and the published test lines that training does not hold."""
        train = tuple(
            one
            for one in self.read("train")
            if depth(one.source) <= self.functions and longest_argument(one.source) <= self.letters
        )
        parts = {
            "same": [o for o in self.read("test") if depth(o.source) <= self.functions],
            "more functions": [o for o in self.read("test") if depth(o.source) in self.unseen],
            "systematicity": list(self.read("systematicity")),
            "productivity": list(self.read("productivity")),
        }
        as_shown = number_letters if self.numbers else (lambda one: one)
        shown = tuple(as_shown(one) for one in train)
        known, end = set(shown), self.most or None
        evaluate = {
            name: tuple(o for o in map(as_shown, part) if o not in known)[:end]
            for name, part in parts.items()
        }
        return TokenPairs(
            "PCFG SET", shown, evaluate, Axis.COMPOSITION, {"train": "few", "same": "few"}
        )

    def build(self, lab: Lab) -> Task:
        return self.pairs().build(lab)


def example() -> PcfgSet:
    """On generated lines: the data are not part of the package."""
    return PcfgSet(most=50, read=generate_part)
