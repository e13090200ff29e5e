"""Pairs of token sequences as a task: own pairs from a file, or those of a generator.

Columns of every split: `tokens`, `mask` (the answer with its end token) and `length` (tokens of the
target).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from unseen import stats
from unseen.engine.batches import Columns
from unseen.engine.evaluate import per_example
from unseen.engine.token_pairs import Pair, Vocabulary, encode_pairs, pair
from unseen.errors import InvalidData, UnknownName
from unseen.lab import Lab
from unseen.method import Trained
from unseen.objectives import exact_match
from unseen.reading import Reading
from unseen.task import Axis, Split, Task, Use
from unseen.tasks.token_pairs.reading import read_pairs, write_parts
from unseen.tasks.token_pairs.rules import (
    RULES,
    PairSplit,
    rename_tokens,
    split_by_divergence,
    split_by_length,
    split_by_primitive,
    split_by_template,
    split_by_word,
)

__all__ = [
    "RULES",
    "PairSplit",
    "TokenPairs",
    "accuracy_by",
    "at_length",
    "read_pairs",
    "rename_tokens",
    "split_by_divergence",
    "split_by_length",
    "split_by_primitive",
    "split_by_template",
    "split_by_word",
    "write_parts",
]


@dataclass(frozen=True)
class TokenPairs:
    """Training pairs ("train"), pairs for evaluation by name, and the axis along which they differ.

    Tokens of all parts are in the vocabulary: a model that meets a new word in evaluation has an
    untrained embedding for it.
    """

    name: str
    train: tuple[Pair, ...]
    evaluate: Mapping[str, tuple[Pair, ...]] = field(hash=False)
    axis: Axis = Axis.COMPOSITION
    at: Mapping[str, float | str] = field(default_factory=dict, hash=False)
    """Positions on the axis by split ("train" among them); a split's name where none is given."""
    repeats: bool = False
    """Whether evaluation may hold training pairs, which a random split of repeated pairs does."""

    def __post_init__(self) -> None:
        if not self.evaluate or "train" in self.evaluate:
            raise InvalidData(
                f"The pairs of `{self.name}` are for evaluation in {sorted(self.evaluate)}.",
                why="at least one part, not called train, is for evaluation.",
                fix='TokenPairs("mine", train, {"longer": …}).',
            )
        shared = {name: len(set(self.train) & set(part)) for name, part in self.evaluate.items()}
        if not self.repeats and any(shared.values()):
            name, n = max(shared.items(), key=lambda item: item[1])
            raise InvalidData(
                f"{n} pairs of `{name}` are also training pairs.",
                why="a score on training pairs says nothing about unseen ones.",
                fix="remove them from one part, or TokenPairs(…, repeats=True) if recall is asked.",
            )

    @property
    def recalls(self) -> frozenset[str]:
        return frozenset(self.evaluate) if self.repeats else frozenset()

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary.of([*self.train, *(p for part in self.evaluate.values() for p in part)])

    def build(self, lab: Lab) -> Task:
        words = self.vocabulary
        parts = {"train": self.train, **self.evaluate}
        splits = {
            name: Split(
                encode_pairs(part, words),
                Use.TRAIN if name == "train" else Use.EVALUATE,
                self.at.get(name, name),
            )
            for name, part in parts.items()
        }
        return Task(name=self.name, axis=self.axis, splits=splits, objective=exact_match)


def at_length(spec: TokenPairs, n: int) -> TokenPairs:
    """The same training with the evaluation pairs whose target has `n` tokens."""
    kept = {
        name: tuple(p for p in part if len(p.target) == n) for name, part in spec.evaluate.items()
    }
    if not any(kept.values()):
        lengths = sorted({len(p.target) for part in spec.evaluate.values() for p in part})
        raise UnknownName.near("length", str(n), map(str, lengths))
    return replace(
        spec,
        evaluate={name: part for name, part in kept.items() if part},
        at={**spec.at, **{name: float(n) for name, part in kept.items() if part}},
    )


def accuracy_by(trained: Trained, split: str, column: str, lab: Lab) -> dict[int, Reading]:
    """Mean score of the examples with each value of a column of whole numbers, as `length`."""
    data = trained.task.split(split).data
    if not isinstance(data, Columns) or column not in data.columns:
        known = data.columns if isinstance(data, Columns) else ()
        raise UnknownName.near("column", column, known)
    values = per_example(trained.model, data, trained.task.objective.score, lab).double()
    groups = data.columns[column]
    return {
        int(value): stats.of_scores(values[groups == value].numpy())
        for value in torch.unique(groups)
    }


def from_split(name: str, split: PairSplit, axis: Axis) -> TokenPairs:
    """The task of a split rule: its training part, and its test part as "unseen"."""
    return TokenPairs(name, split.train, {"unseen": split.test}, axis)


def example() -> TokenPairs:
    words: Sequence[str] = ("a", "b", "c", "d")
    pairs = [pair(f"copy {x} {y}", f"{x} {y}") for x in words for y in words]
    return TokenPairs(
        "copy two letters", tuple(pairs[:12]), {"unseen": tuple(pairs[12:])}, Axis.IID
    )
