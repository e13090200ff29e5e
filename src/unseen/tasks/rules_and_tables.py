"""Two tasks with a rule and two that are tables: what generalizes, and what is only remembered.

Five tokens in, one of two answers out. *Compare*: which of two digits among distractors is larger.
*Majority*: which of two classes of symbols is more frequent. *Tables*: 400 random keys of four
letters, each with a random bit.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from unseen.engine.batches import Columns
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.objectives import classify
from unseen.task import Axis, Split, Task, Use

Array = NDArray[np.int64]
WIDTH = 5
DIGITS, DISTRACTORS, SYMBOLS, LETTERS = 10, 6, 8, 26
FIRST_DISTRACTOR = DIGITS
FIRST_SYMBOL = FIRST_DISTRACTOR + DISTRACTORS
FIRST_LETTER = FIRST_SYMBOL + 2 * SYMBOLS
FIRST_TABLE = FIRST_LETTER + LETTERS
VOCABULARY = FIRST_TABLE + 2


class Skill(StrEnum):
    """What is asked."""

    COMPARE = "compare"
    MAJORITY = "majority"
    TABLE_1 = "table 1"
    TABLE_2 = "table 2"

    @property
    def is_rule(self) -> bool:
        return self in (Skill.COMPARE, Skill.MAJORITY)


@dataclass(frozen=True)
class RulesAndTables:
    """A TRAIN split per skill, and new inputs of each rule; a table has no inputs but its keys."""

    rule_items: int = 3_000
    keys: int = 400
    held_out: int = 400
    """New inputs of each rule."""

    def __post_init__(self) -> None:
        if min(self.rule_items, self.keys, self.held_out) < 2:
            raise InvalidConfig(
                f"RulesAndTables got {self.rule_items} items, {self.keys} keys and "
                f"{self.held_out} held out.",
                why="both answers occur from two on.",
                fix="use the defaults.",
            )

    def build(self, lab: Lab) -> Task:
        splits = {}
        for skill in Skill:
            data = self.examples(skill, lab)
            splits[skill.value] = Split(data["train"], Use.TRAIN, "seen")
            if skill.is_rule:
                splits[f"{skill} held out"] = Split(data["held out"], Use.EVALUATE, "unseen")
        return Task(name="rules and tables", axis=Axis.TASK, splits=splits, objective=classify)

    def examples(self, skill: Skill, lab: Lab) -> Mapping[str, Columns]:
        """Columns `x`, `y` and `id` for training and, of a rule, held out: no input is in both."""
        rng = lab.child(skill).numpy()
        if not skill.is_rule:
            x = distinct_rows(lambda n: letters(n, skill, rng), self.keys)
            y = rng.permutation(np.arange(self.keys) % 2)
            return {"train": columns(x, y, 0)}
        draw = comparisons if skill is Skill.COMPARE else majorities
        x = distinct_rows(lambda n: draw(n, rng), self.rule_items + self.held_out)
        y = larger_first(x) if skill is Skill.COMPARE else more_of_second(x)
        cut = self.rule_items
        return {"train": columns(x[:cut], y[:cut], 0), "held out": columns(x[cut:], y[cut:], cut)}


def columns(x: Array, y: Array, first: int) -> Columns:
    number = torch.arange(first, first + len(x))
    return Columns(x=torch.from_numpy(x), y=torch.from_numpy(y), id=number)


def distinct_rows(draw: Callable[[int], Array], count: int) -> Array:
    """The first `count` different rows that are drawn."""
    rows = draw(4 * count)
    first = np.sort(np.unique(rows, axis=0, return_index=True)[1])
    if len(first) < count:
        raise InvalidConfig(
            f"There are {len(first)} different inputs in {4 * count} draws, {count} were asked.",
            why="no input may be in two splits.",
            fix="ask for fewer.",
        )
    return rows[first[:count]]


def comparisons(n: int, rng: np.random.Generator) -> Array:
    """Two different digits at two of five places, distractors elsewhere."""
    x = rng.integers(FIRST_DISTRACTOR, FIRST_DISTRACTOR + DISTRACTORS, (n, WIDTH))
    places = np.sort(np.argsort(rng.random((n, WIDTH)), 1)[:, :2], 1)
    one = rng.integers(DIGITS, size=n)
    other = (one + rng.integers(1, DIGITS, n)) % DIGITS
    np.put_along_axis(x, places, np.stack([one, other], 1), 1)
    return x


def larger_first(x: Array) -> Array:
    """1 where the first digit is the larger one."""
    digits = x[x < DIGITS].reshape(len(x), 2)
    return (digits[:, 0] > digits[:, 1]).astype(np.int64)


def majorities(n: int, rng: np.random.Generator) -> Array:
    """Five symbols of two classes."""
    return rng.integers(FIRST_SYMBOL, FIRST_SYMBOL + 2 * SYMBOLS, (n, WIDTH))


def more_of_second(x: Array) -> Array:
    """1 where the second class has three symbols or more."""
    return ((x >= FIRST_SYMBOL + SYMBOLS).sum(1) > WIDTH // 2).astype(np.int64)


def letters(n: int, skill: Skill, rng: np.random.Generator) -> Array:
    """The table's own token and four letters."""
    own = np.full((n, 1), FIRST_TABLE + (skill is Skill.TABLE_2))
    return np.concatenate([own, rng.integers(FIRST_LETTER, FIRST_TABLE, (n, WIDTH - 1))], 1)


class Encoder(nn.Module):
    """A bidirectional transformer, pre-norm, its states averaged over positions."""

    def __init__(self, width: int = 96, layers: int = 3, heads: int = 4) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, width)
        self.position = nn.Parameter(0.02 * torch.randn(WIDTH, width))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, heads, 4 * width, dropout=0.0, batch_first=True, norm_first=True
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.embed(x) + self.position
        for block in self.blocks:
            h = block(h)
        return self.head(self.norm(h).mean(1))


def example() -> tuple[RulesAndTables, Callable[[Task], nn.Module]]:
    return RulesAndTables(rule_items=60, keys=20, held_out=20), lambda task: Encoder(16, 1, 2)
