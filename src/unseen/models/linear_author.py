"""Linear classifiers of authors that say which features spoke for whom: style, and character
n-grams."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

from unseen.errors import InvalidData
from unseen.models.author_features import STYLE_NAMES, as_texts, style_matrix


@dataclass(frozen=True)
class FeatureCredits:
    """Exact linear SHAP: w_j (x_j − mean x_j) of every feature, which sum to the logit minus the
    mean logit of the training texts.
    """

    names: Sequence[str]
    credits: NDArray[np.float64]
    logit: float
    mean_logit: float

    def top(self, k: int = 10) -> list[tuple[str, float]]:
        """The k features of largest |credit|."""
        order = np.argsort(-np.abs(self.credits), kind="stable")[:k]
        return [(self.names[j], float(self.credits[j])) for j in order]


class _LinearAuthor(ClassifierMixin, BaseEstimator):
    """Logistic regression on features of a text, which the two estimators define."""

    strength: float

    def fit(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Any:
        texts, authors = as_texts(X), np.asarray(y)
        if len(np.unique(authors)) < 2:
            raise InvalidData(
                f"All {len(texts)} texts are of one author.",
                why="authors are told apart by comparison.",
                fix="give texts of two authors or more.",
            )
        features = self._learn_features(texts)
        self.linear_ = LogisticRegression(C=self.strength, max_iter=2_000)
        self.linear_.fit(features, authors, sample_weight=sample_weight)
        self.classes_ = self.linear_.classes_
        self.mean_ = np.asarray(features.mean(axis=0)).ravel()
        return self

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        check_is_fitted(self, "linear_")
        return self.linear_.decision_function(self._features(as_texts(X)))

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        check_is_fitted(self, "linear_")
        return self.linear_.predict_proba(self._features(as_texts(X)))

    def predict(self, X: Any) -> NDArray[Any]:
        return self.classes_[self.predict_proba(X).argmax(1)]

    def explain(self, text: str, author: Any = None) -> FeatureCredits:
        """Which features speak for an author (None: of two the second, of several the predicted
        one)."""
        check_is_fitted(self, "linear_")
        row = self._features([text])
        x = np.asarray(row.todense() if hasattr(row, "todense") else row).ravel()
        weights, bias = self._weights(text, author)
        credits = weights * (x - self.mean_)
        mean = float(weights @ self.mean_ + bias)
        return FeatureCredits(self.feature_names(), credits, float(weights @ x + bias), mean)

    def _weights(self, text: str, author: Any) -> tuple[NDArray[np.float64], float]:
        coefficients, biases = self.linear_.coef_, self.linear_.intercept_
        if len(self.classes_) == 2:
            sign = -1.0 if author is not None and author == self.classes_[0] else 1.0
            return sign * coefficients[0], sign * float(biases[0])
        if author is None:
            k = int(self.predict_proba([text])[0].argmax())
        else:
            k = int(np.flatnonzero(self.classes_ == author)[0])
        return coefficients[k], float(biases[k])

    def _learn_features(self, texts: Sequence[str]) -> Any:
        raise NotImplementedError

    def _features(self, texts: Sequence[str]) -> Any:
        raise NotImplementedError

    def feature_names(self) -> list[str]:
        raise NotImplementedError


class Stylometry(_LinearAuthor):
    """Logistic regression on standardised shares of 200 function words, lengths, richness (Yule's
    K), capitals and punctuation (Mosteller & Wallace, 1963, for the idea)."""

    def __init__(self, strength: float = 0.1) -> None:
        self.strength = strength

    def _learn_features(self, texts: Sequence[str]) -> NDArray[np.float64]:
        self.scaler_ = StandardScaler()
        return self.scaler_.fit_transform(style_matrix(texts))

    def _features(self, texts: Sequence[str]) -> NDArray[np.float64]:
        return self.scaler_.transform(style_matrix(texts))

    def feature_names(self) -> list[str]:
        return list(STYLE_NAMES)


class CharNgram(_LinearAuthor):
    """Logistic regression on tf–idf of character n-grams of length 2 to 4 (Kešelj et al., 2003, for
    the idea): the strongest simple attribution, and one that reads topics, too."""

    def __init__(
        self, strength: float = 10.0, longest: int = 4, most: int = 30_000, fewest: int = 2
    ) -> None:
        self.strength, self.longest, self.most, self.fewest = strength, longest, most, fewest

    def _learn_features(self, texts: Sequence[str]) -> Any:
        self.vectorizer_ = ngram_vectorizer(self.longest, self.most, min(self.fewest, len(texts)))
        return self.vectorizer_.fit_transform(texts)

    def _features(self, texts: Sequence[str]) -> Any:
        return self.vectorizer_.transform(texts)

    def feature_names(self) -> list[str]:
        return [f"“{one}”" for one in self.vectorizer_.get_feature_names_out()]


def ngram_vectorizer(longest: int, most: int, fewest: int) -> TfidfVectorizer:
    """Sublinear tf–idf of the `most` frequent n-grams, of those in `fewest` texts or more."""
    return TfidfVectorizer(
        analyzer="char",
        ngram_range=(2, longest),
        sublinear_tf=True,
        max_features=most,
        min_df=fewest,
        lowercase=False,
    )
