"""Estimators of authors: Delta against faststylometry, exact credits, a contrastive head."""

import math
import sys
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone

from unseen.document import Document, Section
from unseen.errors import InvalidData
from unseen.models.author_explanations import credit_bars, mark_text
from unseen.models.author_features import (
    FUNCTION_WORDS,
    STYLE_NAMES,
    as_texts,
    style_features,
    words_of,
    yules_k,
)
from unseen.models.burrows_delta import BurrowsDelta, frequent_words
from unseen.models.contrastive_author import ContrastiveAuthor, contrastive_loss
from unseen.models.linear_author import CharNgram, Stylometry
from unseen.report.html import html

NOUNS = ("river", "house", "garden", "letter", "winter", "mother", "ship", "road", "market")


def write_text(author: int, rng: np.random.Generator, words: int = 150) -> str:
    """Random nouns between function words that the authors use at different rates."""
    links = (("upon", "whilst", "there"), ("on", "while", "here"), ("by", "though", "such"))
    p = np.full(3, 0.1)
    p[author] = 0.8
    found = []
    for k in range(words):
        pool = NOUNS if k % 2 else links[rng.choice(3, p=p)]
        found.append(str(rng.choice(pool)))
    return " ".join(found) + "."


@pytest.fixture(scope="module")
def corpus():
    rng = np.random.default_rng(0)
    authors = np.repeat(["Ann", "Bob", "Cyd"], 8)
    texts = [write_text("ABC".index(name[0]), rng) for name in authors]
    return texts, authors


ESTIMATORS = {
    "BurrowsDelta": lambda: BurrowsDelta(words=30),
    "cosine Delta": lambda: BurrowsDelta(words=30, cosine=True),
    "Stylometry": Stylometry,
    "CharNgram": CharNgram,
    "ContrastiveAuthor": lambda: ContrastiveAuthor(dimensions=8, steps=60),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_authors_are_told_apart_in_new_texts(name, corpus):
    texts, authors = corpus
    estimator = clone(ESTIMATORS[name]()).fit(texts, authors)
    rng = np.random.default_rng(1)
    new = [write_text(k % 3, rng) for k in range(15)]
    truth = np.array(["Ann", "Bob", "Cyd"])[np.arange(15) % 3]
    p = estimator.predict_proba(new)
    assert p.shape == (15, 3)
    np.testing.assert_allclose(p.sum(1), 1)
    assert (estimator.predict(new) == truth).mean() > 0.9
    assert (estimator.classes_[p.argmax(1)] == estimator.predict(new)).all()


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_list_a_series_and_a_table_of_one_column_are_the_same(name, corpus):
    texts, authors = corpus
    fitted = ESTIMATORS[name]().fit(pd.DataFrame({"note": texts}), pd.Series(authors))
    expected = ESTIMATORS[name]().fit(texts, list(authors)).predict_proba(texts[:3])
    np.testing.assert_allclose(fitted.predict_proba(pd.Series(texts[:3])), expected)
    np.testing.assert_allclose(fitted.predict_proba(np.array(texts[:3])), expected)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_one_author_and_empty_texts_are_refused(name, corpus):
    texts, _ = corpus
    with pytest.raises(InvalidData, match="author"):
        ESTIMATORS[name]().fit(texts, ["Ann"] * len(texts))
    with pytest.raises(InvalidData, match="2 of 3 texts are empty"):
        ESTIMATORS[name]().fit(["a", " ", None], ["Ann", "Bob", "Bob"])


def fast_stylometry(monkeypatch):
    """The published package, which downloads its examples with `wget`: replaced by a stub."""
    monkeypatch.setitem(sys.modules, "wget", ModuleType("wget"))
    return pytest.importorskip("faststylometry")


def test_delta_equals_faststylometry_on_books_of_three_authors(monkeypatch, corpus):
    peer = fast_stylometry(monkeypatch)
    texts, authors = corpus
    train, test = peer.Corpus(), peer.Corpus()
    for k, (text, author) in enumerate(zip(texts, authors, strict=True)):
        train.add_book(author, str(k), text)
    rng = np.random.default_rng(2)
    new = [write_text(k, rng) for k in range(3)]
    for k, text in enumerate(new):
        test.add_book("unknown", str(k), text)
    train.tokenise(words_of)
    test.tokenise(words_of)
    expected = peer.calculate_burrows_delta(train, test, vocab_size=20)
    found = BurrowsDelta(words=20, over_profiles=True).fit(texts, authors)
    np.testing.assert_allclose(found.deltas(new), expected.to_numpy().T, atol=1e-6, rtol=1e-6)
    assert list(expected.index) == list(found.classes_)


def test_the_temperature_reads_each_text_against_profiles_without_itself(corpus):
    texts, authors = corpus
    rng = np.random.default_rng(3)
    shuffled = rng.permutation(authors)
    # labels that say nothing: probabilities near 1/3, though every profile holds its own texts
    p = BurrowsDelta(words=30).fit(texts, shuffled).predict_proba(texts)
    assert p.max(1).mean() < 0.5


def test_words_of_equal_frequency_keep_their_order():
    assert frequent_words([["b1", "bb", "aa", "cc", "cc"]], 3) == ["cc", "bb", "aa"]
    with pytest.raises(InvalidData, match="no word"):
        frequent_words([["слово"]], 3)


def test_yules_k_of_a_sentence_counted_by_hand():
    # "the cat saw the dog and the cat ran": the 3, cat 2, four words once; N = 9
    counts = [3, 2, 1, 1, 1, 1]
    assert yules_k(counts) == pytest.approx(1e4 * (9 + 4 + 4 - 9) / 81)
    text = "The cat saw the dog and the cat ran."
    features = dict(zip(STYLE_NAMES, style_features(text), strict=True))
    assert features["Yule's K"] == pytest.approx(yules_k(counts))
    assert features["the"] == pytest.approx(3 / 9)
    assert features["sentence length"] == 9
    assert features["hapax rate"] == pytest.approx(4 / 9)
    assert features["“.”"] == pytest.approx(1 / len(text))
    assert len(set(FUNCTION_WORDS)) == len(FUNCTION_WORDS) >= 150


@pytest.mark.parametrize("kind", [Stylometry, CharNgram])
@pytest.mark.parametrize("authors", [2, 3])
def test_credits_sum_to_the_logit_minus_the_mean_logit(kind, authors, corpus):
    texts, names = corpus
    chosen = np.flatnonzero(np.isin(names, ["Ann", "Bob", "Cyd"][:authors]))
    texts, names = [texts[k] for k in chosen], names[chosen]
    fitted = kind().fit(texts, names)
    for author in fitted.classes_:
        found = fitted.explain(texts[0], author)
        assert found.credits.sum() == pytest.approx(found.logit - found.mean_logit)
        logits = fitted.decision_function(texts)
        column = (
            logits * (1 if author == fitted.classes_[1] else -1)
            if authors == 2
            else logits[:, list(fitted.classes_).index(author)]
        )
        assert found.logit == pytest.approx(column[0])
        assert found.mean_logit == pytest.approx(column.mean())
    assert len(found.names) == len(found.credits)
    assert abs(found.top(3)[0][1]) >= abs(found.top(3)[2][1])
    assert fitted.explain(texts[0]).logit == pytest.approx(
        logits[0] if authors == 2 else logits[0].max()
    )


def test_the_words_that_differ_get_the_credit(corpus):
    texts, names = corpus
    found = Stylometry().fit(texts, names).explain(texts[0], "Ann")
    assert {name for name, _ in found.top(9)} & {"upon", "whilst", "there"}


def test_contrastive_loss_equals_a_loop():
    z = torch.nn.functional.normalize(
        torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), dim=1
    )
    authors, tau, terms = torch.tensor([0, 0, 1, 1, 2]), 0.1, []
    for i in range(4):  # the fifth text has no other of its author
        others = [j for j in range(5) if j != i]
        norm = math.log(sum(math.exp(float(z[i] @ z[k]) / tau) for k in others))
        same = [j for j in others if authors[j] == authors[i]]
        terms.append(-np.mean([float(z[i] @ z[j]) / tau - norm for j in same]))
    assert float(contrastive_loss(z, authors, tau)) == pytest.approx(np.mean(terms))


def test_similarity_verifies_authors_that_were_never_seen(corpus):
    texts, names = corpus
    known = np.isin(names, ["Ann", "Bob"])
    fitted = ContrastiveAuthor(dimensions=8, steps=60).fit(
        [t for t, k in zip(texts, known, strict=True) if k], names[known]
    )
    unseen = [t for t, k in zip(texts, known, strict=True) if not k]
    other = [t for t, name in zip(texts, names, strict=True) if name == "Ann"]
    same = fitted.similarity(unseen[:4], unseen[4:]).mean()
    assert same > fitted.similarity(unseen[:4], other[:4]).mean()


def test_a_frozen_encoder_gives_the_vectors(corpus):
    texts, names = corpus

    def embed(given):
        return np.array([[text.count(word) for word in ("upon", "on", "by")] for text in given])

    fitted = ContrastiveAuthor(embed=embed, steps=60).fit(texts, names)
    assert (fitted.predict(texts) == names).mean() > 0.9


def test_tables_with_two_columns_are_refused():
    with pytest.raises(InvalidData, match="shape"):
        as_texts(np.array([["a", "b"], ["c", "d"]], dtype=object))


def test_the_credits_of_present_n_grams_stand_on_the_words_of_the_text(corpus):
    texts, names = corpus
    fitted = CharNgram().fit(texts, names)
    text = texts[0][:80] + "\n\n  " + texts[1][:40]
    found = mark_text(fitted, text, "Ann")
    assert "".join(found.pieces) == text
    credits = fitted.explain(text, "Ann")
    present = fitted.vectorizer_.transform([text]).toarray()[0] > 0
    assert sum(found.weights) == pytest.approx(credits.credits[present].sum())


def test_explanations_are_drawn_in_a_report(corpus):
    texts, names = corpus
    credits = Stylometry().fit(texts, names).explain(texts[0], "Ann")
    bars = credit_bars(credits, 5)
    assert dict(bars.values) == dict(credits.top(5))
    text = mark_text(CharNgram().fit(texts, names), texts[0], "Ann")
    page = html(Document(title="Why Ann", sections=[Section("Features", [bars, text])]))
    assert "<svg" in page
    assert "logits" in page
