"""Pairs of token sequences: a source that is given and a target that has to be written.

A pair becomes `source <to> target <end>`, filled up on the right with <pad>. `mask` marks the
target and the end token, so that loss and exact match (`objectives.exact_match`) are of the answer
only, and stopping in time is part of it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unseen.engine.batches import Columns
from unseen.engine.decode import greedy
from unseen.errors import InvalidData, UnknownName
from unseen.task import Batch, Objective, PerExample

PAD, END, TO = 0, 1, 2
SPECIAL = ("<pad>", "<end>", "<to>")


class Pair(NamedTuple):
    """Source and target as tokens."""

    source: tuple[str, ...]
    target: tuple[str, ...]


def pair(source: str, target: str) -> Pair:
    """A pair of texts, cut into tokens at white space."""
    return Pair(tuple(source.split()), tuple(target.split()))


@dataclass(frozen=True)
class Vocabulary:
    """Tokens by number, behind the three special ones."""

    tokens: tuple[str, ...]

    @classmethod
    def of(cls, pairs: Iterable[Pair]) -> "Vocabulary":
        """Every token of the pairs, in alphabetical order."""
        return cls(tuple(sorted({token for pair in pairs for side in pair for token in side})))

    @cached_property
    def number(self) -> dict[str, int]:
        return {token: k for k, token in enumerate((*SPECIAL, *self.tokens))}

    def __len__(self) -> int:
        return len(SPECIAL) + len(self.tokens)

    def encode(self, tokens: Iterable[str]) -> list[int]:
        try:
            return [self.number[token] for token in tokens]
        except KeyError as error:
            raise UnknownName.near("token", error.args[0], self.tokens) from None

    def decode(self, numbers: Iterable[int]) -> tuple[str, ...]:
        names = (*SPECIAL, *self.tokens)
        return tuple(names[k] for k in numbers)

    def prompt(self, source: Iterable[str]) -> list[int]:
        """What a model reads before it answers."""
        return [*self.encode(source), TO]

    def answer(self, target: Iterable[str]) -> list[int]:
        """What it has to write."""
        return [*self.encode(target), END]


def encode_pairs(pairs: Sequence[Pair], vocabulary: Vocabulary) -> Columns:
    """Columns `tokens`, `mask` (the answer) and `length` (tokens of the target)."""
    refuse_empty(pairs)
    rows = [(vocabulary.prompt(source), vocabulary.answer(target)) for source, target in pairs]
    width = max(len(prompt) + len(answer) for prompt, answer in rows)
    tokens = torch.full((len(rows), width), PAD)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for k, (prompt, answer) in enumerate(rows):
        size = len(prompt) + len(answer)
        tokens[k, :size] = torch.tensor([*prompt, *answer])
        mask[k, len(prompt) : size] = True
    return Columns(
        tokens=tokens, mask=mask, length=torch.tensor([len(target) for _, target in pairs])
    )


def refuse_empty(pairs: Sequence[Pair]) -> None:
    """Raises where there is no pair, or one without a source."""
    if not pairs:
        raise InvalidData(
            "There are no pairs.", why="nothing can be learned or asked.", fix="give some."
        )
    for k, (source, _) in enumerate(pairs, 1):
        if not source:
            raise InvalidData(
                f"Pair {k} has an empty source.",
                why="nothing is asked.",
                fix="remove it, or write what is asked.",
            )


def write_answers(
    model: nn.Module, sources: Sequence[Sequence[str]], vocabulary: Vocabulary, length: int
) -> list[tuple[str, ...]]:
    """The model's answers, token by token (greedy), of at most `length` tokens."""
    prompts = [vocabulary.prompt(source) for source in sources]
    return [vocabulary.decode(row) for row in greedy(model, prompts, length, stop=END)]


def cut_padding(objective: Objective) -> Objective:
    """The same numbers, with batches cut behind their last answer: less to compute where lengths
    differ. Not for models stacked by `vmap`, where the width may not depend on the data.
    """

    def cut(f: PerExample) -> Callable[[nn.Module, Batch], Float[Tensor, " batch"]]:
        def narrow(model: nn.Module, batch: Batch) -> Float[Tensor, " batch"]:
            width = int(batch["mask"].any(0).nonzero().max()) + 1
            wide = ("tokens", "mask", "labels")
            return f(model, {k: v[:, :width] if k in wide else v for k, v in batch.items()})

        return narrow

    return Objective(cut(objective.loss), cut(objective.score), objective.relabel)


def group_lengths(objective: Objective, groups: int = 3) -> Objective:
    """The same numbers, with every batch read in groups of examples that end at like places, each
    cut behind its last answer: `cut_padding` where lengths differ much within a batch.
    """
    narrow = cut_padding(objective)

    def group(f: PerExample) -> Callable[[nn.Module, Batch], Float[Tensor, " batch"]]:
        def read(model: nn.Module, batch: Batch) -> Float[Tensor, " batch"]:
            mask = batch["mask"]
            ends = (torch.arange(mask.shape[1], device=mask.device) * mask).amax(1)
            order = ends.argsort(stable=True)
            found = [
                f(model, {name: column[part] for name, column in batch.items()})
                for part in order.tensor_split(min(groups, len(order)))
            ]
            return torch.cat(found)[order.argsort()]

        return read

    return Objective(group(narrow.loss), group(narrow.score), objective.relabel)
