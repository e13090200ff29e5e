"""Burrows' Delta (Burrows, 2002, doi:10.1093/llc/17.3.267): the author whose use of the most
frequent words is nearest."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from unseen.errors import InvalidData
from unseen.models.author_features import as_texts, words_of

LETTERS = re.compile(r"^[a-z][a-z]+$")


class BurrowsDelta(ClassifierMixin, BaseEstimator):
    """Δ(text, author) = mean over the m most frequent words of |z(text) − z(author)|; `cosine`:
    1 − cos of the two. The smallest Δ wins.

    z standardises a word's relative frequency over the training texts, or over the authors'
    profiles (all their texts as one), as `faststylometry` does; an author's z is that of the
    profile. Probabilities are a softmax of −Δ, whose one temperature is fitted to the training
    texts, each against the profiles without itself.
    """

    def __init__(self, words: int = 150, cosine: bool = False, over_profiles: bool = False) -> None:
        self.words, self.cosine, self.over_profiles = words, cosine, over_profiles

    def fit(self, X: Any, y: ArrayLike) -> "BurrowsDelta":
        texts, authors = [words_of(text) for text in as_texts(X)], np.asarray(y)
        self.classes_ = np.unique(authors)
        if len(self.classes_) < 2 or len(authors) != len(texts):
            raise InvalidData(
                f"{len(texts)} texts of {len(self.classes_)} authors ({len(authors)} labels).",
                why="authors are told apart by comparison.",
                fix="give texts of two authors or more, and an author for each.",
            )
        self.vocabulary_ = frequent_words(texts, self.words)
        counts, totals = self._counts(texts), np.array([len(text) for text in texts], dtype=float)
        is_author = (authors[None] == self.classes_[:, None]).astype(float)
        profiles = (is_author @ counts) / (is_author @ totals)[:, None]
        shares = profiles if self.over_profiles else counts / totals[:, None]
        if len(shares) < 2:
            raise InvalidData(
                "Frequencies of one text have no spread.",
                why="z divides by it.",
                fix="give more texts.",
            )
        self.mean_, self.spread_ = shares.mean(0), shares.std(0, ddof=1)
        self.profiles_ = self._standardize(profiles)
        self.temperature_ = self._fit_temperature(counts, totals, is_author)
        return self

    def deltas(self, X: Any) -> NDArray[np.float64]:
        """Δ of every text to every author [text, author], in the order of `classes_`."""
        check_is_fitted(self, "profiles_")
        texts = [words_of(text) or ["_"] for text in as_texts(X)]
        shares = self._counts(texts) / np.array([len(text) for text in texts], float)[:, None]
        return self._distances(self._standardize(shares), self.profiles_[None])

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """−Δ; of two authors Δ to the first minus Δ to the second."""
        found = self.deltas(X)
        return found[:, 0] - found[:, 1] if len(self.classes_) == 2 else -found

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        return softmax(-self.deltas(X) * self.temperature_, axis=1)

    def predict(self, X: Any) -> NDArray[Any]:
        return self.classes_[self.deltas(X).argmin(1)]

    def _counts(self, texts: Sequence[Sequence[str]]) -> NDArray[np.float64]:
        counted = [Counter(text) for text in texts]
        return np.array([[one[word] for word in self.vocabulary_] for one in counted], dtype=float)

    def _standardize(self, shares: NDArray[np.float64]) -> NDArray[np.float64]:
        # a word that everybody uses equally often tells nobody apart
        spread = np.where(self.spread_ > 0, self.spread_, np.inf)
        return (shares - self.mean_) / spread

    def _distances(
        self, texts: NDArray[np.float64], profiles: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """[text, author]; profiles are [1 or text, author, word]."""
        if not self.cosine:
            return np.abs(texts[:, None] - profiles).mean(2)
        dots = (texts[:, None] * profiles).sum(2)
        norms = np.linalg.norm(texts, axis=1)[:, None] * np.linalg.norm(profiles, axis=2)
        return 1 - dots / np.where(norms > 0, norms, np.inf)

    def _fit_temperature(
        self,
        counts: NDArray[np.float64],
        totals: NDArray[np.float64],
        is_author: NDArray[np.float64],
    ) -> float:
        """The factor of −Δ with the highest likelihood; texts that are all of their author's are
        left out."""
        own = is_author.T  # [text, author]
        rest = (is_author @ totals)[None] - own * totals[:, None]
        pooled = (is_author @ counts)[None] - own[:, :, None] * counts[:, None]
        is_used = (rest > 0).all(1)
        if not is_used.any():
            return 1.0
        profiles = self._standardize(pooled[is_used] / rest[is_used][:, :, None])
        texts = self._standardize(counts[is_used] / totals[is_used][:, None])
        deltas = self._distances(texts, profiles)
        author = own[is_used].argmax(1)

        def loss(log_factor: float) -> float:
            log_p = log_softmax(-deltas * np.exp(log_factor), axis=1)
            return -float(log_p[np.arange(len(author)), author].mean())

        found = minimize_scalar(loss, bounds=(-3.0, 6.0), method="bounded")
        return float(np.exp(found.x))


def frequent_words(texts: Sequence[Sequence[str]], most: int) -> list[str]:
    """The most frequent words of two letters or more, of equal ones those that come first."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    found = [word for word, _ in counts.most_common() if LETTERS.match(word)][:most]
    if not found:
        raise InvalidData(
            "The texts hold no word of two letters a–z.",
            why="Delta compares how often frequent words are used.",
            fix="use CharNgram for other alphabets.",
        )
    return found
