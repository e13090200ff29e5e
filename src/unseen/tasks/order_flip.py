"""Facts "A is B", half of them stated as "B is A", and documents of which one asks what they would
have taught.

The order-flip test of Grosse et al. (2023), arXiv:2308.03296, section 5.3.4, from tokens: a name A
and an attribute B are pairs of tokens that also occur in other facts, so that a new fact is a new
combination of known tokens.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from unseen.engine.batches import Columns
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.objectives import exact_match
from unseen.task import Axis, Split, Task, Use
from unseen.tasks.reversal import BOS, EOS, SPECIAL, Ints, derangement

IS = SPECIAL
FILLERS = 3
"""Filler tokens of a document; a random number of them stands in front of the fact, the others
after it.
"""
LENGTH = 10
"""<bos> filler… a a is b b filler… <eos>."""


class Document(StrEnum):
    """What a document states about the asked fact "A is B"."""

    FORWARD = "A is B"
    FLIPPED = "B is A"
    OTHER = "C is B"
    """With the name of another fact."""
    ALONE = "only B"
    """Fillers in place of the name and of "is"."""


@dataclass(frozen=True)
class OrderFlip:
    """`facts` facts, the even ones stated as "A is B" and the odd ones as "B is A", in `copies`
    documents each.

    Evaluated: "stated" asks B of the names that training states first (it recalls training
    documents); "flipped" asks it of the others, known in the other order only; "new" asks for `new`
    facts that no document states. Columns as in `tasks/reversal.py`, and `fact`, the number of the
    fact. `documents` makes the four kinds for the new facts.
    """

    facts: int = 200
    new: int = 40
    tokens: int = 30
    """First and second tokens of names and of attributes, each so many."""
    fillers: int = 20
    copies: int = 6
    recalls: ClassVar[frozenset[str]] = frozenset({"stated"})

    def __post_init__(self) -> None:
        if (
            self.facts < 4
            or self.new < 2
            or self.facts + self.new > self.tokens**2
            or self.fillers * self.copies < 1
        ):
            raise InvalidConfig(
                f"OrderFlip(facts={self.facts}, new={self.new}, tokens={self.tokens}, "
                f"fillers={self.fillers}, "
                f"copies={self.copies}) is out of range.",
                why="both orders need two facts, and names and attributes are different pairs of "
                "tokens.",
                fix="raise `tokens`, or ask for fewer facts.",
            )

    @property
    def vocabulary(self) -> int:
        return SPECIAL + 1 + self.fillers + 4 * self.tokens

    def build(self, lab: Lab) -> Task:
        names, attributes = self.pairs(lab)
        facts = np.arange(self.facts)
        forward = facts % 2 == 0
        one, two = np.where(forward[:, None], names[facts], attributes[facts]), np.where(
            forward[:, None], attributes[facts], names[facts]
        )  # fmt: skip
        stated = np.repeat(facts, self.copies)
        train = self.with_fillers(one[stated], two[stated], lab.child("documents"))

        def question_split(name: str, chosen: Ints, at: str) -> Split:
            wrong = derangement(chosen, lab.child("other", name).numpy())
            return self.questions(
                names[chosen], attributes[chosen], attributes[wrong], chosen, lab.child(name), at
            )

        return Task(
            name="order flip",
            axis=Axis.DIRECTION,
            splits={
                "train": Split(
                    Columns(tokens=torch.from_numpy(train), fact=torch.from_numpy(stated)),
                    Use.TRAIN,
                    "stated",
                ),
                "stated": question_split("stated", facts[forward], "stated"),
                "flipped": question_split("flipped", facts[~forward], "flipped"),
                "new": question_split("new", self.facts + np.arange(self.new), "new"),
            },
            objective=exact_match,
        )

    def documents(self, lab: Lab) -> dict[Document, Columns]:
        """One document of each kind for every new fact, in the order of the split "new"; `lab` as
        for `build`.

        The four kinds share the places and the tokens of their fillers, so that they differ in the
        fact alone.
        """
        names, attributes = (pairs[self.facts :] for pairs in self.pairs(lab))
        stream = lab.child("what if")
        other = names[derangement(np.arange(self.new), lab.child("other name").numpy())]
        made = {
            Document.FORWARD: self.with_fillers(names, attributes, stream),
            Document.FLIPPED: self.with_fillers(attributes, names, stream),
            Document.OTHER: self.with_fillers(other, attributes, stream),
        }
        alone = made[Document.FORWARD].copy()
        start = (alone == IS).argmax(1) - 2
        rng = stream.child("alone").numpy()
        for k in range(3):
            alone[np.arange(self.new), start + k] = (
                SPECIAL + 1 + rng.integers(self.fillers, size=self.new)
            )
        return {
            kind: Columns(tokens=torch.from_numpy(t))
            for kind, t in {**made, Document.ALONE: alone}.items()
        }

    def pairs(self, lab: Lab) -> tuple[Ints, Ints]:
        """Names and attributes [facts + new, 2], all different."""
        start = SPECIAL + 1 + self.fillers

        def sample_pairs(name: str, first: int) -> Ints:
            chosen = (
                lab.child(name).numpy().choice(self.tokens**2, self.facts + self.new, replace=False)
            )
            one, two = np.divmod(chosen, self.tokens)
            return np.stack([first + one, first + self.tokens + two], 1)

        return sample_pairs("names", start), sample_pairs("attributes", start + 2 * self.tokens)

    def with_fillers(self, one: Ints, two: Ints, lab: Lab) -> Ints:
        """[n, 10]: "one is two" with 0 to 3 of the three fillers in front."""
        rng, n = lab.numpy(), len(one)
        fillers = SPECIAL + 1 + rng.integers(self.fillers, size=(n, FILLERS))
        front = rng.integers(FILLERS + 1, size=n)
        facts = np.concatenate([one, np.full((n, 1), IS), two], 1)
        rows = np.empty((n, LENGTH), dtype=np.int64)
        rows[:, 0], rows[:, -1] = BOS, EOS
        for k in range(FILLERS + 1):
            mine = front == k
            rows[mine, 1:-1] = np.concatenate(
                [fillers[mine, :k], facts[mine], fillers[mine, k:]], 1
            )
        return rows

    def questions(
        self, names: Ints, attributes: Ints, wrong: Ints, fact: Ints, lab: Lab, at: str
    ) -> Split:
        """B asked after "A is"; `other` has the attribute of another fact in its place."""
        right, other = (
            self.with_fillers(names, attributes, lab),
            self.with_fillers(names, wrong, lab),
        )
        place = np.arange(LENGTH) - (right == IS).argmax(1)[:, None]
        columns = {
            "tokens": right,
            "other": other,
            "answer": (place == 1) | (place == 2),
            "fact": fact,
        }
        return Split(
            Columns(**{name: torch.from_numpy(column) for name, column in columns.items()}),
            Use.EVALUATE,
            at,
        )


def name_tokens(questions: Columns) -> Int[Tensor, "question 2"]:
    """The two tokens of the name before "is"."""
    tokens = questions.columns["tokens"]
    row, at = torch.arange(len(tokens)), (tokens == IS).long().argmax(1)
    return torch.stack([tokens[row, at - 2], tokens[row, at - 1]], 1)


def with_name(questions: Columns, name: Int[Tensor, "question 2"]) -> Columns:
    """The questions with another name before "is"."""
    tokens = questions.columns["tokens"].clone()
    row, at = torch.arange(len(tokens)), (tokens == IS).long().argmax(1)
    tokens[row, at - 2], tokens[row, at - 1] = name[:, 0], name[:, 1]
    return Columns(**{**questions.columns, "tokens": tokens})


def example() -> OrderFlip:
    return OrderFlip(facts=16, new=6, tokens=6, fillers=4)
