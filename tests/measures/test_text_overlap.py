"""ROUGE-L is the library's; the best reference counts, and an empty text scores 0."""

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer

from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.measures.text_overlap import (
    Overlap,
    Text,
    TextOverlap,
    corpus_bleu,
    exact,
    is_read,
    rouge_l,
)

WORDS = [*"abcdefg", "cat", "cats", "sitting", "sat", "ran", "running", "7", "Yes"]


def draw_texts(n, seed):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=rng.integers(1, 12))) for _ in range(n)]


def test_rouge_l_equals_the_library_on_500_pairs():
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    for one, other in zip(draw_texts(500, 0), draw_texts(500, 1), strict=True):
        assert rouge_l(one, [other]) == pytest.approx(
            scorer.score(other, one)["rougeL"].fmeasure, abs=1e-9
        )


def longest_common(a, b):
    if not a or not b:
        return 0
    if a[0] == b[0]:
        return 1 + longest_common(a[1:], b[1:])
    return max(longest_common(a[1:], b), longest_common(a, b[1:]))


def test_rouge_l_is_the_f1_of_the_longest_common_subsequence():
    letters = [list(text) for text in ("abcab", "bca", "cab", "aa", "c")]
    for a in letters:
        for b in letters:
            common = longest_common(a, b)
            f1 = 2 * common / (len(a) + len(b))
            assert rouge_l(" ".join(a), [" ".join(b)]) == pytest.approx(f1)


def test_the_best_reference_counts_in_any_order():
    texts = draw_texts(8, 2)
    best = max(rouge_l(texts[0], [one]) for one in texts[1:])
    assert rouge_l(texts[0], texts[1:]) == rouge_l(texts[0], texts[:0:-1]) == best
    assert rouge_l("", texts) == 0


def test_exact_match_overlooks_case_and_white_space_only():
    assert exact(" The  Cat\n", ["a dog", "the cat"]) == 1
    assert exact("the cat.", ["the cat"]) == 0
    assert exact("", ["the cat"]) == 0


def test_the_mean_is_over_texts_and_keeps_every_value():
    texts = [Text("the cat", ("the cat",)), Text("a dog", ("the cat",))]
    for overlap in Overlap:
        found = TextOverlap(overlap)(texts, Lab())
        assert found.value == 0.5
        assert found.detail.tolist() == [1, 0]
        assert found.n == 2


def test_nothing_to_compare_with_is_refused():
    with pytest.raises(InvalidData):
        TextOverlap()([], Lab())
    for score in (rouge_l, exact):
        with pytest.raises(InvalidData, match="no reference"):
            score("a", [])


def test_bleu_counts_n_grams_of_all_texts_together():
    """Two texts by hand: 4-grams 1 of 2 + 0 of 1, and so on, and the brevity penalty."""
    texts = [
        Text("a b c d e", ("a b c d f", "x y")),
        Text("g h i j", ("g h i k l",)),
    ]
    matches, totals = (4 + 3, 3 + 2, 2 + 1, 1 + 0), (9, 7, 5, 3)
    precision = np.exp(np.mean([np.log(m / n) for m, n in zip(matches, totals, strict=True)]))
    brevity = np.exp(1 - 10 / 9)  # the closest references have 5 + 5 words
    assert corpus_bleu(texts) == pytest.approx(precision * brevity, rel=1e-9)
    assert corpus_bleu(texts[::-1]) == pytest.approx(corpus_bleu(texts), rel=1e-12)
    assert corpus_bleu([Text(one.references[0], one.references) for one in texts]) == (
        pytest.approx(1.0)
    )
    with pytest.raises(InvalidData, match="no texts"):
        corpus_bleu([])
    with pytest.raises(InvalidData, match="no reference"):
        corpus_bleu([Text("a", ())])


def test_letters_beyond_a_to_z_are_gaps_of_rouge():
    assert rouge_l("кошка", ["кошка"]) == 0
    assert exact("кошка", ["кошка"]) == 1
    assert [is_read(text) for text in ("a cat, 3.5", "кошка", "größe", "+")] == [
        True,
        False,
        False,
        False,
    ]
