"""An embedding of texts in which an author's texts lie together (supervised contrastive learning,
Khosla et al., 2020, arXiv:2004.11362)."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.decomposition import TruncatedSVD
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.models.author_features import as_texts
from unseen.models.linear_author import ngram_vectorizer

Embed = Callable[[Sequence[str]], Any]
"""Texts as vectors [text, dimension]."""


def contrastive_loss(
    embedding: Float[Tensor, "n d"], authors: Int[Tensor, " n"], temperature: float
) -> Float[Tensor, ""]:
    """Mean over texts i with another of their author of −mean_{j: same author} log
    softmax_{k≠i}(z_i · z_k / τ)_j."""
    eye = torch.eye(len(authors), dtype=torch.bool, device=authors.device)
    logits = (embedding @ embedding.T / temperature).masked_fill(eye, -torch.inf)
    log_p = logits.log_softmax(1).masked_fill(eye, 0)
    same = (authors[:, None] == authors[None]) & ~eye
    pairs = same.sum(1)
    return -((log_p * same).sum(1) / pairs.clamp_min(1))[pairs > 0].mean()


class ContrastiveAuthor(ClassifierMixin, BaseEstimator):
    """A linear head on vectors of texts, trained so that texts of one author are near (cosine) and
    others far; a text belongs to the author whose mean is nearest.

    `embed` gives the vectors (a frozen sentence encoder); None: character n-grams, reduced to
    `dimensions` by an SVD. `similarity` of two texts is a score for verification, also of authors
    that were never seen.
    """

    def __init__(
        self,
        embed: Embed | None = None,
        dimensions: int = 64,
        temperature: float = 0.1,
        steps: int = 200,
        lr: float = 0.01,
        seed: int = 0,
    ) -> None:
        self.embed, self.dimensions, self.temperature = embed, dimensions, temperature
        self.steps, self.lr, self.seed = steps, lr, seed

    def fit(self, X: Any, y: ArrayLike) -> "ContrastiveAuthor":
        texts = as_texts(X)
        self.classes_, authors = np.unique(np.asarray(y), return_inverse=True)
        if len(self.classes_) < 2 or np.bincount(authors).max() < 2:
            raise InvalidData(
                f"{len(texts)} texts of {len(self.classes_)} authors hold no pair of one author, "
                "or no other author.",
                why="pairs of one author are pulled together, others apart.",
                fix="give two texts or more of two authors or more.",
            )
        vectors = self._learn_vectors(texts)
        self.head_ = self._train(torch.from_numpy(vectors), torch.from_numpy(authors))
        z = self._project(vectors)
        means = np.stack([z[authors == k].mean(0) for k in range(len(self.classes_))])
        self.centres_ = _unit(means)
        return self

    def transform(self, X: Any) -> NDArray[np.float64]:
        """The embedding, of length 1."""
        check_is_fitted(self, "head_")
        return self._project(self._vectors(as_texts(X)))

    def similarity(self, one: Any, other: Any) -> NDArray[np.float64]:
        """Cosine of text k of one list with text k of the other: high where one author wrote
        both."""
        return (self.transform(one) * self.transform(other)).sum(1)

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        return softmax(self.transform(X) @ self.centres_.T / self.temperature, axis=1)

    def predict(self, X: Any) -> NDArray[Any]:
        return self.classes_[self.predict_proba(X).argmax(1)]

    def _learn_vectors(self, texts: Sequence[str]) -> NDArray[np.float64]:
        if self.embed is None:
            self.vectorizer_ = ngram_vectorizer(4, 30_000, min(2, len(texts)))
            features = self.vectorizer_.fit_transform(texts)
            size = min(self.dimensions, *(n - 1 for n in features.shape))
            self.svd_ = TruncatedSVD(size, random_state=self.seed).fit(features)
        raw = self._raw(texts)
        # one scale for all: dimensions that hardly vary are noise and stay small
        self.mean_, self.spread_ = raw.mean(0), float(raw.std(0).max()) + 1e-9
        return (raw - self.mean_) / self.spread_

    def _vectors(self, texts: Sequence[str]) -> NDArray[np.float64]:
        return (self._raw(texts) - self.mean_) / self.spread_

    def _raw(self, texts: Sequence[str]) -> NDArray[np.float64]:
        if self.embed is None:
            return self.svd_.transform(self.vectorizer_.transform(texts)).astype(np.float64)
        found = self.embed(texts)
        found = found.detach().cpu().numpy() if isinstance(found, Tensor) else np.asarray(found)
        return found.astype(np.float64)

    def _train(self, vectors: Tensor, authors: Tensor) -> NDArray[np.float64]:
        size = min(self.dimensions, vectors.shape[1])
        generator = Lab(self.seed).child("head").generator()
        start = torch.randn(vectors.shape[1], size, generator=generator, dtype=vectors.dtype)
        head = (start / vectors.shape[1] ** 0.5).requires_grad_()
        optimizer = torch.optim.AdamW([head], lr=self.lr, weight_decay=0.01)
        for _ in range(self.steps):
            optimizer.zero_grad()
            z = torch.nn.functional.normalize(vectors @ head, dim=1)
            contrastive_loss(z, authors, self.temperature).backward()
            optimizer.step()
        return head.detach().numpy()

    def _project(self, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        return _unit(vectors @ self.head_)


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
