"""The candidate filter against its formula in a loop over words."""

from collections import Counter
from math import log

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some

from unseen.attributions.influence.bm25 import candidates
from unseen.engine.batches import Columns
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.objectives import next_token
from unseen.task import Axis, Split, Task, Use
from unseen.tasks.text_corpus import TextCorpus
from unseen.testing.stand_ins import small_task

rows = some.lists(some.lists(some.integers(0, 9), min_size=1, max_size=8), min_size=1, max_size=12)


def columns(lists) -> Columns:
    width = max(map(len, lists))
    tokens = torch.zeros(len(lists), width, dtype=torch.int64)
    real = torch.zeros(len(lists), width, dtype=torch.bool)
    for k, one in enumerate(lists):
        tokens[k, : len(one)], real[k, : len(one)] = torch.tensor(one), True
    return Columns(tokens=tokens, attention_mask=real)


def task_of(lists) -> Task:
    data = Split(columns(lists), Use.TRAIN)
    return Task(name="words", axis=Axis.IID, splits={"train": data}, objective=next_token)


def by_definition(query, corpus, k=1.5):
    n = {t: sum(t in one for one in corpus) for t in set(query)}
    return [
        sum(
            (k + 1) * count[t] / (k + count[t]) * log((len(corpus) + 1) / (n[t] + 0.5))
            for t in set(query)
        )
        for count in map(Counter, corpus)
    ]


@given(queries=rows, corpus=rows, m=some.integers(1, 15), size=some.integers(1, 5))
def test_scores_are_the_formula_and_the_best_are_kept(queries, corpus, m, size):
    found = candidates(columns(queries).columns, task_of(corpus), m, Lab(), batch_size=size)
    kept = min(m, len(corpus))
    assert found.index.shape == (len(queries), kept)
    for q, query in enumerate(queries):
        wanted = torch.tensor(by_definition(query, corpus), dtype=torch.float64)
        assert torch.allclose(
            found.scores[q], wanted.sort(descending=True).values[:kept], atol=1e-12
        )
        assert torch.allclose(wanted[found.index[q]], found.scores[q], atol=1e-12)
    assert found.union.tolist() == sorted(set(found.index.flatten().tolist()))


def test_a_stream_gives_the_same(tmp_path):
    (tmp_path / "a.txt").write_text("to be or not to be " * 40 + "zebra " * 9)
    query = {"tokens": torch.tensor([list(b"zebra")])}
    both = [
        candidates(
            query,
            TextCorpus((str(tmp_path / "a.txt"),), length=16, folder=folder).build(Lab()),
            3,
            Lab(),
            size,
        )
        for folder, size in (("", 4), (str(tmp_path / "kept"), 256))
    ]
    assert torch.equal(both[0].index, both[1].index)
    assert torch.equal(both[0].scores, both[1].scores)
    assert both[0].index[0].min() > 40  # the zebras come last


def test_refusals():
    with pytest.raises(InvalidConfig, match="candidates=0"):
        candidates(columns([[1]]).columns, task_of([[1]]), 0, Lab())
    with pytest.raises(InvalidData, match="by tokens"):
        candidates({"x": torch.zeros(1, 4)}, small_task(), 3, Lab())
