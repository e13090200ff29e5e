"""Items as a task: splits by hardness, and the likelihood of a choice."""

import pytest
import torch
from torch import nn

from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.task import Use
from unseen.tasks.graded_questions import (
    Bigrams,
    GradedQuestions,
    Item,
    Stratum,
    choice_log_probability,
    right_choice_first,
    sums,
    token_columns,
)
from unseen.tasks.text_corpus import utf8_bytes


def test_training_items_are_of_one_stratum_and_never_evaluated():
    task = GradedQuestions(sums(), "grade", n=8, cuts=(4, 7)).build(Lab(seed=1))
    assert len(task.splits["train"].data) == 8
    assert set(task.of(Use.EVALUATE)) == {"easy", "medium", "hard"}
    assert set(task.unseen) == {"medium", "hard"}
    hard = GradedQuestions(sums(), "grade", Stratum.HARD, 8, cuts=(4, 7)).build(Lab(seed=1))
    assert set(hard.unseen) == {"easy", "medium"}


def test_too_few_items_are_refused_with_both_numbers():
    with pytest.raises(InvalidData, match=r"10 items are easy, 11 were asked for"):
        GradedQuestions(sums(), "grade", n=11, cuts=(4, 7)).build(Lab())


def test_a_choice_has_the_probability_of_its_tokens_after_the_prompt():
    """With logits that depend on the last token alone, by hand."""
    model = Bigrams(3)
    with torch.no_grad():
        model.table.weight.copy_(torch.tensor([[0.0, 1, 2], [3, 1, 0], [0, 0, 1]]))
    log_p = model.table.weight.log_softmax(1)

    def encode(text):
        return ["abc".index(letter) for letter in text]

    items = [Item("ab", ("ca", "a", "bb"), 1, template="{question} "[:-1])]
    batch = token_columns(items, lambda text: encode(text.replace(" ", "")))[[0]]
    found = choice_log_probability(model, batch)[0]
    expected = [log_p[1, 2] + log_p[2, 0], log_p[1, 0], log_p[1, 1] + log_p[1, 1]]
    assert torch.allclose(found, torch.stack(expected))
    assert right_choice_first(model, batch).item() == 1


def test_a_token_across_the_join_belongs_to_the_choice():
    def encode(text):  # a tokenizer that merges the end of the prompt with the space
        return list(text.replace(": ", "§").encode("latin-1"))

    columns = token_columns([Item("q", ("a", "b"), 0)], encode)
    assert columns[[0]]["asked"][0].sum(1).tolist() == [2, 2]
    bytes_ = token_columns([Item("q", ("a", "b"), 0)], utf8_bytes)
    assert bytes_[[0]]["asked"][0].sum(1).tolist() == [2, 2]


def test_a_missing_choice_is_never_the_answer():
    items = [Item("a?", ("x", "y"), 1), Item("b?", ("x", "y", "z"), 2)]
    batch = token_columns(items, utf8_bytes)[[0, 1]]

    class Even(nn.Module):
        def forward(self, tokens):
            return torch.zeros(*tokens.shape, 256)

    scores = choice_log_probability(Even(), batch)
    assert scores[0, 2] == -torch.inf
    assert scores[1].isfinite().all()


def test_repeats_are_left_out():
    task = GradedQuestions((*sums(), *sums()), "grade", n=8, cuts=(4, 7)).build(Lab())
    assert sum(len(split.data) for split in task.splits.values()) == len(sums())
