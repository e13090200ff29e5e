"""Likelihoods of continuations with a cached prompt against one whole sequence at a time."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from properties import examples
from torch import nn
from torch.testing import assert_close

from unseen.engine.choice_likelihood import Precision, choice_likelihoods, join_tokens
from unseen.errors import InvalidData, UnsupportedLayer

pytest.importorskip("transformers")
import transformers

from unseen.models.pretrained import CausalLM

LETTERS = "abcd e."
MERGES = [("a", "b"), (" ", "a"), (" ", "b"), ("c", "d"), (" a", "b")]


def tokenizer(bos=None):
    from tokenizers import Tokenizer, decoders, models, processors
    from transformers import PreTrainedTokenizerFast

    merged = [a + b for a, b in MERGES]
    numbers = {text: k for k, text in enumerate([*LETTERS, *merged, "<s>"])}
    plain = Tokenizer(models.BPE(numbers, MERGES))
    plain.decoder = decoders.Fuse()
    if bos:
        plain.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", numbers["<s>"])]
        )
    return PreTrainedTokenizerFast(tokenizer_object=plain, bos_token=bos)


SIZE = len(LETTERS) + len(MERGES) + 1


def llama(bos=None):
    config = transformers.LlamaConfig(
        vocab_size=SIZE,
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        bos_token_id=None,
        eos_token_id=None,
    )
    return sharp(CausalLM(transformers.LlamaForCausalLM(config), tokenizer(bos)))


def gpt2(bos=None):
    config = transformers.GPT2Config(
        vocab_size=SIZE,
        n_positions=64,
        n_embd=32,
        n_layer=2,
        n_head=4,
        bos_token_id=None,
        eos_token_id=None,
    )
    return sharp(CausalLM(transformers.GPT2LMHeadModel(config), tokenizer(bos)))


def sharp(model):
    torch.manual_seed(1)
    for p in model.parameters():
        nn.init.normal_(p, std=0.3)
    return model.eval()


MODELS = {"llama": llama, "gpt2": gpt2, "llama with a first token": lambda: llama("<s>")}


def alone(model, prompt, text):
    """The definition: the joint sequence in one piece, the tokens behind the cut summed."""
    row = join_tokens(model.encode, prompt, text)
    tokens = [*model.start, *row.tokens]
    cut = len(model.start) + row.cut
    with torch.no_grad():
        steps = model(torch.tensor([tokens]))[0].log_softmax(-1)
    return sum(steps[k - 1, tokens[k]].item() for k in range(cut, len(tokens))), len(tokens) - cut


def assert_as_alone(model, prompts, choices, found, atol=1e-4):
    for prompt, texts, one in zip(prompts, choices, found, strict=True):
        wanted = [alone(model, prompt, text) for text in texts]
        assert_close(one.total, torch.tensor([total for total, _ in wanted]), atol=atol, rtol=0)
        assert one.tokens.tolist() == [n for _, n in wanted]
        assert one.bytes.tolist() == [len(text) for text in texts]
        assert_close(one.per_byte, one.total / one.bytes)


texts = st.text(LETTERS, min_size=1, max_size=7).filter(str.strip)
items = st.lists(st.tuples(texts, st.lists(texts, min_size=1, max_size=4)), min_size=1, max_size=5)


@pytest.mark.parametrize("name", MODELS)
def test_it_equals_one_sequence_at_a_time_in_batches_of_any_size(name):
    model = MODELS[name]()

    @given(items=items, size=st.integers(1, 60), before=st.sampled_from(["", "abacabadea. cd"]))
    @examples(20)
    def check(items, size, before):
        prompts = [before + prompt for prompt, _ in items]
        choices = [texts for _, texts in items]
        rows = zip(prompts, choices, strict=True)
        cuts = [join_tokens(model.encode, p, text).cut for p, texts in rows for text in texts]
        assume(model.start or min(cuts) > 0)  # else nothing stands before a continuation
        found = choice_likelihoods(model, prompts, choices, batch_tokens=size)
        assert_as_alone(model, prompts, choices, found)

    check()


def test_a_token_across_the_join_belongs_to_the_continuation():
    encode = tokenizer().encode
    row = join_tokens(encode, "ca", "bd")
    assert row.cut == 1  # of c, ab, d: `ab` holds the last letter of the prompt
    assert row.tokens == (*encode("c"), *encode("ab"), *encode("d"))
    assert join_tokens(encode, "ca", "cd").cut == 2


def test_choices_that_are_cut_at_different_places_share_what_is_before_all_cuts():
    model = llama()
    choices = [["b", "c", "bcd", " ab"]]
    found = choice_likelihoods(model, ["dca"], choices)
    assert found[0].tokens.tolist() == [1, 1, 2, 2]
    assert_as_alone(model, ["dca"], choices, found)


def test_prompts_with_the_same_examples_read_them_once(monkeypatch):
    model, read = llama(), []
    inner = model.read_last

    def count(tokens, real, state):
        read.append(tokens.numel())
        return inner(tokens, real, state)

    monkeypatch.setattr(model, "read_last", count)
    prompts = ["e.d.e.d.e.d." + end for end in ("b", "d", "e")]
    choices = [["d", "ee"]] * 3
    assert_as_alone(model, prompts, choices, choice_likelihoods(model, prompts, choices))
    assert read == [12, 3]


def test_hidden_states_are_those_of_the_whole_sequence_at_its_last_token():
    model = llama()
    prompts, choices = ["dca", "e"], [["b", "cdee"], [" a", ".", "c"]]
    found = choice_likelihoods(model, prompts, choices, layers=[0, -1])
    assert_as_alone(model, prompts, choices, found)
    for prompt, texts, one in zip(prompts, choices, found, strict=True):
        for text, states in zip(texts, one.hidden, strict=True):
            tokens = torch.tensor([join_tokens(model.encode, prompt, text).tokens])
            with torch.no_grad():
                whole = model.model(tokens, output_hidden_states=True).hidden_states
            wanted = torch.stack([whole[0][0, -1], whole[-1][0, -1]])
            assert_close(states, wanted, atol=1e-5, rtol=0)


def test_bfloat16_is_near_and_the_sums_are_in_float32():
    model, prompts, choices = llama(), ["dca"], [["b", "cdee"]]
    found = choice_likelihoods(model, prompts, choices, precision=Precision.BFLOAT16)
    assert found[0].total.dtype == torch.float32
    assert_as_alone(model, prompts, choices, found, atol=0.3)


def test_the_first_token_of_the_tokenizer_stands_before_an_empty_prompt():
    model = llama("<s>")
    found = choice_likelihoods(model, [""], [["ab", "c"]])
    assert_as_alone(model, [""], [["ab", "c"]], found)
    with pytest.raises(InvalidData, match="Prompt 0 is empty"):
        choice_likelihoods(llama(), [""], [["ab", "c"]])


@pytest.mark.parametrize(
    ("prompts", "choices", "named"),
    [
        (["a"], [], "1 prompts and 0 lists"),
        (["a", "b"], [["c"], []], "Prompt 1 has no continuation"),
        (["a"], [["c", " "]], "Prompt 0 has the continuation ' '"),
        (["a"], [["c" * 90]], "91 tokens"),
        (["a"], [["c", "b"]], "one token with the beginning of a continuation"),
    ],
)
def test_what_cannot_be_scored_is_named(prompts, choices, named):
    with pytest.raises(InvalidData, match=named):
        choice_likelihoods(llama(), prompts, choices)


def test_a_model_without_texts_is_refused():
    from unseen.models.transformer import Decoder, Transformer

    model = Transformer(Decoder(vocabulary=5, width=8, layers=1, heads=2, context=8))
    with pytest.raises(UnsupportedLayer, match="does not read texts"):
        choice_likelihoods(model, ["a"], [["b"]])


def test_a_likelihood_that_is_no_number_is_no_choice():
    model = llama()
    with torch.no_grad():
        next(model.parameters())[5] = torch.nan
    with pytest.raises(InvalidData, match="of prompt 1 is NaN"):
        choice_likelihoods(model, ["ab", model.tokenizer.decode([5])], [["c", "d"], ["c", "d"]])
