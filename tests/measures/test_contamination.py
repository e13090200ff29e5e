"""Runs of words against a search by hand."""

import numpy as np
import pytest

from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.measures.contamination import Contamination, TextSets


def shares_a_run(text, other, n):
    a, b = text.split(), other.split()
    n = min(n, len(a))
    if len(a) < n or len(b) < n:
        return False
    return any(a[i : i + n] == b[j : j + n] for i in range(len(a) - n + 1)
               for j in range(len(b) - n + 1))  # fmt: skip


def test_long_texts_agree_with_a_search_by_hand():
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(list("abcdef"), size=rng.integers(4, 9))) for _ in range(80)]
    test, corpus = texts[:40], texts[40:]
    found = Contamination(4)(TextSets(test, corpus), Lab())
    by_hand = [any(shares_a_run(one, other, 4) for other in corpus) for one in test]
    assert found.detail.tolist() == [float(hit) for hit in by_hand]
    assert 0 < found.value < 1


def test_a_short_text_counts_only_where_it_stands_whole():
    corpus = ["The capital of France is Paris.", "Berlin"]
    found = Contamination()(TextSets(["berlin!", "Paris", "capital of France"], corpus), Lab())
    assert found.detail.tolist() == [1, 0, 0]


def test_order_and_repeats_of_the_corpus_do_not_matter():
    test, corpus = ["a b c d", "x y z w"], ["q a b c", "r s t u"]
    one = Contamination(3)(TextSets(test, corpus), Lab())
    other = Contamination(3)(TextSets(test, [*corpus[::-1], *corpus]), Lab())
    assert one.value == other.value == 0.5


def test_an_empty_test_and_empty_runs_are_refused():
    with pytest.raises(InvalidData):
        Contamination()(TextSets([], ["a"]), Lab())
    with pytest.raises(InvalidConfig):
        Contamination(0)


def test_texts_of_signs_alone_are_told_apart():
    found = Contamination()(TextSets(["+ +", "🙂\n!"], ["- -", "? ?", "🙂 !"]), Lab())
    assert found.detail.tolist() == [0, 1]
