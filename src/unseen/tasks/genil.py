"""GeniL: which sentences generalize about a group, in nine languages (Davani et al., 2024,
arXiv:2404.05866).

A sentence that names an identity and an attribute is usually no generalization. The texts are
offensive by design: nothing here prints one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.model_selection import GroupShuffleSplit

from unseen import stats
from unseen.data.files import data_file
from unseen.engine.batches import Columns
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.objectives import classify
from unseen.reading import Reading
from unseen.task import Axis, Split, Task, Use

LANGUAGES = ("ar", "bn", "en", "es", "fr", "hi", "id", "ms", "pt")
TEST_SHARE = 0.2
HASHES = 512
"""Inputs of the task: hashed parts of words."""
CLASSES = ("non-generalizing", "mentioning", "promoting")
FEWEST = 20
"""Rows of a group whose rate is shown."""

Maker = Callable[[str], pd.DataFrame]
Rows = NDArray[np.int64]


class Novelty(StrEnum):
    """What of the test part no training sentence has."""

    PAIR = "pair"
    """The pair of identity and attribute."""
    SENTENCE = "sentence"
    """Only the sentence: random rows."""


def genil_frame(language: str) -> pd.DataFrame:
    """The released rows of a language: `sentence`, `generalizing`, `promoting` (missing in some
    English rows), `identity`, `attribute`.
    """
    if language not in LANGUAGES:
        raise InvalidConfig(
            f"There is no language `{language}`.",
            why=f"GeniL has {', '.join(LANGUAGES)}.",
            fix="use one of these.",
        )
    frame = pd.read_csv(data_file(f"genil/{language}.csv.gz"), keep_default_na=False)
    return frame.assign(promoting=pd.to_numeric(frame["promoting"], errors="coerce"))


@dataclass(frozen=True, eq=False)
class Sentences:
    """The sentences of some languages, each once, and what was left out."""

    frame: pd.DataFrame
    """With `language` and `pair`, the number of the pair in sorted order within its language."""
    repeated: int
    """Rows whose sentence the same language has before."""
    conflicting: int
    """Sentences that stand there with both labels; the first one counts."""

    @property
    def generalizing(self) -> NDArray[np.int64]:
        return self.frame["generalizing"].to_numpy(np.int64)

    @property
    def classes(self) -> NDArray[np.int64]:
        """0 non-generalizing, 1 mentioning, 2 promoting; −1 where `promoting` is not known."""
        y, promoting = self.generalizing, self.frame["promoting"].to_numpy(float)
        return np.where(np.isnan(promoting), -1, y + (promoting == 1)).astype(np.int64)

    def of(self, language: str) -> Rows:
        return np.flatnonzero(self.frame["language"].to_numpy() == language)


def read_sentences(languages: Sequence[str] = LANGUAGES, read: Maker = genil_frame) -> Sentences:
    """Reads, checks and joins the languages."""
    parts = []
    for language in languages:
        frame = read(language).reset_index(drop=True)
        _refuse(frame, language)
        pair = frame["identity"] + "\0" + frame["attribute"]
        number = pd.factorize(pair, sort=True)[0]
        parts.append(frame.assign(language=language, pair=number))
    joined = pd.concat(parts, ignore_index=True)
    by_sentence = joined.groupby(["language", "sentence"])["generalizing"]
    kept = joined.drop_duplicates(["language", "sentence"]).reset_index(drop=True)
    return Sentences(kept, len(joined) - len(kept), int((by_sentence.nunique() > 1).sum()))


def _refuse(frame: pd.DataFrame, language: str) -> None:
    empty = frame["sentence"].str.strip() == ""
    if empty.any():
        raise InvalidData(
            f"{int(empty.sum())} sentences of `{language}` are empty, the first in row "
            f"{int(np.flatnonzero(empty)[0])}.",
            why="nothing can be read from them.",
            fix="leave these rows out.",
        )
    impossible = (frame["promoting"] == 1) & (frame["generalizing"] == 0)
    if impossible.any():
        raise InvalidData(
            f"{int(impossible.sum())} rows of `{language}` promote a generalization without one.",
            why="what is promoted is a generalization.",
            fix="correct the labels of these rows.",
        )


def split_sentences(found: Sentences, novelty: Novelty, seed: int) -> tuple[Rows, Rows]:
    """Training and test rows, a fifth of the pairs (or of the rows) of every language held out."""
    train, test = [], []
    for language in dict.fromkeys(found.frame["language"]):
        rows = found.of(language)
        groups = found.frame["pair"].to_numpy()[rows] if novelty is Novelty.PAIR else rows
        splitter = GroupShuffleSplit(1, test_size=TEST_SHARE, random_state=seed)
        inside, outside = next(splitter.split(rows, groups=groups))
        train.append(rows[inside])
        test.append(rows[outside])
    return np.concatenate(train), np.concatenate(test)


def pair_rates(found: Sentences, train: Rows, rows: Rows, strength: float = 5.0) -> NDArray:
    """The sharper co-occurrence baseline: (k + a π)/(n + a), the pair's rate among its n training
    sentences shrunk towards its language's rate π.
    """
    frame = found.frame
    known = frame.iloc[train].groupby(["language", "pair"])["generalizing"].agg(["sum", "count"])
    prior = frame.iloc[train].groupby("language")["generalizing"].mean()
    asked = frame.iloc[rows]
    counts = known.reindex(pd.MultiIndex.from_frame(asked[["language", "pair"]])).fillna(0.0)
    pi = prior.reindex(asked["language"]).to_numpy()
    k, n = counts["sum"].to_numpy(), counts["count"].to_numpy()
    return (k + strength * pi) / (n + strength)


def generalization_rates(found: Sentences, by: str, fewest: int = FEWEST) -> dict[str, Reading]:
    """Share of generalizing sentences by "language", "identity" or "attribute" (within a language),
    with Wilson intervals, of groups of at least so many sentences.
    """
    keys = ["language"] if by == "language" else ["language", by]
    counts = found.frame.groupby(keys)["generalizing"].agg(["sum", "count"])
    counts = counts[counts["count"] >= fewest]
    return {
        " ".join(map(str, name if isinstance(name, tuple) else (name,))): stats.proportion(
            float(row["sum"]), int(row["count"])
        )
        for name, row in counts.iterrows()
    }


@dataclass(frozen=True)
class GeniL:
    """Sentences as hashed parts of words, 512 numbers, with the class: generalizing or not, or with
    `three_classes` non-generalizing, mentioning and promoting. `novelty` says what of the test part
    is new; `held_out` leaves a language out of training instead.
    """

    languages: tuple[str, ...] = LANGUAGES
    three_classes: bool = False
    novelty: Novelty = Novelty.PAIR
    held_out: str | None = None
    read: Maker = genil_frame

    def __post_init__(self) -> None:
        if self.held_out is not None and self.held_out not in self.languages:
            raise InvalidConfig(
                f"held_out={self.held_out} is not among the languages.",
                why=f"they are {', '.join(self.languages)}.",
                fix="hold out one of these.",
            )

    def build(self, lab: Lab) -> Task:
        found = read_sentences(self.languages, self.read)
        y = found.classes if self.three_classes else found.generalizing
        if self.held_out is None:
            seed = int(lab.child("split").numpy().integers(2**31))
            train, test = split_sentences(found, self.novelty, seed)
            at, axis = None, Axis.IID if self.novelty is Novelty.SENTENCE else Axis.COMPOSITION
        else:
            is_out = found.frame["language"].to_numpy() == self.held_out
            train, test = np.flatnonzero(~is_out), np.flatnonzero(is_out)
            at, axis = self.held_out, Axis.DOMAIN
        names = sorted(set(self.languages))
        language = np.array([names.index(one) for one in found.frame["language"]])

        def columns(rows: Rows) -> Columns:
            rows = rows[y[rows] >= 0]
            return Columns(
                x=torch.from_numpy(hash_sentences(found.frame["sentence"].iloc[rows])),
                y=torch.from_numpy(y[rows]),
                index=torch.from_numpy(rows),
                language=torch.from_numpy(language[rows]),
            )

        elsewhere = None if at is None else "other languages"
        return Task(
            name="genil",
            axis=axis,
            objective=classify,
            splits={
                "train": Split(columns(train), Use.TRAIN, at=elsewhere),
                "test": Split(columns(test), Use.EVALUATE, at=at),
            },
        )


def hash_sentences(sentences: Sequence[str] | pd.Series) -> NDArray[np.float32]:
    """Parts of words of two to four letters, hashed; rows of length about 1."""
    vectorizer = HashingVectorizer(
        analyzer="char_wb", ngram_range=(2, 4), n_features=HASHES, alternate_sign=True
    )
    return vectorizer.transform(sentences).toarray().astype(np.float32)


def synthetic_sentences(language: str) -> pd.DataFrame:
    """160 made-up rows a language with the columns of the released ones and harmless words, for
    examples where the files are absent. Not data.
    """
    rng = np.random.default_rng(LANGUAGES.index(language))
    n = 160
    identity = np.array([f"{language}-town{k}" for k in range(8)])[rng.integers(0, 8, n)]
    attribute = np.array([f"{language}-trait{k}" for k in range(5)])[rng.integers(0, 5, n)]
    generalizing = (rng.random(n) < 0.25).astype(int)
    promoting = generalizing * (rng.random(n) < 0.6)
    fill = [f"{language}word{k}" for k in range(30)]
    sentences = []
    for k in range(n):
        words = list(rng.choice(fill, rng.integers(4, 9)))
        words += [identity[k], attribute[k]]
        if generalizing[k] and rng.random() < 0.8:
            words.append(f"{language}always")
        words.append(f"n{k}")  # no two are the same
        sentences.append(" ".join(words))
    return pd.DataFrame(
        {
            "sentence": sentences,
            "generalizing": generalizing,
            "promoting": promoting.astype(float),
            "identity": identity,
            "attribute": attribute,
        }
    )


def example() -> GeniL:
    """On made-up sentences: the data are not part of the package."""
    return GeniL(languages=("en", "fr"), read=synthetic_sentences)
