"""Texts as numbers that say how somebody writes: function words, lengths, richness, punctuation."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unseen.errors import InvalidData

WORD = re.compile(r"\w+")
SENTENCE = re.compile(r"[.!?]+[\s\"'”’)]*")
PUNCTUATION = ",;:.!?-—()\"'"
GRAMMAR = """
    a about above according across after against ago all almost along already also although always
    am among an and another any anyone anything are around as at away back be became because
    become been before behind being below beneath beside between beyond both but by can cannot
    could did do does doing done down during each either else enough even ever every everyone
    everything except few for from further had has have having he hence her here hers herself him
    himself his how however i if in indeed instead into is it its itself just least less like
    little many may me might mine more moreover most much must my myself near neither never
    nevertheless next no nobody none nor not nothing now of off often on once one only onto or
    other others otherwise our ours ourselves out over own per perhaps quite rather really same
    several shall she should since so some somebody someone something sometimes soon still such
    than that the their theirs them themselves then there therefore these they this those though
    through thus till to together too toward towards under unless until up upon us very was we
    well were what whatever when where whether which while who whole whom whose why will with
    within without would yet you your yours yourself
"""
FUNCTION_WORDS = tuple(GRAMMAR.split())
"""Words that carry grammar rather than a topic."""
SHAPE = (
    *("word length", "word length s.d.", "sentence length", "sentence length s.d."),
    *("type–token ratio", "Yule's K", "hapax rate", "capitals", "digits"),
)


def as_texts(inputs: Any) -> list[str]:
    """The texts of a list, an array, a Series or a table with one column."""
    values = np.asarray(inputs, dtype=object)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise InvalidData(
            f"Texts of shape {values.shape} were given.",
            why="an author's style is read from one text per example.",
            fix="give one column of texts.",
        )
    if wrong := [k for k, one in enumerate(values) if not isinstance(one, str) or not one.strip()]:
        raise InvalidData(
            f"{len(wrong)} of {len(values)} texts are empty or no text, the first in row "
            f"{wrong[0]}.",
            why="nothing can be read from them.",
            fix="fill them, or leave these rows out.",
        )
    return list(values)


def words_of(text: str) -> list[str]:
    """Runs of letters and digits, in small letters."""
    return WORD.findall(text.lower())


def yules_k(counts: Iterable[int]) -> float:
    """K = 10⁴ (Σ_i i² V_i − N)/N², V_i the number of words that occur i times: 0 where all words
    differ, 10⁴ (1 − 1/N) where all are one."""
    repeats = np.fromiter(counts, dtype=np.float64)
    total = repeats.sum()
    return float(1e4 * (np.square(repeats).sum() - total) / total**2)


def style_features(text: str) -> NDArray[np.float64]:
    """Shares of function words, then `SHAPE`, then rates of punctuation per character."""
    words = words_of(text) or ["_"]
    counts = Counter(words)
    lengths = np.array([len(word) for word in words])
    sentences = [len(words_of(one)) for one in SENTENCE.split(text)]
    spans = np.array([n for n in sentences if n] or [len(words)])
    letters = max(1, sum(one.isalpha() for one in text))
    shape = (
        *(lengths.mean(), lengths.std(), spans.mean(), spans.std()),
        *(len(counts) / len(words), yules_k(counts.values())),
        sum(n == 1 for n in counts.values()) / len(words),
        sum(one.isupper() for one in text) / letters,
        sum(one.isdigit() for one in text) / len(text),
    )
    shares = [counts[word] / len(words) for word in FUNCTION_WORDS]
    marks = [text.count(mark) / len(text) for mark in PUNCTUATION]
    return np.array([*shares, *shape, *marks])


STYLE_NAMES = (*FUNCTION_WORDS, *SHAPE, *(f"“{mark}”" for mark in PUNCTUATION))


def style_matrix(texts: Sequence[str]) -> NDArray[np.float64]:
    """A row of `style_features` per text."""
    return np.stack([style_features(text) for text in texts])
