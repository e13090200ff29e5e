"""How much of a test stands in other data: runs of 13 words (Brown et al., 2020, arXiv:2005.14165,
appendix C), or the whole text where it is shorter.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from unseen import stats
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.reading import Reading

WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class TextSets:
    """Texts of a test, and the data that they may stand in."""

    test: Sequence[str]
    corpus: Sequence[str]


@dataclass(frozen=True)
class Contamination:
    """Share of test texts that have a run of `n` words in common with the corpus; one with fewer
    words counts where a text of the corpus has the same words. `detail` is 1 for such a text.
    """

    n: int = 13

    def __post_init__(self) -> None:
        if self.n < 1:
            raise InvalidConfig(
                f"Runs of {self.n} words.", why="a run has a word.", fix="use n=13."
            )

    def __call__(self, subject: TextSets, lab: Lab) -> Reading:
        if not subject.test:
            raise InvalidData("The test has no texts.", why="0/0 has no value.", fix="give some.")
        known = {run for text in subject.corpus for run in self.runs(text)}
        hits = torch.tensor(
            [float(any(run in known for run in self.runs(text))) for text in subject.test]
        )
        found = stats.proportion(float(hits.sum()), len(hits))
        return Reading(found.value, found.low, found.high, found.n, "fraction", hits)

    def runs(self, text: str) -> Iterator[tuple[str, ...]]:
        """Its runs of n words; all its words where there are fewer. Signs are the words of a text
        that has no others.
        """
        words = WORD.findall(text.casefold()) or text.split()
        for k in range(max(1, len(words) - self.n + 1)):
            yield tuple(words[k : k + self.n])


def example() -> tuple[Contamination, TextSets]:
    return Contamination(3), TextSets(
        ("one two three four", "five six seven", "eight"), ("zero one two three", "nine", "Eight!")
    )
