"""Multiple-choice items with a hardness: train on the easy ones, evaluate on the hard ones.

The user's own items are JSON lines (`read_items`); published ones with human annotations are
`ai2_science`, `arc`, `piqa`, `strategyqa` and `asdiv`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from unseen.engine.batches import Columns
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.task import Axis, Batch, Objective, Split, Task, Use
from unseen.tasks.graded_questions.item import (
    Item,
    Strata,
    Stratum,
    annotation_level,
    chance,
    contradictions,
    level_hardness,
    remove_repeats,
    stratify,
    stratum_of,
)
from unseen.tasks.graded_questions.published import (
    ai2_science,
    arc,
    asdiv,
    piqa,
    sentiment,
    strategyqa,
)
from unseen.tasks.graded_questions.reading import annotate, read_items
from unseen.tasks.text_corpus import Encode, utf8_bytes

__all__ = [
    "GradedQuestions",
    "Item",
    "Strata",
    "Stratum",
    "ai2_science",
    "annotate",
    "annotation_level",
    "arc",
    "asdiv",
    "chance",
    "contradictions",
    "level_hardness",
    "piqa",
    "read_items",
    "remove_repeats",
    "sentiment",
    "strategyqa",
    "stratify",
    "stratum_of",
]
LENGTH = "length"
"""The hardness that every item has: words of the question."""


@dataclass(frozen=True)
class GradedQuestions:
    """Items as a task: `n` items of one stratum to train on; the others of each stratum to
    evaluate.
    """

    items: tuple[Item, ...]
    hardness: str = LENGTH
    """`length`, or the name of an annotation."""
    train: Stratum = Stratum.EASY
    n: int = 160
    cuts: tuple[float, float] | None = None
    """Easy up to the first, hard from the second on; None: 30, 40 and 30 % of the items."""
    encode: Encode = utf8_bytes

    def build(self, lab: Lab) -> Task:
        items = remove_repeats(self.items)
        strata = stratify(hardness_of(items, self.hardness), self.cuts)
        train = draw_items(strata.of(self.train), self.n, self.train, lab)
        splits = {"train": self._split(items, train, Use.TRAIN, self.train)}
        for stratum in Stratum:
            rest = [k for k in strata.of(stratum) if k not in set(train)]
            if rest:
                splits[stratum] = self._split(items, rest, Use.EVALUATE, stratum)
        return Task(name="graded questions", axis=Axis.DIFFICULTY, splits=splits, objective=choose)

    def _split(self, items: Sequence[Item], chosen: Sequence[int], use: Use, at: Stratum) -> Split:
        return Split(token_columns([items[k] for k in chosen], self.encode), use, at)


def hardness_of(items: Sequence[Item], hardness: str) -> tuple[float | None, ...]:
    """Words of the question, or an annotation as a number."""
    if hardness == LENGTH:
        return tuple(float(item.words) for item in items)
    return level_hardness(items, hardness)


def draw_items(candidates: Sequence[int], n: int, stratum: Stratum, lab: Lab) -> list[int]:
    """n of the candidates without repetition."""
    if n < 1 or len(candidates) < n:
        raise InvalidData(
            f"{len(candidates)} items are {stratum}, {n} were asked for.",
            why="an item is used once.",
            fix=f"ask for 1 to {len(candidates)}, or move the cuts.",
        )
    return sorted(lab.child("items").numpy().choice(candidates, n, replace=False).tolist())


def token_columns(items: Sequence[Item], encode: Encode) -> Columns:
    """Tokens [item, choice, position] of prompt and choice, where the choice stands, and the index
    of the right one. An item with fewer choices has rows in which no choice stands.
    """
    rows = [
        [(encode(item.prompt), encode(item.prompt + text)) for text in item.continuations]
        for item in items
    ]
    width = max(len(full) for choices in rows for _, full in choices)
    shape = (len(items), max(map(len, rows)), width)
    tokens, asked = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.bool)
    for i, choices in enumerate(rows):
        for c, (prompt, full) in enumerate(choices):
            tokens[i, c, : len(full)] = torch.tensor(full)
            asked[i, c, common_prefix(prompt, full) : len(full)] = True
    return Columns(tokens=tokens, asked=asked, y=torch.tensor([item.answer for item in items]))


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Number of tokens with which both begin: a token across the join belongs to the choice."""
    return next(
        (k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )


def choice_log_probability(model: nn.Module, batch: Batch) -> Float[Tensor, "b c"]:
    """Σ log p of each choice's tokens after the prompt; −∞ where an item has no such choice."""
    tokens, asked = batch["tokens"], batch["asked"]
    logits = model(tokens.flatten(0, 1))[:, :-1]
    steps = -F.cross_entropy(logits.mT, tokens.flatten(0, 1)[:, 1:], reduction="none")
    total = (steps * asked.flatten(0, 1)[:, 1:]).sum(1).view(tokens.shape[:2])
    return total.masked_fill(~asked.any(2), -torch.inf)


def right_choice_loss(model: nn.Module, batch: Batch) -> Float[Tensor, " b"]:
    """−log p(right choice | prompt) in nats per token."""
    right = batch["y"][:, None]
    tokens = batch["asked"].sum(2).gather(1, right)[:, 0]
    return -choice_log_probability(model, batch).gather(1, right)[:, 0] / tokens


def right_choice_first(model: nn.Module, batch: Batch) -> Float[Tensor, " b"]:
    """1 where the right choice is the most likely one."""
    scores = choice_log_probability(model, batch)
    return (scores.argmax(1) == batch["y"]).to(scores.dtype)


choose = Objective(right_choice_loss, right_choice_first)


class Bigrams(nn.Module):
    """Each token's successor from a table of logits: the smallest language model."""

    def __init__(self, vocabulary: int = 256) -> None:
        super().__init__()
        self.table = nn.Embedding(vocabulary, vocabulary)
        nn.init.zeros_(self.table.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.table(tokens)


def sums(count: int = 40, most: int = 9) -> tuple[Item, ...]:
    """Sums of two numbers; `grade` is the larger summand."""
    pairs = [(a, b) for a in range(1, most + 1) for b in range(1, a + 1)][:count]
    return tuple(
        Item(
            f"{a} + {b} = ?",
            (str(a + b), str(a + b + 1), str(abs(a - b))),
            0,
            f"{a}+{b}",
            (("grade", float(a)),),
        )
        for a, b in pairs
    )


def example() -> tuple[GradedQuestions, Callable[[Task], nn.Module]]:
    return GradedQuestions(sums(), hardness="grade", n=8), lambda task: Bigrams()
