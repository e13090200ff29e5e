"""Decoders that are no transformers read as they are trained, and see what they say they see."""

import pytest
import torch

from unseen.engine.token_pairs import TO, Vocabulary, encode_pairs, pair, write_answers
from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.models.token_baselines import BagDecoder, TokenLSTM

PAIRS = [pair("a b c", "x y"), pair("c a b", "x y"), pair("a b b", "y")]
WORDS = Vocabulary.of(PAIRS)


def models():
    with Lab(1).seeded():
        return TokenLSTM(len(WORDS), 8).double(), BagDecoder(len(WORDS), TO, 8).double()


@pytest.mark.parametrize("model", models(), ids=lambda m: type(m).__name__)
def test_reading_piece_by_piece_equals_reading_at_once(model):
    tokens = encode_pairs(PAIRS[:2], WORDS).columns["tokens"]
    real = torch.ones_like(tokens, dtype=torch.bool)
    whole = model(tokens)
    first, state = model.read(tokens[:, :4], real[:, :4], None)
    second, state = model.read(tokens[:, 4:5], real[:, :5], state)
    third, _ = model.read(tokens[:, 5:], real, state)
    assert torch.allclose(torch.cat([first, second, third], 1)[:, 3:], whole[:, 3:])


@pytest.mark.parametrize("model", models(), ids=lambda m: type(m).__name__)
def test_later_tokens_change_no_logit_of_the_answer(model):
    tokens = encode_pairs(PAIRS[:1], WORDS).columns["tokens"]
    other = tokens.clone()
    other[0, -1] = WORDS.number["y"]
    assert torch.equal(model(tokens)[:, 3:-1], model(other)[:, 3:-1])
    assert len(write_answers(model.float(), [("a", "b")], WORDS, 5)) == 1


def test_a_bag_has_no_order_and_an_lstm_has():
    lstm, bag = models()
    tokens = torch.tensor([[*WORDS.encode("abc"), TO], [*WORDS.encode("bac"), TO]])
    assert torch.allclose(*bag(tokens)[:, -1])
    assert not torch.allclose(*lstm(tokens)[:, -1])


@pytest.mark.parametrize("model", models(), ids=lambda m: type(m).__name__)
def test_padding_is_refused(model):
    with pytest.raises(InvalidData, match="unequal length"):
        model.read(torch.ones(1, 3, dtype=torch.long), torch.tensor([[False, True, True]]), None)
