"""Who wrote it: authors across books, and machine or person across generators, as tasks of counted
character n-grams.

Survey: Huang, Chen & Shu (2024), arXiv:2408.08946.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from sklearn.feature_extraction.text import HashingVectorizer
from torch import Tensor

from unseen.engine.batches import Columns
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.objectives import classify
from unseen.task import Axis, Split, Task, Use
from unseen.tasks.authorship.corpora import HUMAN, machine_pairs, novels
from unseen.tasks.authorship.passages import Pair, Passage, split_groups

__all__ = ["Authorship", "GeneratedText"]


@dataclass(frozen=True)
class Authorship:
    """Passages of authors with two books or more; one book of each is held out, and of the others a
    share of passages is `seen`.

    `x` counts character n-grams of length 2 to 4 in `features` hashed cells, of length 1; `y` is
    the author.
    """

    features: int = 2_048
    seen_share: float = 0.25
    read: Callable[[], Sequence[Passage]] = novels

    def build(self, lab: Lab) -> Task:
        passages = self.read()
        books: dict[str, list[str]] = {}
        for one in passages:
            if one.group not in books.setdefault(one.author, []):
                books[one.author].append(one.group)
        authors = sorted(author for author, found in books.items() if len(found) > 1)
        if len(authors) < 2:
            raise InvalidData(
                f"{len(authors)} of {len(books)} authors have two books.",
                why="one book is held out, and another is learned from.",
                fix="give more books of two authors or more.",
            )
        rng = lab.child("books").numpy()
        held_out = {rng.choice(books[author]) for author in authors}
        parts: dict[str, list[Passage]] = {"train": [], "seen": [], "unseen": []}
        for one in (one for one in passages if one.author in authors):
            is_seen = bool(rng.random() < self.seen_share)
            parts["unseen" if one.group in held_out else "seen" if is_seen else "train"].append(one)
        return text_task("authorship", parts, authors, self.features, {"unseen": "other books"})


@dataclass(frozen=True)
class GeneratedText:
    """Person or machine: trained on the texts of one generator, evaluated on its further texts and
    on those of others. Prefixes that both share are cut off, and both are equally long in words.

    All texts of a source stand on one side.
    """

    domain: str = "xsum"
    train: str = "gpt-3.5-turbo"
    generators: tuple[str, ...] = ("gpt-4", "davinci", "gpt2-xl")
    features: int = 2_048
    read: Callable[[str, str], Sequence[Pair]] = machine_pairs

    def build(self, lab: Lab) -> Task:
        pairs = {one: self.read(self.domain, one) for one in (self.train, *self.generators)}
        sources = list(dict.fromkeys(pair.source for found in pairs.values() for pair in found))
        order = lab.child("sources").numpy().permutation(len(sources)).tolist()
        evaluated = split_groups(sources, 1 / 3, order)
        parts = {
            "train": passages_of([p for p in pairs[self.train] if p.source not in evaluated]),
            "seen": passages_of([p for p in pairs[self.train] if p.source in evaluated]),
        }
        for one in self.generators:
            parts[one] = passages_of([p for p in pairs[one] if p.source in evaluated])
        at = {one: one for one in self.generators}
        return text_task("generated text", parts, (HUMAN, "machine"), self.features, at)


def passages_of(pairs: Sequence[Pair]) -> list[Passage]:
    """Both texts of each pair without the common beginning."""
    return [
        Passage(text, author, pair.source, pair.domain)
        for pair in pairs
        for text, author in zip(pair.tails(), (HUMAN, "machine"), strict=True)
        if text
    ]


def text_task(
    name: str,
    parts: Mapping[str, Sequence[Passage]],
    authors: Sequence[str],
    features: int,
    at: Mapping[str, str],
) -> Task:
    """Passages as hashed n-grams with the number of their author; splits but `train` are
    evaluated, those named in `at` away from the training ones."""
    if empty := [part for part, found in parts.items() if not found]:
        raise InvalidData(
            f"The split {empty[0]} of {name} has no text.",
            why="every split is read.",
            fix="give more texts.",
        )
    splits = {
        part: Split(
            Columns(
                x=count_ngrams([one.text for one in found], features),
                y=torch.tensor([authors.index(one.author) for one in found]),
            ),
            Use.TRAIN if part == "train" else Use.EVALUATE,
            at=at.get(part, "training"),
        )
        for part, found in parts.items()
    }
    return Task(name=name, axis=Axis.DOMAIN, splits=splits, objective=classify)


def count_ngrams(texts: Sequence[str], features: int) -> Float[Tensor, "text feature"]:
    """Counts of character n-grams in hashed cells, each row of length 1: nothing is learned."""
    hashing = HashingVectorizer(
        analyzer="char", ngram_range=(2, 4), n_features=features, lowercase=False
    )
    return torch.from_numpy(hashing.transform(texts).toarray()).float()


def invent_passages() -> list[Passage]:
    """Two authors with two books each, who like other words."""
    words = {"Ann": "upon the whole river", "Bob": "on all of the road"}
    return [
        Passage(f"{text} {k * 'and '}{book}", author, f"{author} {book}")
        for author, text in words.items()
        for book in ("first", "second")
        for k in range(8)
    ]


def example() -> Authorship:
    """On invented passages: the novels are not part of the package."""
    return Authorship(features=32, read=invent_passages)
