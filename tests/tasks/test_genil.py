"""GeniL: each sentence once, pairs on one side, counts of the release, and what is refused."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score

from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.measures.average_precision import average_precision
from unseen.tasks.genil import (
    LANGUAGES,
    GeniL,
    Novelty,
    generalization_rates,
    genil_frame,
    pair_rates,
    read_sentences,
    split_sentences,
    synthetic_sentences,
)

COUNTS = {
    "ar": (4803, 246, 111), "bn": (4941, 430, 252), "en": (11422, 874, 688),
    "es": (4965, 174, 98), "fr": (4875, 391, 278), "hi": (4993, 95, 63),
    "id": (4905, 121, 85), "ms": (4969, 385, 186), "pt": (4965, 266, 189),
}  # fmt: skip
FOLDER = Path(os.environ.get("UNSEEN_DATA", "")) / "genil"
needs_data = pytest.mark.skipif(not FOLDER.is_dir(), reason="GeniL is not in UNSEEN_DATA")


def few(language: str) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "sentence": ["a b", "c d", "a b", "e f"],
            "generalizing": [1, 0, 0, 1],
            "promoting": [1.0, 0.0, 0.0, np.nan],
            "identity": ["a", "c", "a", "e"],
            "attribute": ["b", "d", "b", "f"],
        }
    )


def test_a_sentence_counts_once_and_conflicts_are_counted():
    found = read_sentences(("en",), few)
    assert (len(found.frame), found.repeated, found.conflicting) == (3, 1, 1)
    assert found.generalizing.tolist() == [1, 0, 1]
    # promoting is not known of the last: neither mentioning nor promoting
    assert found.classes.tolist() == [2, 0, -1]


@pytest.mark.parametrize("seed", [0, 1])
def test_no_pair_is_on_both_sides(seed):
    found = read_sentences(("en", "fr"), synthetic_sentences)
    train, test = split_sentences(found, Novelty.PAIR, seed)
    pairs = [
        set(map(tuple, found.frame[["language", "pair"]].to_numpy()[r])) for r in (train, test)
    ]
    assert not pairs[0] & pairs[1]
    assert sorted([*train, *test]) == list(range(len(found.frame)))
    train, test = split_sentences(found, Novelty.SENTENCE, seed)
    assert set(found.frame["language"].iloc[test]) == {"en", "fr"}


def test_the_rate_of_a_pair_is_shrunk_to_that_of_its_language():
    found = read_sentences(("en",), few)
    # one of two training sentences generalizes; the pair (a, b) has one of one
    rates = pair_rates(found, np.array([0, 1]), np.array([0, 2]))
    assert rates == pytest.approx([(1 + 5 * 0.5) / 6, 0.5])


def test_rates_are_those_of_groups_with_enough_sentences():
    found = read_sentences(("en", "fr"), synthetic_sentences)
    assert generalization_rates(found, "language")["en"].n == 160
    assert all(one.n >= 20 for one in generalization_rates(found, "identity").values())
    assert generalization_rates(found, "identity", fewest=200) == {}


def test_bad_rows_are_refused():
    with pytest.raises(InvalidConfig, match="pt") as caught:
        genil_frame("de")
    assert all(one in str(caught.value) for one in LANGUAGES)
    assert isinstance(caught.value, ValueError)
    with pytest.raises(InvalidData, match="1 sentences of `en` are empty, the first in row 1"):
        read_sentences(("en",), lambda _: few("en").assign(sentence=["a", " ", "c", "d"]))
    with pytest.raises(InvalidData, match="2 rows of `en` promote"):
        read_sentences(("en",), lambda _: few("en").assign(promoting=1.0))
    with pytest.raises(InvalidConfig, match="held_out=hi"):
        GeniL(languages=("en", "fr"), held_out="hi")


def test_a_language_is_held_out_or_three_classes_are_told_apart():
    given = {"languages": ("en", "fr"), "read": synthetic_sentences}
    task = GeniL(held_out="fr", **given).build(Lab())
    assert set(task.splits["test"].data.columns["language"].tolist()) == {1}
    assert set(task.splits["train"].data.columns["language"].tolist()) == {0}
    task = GeniL(three_classes=True, **given).build(Lab())
    assert set(task.splits["train"].data.columns["y"].tolist()) == {0, 1, 2}


@needs_data
def test_counts_are_those_of_the_release():
    assert sum(n for n, _, _ in COUNTS.values()) == 50_838
    for language, counts in COUNTS.items():
        frame = genil_frame(language)
        promoting = int((frame["promoting"] == 1).sum())
        assert (len(frame), int(frame["generalizing"].sum()), promoting) == counts
    frame = genil_frame("en")
    assert int(frame["promoting"].isna().sum()) == 1_132
    found = read_sentences(("en",))
    assert found.repeated == 1_012


@needs_data
def test_a_constant_score_has_the_prevalence_on_the_test_part():
    found = read_sentences(("hi", "pt"))
    _, test = split_sentences(found, Novelty.PAIR, 0)
    y = found.generalizing[test]
    assert average_precision(np.zeros(len(y)), y) == pytest.approx(y.mean(), abs=1e-12)
    assert average_precision_score(y, np.zeros(len(y))) == pytest.approx(y.mean(), abs=1e-12)
