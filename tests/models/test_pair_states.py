"""States of encoder–decoders: their head gives the model's logits again, without padding."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from unseen.engine.token_pairs import END, encode_pairs, pair
from unseen.errors import UnsupportedLayer
from unseen.models.encoder_decoder import EncoderDecoder, t5
from unseen.models.pair_states import logits_of, refuse_other_logits, states_at
from unseen.tasks.token_pairs import TokenPairs

transformers = pytest.importorskip("transformers")

PAIRS = (pair("a b c", "c b"), pair("d", "a a a"), pair("b b b b", "d"))
WORDS = TokenPairs("pairs", PAIRS, {"same": PAIRS}, repeats=True).vocabulary


def sharp(model):
    torch.manual_seed(1)
    for name, p in model.named_parameters():
        nn.init.normal_(p, std=1.0 if "norm" in name else 0.3)
    return model.eval()


def small():
    return sharp(t5(len(WORDS), width=16, layers=2, heads=2))


def bart():
    config = transformers.BartConfig(
        vocab_size=len(WORDS),
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_position_embeddings=40,
        pad_token_id=0,
        eos_token_id=END,
        bos_token_id=None,
        forced_eos_token_id=None,
        decoder_start_token_id=2,
    )
    model = transformers.BartForConditionalGeneration(config)
    model.final_logits_bias.normal_(generator=torch.Generator().manual_seed(0))
    return sharp(EncoderDecoder(model, closing=END))


def batch():
    columns = encode_pairs(PAIRS, WORDS).columns
    return columns["tokens"], columns["mask"]


@pytest.mark.parametrize("make", [small, bart])
def test_the_head_of_the_states_gives_the_models_logits(make):
    """T5 scales its states before the head, BART adds a bias behind it."""
    model = make()
    tokens, mask = batch()
    with torch.no_grad():
        states = states_at(model, tokens[:, :-1], mask[:, 1:])
        expected = model(tokens[:, :-1])[mask[:, 1:]]
        assert_close(states.logits, expected, atol=1e-5, rtol=1e-5)
        assert_close(logits_of(model, states.target), expected, atol=1e-5, rtol=1e-5)
        refuse_other_logits(model, states)
    assert states.target_rows.tolist() == mask.nonzero()[:, 0].tolist()
    closing = 1 if model.closing is not None else 0
    counts = torch.bincount(states.source_rows).tolist()
    assert counts == [len(one.source) + closing for one in PAIRS]


@pytest.mark.parametrize("make", [small, bart])
def test_rows_do_not_see_each_other_or_padding(make):
    model = make()
    tokens, mask = batch()
    wide = [nn.functional.pad(x, (0, 3)) for x in (tokens, mask)]
    with torch.no_grad():
        together = states_at(model, wide[0], nn.functional.pad(mask[:, 1:], (0, 4)))
        for k, one in enumerate(PAIRS):
            size = len(one.source) + len(one.target) + 2
            alone = states_at(model, tokens[k : k + 1, : size - 1], mask[k : k + 1, 1:size])
            source = together.source[together.source_rows == k]
            target = together.target[together.target_rows == k]
            assert_close(source, alone.source, atol=1e-5, rtol=1e-5)
            assert_close(target, alone.target, atol=1e-5, rtol=1e-5)


def test_a_model_that_changes_its_logits_behind_the_head_is_refused():
    model = small()
    tokens, mask = batch()
    plain = model.model.forward

    def capped(*args, **more):
        found = plain(*args, **more)
        found.logits = found.logits.tanh()
        return found

    model.model.forward = capped
    with torch.no_grad(), pytest.raises(UnsupportedLayer, match="not those of its head"):
        refuse_other_logits(model, states_at(model, tokens[:, :-1], mask[:, 1:]))
