"""Facts stated in one order and asked in both (Berglund et al., 2024, arXiv:2309.12288).

A fact joins a name and a description. `p2d` facts are stated with the name first, `d2p` facts with
the description first, `both` facts in either order. Evaluation questions use templates that
training has not shown. `Reversal` makes facts from tokens; `PublishedReversal` in
`tasks/published_reversal.py` reads those of the paper.

Columns of every evaluation split: `tokens` (prompt and right answer), `answer` (the mask of the
answer), `fact` (its number) and `other` (the same prompt with the answer of another fact of the
same group: right against wrong, not seen against unseen).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from numpy.typing import NDArray

from unseen.engine.batches import Columns
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.objectives import exact_match
from unseen.task import Axis, Split, Task, Use

Ints = NDArray[np.int64]


class Order(StrEnum):
    """What comes first in a statement."""

    NAME = "p2d"
    DESCRIPTION = "d2p"


PAD, BOS, EOS = 0, 1, 2
SPECIAL = 3
LENGTH = 9
"""<bos> opening name(2) middle description(3) <eos>, or with name and description exchanged."""


@dataclass(frozen=True)
class Reversal:
    """p2d: `<bos> p_i n n m_j d d d <eos>`; d2p: `<bos> q_i d d d r_j n n <eos>`.

    A name is a pair (first, last) and a description a triple, both unique over all groups. A
    template is a pair (i, j); `held_out` pairs, one per opening and per middle token, are kept for
    the questions, so that all their tokens are known.
    """

    facts: int = 100
    """Per group."""
    firsts: int = 40
    lasts: int = 40
    words: int = 60
    slots: int = 6
    """Opening tokens, and middle tokens, per direction."""
    restated: int = 0
    """So many p2d facts are also stated with the description first: a control that the questions
    can be answered.
    """
    shown: int | None = None
    """Templates per opening token in training: each fact has `slots · shown` paraphrases; None: all
    but the held-out.
    """
    both: bool = True
    """Whether training also states the `both` facts, in either order, and asks for them."""

    def __post_init__(self) -> None:
        enough = 3 * self.facts <= min(
            self.firsts * self.lasts, self.words * (self.words - 1) * (self.words - 2)
        )
        told = 0 <= self.restated <= self.facts - 2 and 1 <= self.paraphrases < self.slots
        if self.facts < 2 or self.slots < 2 or not told or not enough:
            raise InvalidConfig(
                f"Reversal(facts={self.facts}, firsts={self.firsts}, lasts={self.lasts}, "
                f"words={self.words}, "
                f"slots={self.slots}, restated={self.restated}, shown={self.shown}) is out of "
                "range.",
                why="three groups of at least two facts need names and descriptions of their own, "
                "at least two slots, "
                "a template that is shown and one that is not, and at least two facts that are not "
                "restated.",
                fix="raise firsts, lasts or words, or lower facts, restated or shown.",
            )

    @property
    def paraphrases(self) -> int:
        """Templates per opening token in training."""
        return self.slots - 1 if self.shown is None else self.shown

    @property
    def vocabulary(self) -> int:
        return SPECIAL + self.firsts + self.lasts + self.words + 4 * self.slots

    def build(self, lab: Lab) -> Task:
        names, descriptions = (
            self.names(lab.child("names")),
            self.descriptions(lab.child("descriptions")),
        )
        known, asked = self.templates(lab.child("templates"))
        groups = {
            name: np.arange(k * self.facts, (k + 1) * self.facts)
            for k, name in enumerate(("p2d", "d2p", "both"))
        }
        refuse_shared_facts(groups)
        restated, silent = groups["p2d"][: self.restated], groups["p2d"][self.restated :]
        one, two = Order.NAME, Order.DESCRIPTION

        def statements(order: Order, facts: Ints, templates: Ints) -> Ints:
            return self.sentences(order, names, descriptions, facts, templates)

        train = [statements(one, groups["p2d"], known), statements(two, groups["d2p"], known)]
        if self.both:
            train += [statements(order, groups["both"], known) for order in Order]
        if self.restated:
            train.append(statements(two, restated, known))

        def evaluation_split(name: str, order: Order, facts: Ints, at: str) -> Split:
            wrong = derangement(facts, lab.child("other", name).numpy())
            size = 3 if order is Order.NAME else 2
            return questions(
                statements(order, facts, asked),
                statements(order, wrong, asked),
                np.repeat(facts, len(asked)),
                size,
                at,
            )

        splits = {
            "train": Split(
                Columns(tokens=torch.from_numpy(np.concatenate(train))), Use.TRAIN, "stated"
            ),
            "same/p2d": evaluation_split("same/p2d", one, groups["p2d"], "stated"),
            "same/d2p": evaluation_split("same/d2p", two, groups["d2p"], "stated"),
        }
        if self.both:
            splits |= {
                f"both/{order}": evaluation_split(f"both/{order}", order, groups["both"], "stated")
                for order in Order
            }
        splits |= {
            "reverse/p2d": evaluation_split("reverse/p2d", two, silent, "reversed"),
            "reverse/d2p": evaluation_split("reverse/d2p", one, groups["d2p"], "reversed"),
        }
        if self.restated > 1:
            splits["restated/p2d"] = evaluation_split("restated/p2d", two, restated, "stated")
        return Task(name="reversal", axis=Axis.DIRECTION, splits=splits, objective=exact_match)

    def names(self, lab: Lab) -> Ints:
        """[3 facts, 2] tokens, pairs drawn without replacement."""
        drawn = lab.numpy().choice(self.firsts * self.lasts, 3 * self.facts, replace=False)
        first, last = np.divmod(drawn, self.lasts)
        return np.stack([SPECIAL + first, SPECIAL + self.firsts + last], 1)

    def descriptions(self, lab: Lab) -> Ints:
        """[3 facts, 3] tokens, three different words each, no triple twice."""
        start = SPECIAL + self.firsts + self.lasts
        return start + distinct_words(3 * self.facts, 3, self.words, lab.numpy())

    def templates(self, lab: Lab) -> tuple[Ints, Ints]:
        """Pairs (i, j) for training, and the held-out ones: one per i and per j."""
        return templates(self.slots, self.paraphrases, lab.numpy())

    def sentences(
        self, order: Order, names: Ints, descriptions: Ints, facts: Ints, templates: Ints
    ) -> Ints:
        """[facts · templates, 9]: every fact in every template, the templates of a fact in a
        row.
        """
        start = (
            SPECIAL
            + self.firsts
            + self.lasts
            + self.words
            + (2 * self.slots if order is Order.DESCRIPTION else 0)
        )
        first, second = names[facts], descriptions[facts]
        if order is Order.DESCRIPTION:
            first, second = second, first
        return pair_sentences(first, second, templates, start, self.slots)


def distinct_words(n: int, size: int, words: int, rng: np.random.Generator) -> Ints:
    """[n, size] numbers below `words`, none twice in a row, no row twice."""
    found: dict[tuple[int, ...], None] = {}
    while len(found) < n:
        found[tuple(int(word) for word in rng.permutation(words)[:size])] = None
    return np.array(list(found), dtype=np.int64)


def pair_sentences(first: Ints, second: Ints, wordings: Ints, start: int, slots: int) -> Ints:
    """[pairs · wordings, tokens]: every pair in every wording, the wordings of a pair in a row."""
    times = len(wordings)
    wording = np.tile(wordings, (len(first), 1))
    opening, middle = start + wording[:, :1], start + slots + wording[:, 1:]
    ends = np.ones((len(wording), 1), dtype=np.int64)
    return np.concatenate(
        [
            BOS * ends,
            opening,
            np.repeat(first, times, 0),
            middle,
            np.repeat(second, times, 0),
            EOS * ends,
        ],
        1,
    )


def templates(slots: int, shown: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Pairs (i, j) of an opening and a middle token: `shown` per i and per j for training, one of
    each held out.
    """
    match = rng.permutation(slots)
    pairs = np.stack(np.meshgrid(np.arange(slots), np.arange(slots), indexing="ij"), -1).reshape(
        -1, 2
    )
    after = (pairs[:, 1] - match[pairs[:, 0]]) % slots
    return pairs[(after > 0) & (after <= shown)], pairs[after == 0]


def questions(right: Ints, wrong: Ints, fact: Ints, size: int, at: str) -> Split:
    """An evaluation split: the answer is the last `size` tokens before <eos>; only there `other`
    has those of `wrong`.
    """
    place = np.arange(right.shape[1])
    answer = (place >= right.shape[1] - 1 - size) & (place < right.shape[1] - 1)
    columns = {"tokens": right, "other": np.where(answer, wrong, right), "fact": fact}
    mask = torch.from_numpy(answer).expand(len(right), -1).contiguous()
    return Split(
        Columns(answer=mask, **{k: torch.from_numpy(v) for k, v in columns.items()}),
        Use.EVALUATE,
        at,
    )


def derangement(facts: Ints, rng: np.random.Generator) -> Ints:
    """For each fact another one, each once: right and wrong answers then have the same distribution
    over facts.

    One per fact, not per question: a mean over several wrong answers would vary less than that over
    one right answer, and the Kolmogorov–Smirnov test would see that.
    """
    ring = rng.permutation(len(facts))
    other = np.empty_like(facts)
    other[ring] = facts[np.roll(ring, 1)]
    return other


def refuse_shared_facts(groups: Mapping[str, Sequence[object] | Ints]) -> None:
    """Raises if a fact stands in two groups: its reversed question would have been answered in
    training.
    """
    owner: dict[object, str] = {}
    for name, facts in groups.items():
        for fact in facts:
            if owner.setdefault(fact, name) != name:
                raise InvalidData(
                    f"The fact `{fact}` is listed in the groups {owner[fact]} and {name}.",
                    why="what one group states in one order the other would give away in the other "
                    "order.",
                    fix="list every fact in one group; `both` is for those stated in either order.",
                )


def example() -> Reversal:
    return Reversal(facts=6, firsts=8, lasts=8, words=12, slots=3, restated=2)
