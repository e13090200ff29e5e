"""Instructions in two wordings: who has examples, what their order is, and that nothing else tells
the answers.
"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from properties import examples

from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.task import Use
from unseen.tasks.reversal import BOS, EOS, SPECIAL
from unseen.tasks.reversed_instructions import ReversedInstructions, Wording

specs = st.builds(
    ReversedInstructions,
    wording=st.sampled_from(Wording),
    realized=st.integers(2, 20),
    unrealized=st.integers(2, 8),
    words=st.integers(9, 15),
    slots=st.integers(2, 5),
)


def parts(spec, row):
    """(kind, template, question, answer) of one sentence, read off the ranges of its tokens."""
    start = SPECIAL + 2 * spec.words
    assert (row[0], row[-1], len(row)) == (BOS, EOS, 9)
    marks = [token for token in row if token >= start]
    question = tuple(token for token in row if SPECIAL <= token < SPECIAL + spec.words)
    answer = tuple(token for token in row if SPECIAL + spec.words <= token < start)
    assert (len(marks), len(question), len(answer)) == (2, 3, 2)
    first = "question" if row[2] in question else "answer"
    kind = "example" if marks[0] >= start + 2 * spec.slots else "instruction"
    return kind, first, tuple(marks), question, answer


def read(spec, task, name):
    return [parts(spec, row) for row in task.splits[name].data.columns["tokens"].tolist()]


@given(spec=specs, seed=st.integers(0, 99))
@examples(30)
def test_examples_are_of_realized_questions_and_instructions_of_all_in_one_order(spec, seed):
    task = spec.build(Lab(seed))
    train = read(spec, task, "train")
    instructed = {(q, a) for kind, _, _, q, a in train if kind == "instruction"}
    shown = {(q, a) for kind, _, _, q, a in train if kind == "example"}
    assert (len(instructed), len(shown)) == (spec.realized + spec.unrealized, spec.realized)
    first = "question" if spec.wording is Wording.QUESTION else "answer"
    assert {order for kind, order, *_ in train if kind == "instruction"} == {first}
    assert {order for kind, order, *_ in train if kind == "example"} == {"question"}
    realized, unrealized = (
        {(q, a) for *_, q, a in read(spec, task, name)} for name in ("realized", "unrealized")
    )
    assert realized == shown
    assert unrealized == instructed - shown
    assert len({q for q, _ in instructed}) == len({a for _, a in instructed}) == len(instructed)


@given(spec=specs, seed=st.integers(0, 99))
@examples(30)
def test_asked_wordings_are_new_their_tokens_known_and_wrong_answers_those_of_others(spec, seed):
    task = spec.build(Lab(seed))
    known = {marks for kind, _, marks, *_ in read(spec, task, "train") if kind == "example"}
    tokens = set(task.splits["train"].data.columns["tokens"].flatten().tolist())
    for name, split in task.of(Use.EVALUATE).items():
        rows = read(spec, task, name)
        assert {(kind, first) for kind, first, *_ in rows} == {("example", "question")}
        asked = {marks for _, _, marks, *_ in rows}
        assert len(asked) == spec.slots
        assert not asked & known
        columns = split.data.columns
        assert set(columns["tokens"].flatten().tolist()) <= tokens
        assert torch.equal(
            columns["tokens"][~columns["answer"]], columns["other"][~columns["answer"]]
        )
        right, wrong = (
            columns[key][columns["answer"]].view(-1, 2).tolist() for key in ("tokens", "other")
        )
        assert sorted(right) == sorted(wrong)
        assert all(a != b for a, b in zip(right, wrong, strict=True))


def test_the_two_wordings_ask_the_same_and_only_one_is_a_new_direction():
    tasks = [
        ReversedInstructions(wording, realized=10, unrealized=4).build(Lab()) for wording in Wording
    ]
    assert [list(task.unseen) for task in tasks] == [[], ["unrealized"]]
    for name in ("realized", "unrealized"):
        one, two = (task.splits[name].data.columns for task in tasks)
        assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("bad", [{"realized": 1}, {"unrealized": 1}, {"slots": 1}, {"words": 9}])
def test_impossible_sizes_are_refused(bad):
    with pytest.raises(InvalidConfig, match="ReversedInstructions"):
        ReversedInstructions(**bad)
