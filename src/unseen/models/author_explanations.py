"""Why a text was given to an author, to look at: exact linear SHAP as bars, and on the text."""

import re
from typing import Any

import numpy as np

from unseen.document import Passage
from unseen.figure import Bars
from unseen.models.linear_author import CharNgram, FeatureCredits

PIECE = re.compile(r"\s*\S+|\s+$")


def credit_bars(credits: FeatureCredits, k: int = 12) -> Bars:
    """The k features of largest |credit|."""
    return Bars(
        title="Features that speak for the author, and against",
        values=dict(credits.top(k)),
        label="logits over the mean of the training texts",
    )


def mark_text(estimator: CharNgram, text: str, author: Any = None) -> Passage:
    """The text, each word with the credits of the n-grams in it: an n-gram's credit is shared by
    its occurrences, and by their characters. n-grams that are missing have no word to stand on.
    """
    credits = estimator.explain(text, author)
    of = dict(zip(estimator.vectorizer_.get_feature_names_out(), credits.credits, strict=True))
    # the vectorizer reads runs of white space as one space
    letters = [(k, c) for k, c in enumerate(re.sub(r"\s", " ", text)) if _is_read(text, k)]
    flat = "".join(c for _, c in letters)
    found: dict[str, list[int]] = {}
    for size in range(2, estimator.longest + 1):
        for start in range(len(flat) - size + 1):
            found.setdefault(flat[start : start + size], []).append(start)
    weights = np.zeros(len(text))
    for gram, starts in found.items():
        for start in starts:
            for k, _ in letters[start : start + len(gram)]:
                weights[k] += of.get(gram, 0.0) / (len(starts) * len(gram))
    spans = [(one.start(), one.end()) for one in PIECE.finditer(text)]
    return Passage(
        title="The text by its n-grams",
        pieces=[text[a:b] for a, b in spans],
        weights=[float(weights[a:b].sum()) for a, b in spans],
        unit="logits",
    )


def _is_read(text: str, k: int) -> bool:
    """Whether a character is no repetition of white space."""
    return not (k and text[k].isspace() and text[k - 1].isspace())
