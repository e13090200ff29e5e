"""The study of generalizing language: regimes, baselines and classes on made-up sentences."""

import numpy as np
import pytest

from unseen.studies.genil import Config, counts, evaluate, monolingual, over_languages, sentences
from unseen.tasks.genil import Novelty, split_sentences, synthetic_sentences

TINY = Config(languages=("en", "fr"), read=synthetic_sentences, least=(1, 1), embedder="tfidf")


def test_rows_stand_beside_the_prevalence(smoke_runs):
    rows = smoke_runs.rows("genil")
    constant = [row for row in rows if row.get("regime") == "co-occurrence"]
    assert constant
    for row in constant:
        assert row["excess"] == pytest.approx(0, abs=1e-12)
        assert row["ap"] == pytest.approx(row["positive"] / row["n"])
    assert {row["class"] for row in rows if "class" in row} == {"mentioning", "promoting", "macro"}
    assert not any("town" in str(value) for row in rows for value in row.values())


def test_a_classifier_of_one_language_reads_its_own_rows_alone():
    found = sentences(TINY)
    train, test = split_sentences(found, Novelty.PAIR, 0)
    table, _ = counts(TINY)
    language, y = found.frame["language"].to_numpy(), found.generalizing
    scores = monolingual(
        ("en", "fr"), table[train], table[test], y[train], language[train], language[test]
    )
    other = np.where(language[train] == "fr", 1 - y[train], y[train])
    changed = monolingual(
        ("en", "fr"), table[train], table[test], other, language[train], language[test]
    )
    english = language[test] == "en"
    assert np.allclose(scores[english], changed[english])
    assert not np.allclose(scores[~english], changed[~english])


def test_a_language_without_a_positive_test_sentence_has_no_average_precision():
    y = np.array([0, 0, 1, 0])
    language = np.array(["hi", "hi", "pt", "pt"])
    with pytest.warns(UserWarning, match="undefined"):
        rows = list(evaluate("multilingual", Novelty.PAIR, np.arange(4.0), y, language, None))
    assert np.isnan({row["language"]: row["ap"] for row in rows}["hi"])
    zero_shot = [
        {"regime": "zero-shot from English", "language": name, "excess": value}
        for name, value in (("hi", float("nan")), ("pt", 0.2), ("es", 0.1))
    ]
    assert over_languages(zero_shot).n == 2
