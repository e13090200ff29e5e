"""An encoder–decoder on joined rows against transformers, source and target one row at a time."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from properties import examples
from torch import nn
from torch.testing import assert_close

from unseen.engine.decode import Side, greedy, log_probability, pad_sequences
from unseen.engine.loop import Budget
from unseen.engine.sampling import sample
from unseen.engine.token_pairs import END, TO, encode_pairs, pair, write_answers
from unseen.errors import InvalidConfig, InvalidData, UnsupportedLayer
from unseen.lab import Lab
from unseen.methods.finetune import Finetune
from unseen.models.encoder_decoder import EncoderDecoder, t5
from unseen.models.response_loss import response_log_likelihood, response_loss
from unseen.objectives import mean_token_loss, sequence_log_probability
from unseen.tasks.token_pairs import TokenPairs

transformers = pytest.importorskip("transformers")
SIZE = 23


def sharp(model):
    """Far from uniform, so that a wrong mask or position would show."""
    torch.manual_seed(1)
    for p in model.parameters():
        nn.init.normal_(p, std=0.3)
    return model.eval()


def small():
    return sharp(t5(SIZE, width=16, layers=2, heads=2))


def bart():
    config = transformers.BartConfig(
        vocab_size=SIZE,
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
        decoder_start_token_id=END,
    )
    return sharp(EncoderDecoder(transformers.BartForConditionalGeneration(config), closing=END))


def alone(model, source, target):
    """Logits behind each target token: transformers' own call on one row without padding."""
    source = [*source, model.closing] if model.closing is not None else source
    with torch.no_grad():
        return model.model(
            input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([target])
        ).logits[0]


words = st.lists(st.integers(3, SIZE - 1), min_size=1, max_size=7)


@pytest.mark.parametrize("make", [small, bart])
def test_logits_and_likelihoods_equal_one_row_at_a_time(make):
    model = make()
    start = model.divider

    @given(rows=st.lists(st.tuples(words, words), min_size=1, max_size=5))
    @examples(6)
    def check(rows):
        expected = [alone(model, source, [start, *target]) for source, target in rows]
        joined = pad_sequences([[*s, start] for s, _ in rows], [t for _, t in rows], Side.RIGHT)
        with torch.no_grad():
            logits = model(joined.tokens)
        total = []
        for k, ((source, target), one) in enumerate(zip(rows, expected, strict=True)):
            at = slice(len(source), len(source) + len(target) + 1)
            assert_close(logits[k, at], one, atol=1e-5, rtol=1e-5)
            assert not logits[k, : len(source)].any()
            total.append(one.log_softmax(-1)[range(len(target)), target].sum())
        prompts = [[*source, start] for source, _ in rows]
        found = log_probability(model, prompts, [target for _, target in rows], batch_size=2)
        assert_close(found, torch.stack(total), atol=1e-4, rtol=1e-5)

    check()


@pytest.mark.parametrize("make", [small, bart])
def test_greedy_equals_decoding_without_a_cache(make):
    model = make()
    start = model.divider

    @given(sources=st.lists(words, min_size=1, max_size=4), length=st.integers(0, 6))
    @examples(6)
    def check(sources, length):
        expected = []
        for source in sources:
            target = [start]
            while len(target) <= length:
                target.append(int(alone(model, source, target)[-1].argmax()))
            expected.append(target[1:])
        prompts = [[*source, start] for source in sources]
        for side in Side:
            assert greedy(model, prompts, length, side=side, batch_size=3) == expected

    check()


def test_greedy_is_that_of_generate():
    model = small()
    source = [[4, 5, 6, 7], [8, 9, 3, 3]]
    theirs = model.model.generate(
        torch.tensor(source), max_new_tokens=6, do_sample=False, num_beams=1
    )
    ours = greedy(model, [[*row, TO] for row in source], 6, stop=END)
    for row, found in zip(theirs.tolist(), ours, strict=True):
        assert row[1 : len(found) + 1] == found


def test_beginnings_of_unequal_length_change_nothing():
    """A prompt may hold the beginning of the answer: decoding goes on from it."""
    model = small()
    sources, begun = [[4, 5, 6], [7], [8, 9]], [[], [10, 11, 12], [13]]
    prompts = [[*s, TO, *b] for s, b in zip(sources, begun, strict=True)]
    together = greedy(model, prompts, 5)
    for source, beginning, found in zip(sources, begun, together, strict=True):
        target = [TO, *beginning]
        for token in found:
            assert token == int(alone(model, source, target)[-1].argmax())
            target.append(token)
    absolute = bart()
    with pytest.raises(UnsupportedLayer, match="unequal length"):
        greedy(absolute, [[4, END], [4, END, 5]], 2)


def test_samples_follow_the_models_distribution():
    """Frequencies of 1,000 first tokens, within five standard errors, with beginnings beside."""
    model = small()
    prompts = [[4, 5, TO], [6, TO, 7, 8]]
    drawn = sample(model, prompts, 1, Lab().generator(), samples=1000, temperature=2.0)
    for (source, target), rows in zip([([4, 5], [TO]), ([6], [TO, 7, 8])], drawn, strict=True):
        p = (alone(model, source, target)[-1] / 2.0).softmax(-1)
        counts = torch.bincount(torch.tensor([row[0] for row in rows]), minlength=SIZE)
        error = (p * (1 - p) / 1000).sqrt()
        assert bool(((counts / 1000 - p).abs() <= 5 * error + 5e-3).all())


def test_losses_are_those_of_joined_rows():
    model = small().double()
    pairs = [pair("a b c", "c b"), pair("d", "a a a"), pair("b b b b", "d")]
    spec = TokenPairs("pairs", tuple(pairs), {"same": tuple(pairs)}, repeats=True)
    batch = dict(encode_pairs(pairs, spec.vocabulary).columns)
    assert_close(response_loss(model, batch), mean_token_loss(model, batch))
    found = response_log_likelihood(model, batch)
    assert_close(found, sequence_log_probability(model, batch))
    # an order of the rows, and wider padding
    wider = {k: nn.functional.pad(batch[k], (0, 3)).flip(0) for k in ("tokens", "mask")}
    assert_close(response_log_likelihood(model, wider).flip(0), found)


def test_it_learns_pairs_like_every_model():
    pairs = tuple(pair(f"a{k} b{k}", f"b{k} a{k}") for k in range(5))
    spec = TokenPairs("swap", pairs, {"same": pairs}, repeats=True)
    with Lab().child("init").seeded():
        model = t5(len(spec.vocabulary), width=32, layers=1, heads=2, dropout=0.0)
    budget = Budget(steps=150, batch_size=5, lr=5e-3)
    trained = Finetune(budget).fit(model, spec.build(Lab()), Lab())
    answers = write_answers(trained.model, [p.source for p in pairs], spec.vocabulary, 4)
    assert answers == [p.target for p in pairs]


def test_rows_without_source_or_start_are_refused():
    model = small()
    with pytest.raises(InvalidData, match="Row 1 has no start token"):
        model(torch.tensor([[5, TO, 6], [5, 6, 7]]))
    with pytest.raises(InvalidData, match="Row 0 has no source"):
        model(torch.tensor([[TO, 5, 6]]))
    with pytest.raises(InvalidConfig, match="do not divide"):
        t5(10, width=10, heads=4)
    model.model.config.decoder_start_token_id = None
    with pytest.raises(InvalidConfig, match="names no token"):
        EncoderDecoder(model.model)
