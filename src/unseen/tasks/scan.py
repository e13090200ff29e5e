"""SCAN: navigation commands and the actions that they mean (Lake & Baroni, 2018, arXiv:1711.00350).

A verb phrase is a verb with at most one direction (`left`, `opposite left`, `around left`), a
phrase with at most one repetition (`twice`, `thrice`) is a clause, and a command is one clause or
two joined by `and` or `after`: 34, 102 and 20,910 of them. Every split whose rule is known is
generated; random ones are read from the release.
"""

import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache

from unseen.data.files import data_file
from unseen.engine.token_pairs import Pair, pair
from unseen.errors import CorruptFile, InvalidConfig, InvalidData, UnknownName
from unseen.lab import Lab
from unseen.task import Axis, Task
from unseen.tasks.token_pairs import TokenPairs
from unseen.tasks.token_pairs.rules import contains

ARCHIVE = "scan/scan.tar.xz"
VERBS = ("walk", "look", "run", "jump")
DIRECTIONS = ("left", "right")
MANNERS = ("opposite", "around")
TIMES = {"twice": 2, "thrice": 3}
TURN = "turn"


def verb_actions(verb: str) -> tuple[str, ...]:
    return () if verb == TURN else (f"I_{verb.upper()}",)


def phrases() -> Iterator[Pair]:
    """The 34 verb phrases."""
    for verb in VERBS:
        yield Pair((verb,), verb_actions(verb))
    for verb in (*VERBS, TURN):
        for direction in DIRECTIONS:
            turn, act = (f"I_TURN_{direction.upper()}",), verb_actions(verb)
            yield Pair((verb, direction), turn + act)
            yield Pair((verb, "opposite", direction), turn * 2 + act)
            yield Pair((verb, "around", direction), (turn + act) * 4)


def clauses() -> Iterator[Pair]:
    """The 102 phrases with a repetition or without."""
    for words, actions in phrases():
        yield Pair(words, actions)
        for times, n in TIMES.items():
            yield Pair((*words, times), actions * n)


@cache
def commands() -> tuple[Pair, ...]:
    """All 20,910 commands with their actions."""
    single = tuple(clauses())
    joint = [
        two
        for first in single
        for second in single
        for two in (
            Pair((*first.source, "and", *second.source), first.target + second.target),
            Pair((*first.source, "after", *second.source), second.target + first.target),
        )
    ]
    return (*single, *joint)


@dataclass(frozen=True)
class Rule:
    """Training and test commands, the axis, and a command that training repeats."""

    train: tuple[Pair, ...]
    test: tuple[Pair, ...]
    axis: Axis = Axis.COMPOSITION


def length_rule(longest: int = 22) -> Rule:
    """Training has at most so many actions."""
    short = tuple(one for one in commands() if len(one.target) <= longest)
    long = tuple(one for one in commands() if len(one.target) > longest)
    return Rule(short, long, Axis.LENGTH)


def primitive_rule(primitive: str, copies: int) -> Rule:
    """Training holds the primitive alone only, so many times; the test every command with it."""
    words = tuple(primitive.split())
    test = tuple(c for c in commands() if contains(c.source, words) and c.source != words)
    alone = tuple(c for c in commands() if c.source == words)
    rest = tuple(c for c in commands() if not contains(c.source, words))
    return Rule(rest + alone * copies, test)


def template_rule(
    template: str, allowed: Iterable[str] = (), tested: Iterable[str] = VERBS
) -> Rule:
    """No verb but the allowed ones stands before the template in training; the test holds commands
    with a tested one before it. Commands with `turn` before it are in neither.
    """
    words = tuple(template.split())

    def stands_before(one: Pair, verb: str) -> bool:
        return contains(one.source, (verb, *words))

    barred = [verb for verb in (*VERBS, TURN) if verb not in set(allowed)]
    train = tuple(c for c in commands() if not any(stands_before(c, verb) for verb in barred))
    test = tuple(
        c
        for c in commands()
        if any(stands_before(c, verb) for verb in tested) and not stands_before(c, TURN)
    )
    return Rule(train, test)


RULES = {
    "length": length_rule,
    "addprim_jump": lambda: primitive_rule("jump", 1467),
    "addprim_turn_left": lambda: primitive_rule("turn left", 2189),
    "template_right": lambda: template_rule("right"),
    "template_opposite_right": lambda: template_rule("opposite right"),
    "template_around_right": lambda: template_rule("around right"),
    "template_jump_around_right": lambda: template_rule(
        "around right", ("walk", "look", "run"), ("jump",)
    ),
    **{
        f"filler_num{n}": lambda n=n: template_rule(  # type: ignore[misc]
            "around right", ("look", "walk", "run")[:n], ("jump",)
        )
        for n in range(4)
    },
}
"""Splits that are generated, by their names in the release."""


def read_lines(text: str, file: str) -> tuple[Pair, ...]:
    """Pairs of a file in the format of the release: `IN: … OUT: …`."""
    found = []
    for k, line in enumerate(text.splitlines(), 1):
        command, between, actions = line.partition(" OUT: ")
        if not between or not command.startswith("IN: "):
            raise InvalidData(
                f"Line {k} of {file} is `{line[:60]}`.",
                why="a line of SCAN reads `IN: command OUT: actions`.",
                fix="repair or remove it.",
            )
        found.append(pair(command.removeprefix("IN: "), actions))
    return tuple(found)


def published_split(split: str) -> Rule:
    """Training and test part of a split as released."""
    ends = {f"tasks_{part}_{split}.txt": part for part in ("train", "test")}
    parts: dict[str, tuple[Pair, ...]] = {}
    names = set()
    try:
        with tarfile.open(data_file(ARCHIVE)) as archive:
            for member in archive:
                name = member.name.split("/")[-1]
                names.add(name)
                if name in ends:
                    text = archive.extractfile(member).read().decode()  # type: ignore[union-attr]
                    parts[ends[name]] = read_lines(text, member.name)
    except (tarfile.TarError, EOFError) as error:
        raise CorruptFile(
            f"{ARCHIVE} cannot be read.", why=str(error), fix="get it anew."
        ) from error
    if len(parts) < 2:
        start, end = "tasks_train_", ".txt"
        known = {n[len(start) : -len(end)] for n in names if n.startswith(start)}
        raise UnknownName.near("SCAN split", split, known)
    axis = Axis.IID if split.startswith("simple") else Axis.COMPOSITION
    return Rule(parts["train"], parts["test"], axis)


@dataclass(frozen=True)
class Scan:
    """A split of SCAN under its name in the release, such as `length`, `addprim_jump` or
    `template_around_right`.
    """

    split: str = "length"
    most: int = 0
    """Training and test commands at most, drawn at random; 0: all."""

    def __post_init__(self) -> None:
        if self.most < 0:
            raise InvalidConfig(
                f"most={self.most}.", why="it counts commands.", fix="0 takes all of them."
            )

    def pairs(self, lab: Lab) -> TokenPairs:
        """Training and test pairs."""
        rule = RULES[self.split]() if self.split in RULES else published_split(self.split)
        train, test = (
            draw(part, self.most, lab.child(name))
            for name, part in (("train", rule.train), ("test", rule.test))
        )
        return TokenPairs(f"SCAN {self.split}", train, {"unseen": test}, rule.axis)

    def build(self, lab: Lab) -> Task:
        return self.pairs(lab).build(lab)


def draw(pairs: tuple[Pair, ...], most: int, lab: Lab) -> tuple[Pair, ...]:
    """So many of the pairs at random, in their order; all where `most` is 0 or too many."""
    if not most or most >= len(pairs):
        return pairs
    chosen = lab.numpy().choice(len(pairs), most, replace=False)
    return tuple(pairs[k] for k in sorted(chosen))


def reorder(source: tuple[str, ...]) -> tuple[str, ...]:
    """The command with `opposite left` as `left opposite` (and so on).

    Then every phrase is one piece of its tree: `opposite` and `around` change what `walk left`
    means, and stand behind it.
    """
    words = list(source)
    for k, word in enumerate(source[:-1]):
        if word in MANNERS:
            words[k], words[k + 1] = source[k + 1], word
    return tuple(words)


def example() -> Scan:
    return replace(Scan(), most=60)
