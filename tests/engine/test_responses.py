"""Prompts and responses as tokens; the loss that reads the responses only."""

import pytest
import torch
from hypothesis import given
from hypothesis.strategies import integers, lists, text
from language import llama
from torch.testing import assert_close

from unseen.engine.batches import Columns
from unseen.engine.responses import (
    Exchange,
    encode_exchanges,
    parts_by_length,
    refuse_unsupervised,
    response_task,
)
from unseen.errors import InvalidConfig, InvalidData
from unseen.models.pretrained import load_causal
from unseen.models.response_loss import response_loss
from unseen.models.transformer import Decoder, Positions, Transformer
from unseen.objectives import IGNORED, next_token
from unseen.task import Axis, Split, Task, Use


def letters(line: str) -> list[int]:
    return [ord(letter) - 32 for letter in line]


def pairs(line: str) -> list[int]:
    """Two letters a token, so that a token can lie across the join."""
    return [hash_pair(line[k : k + 2]) for k in range(0, len(line), 2)]


def hash_pair(two: str) -> int:
    return sum(128**k * ord(letter) for k, letter in enumerate(two))


EXCHANGES = [
    Exchange("The capital of France is", " Paris"),
    Exchange("2+2=", "4"),
    Exchange("Say a long thing: ", "a quick brown fox"),
]


def decoder(**options) -> Transformer:
    torch.manual_seed(0)
    return Transformer(
        Decoder(vocabulary=96, width=16, heads=2, positions=Positions.ROTARY, **options)
    ).double()


def columns(end: int | None = 0) -> Columns:
    return encode_exchanges(EXCHANGES, letters, 64, end).columns


@pytest.mark.parametrize("tied", [True, False])
def test_the_loss_is_the_mean_token_loss_of_the_whole_logits(tied):
    model, batch = decoder(tied=tied), columns().columns
    found, expected = response_loss(model, batch), next_token.loss(model, batch)
    assert_close(found, expected)
    gradients = torch.autograd.grad(found.sum(), list(model.parameters()))
    for one, other in zip(
        gradients, torch.autograd.grad(expected.sum(), list(model.parameters())), strict=True
    ):
        assert_close(one, other)


def test_the_loss_of_a_transformers_model_is_that_of_its_whole_logits(tmp_path):
    model, batch = load_causal(llama(tmp_path)).eval(), columns().columns
    assert_close(response_loss(model, batch), next_token.loss(model, batch))


def test_a_model_whose_head_has_no_known_name_computes_all_logits():
    class Hidden(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = decoder()

        def forward(self, tokens):
            return self.inside(tokens)

    model, batch = Hidden(), columns().columns
    assert_close(response_loss(model, batch), next_token.loss(model, batch))


def test_labels_and_tokens_of_others_change_nothing():
    """Labels of prompt tokens are never read; neither are padding and the rest of the batch."""
    model, batch = decoder(), dict(columns().columns)
    before = response_loss(model, batch)
    noise = torch.randint(0, 96, batch["tokens"].shape, generator=torch.Generator().manual_seed(0))
    labels = torch.where(batch["mask"], batch["tokens"], noise)
    assert_close(response_loss(model, {**batch, "labels": labels}), before)
    padding = batch["mask"].flip(1).long().cummax(1).values.flip(1) == 0
    padding[:, 0] = False
    filled = torch.where(padding, noise, batch["tokens"])
    assert_close(response_loss(model, {**batch, "tokens": filled}), before)
    for k in range(3):
        alone = {name: x[k : k + 1] for name, x in batch.items()}
        assert_close(response_loss(model, alone), before[k : k + 1])


def test_an_ignored_label_is_not_supervised():
    model, batch = decoder(), columns().columns
    labels = torch.where(batch["mask"], batch["tokens"], IGNORED)
    whole = {"tokens": batch["tokens"], "mask": torch.ones_like(batch["mask"]), "labels": labels}
    assert_close(response_loss(model, whole), response_loss(model, batch))


def test_a_batch_without_a_supervised_token_has_loss_and_gradient_zero():
    model, batch = decoder(), columns().columns
    nothing = {**batch, "mask": torch.zeros_like(batch["mask"])}
    loss = response_loss(model, nothing)
    assert loss.tolist() == [0, 0, 0]
    gradient = torch.autograd.grad(loss.sum(), model.head.weight)[0]
    assert not gradient.any()


@given(prompt=text("abc", min_size=2, max_size=5), response=text("abc", min_size=1, max_size=5))
def test_tokens_are_those_of_the_joint_text(prompt, response):
    columns = encode_exchanges([Exchange(prompt, response)], pairs, 9).columns.columns
    assert columns["tokens"][0].tolist() == pairs(prompt + response)
    # what lies across the join is the response's
    assert int((~columns["mask"]).sum()) == len(prompt) // 2


@given(lengths=lists(integers(1, 30), min_size=1, max_size=12), most=integers(1, 100))
def test_parts_hold_every_example_once_within_the_limit(lengths, most):
    order = torch.arange(30)
    mask = order == torch.tensor(lengths)[:, None] - 1
    batch = {"tokens": torch.zeros(len(lengths), 30), "mask": mask, "id": torch.tensor(lengths)}
    parts = parts_by_length(batch, most)
    assert sorted(n for part in parts for n in part["id"].tolist()) == sorted(lengths)
    assert all(len(part["id"]) == 1 or len(part["id"]) * part["id"].max() <= most for part in parts)
    assert [n for part in parts for n in part["id"].tolist()] == sorted(lengths, reverse=True)


def test_the_prompt_is_cut_first_and_both_are_counted():
    data = encode_exchanges(
        [Exchange("abcdef", "xyz"), Exchange("ab", "xyz"), Exchange("a", "uvwxyz")], letters, 5
    )
    assert (data.prompts_cut, data.responses_cut) == (1, 1)
    tokens, mask = data.columns.columns["tokens"], data.columns.columns["mask"]
    assert tokens[0].tolist() == letters("efxyz")  # the end of the prompt is next to the response
    assert tokens[2].tolist() == letters("auvwx")
    assert mask.sum(1).tolist() == [3, 3, 4]
    assert (data.tokens, data.targets) == (15, 10)


def test_start_and_end_are_added_once():
    data = encode_exchanges([Exchange("ab", "c")], letters, 8, end=1, start=[2])
    assert data.columns.columns["tokens"].tolist() == [[2, *letters("abc"), 1]]
    assert data.columns.columns["mask"].tolist() == [[False, False, False, True, True]]


def test_what_cannot_be_learned_is_refused_with_its_number(caplog):
    with pytest.raises(InvalidData, match="Exchange 2 has an empty response"):
        encode_exchanges([Exchange("a", "b"), Exchange("a", "")], letters, 8)
    with pytest.raises(InvalidData, match="Exchange 1 has an empty prompt"):
        encode_exchanges([Exchange("", "b")], letters, 8)
    with pytest.raises(InvalidData, match="no exchanges"):
        encode_exchanges([], letters, 8)
    with pytest.raises(InvalidConfig, match="1 tokens"):
        encode_exchanges([Exchange("a", "b")], letters, 1)


def test_no_supervised_token_at_all_stops_and_some_warn(caplog):
    data = columns().columns
    nothing = Columns(tokens=data["tokens"], mask=torch.zeros_like(data["mask"]))
    with pytest.raises(InvalidData, match="No target token of the split `train` is supervised"):
        refuse_unsupervised(response_task(nothing))
    ignored = Columns(**data, labels=torch.full_like(data["tokens"], IGNORED))
    with pytest.raises(InvalidData, match="No target token"):
        refuse_unsupervised(response_task(ignored))
    some = data["mask"].clone()
    some[1] = False
    refuse_unsupervised(response_task(Columns(tokens=data["tokens"], mask=some)))
    assert "1 of 3 examples of `train` have no supervised token" in caplog.text
    other = Task(
        name="images",
        axis=Axis.IID,
        splits={"train": Split(Columns(x=torch.zeros(2, 3)), Use.TRAIN)},
        objective=next_token,
    )
    with pytest.raises(InvalidData, match="no columns `tokens` and `mask`"):
        refuse_unsupervised(other)
