"""Sequences of tokens about topics: natural language's two statistics that retrieval lives on, and
nothing else.

Token frequencies follow Zipf's law (1949); what a sequence is about makes some of them likelier.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from unseen.engine.batches import Columns
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.objectives import next_token
from unseen.task import Axis, Split, Task, Use


@dataclass(frozen=True)
class Topics:
    """A token has rank r with probability ∝ 1/r; a share `focus` of ranks is read in the topic's
    own order of the vocabulary, the others in an order that all topics share. Columns: `tokens` and
    `topic`."""

    sequences: int = 400
    queries: int = 32
    """Evaluation sequences."""
    length: int = 128
    vocabulary: int = 512
    topics: int = 16
    focus: float = 0.5

    def __post_init__(self) -> None:
        if (
            min(self.sequences, self.queries, self.topics) < 1
            or min(self.length, self.vocabulary) < 2
        ):
            raise InvalidConfig(
                f"{self} is out of range.",
                why="sequences need two tokens of a vocabulary of two.",
                fix="raise the sizes.",
            )
        if not 0 <= self.focus <= 1:
            raise InvalidConfig(
                f"Topics got focus={self.focus}.", why="it is a share.", fix="choose from [0, 1]."
            )

    def build(self, lab: Lab) -> Task:
        rng = lab.child("orders").numpy()
        orders = np.stack([rng.permutation(self.vocabulary) for _ in range(self.topics + 1)])

        def split(name: str, n: int, use: Use) -> Split:
            topic, tokens = self.sample_documents(orders, n, lab.child(name).numpy())
            return Split(
                Columns(tokens=torch.from_numpy(tokens), topic=torch.from_numpy(topic)), use
            )

        splits = {
            "train": split("train", self.sequences, Use.TRAIN),
            "query": split("query", self.queries, Use.EVALUATE),
        }
        return Task(name="topics", axis=Axis.IID, splits=splits, objective=next_token)

    def sample_documents(
        self, orders: NDArray[np.int64], n: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Topics [n] and tokens [n, length]; the last order is the shared one."""
        topic = rng.integers(self.topics, size=n)
        weights = 1 / np.arange(1, self.vocabulary + 1)
        ranks = rng.choice(self.vocabulary, size=(n, self.length), p=weights / weights.sum())
        own = rng.random((n, self.length)) < self.focus
        return topic, orders[np.where(own, topic[:, None], self.topics), ranks]


def example() -> Topics:
    return Topics(sequences=60, queries=20, length=12, vocabulary=40, topics=3)
