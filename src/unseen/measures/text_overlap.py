"""How far a text agrees with right ones: ROUGE-L (Lin, 2004) by the library rouge-score, and exact
match.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any, NamedTuple

import torch

from unseen import stats
from unseen.errors import InvalidData, MissingExtra
from unseen.lab import Lab
from unseen.reading import Reading


class Text(NamedTuple):
    """What was written, and every text that counts as right."""

    prediction: str
    references: tuple[str, ...]


class Overlap(StrEnum):
    """How agreement is counted."""

    ROUGE_L = "ROUGE-L"
    """F1 of the longest common subsequence of stemmed words, of the best reference."""
    EXACT = "exact match"
    """1 where it equals a reference, but for case and white space."""


def rouge_l(prediction: str, references: Sequence[str]) -> float:
    """The largest ROUGE-L F1 over the references, in [0, 1]; an empty text has 0."""
    _refuse_none(references)
    scorer = _scorer()
    return max(float(scorer.score(one, prediction)["rougeL"].fmeasure) for one in references)


def is_read(text: str) -> bool:
    """Whether ROUGE-L reads the whole text: it knows the letters a–z and digits alone, and takes
    every other letter for a gap.
    """
    signs = [sign for sign in text if sign.isalnum()]
    return bool(signs) and all(map(str.isascii, signs))


def exact(prediction: str, references: Sequence[str]) -> float:
    """1 where the text is one of the references, but for case and white space."""
    _refuse_none(references)
    return float(_plain(prediction) in {_plain(one) for one in references})


def corpus_bleu(texts: Sequence[Text]) -> float:
    """BLEU (Papineni et al., 2002) by the library sacrebleu, in [0, 1]: n-grams of all texts are
    counted together, so it is no mean over texts and has no interval over them.
    """
    if not texts:
        raise InvalidData("There are no texts.", why="0/0 has no value.", fix="give some.")
    for one in texts:
        _refuse_none(one.references)
    try:
        from sacrebleu import corpus_bleu as score
    except ImportError as error:
        raise MissingExtra(
            "BLEU needs the library sacrebleu.",
            why="it is an optional extra and is not installed.",
            fix='pip install "unseen[language]"',
        ) from error
    most = max(len(one.references) for one in texts)
    # its columns are the k-th references of all texts; a repeated one adds no n-gram
    columns = [
        [one.references[min(k, len(one.references) - 1)] for one in texts] for k in range(most)
    ]
    return float(score([one.prediction for one in texts], columns, force=True).score) / 100


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


SCORES: dict[Overlap, Callable[[str, Sequence[str]], float]] = {
    Overlap.ROUGE_L: rouge_l,
    Overlap.EXACT: exact,
}


@cache
def _scorer() -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise MissingExtra(
            "ROUGE-L needs the library rouge-score.",
            why="it is an optional extra and is not installed.",
            fix='pip install "unseen[language]"',
        ) from error
    return RougeScorer(["rougeL"], use_stemmer=True)


def _refuse_none(references: Sequence[str]) -> None:
    if not references:
        raise InvalidData(
            "A text has no reference.",
            why="nothing says what is right.",
            fix="give at least one right text.",
        )


@dataclass(frozen=True)
class TextOverlap:
    """Mean over texts; `detail` holds every text's value. Texts are the unit of the interval."""

    overlap: Overlap = Overlap.ROUGE_L

    def __call__(self, subject: Sequence[Text], lab: Lab) -> Reading:
        if not subject:
            raise InvalidData("There are no texts.", why="0/0 has no value.", fix="give some.")
        score = SCORES[Overlap(self.overlap)]
        values = torch.tensor([score(*one) for one in subject], dtype=torch.float64)
        found = stats.of_scores(values.numpy())
        return Reading(
            found.value, found.low, found.high, found.n, "fraction", values, found.freedom
        )


def example() -> tuple[TextOverlap, list[Text]]:
    return TextOverlap(), [
        Text("the cat sat on the mat", ("a cat was on the mat", "the cat sat")),
        Text("a dog", ("the dog",)),
        Text("", ("nothing",)),
    ]
