"""Sentences about restaurants from their attributes (E2E; Novikova et al., 2017, arXiv:1706.09254,
as corrected by Dušek et al., 2019, arXiv:1911.03905).

A restaurant is on one side of the split with all its sentences: sentences of the same attributes
are near-copies.
"""

import csv
import gzip
import re
from dataclasses import dataclass

from unseen.data.files import data_file
from unseen.engine.token_pairs import Pair
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.task import Axis, Task
from unseen.tasks.token_pairs import TokenPairs

Words = tuple[str, ...]
WORD = re.compile(r"[^\W_]+|[^\w\s]")


@dataclass(frozen=True)
class Description:
    """Attributes with every sentence that says them."""

    attributes: Words
    texts: tuple[Words, ...]

    @property
    def pairs(self) -> tuple[Pair, ...]:
        return tuple(Pair(self.attributes, text) for text in self.texts)


@dataclass(frozen=True)
class DescriptionSplit:
    """Restaurants to train on, and others."""

    train: tuple[Description, ...]
    unseen: tuple[Description, ...]


@dataclass(frozen=True)
class RestaurantTexts:
    """Attributes → a sentence, for restaurants of which `share` are unseen."""

    descriptions: tuple[Description, ...]
    share: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise InvalidConfig(
                f"RestaurantTexts(share={self.share:g}).",
                why="some restaurants are trained on and some are unseen.",
                fix="share=0.2",
            )
        if len(self.descriptions) < 2:
            raise InvalidData(
                f"{len(self.descriptions)} restaurants.",
                why="one at least is trained on, and one is unseen.",
                fix="give more.",
            )

    def split(self, lab: Lab) -> DescriptionSplit:
        order = lab.child("split").numpy().permutation(len(self.descriptions))
        n = min(len(order) - 1, max(1, round(self.share * len(order))))
        mixed = tuple(self.descriptions[k] for k in order)
        return DescriptionSplit(train=mixed[n:], unseen=mixed[:n])

    def build(self, lab: Lab) -> Task:
        """Every sentence to train on; of the unseen restaurants the first one."""
        parts = self.split(lab)
        train = tuple(one for description in parts.train for one in description.pairs)
        unseen = tuple(description.pairs[0] for description in parts.unseen)
        return TokenPairs("restaurants", train, {"unseen": unseen}, Axis.IID).build(lab)


def read_restaurants(part: str = "devel-fixed.no-ol") -> list[Description]:
    """The published part by attributes, in lower case, marks as words."""
    text = gzip.decompress(data_file(f"e2e-nlg/{part}.csv.gz").read_bytes()).decode("utf-8")
    found: dict[Words, dict[Words, None]] = {}
    for row in csv.DictReader(text.splitlines()):
        texts = found.setdefault(words_of(row["mr"]), {})
        texts[words_of(row["ref"])] = None  # equal sentences once
    return [Description(attributes, tuple(texts)) for attributes, texts in found.items()]


def words_of(text: str) -> Words:
    """Words and marks in lower case: "name[Café Rouge]" becomes name [ café rouge ]."""
    return tuple(WORD.findall(text.lower()))


def example() -> RestaurantTexts:
    foods = ("thai", "french", "greek")
    return RestaurantTexts(
        tuple(
            Description(
                ("name", place, "food", food),
                ((place, "serves", food, "food"), (food, "food", "is", "at", place)),
            )
            for place in ("alimentum", "zizzi")
            for food in foods
        ),
        share=0.34,
    )
