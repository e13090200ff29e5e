"""Decoding and likelihoods of batches against one sequence at a time, for our decoder and for
transformers models.
"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from properties import examples
from torch import nn
from torch.testing import assert_close

from unseen.engine.decode import Side, greedy, log_probability, pad_sequences
from unseen.errors import InvalidData, UnsupportedLayer
from unseen.models.pretrained import CausalLM
from unseen.models.transformer import Activation, Decoder, Norm, Positions, Transformer
from unseen.objectives import all_tokens_right

SIZE = 31


def ours(positions=Positions.LEARNED, **own):
    shape = Decoder(
        vocabulary=SIZE, width=32, layers=2, heads=4, context=48, positions=positions, **own
    )
    return sharp(Transformer(shape))


def gpt2():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=SIZE,
        n_positions=48,
        n_embd=32,
        n_layer=2,
        n_head=4,
        bos_token_id=0,
        eos_token_id=None,
    )
    return sharp(CausalLM(transformers.GPT2LMHeadModel(config), None))


def llama():
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=SIZE,
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=0,
        eos_token_id=None,
    )
    return sharp(CausalLM(transformers.LlamaForCausalLM(config), None))


def sharp(model):
    """Far from uniform, so that a wrong mask or position would show."""
    torch.manual_seed(1)
    for p in model.parameters():
        nn.init.normal_(p, std=0.3)
    return model.eval()


MODELS = {
    "learned": ours,
    "offset": lambda: ours(Positions.OFFSET),
    "none": lambda: ours(Positions.NONE),
    "alibi": lambda: ours(Positions.ALIBI),
    "rotary": lambda: ours(
        Positions.ROTARY, norm=Norm.RMS, activation=Activation.SWIGLU, key_heads=2, loops=2
    ),
    "gpt2": gpt2,
    "llama": llama,
}


def alone(model, prompt, answer):
    """The definition: one sequence, no padding, no cache, one softmax per token."""
    tokens = torch.tensor([[*prompt, *answer]])
    with torch.no_grad():
        steps = model(tokens)[0].log_softmax(-1)
    return sum(steps[len(prompt) + k - 1, token].item() for k, token in enumerate(answer))


def continued(model, prompt, length):
    found = list(prompt)
    for _ in range(length):
        with torch.no_grad():
            found.append(model(torch.tensor([found]))[0, -1].argmax().item())
    return found[len(prompt) :]


sequences = st.lists(st.integers(0, SIZE - 1), min_size=1, max_size=9)


@pytest.mark.parametrize("name", MODELS)
def test_likelihood_equals_one_sequence_at_a_time(name):
    model = MODELS[name]()

    @given(
        pairs=st.lists(st.tuples(sequences, sequences), min_size=1, max_size=5),
        size=st.integers(1, 5),
    )
    @examples(15)
    def check(pairs, size):
        prompts, answers = zip(*pairs, strict=True)
        expected = torch.tensor([alone(model, *pair) for pair in pairs])
        for side in Side:
            assert_close(
                log_probability(model, prompts, answers, side, size), expected, atol=1e-5, rtol=1e-5
            )

    check()


@pytest.mark.parametrize("name", MODELS)
def test_greedy_equals_one_sequence_at_a_time(name):
    model = MODELS[name]()

    @given(
        prompts=st.lists(sequences, min_size=1, max_size=4),
        length=st.integers(0, 8),
        size=st.integers(1, 4),
    )
    @examples(15)
    def check(prompts, length, size):
        expected = [continued(model, prompt, length) for prompt in prompts]
        for side in Side:
            assert greedy(model, prompts, length, side=side, batch_size=size) == expected

    check()


def test_decoding_ends_before_the_stop_token():
    model, prompts = ours(), [[1, 2], [3, 4, 5], [6]]
    free = greedy(model, prompts, 12)
    stop = free[0][3]
    ended = [row[: row.index(stop)] if stop in row else row for row in free]
    assert greedy(model, prompts, 12, stop=stop) == ended
    assert len(ended[0]) <= 3


def test_exact_match_by_teacher_forcing_is_that_of_greedy_decoding():
    model, prompts = ours(), [[k, k + 1, 7] for k in range(20)]
    answers = greedy(model, prompts, 3)
    answers[::2] = [[*answer[:1], (answer[1] + 1) % SIZE, *answer[2:]] for answer in answers[::2]]
    rows = pad_sequences(prompts, answers, Side.RIGHT)
    with torch.no_grad():
        right = all_tokens_right(model, {"tokens": rows.tokens, "answer": rows.answer})
    assert right.tolist() == [
        float(found == answer)
        for found, answer in zip(greedy(model, prompts, 3), answers, strict=True)
    ]
    assert right.tolist() == [0.0, 1.0] * 10


def test_the_mode_of_the_model_is_kept_and_training_randomness_is_off():
    model = ours(Positions.OFFSET).train()
    first = log_probability(model, [[1, 2]], [[3]])
    assert model.training
    assert_close(first, log_probability(model, [[1, 2]], [[3]]))


@pytest.mark.parametrize("make", [ours, gpt2, llama])
def test_a_model_that_has_decoded_trains_on(make):
    model = make()
    greedy(model, [[1, 2, 3], [4]], 4)
    assert not any(t.is_inference() for t in (*model.parameters(), *model.buffers()))
    model(torch.tensor([[1, 2, 3]])).logsumexp(-1).sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.dim() > 1)


@pytest.mark.parametrize(
    ("prompts", "answers", "named"),
    [
        ([[1]], [], "1 prompts and 0 answers"),
        ([[1], []], [[1], [2]], "Prompt 1"),
        ([[1], [2]], [[1], []], "Answer 1"),
    ],
)
def test_missing_text_is_named(prompts, answers, named):
    with pytest.raises(InvalidData, match=named):
        log_probability(ours(), prompts, answers)


def test_a_model_that_cannot_read_on_is_refused():
    with pytest.raises(UnsupportedLayer, match="read"):
        greedy(nn.Embedding(SIZE, SIZE), [[1]], 2)
