"""Instructions "answer <question> with <answer>" in two wordings, and examples that follow them.

Experiment 3 of Berglund et al. (2024), arXiv:2309.12288. Training holds every instruction, and
examples (question, then answer) of the realized ones only; evaluated are the unrealized ones. The
released data have 1,000 realized and 100 unrealized questions, every instruction once ("answer A
after Q"), and every realized example once.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch

from unseen.engine.batches import Columns
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.objectives import exact_match
from unseen.task import Axis, Split, Task, Use
from unseen.tasks.reversal import (
    SPECIAL,
    Ints,
    derangement,
    distinct_words,
    pair_sentences,
    questions,
    templates,
)

ASKED, ANSWERED = 3, 2
"""Tokens of a question and of an answer."""


class Wording(StrEnum):
    """Which part an instruction names first."""

    QUESTION = "question first"
    """"Answer <question> with <answer>": the order of the examples."""
    ANSWER = "answer first"
    """"Say <answer> when asked <question>": the reversed order, that of the release."""


@dataclass(frozen=True)
class ReversedInstructions:
    """Instruction: `<bos> g_i q q q h_j a a <eos>` or `<bos> g_i a a h_j q q q <eos>`; example:
    `<bos> x_i q q q y_j a a <eos>`.

    Questions are triples and answers pairs of words, all different. Pairs (i, j) are wordings; one
    example wording per i and per j is kept for evaluation, so that all its tokens are known.
    Instructions and realized examples are equally many, as in the release.
    """

    wording: Wording = Wording.QUESTION
    realized: int = 400
    unrealized: int = 40
    words: int = 60
    slots: int = 4

    def __post_init__(self) -> None:
        if min(self.realized, self.unrealized, self.slots) < 2 or 2 * self.pairs > self.words * (
            self.words - 1
        ):
            raise InvalidConfig(
                f"ReversedInstructions(realized={self.realized}, unrealized={self.unrealized}, "
                f"words={self.words}, "
                f"slots={self.slots}) is out of range.",
                why="two realized and two unrealized questions, two wordings, and different "
                "answers are the least.",
                fix="raise words or slots, or ask fewer questions.",
            )

    @property
    def pairs(self) -> int:
        return self.realized + self.unrealized

    @property
    def vocabulary(self) -> int:
        return SPECIAL + 2 * self.words + 4 * self.slots

    def build(self, lab: Lab) -> Task:
        asked = SPECIAL + distinct_words(
            self.pairs, ASKED, self.words, lab.child("questions").numpy()
        )
        answers = (
            SPECIAL
            + self.words
            + distinct_words(self.pairs, ANSWERED, self.words, lab.child("answers").numpy())
        )
        known, kept = templates(self.slots, self.slots - 1, lab.child("templates").numpy())
        start = SPECIAL + 2 * self.words
        one, two = (asked, answers) if self.wording is Wording.QUESTION else (answers, asked)
        every, realized = np.arange(self.pairs), np.arange(self.realized)

        def example(pairs: Ints, wordings: Ints) -> Ints:
            return pair_sentences(
                asked[pairs], answers[pairs], wordings, start + 2 * self.slots, self.slots
            )

        def evaluation_split(name: str, pairs: Ints, at: str) -> Split:
            wrong = derangement(pairs, lab.child("other", name).numpy())
            fact = np.repeat(pairs, len(kept))
            return questions(example(pairs, kept), example(wrong, kept), fact, ANSWERED, at)

        train = [pair_sentences(one, two, known, start, self.slots), example(realized, known)]
        order = "stated" if self.wording is Wording.QUESTION else "reversed"
        return Task(
            name="reversed instructions",
            axis=Axis.DIRECTION,
            splits={
                "train": Split(
                    Columns(tokens=torch.from_numpy(np.concatenate(train))), Use.TRAIN, "stated"
                ),
                "realized": evaluation_split("realized", realized, "stated"),
                "unrealized": evaluation_split("unrealized", every[self.realized :], order),
            },
            objective=exact_match,
        )


def example() -> ReversedInstructions:
    return ReversedInstructions(Wording.ANSWER, realized=8, unrealized=4, words=8, slots=2)
