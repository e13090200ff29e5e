"""Texts with authors: passages, common beginnings, masks; no book or source on two sides."""

import os
from collections import defaultdict
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.studies.authorship.corpora import invent_novels, invent_pairs
from unseen.tasks.authorship import Authorship, GeneratedText, count_ngrams
from unseen.tasks.authorship.corpora import (
    FILES,
    GENERATORS,
    answers,
    essays,
    federalist_papers,
    machine_pairs,
    news,
    novels,
)
from unseen.tasks.authorship.passages import (
    Pair,
    Passage,
    count_frequent,
    cut_passages,
    mask_topics,
    split_groups,
)

LOCAL = Path(os.environ.get("UNSEEN_DATA", "/nonexistent"))
local = pytest.mark.skipif(
    not (LOCAL / "fast-detect-gpt").is_dir(), reason="UNSEEN_DATA has no texts"
)


def test_the_common_beginning_ends_with_a_whole_word():
    pair = Pair("One  two three four.", "One two thirty more words", "d", "g")
    assert pair.machine[: pair.prefix] == "One two"
    assert pair.tails() == ("three four.", "thirty more")
    assert Pair("a b", "c d", "d", "g").prefix == 0


@given(words=st.integers(1, 9), most=st.integers(0, 4), n=st.integers(0, 40))
def test_passages_are_pieces_of_the_text_with_equally_many_words(words, most, n):
    text = " ".join(f"w{k}," for k in range(n))
    found = cut_passages(text, "A", "A b", words=words, most=most)
    assert len(found) == (min(n // words, most) if most else n // words)
    assert all(one.text in text and one.text.count("w") == words for one in found)
    assert len({one.text for one in found}) == len(found)


def test_names_and_rare_words_are_masked_and_rhythm_stays():
    passages = [Passage("The dog saw Rover, and the dog ran. The end.", "A", "b")]
    frequent = count_frequent([*passages, Passage("rover rover rover", "A", "c")], 4)
    assert set(frequent) == {"the", "rover", "dog", "saw"}
    assert mask_topics(passages, frequent)[0].text == "The dog saw *, * the dog *. The *."


@given(n=st.integers(2, 30), share=st.floats(0.1, 0.9), seed=st.integers(0, 99))
def test_groups_stand_on_one_side(n, share, seed):
    groups = [str(k % n) for k in range(3 * n)]
    order = torch.randperm(n, generator=Lab(seed).generator()).tolist()
    if not 0 < round(share * n) < n:
        with pytest.raises(InvalidData, match="both sides"):
            split_groups(groups, share, order)
        return
    assert len(split_groups(groups, share, order)) == round(share * n)


def test_a_wrong_order_and_passages_without_words_are_refused():
    with pytest.raises(InvalidConfig, match="order of 1"):
        split_groups(["a", "b"], 0.5, [0])
    with pytest.raises(InvalidConfig, match="0 words"):
        cut_passages("a", "A", "b", words=0)


@pytest.mark.parametrize("seed", [0, 1])
def test_no_book_of_the_unseen_split_is_trained_on(seed):
    passages = invent_novels()
    task = Authorship(features=64, read=lambda: passages).build(Lab(seed))
    rows = {name: split.data.columns["x"] for name, split in task.splits.items()}
    x = count_ngrams([one.text for one in passages], 64)
    books = defaultdict(set)
    for name, found in rows.items():
        for row in found:
            books[name].add(passages[int((x - row).abs().sum(1).argmin())].group)
    assert not books["unseen"] & (books["train"] | books["seen"])
    assert len(books["unseen"]) == 3
    assert sum(map(len, rows.values())) == len(passages)


def test_no_source_of_an_evaluated_pair_is_trained_on():
    task = GeneratedText(features=64, generators=("gpt2-xl",), read=invent_pairs).build(Lab())
    assert set(task.splits) == {"train", "seen", "gpt2-xl"}
    assert set(task.unseen) == {"gpt2-xl"}
    human = {
        name: {tuple(x.tolist()) for x in s.data.columns["x"][s.data.columns["y"] == 0]}
        for name, s in task.splits.items()
    }
    assert not human["train"] & (human["seen"] | human["gpt2-xl"])
    norms = task.splits["train"].data.columns["x"].norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms))


def test_one_book_of_each_author_is_refused():
    passages = [Passage("some words", author, author) for author in "AB"]
    with pytest.raises(InvalidData, match="0 of 2 authors have two books"):
        Authorship(read=lambda: passages).build(Lab())


def test_generators_that_are_not_there_are_named():
    assert len(FILES) == 24
    assert len(GENERATORS) == 8
    with pytest.raises(InvalidConfig, match="no pairs of gpt-9"):
        machine_pairs("xsum", "gpt-9")


@local
def test_the_published_texts_have_their_counts():
    assert len({one.group for one in novels()}) == 26
    assert len({one.author for one in novels()}) == 11
    assert (len(news()), len({one.author for one in news()})) == (1_500, 15)
    papers = federalist_papers()
    assert sum(one.disputed for one in papers) == 12
    assert sum(one.author == "Hamilton" for one in papers) == 51
    assert len(essays()) == 168
    assert len(answers()) == 2 * 817
    pairs = machine_pairs("xsum", "gpt-4")
    lengths = sorted(len(one.machine[: one.prefix].split()) for one in pairs)
    assert (len(pairs), 22 <= lengths[75] <= 25) == (150, True)
    both = {one.source for one in pairs} & {p.source for p in machine_pairs("xsum", "gpt2-xl")}
    assert len(both) > 100  # files of a domain share their human texts
