"""Clause-SCAN: single clauses of SCAN with many primitives, one of which is trained alone.

`walk`, `look` and `run` and their copies occur in all 21 clauses of a verb; `jump` and its copies
only by themselves. Asked is `jump` in the 20 other clauses.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from unseen.engine.example_sampling import WeightedColumns
from unseen.engine.token_pairs import Pair, Vocabulary, encode_pairs
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.objectives import exact_match
from unseen.task import Axis, Split, Task, Use
from unseen.tasks import scan
from unseen.tasks.token_pairs.augmentation import copy_tokens

HELD = "jump"
TRAINED, FRESH, UNSEEN = "trained", "fresh", "unseen"


@cache
def contexts() -> tuple[Pair, ...]:
    """The 21 clauses of the verb `walk`, itself first."""
    return tuple(one for one in scan.clauses() if one.source[0] == "walk")


def fill(context: Pair, verb: str, copy: int) -> Pair:
    """The clause with another verb; copy 0 is the verb itself."""
    number = str(copy) if copy else ""
    new = {"walk": f"{verb}{number}", "I_WALK": f"I_{verb.upper()}{number}"}
    return Pair(*(tuple(new.get(token, token) for token in side) for side in context))


@dataclass(frozen=True)
class ClauseScan:
    """Commands with a clause are one clause, or two joined by `and` or `after`."""

    copies: int = 20
    """Of every primitive, beside itself."""
    isolated: float = 0.1
    """Share of `jump` and its copies, alone, among the training examples that are drawn."""
    distinct: int = 0
    """Different training commands with a clause; 0: every single clause."""
    joined: float = 0.0
    """Share of joint commands among them, and among those drawn."""
    longest: int = 24
    """Actions of a joint command."""
    asked: int = 4
    """Copies of `jump` that evaluation asks, itself among them."""
    n_test: int = 300
    token_copies: int = 0
    """Of all training commands with every token renamed (AugZero)."""

    def __post_init__(self) -> None:
        singles = self.distinct - round(self.distinct * self.joined)
        if (
            self.copies < 0
            or not 0 < self.isolated < 1
            or not 0 <= self.joined < 1
            or singles > self.singles
            or (self.joined and not self.distinct)
            or self.distinct < 0
            or min(self.asked, self.n_test) < 1
        ):
            raise InvalidConfig(
                f"ClauseScan(copies={self.copies}, isolated={self.isolated}, "
                f"distinct={self.distinct}, joined={self.joined}) does not fit together.",
                why=f"with so many copies there are {self.singles:,} single clauses, shares lie "
                "between 0 and 1, and joint commands need a number of distinct ones.",
                fix=f"choose distinct ≤ {self.singles:,}, or a larger share of joint commands.",
            )

    @property
    def singles(self) -> int:
        """Single clauses of the three verbs that are trained in all of them."""
        return 3 * (max(0, self.copies) + 1) * len(contexts())

    def isolated_pairs(self) -> list[Pair]:
        return [fill(contexts()[0], HELD, k) for k in range(self.copies + 1)]

    def every_clause(self) -> list[Pair]:
        verbs = [verb for verb in scan.VERBS if verb != HELD]
        return [
            fill(context, verb, k)
            for verb in verbs
            for k in range(self.copies + 1)
            for context in contexts()
        ]

    def test_pairs(self) -> list[Pair]:
        """`jump` and its first copies in the other clauses."""
        return [
            fill(context, HELD, k)
            for k in range(min(self.asked, self.copies + 1))
            for context in contexts()[1:]
        ]

    def joint(self, rng: np.random.Generator) -> Iterator[Pair]:
        """Random joint commands without end, with at most `longest` actions."""
        pool = self.every_clause()
        while True:
            first, second = (pool[int(k)] for k in rng.integers(0, len(pool), 2))
            if len(first.target) + len(second.target) > self.longest:
                continue
            if rng.random() < 0.5:
                yield Pair((*first.source, "and", *second.source), first.target + second.target)
            else:
                yield Pair((*first.source, "after", *second.source), second.target + first.target)

    def commands(self, lab: Lab) -> tuple[list[Pair], list[Pair]]:
        """Single and joint training commands, each once."""
        pool = self.every_clause()
        if not self.distinct:
            return pool, []
        rng = lab.numpy()
        n_joint = round(self.distinct * self.joined)
        order = rng.permutation(len(pool))[: self.distinct - n_joint]
        return [pool[k] for k in sorted(order)], take(self.joint(rng), n_joint, set())

    def new_pairs(self, singles: list[Pair], joint: list[Pair], lab: Lab) -> list[Pair]:
        """Commands like those of training that it does not hold; none where it holds all."""
        if not self.distinct:
            return []
        rng = lab.numpy()
        known = {*singles, *joint}
        rest = [one for one in self.every_clause() if one not in known]
        n_joint = round(self.n_test * self.joined)
        order = rng.permutation(len(rest))[: self.n_test - n_joint]
        return [rest[k] for k in order] + take(self.joint(rng), n_joint, known)

    def build(self, lab: Lab) -> Task:
        """TRAIN draws by weights: isolated, single and joint commands with their shares."""
        singles, joint = self.commands(lab.child("train"))
        kinds = (
            (self.isolated_pairs(), self.isolated),
            (singles, (1 - self.isolated) * (1 - self.joined)),
            (joint, (1 - self.isolated) * self.joined),
        )
        copied = [
            (copy_tokens(part, self.token_copies), share / len(part) / (self.token_copies + 1))
            for part, share in kinds
            if part
        ]
        train = [one for part, _ in copied for one in part]
        weights = torch.cat([torch.full((len(part),), weight) for part, weight in copied])
        chosen = lab.child(TRAINED).numpy().permutation(len(train))[: self.n_test]
        parts = {
            TRAINED: [train[k] for k in sorted(chosen)],
            FRESH: self.new_pairs(singles, joint, lab.child(FRESH)),
            UNSEEN: self.test_pairs(),
        }
        words = Vocabulary.of([*train, *(one for part in parts.values() for one in part)])
        splits = {
            "train": Split(WeightedColumns(weights, encode_pairs(train, words)), Use.TRAIN, "train")
        }
        splits |= {
            name: Split(encode_pairs(part, words), Use.EVALUATE, name)
            for name, part in parts.items()
            if part
        }
        return Task(name="Clause-SCAN", axis=Axis.COMPOSITION, splits=splits, objective=exact_match)

    @property
    def recalls(self) -> frozenset[str]:
        return frozenset({TRAINED})


def take(stream: Iterator[Pair], n: int, known: set[Pair]) -> list[Pair]:
    """The first n different ones that are not known."""
    found: dict[Pair, None] = {}
    while len(found) < n:
        one = next(stream)
        if one not in known:
            found[one] = None
    return list(found)


def example() -> ClauseScan:
    return ClauseScan(copies=1, n_test=20)
