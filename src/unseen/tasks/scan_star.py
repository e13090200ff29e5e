"""SCAN*: joined clauses of SCAN with many primitives (after Zhou, Jiang & Bansal, 2023).

The generator of the paper is not public; this one follows its description: commands are drawn and
kept where they have few enough actions and different primitives.
"""

from dataclasses import dataclass

import numpy as np

from unseen.engine.token_pairs import Pair
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.task import Axis, Task
from unseen.tasks.clause_scan import contexts
from unseen.tasks.token_pairs import TokenPairs

MOST_DRAWS = 200
"""Draws per command that is kept, before the limits are said to be too tight."""


@dataclass(frozen=True)
class ScanStar:
    """`walk0 left and walk3 around right thrice after …`: joined from the left, `and` and `after`
    with equal rank.
    """

    primitives: int = 20
    longest: int = 24
    """Actions of a training command."""
    shortest: int = 1
    different: int = 2
    """Primitives in one command."""
    conjunctions: int = 3
    after: bool = False
    """Whether `after` joins, too: `A and B after C` is C, A, B."""
    n_train: int = 2_000
    beyond: int = 36
    """Evaluated as "longer": commands with more than `longest` and at most so many actions."""
    n_test: int = 300

    def __post_init__(self) -> None:
        counts = (self.primitives, self.different, self.n_train, self.n_test, self.shortest)
        if min(counts) < 1 or self.conjunctions < 0 or self.shortest > self.longest:
            raise InvalidConfig(
                f"ScanStar(primitives={self.primitives}, longest={self.longest}, "
                f"shortest={self.shortest}, different={self.different}) does not fit together.",
                why="the shortest clause has one action, and something has to be drawn.",
                fix="choose shortest ≤ longest and positive numbers.",
            )

    def draw(self, rng: np.random.Generator) -> Pair:
        """A command of any length."""
        names = rng.integers(0, self.primitives, self.different)
        source: tuple[str, ...] = ()
        target: tuple[str, ...] = ()
        for k in range(int(rng.integers(0, self.conjunctions + 1)) + 1):
            one = clause(int(rng.integers(len(contexts()))), int(rng.choice(names)))
            last = bool(k) and self.after and rng.random() < 0.5
            word = (("after",) if last else ("and",)) if k else ()
            source = (*source, *word, *one.source)
            target = one.target + target if last else target + one.target
        return Pair(source, target)

    def sample(
        self, n: int, low: int, high: int, known: set[Pair], rng: np.random.Generator
    ) -> list[Pair]:
        """So many different commands with `low` to `high` actions that are not known."""
        found: dict[Pair, None] = {}
        for _ in range(MOST_DRAWS * n):
            one = self.draw(rng)
            if low <= len(one.target) <= high and one not in known:
                found[one] = None
            if len(found) == n:
                return list(found)
        raise InvalidConfig(
            f"{len(found)} different commands of {low} to {high} actions were found, {n} asked.",
            why=f"{self.primitives} primitives and {self.conjunctions} conjunctions hardly make "
            "others.",
            fix="allow more primitives, conjunctions or actions.",
        )

    def training(self, lab: Lab) -> list[Pair]:
        rng = lab.child("train").numpy()
        return self.sample(self.n_train, self.shortest, self.longest, set(), rng)

    def evaluation(self, train: list[Pair], lab: Lab) -> dict[str, tuple[Pair, ...]]:
        """Commands of the training lengths that it does not hold, and longer ones."""
        known = set(train)
        same, longer = (lab.child(name).numpy() for name in ("same", "longer"))
        return {
            "same": tuple(self.sample(self.n_test, self.shortest, self.longest, known, same)),
            "longer": tuple(self.sample(self.n_test, self.longest + 1, self.beyond, known, longer)),
        }

    def pairs(self, lab: Lab) -> TokenPairs:
        train = self.training(lab)
        return TokenPairs("SCAN*", tuple(train), self.evaluation(train, lab), Axis.LENGTH)

    def build(self, lab: Lab) -> Task:
        return self.pairs(lab).build(lab)


def clause(context: int, primitive: int) -> Pair:
    new = {"walk": f"prim_{primitive}", "I_WALK": f"I_PRIM_{primitive}"}
    return Pair(*(tuple(new.get(t, t) for t in side) for side in contexts()[context]))


def example() -> ScanStar:
    return ScanStar(n_train=60, n_test=20)
