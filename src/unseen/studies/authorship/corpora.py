"""Where the study's texts and its scoring model come from: the published ones, or small invented
ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unseen.lab import Lab
from unseen.models.pretrained import CausalLM
from unseen.models.smollm import smollm2
from unseen.models.transformer import Decoder, Transformer
from unseen.tasks.authorship.corpora import (
    HUMAN,
    MACHINE,
    answers,
    essays,
    federalist_papers,
    machine_pairs,
    news,
    novels,
)
from unseen.tasks.authorship.passages import Pair, Passage

Read = Callable[[], Sequence[Passage]]


@dataclass(frozen=True)
class Corpora:
    """The texts of every part, and the model that scores them."""

    novels: Read = novels
    news: Read = news
    papers: Read = federalist_papers
    essays: Read = essays
    answers: Read = answers
    pairs: Callable[[str, str], Sequence[Pair]] = machine_pairs
    model: Callable[[], CausalLM] = smollm2


@lru_cache(maxsize=1)
def scoring_model(corpora: Corpora) -> CausalLM:
    """Loaded once in a process."""
    return corpora.model()


class Bytes:
    """A tokenizer of bytes."""

    is_fast = False

    def get_vocab(self) -> dict[str, int]:
        return {str(k): k for k in range(256)}

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        return list(text.encode())

    def decode(self, tokens: Sequence[int]) -> str:
        return bytes(tokens).decode("utf-8", "replace")


class ByteModel(CausalLM):
    """An untrained decoder of bytes."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        with Lab().child("byte model").seeded():
            self.model = Transformer(
                Decoder(vocabulary=256, width=16, layers=1, heads=2, context=256)
            )
        self.tokenizer = Bytes()

    def forward(self, tokens: Int[Tensor, "b s"]) -> Float[Tensor, "b s v"]:
        return self.model(tokens)


WORDS = ("river", "house", "winter", "letter", "ship", "road", "market", "garden", "mother")
LINKS = (("upon", "whilst"), ("on", "while"), ("by", "though"), ("at", "and"))


def invent_text(author: int, seed: int, words: int = 40) -> str:
    """Random nouns after the links that an author prefers."""
    rng = np.random.default_rng([author, seed])
    found = []
    for _ in range(words // 2):
        likes = author if rng.random() < 0.8 else rng.integers(len(LINKS))
        found += [str(rng.choice(LINKS[likes % len(LINKS)])), str(rng.choice(WORDS))]
    return " ".join(found) + "."


def invent_novels() -> list[Passage]:
    return [
        Passage(invent_text(a, 10 * book + k), f"author {a}", f"{a} {book}")
        for a in range(3)
        for book in range(2)
        for k in range(6)
    ]


def invent_news() -> list[Passage]:
    return [
        Passage(invent_text(a, 100 + k) + k % 2 * " bank money shares", f"author {a}", f"{a} {k}")
        for a in range(3)
        for k in range(16)
    ]


def invent_papers() -> list[Passage]:
    return [
        Passage(
            invent_text(k % 2, 200 + k),
            ("Hamilton", "Madison")[k % 2],
            str(k),
            order=k,
            disputed=k in (9, 11, 13),
        )
        for k in range(20)
    ]


def invent_essays() -> list[Passage]:
    return [
        Passage(invent_text(a, 300 + k, 30 + 20 * a), (HUMAN, MACHINE)[a], str(k), "essays")
        for k in range(12)
        for a in range(2)
    ]


def invent_pairs(domain: str, generator: str) -> list[Pair]:
    style = 1 + sum(map(ord, generator)) % 3
    offset = 400 if domain == "xsum" else 500
    found = []
    for k in range(16):
        human = invent_text(0, offset + k)
        begin = " ".join(human.split()[:6])
        found.append(
            Pair(human, f"{begin} {invent_text(style, offset + k, 34)}", domain, generator)
        )
    return found


INVENTED = Corpora(
    novels=invent_novels,
    news=invent_news,
    papers=invent_papers,
    essays=invent_essays,
    answers=invent_essays,
    pairs=invent_pairs,
    model=ByteModel,
)


def seeded_order(lab: Lab, name: str, n: int) -> list[int]:
    """A random order from a stream of the lab."""
    return torch.randperm(n, generator=lab.child(name).generator()).tolist()
