"""Causal language models of transformers behind one interface; weights are read from safetensors
only.
"""

import sys

import pytest
import torch
from torch.testing import assert_close

from unseen.engine.choice_likelihood import choice_likelihoods
from unseen.errors import CorruptFile, InvalidData, MissingExtra, MissingFile
from unseen.models.pretrained import load_causal, refuse_pickles

transformers = pytest.importorskip("transformers")


@pytest.fixture
def folder(tmp_path):
    return tiny(tmp_path)


def tiny(path):
    """A random GPT-2 and a tokenizer of letters, saved as transformers saves them."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    letters = {chr(k): k - 32 for k in range(32, 127)}
    plain = Tokenizer(models.WordLevel(letters, unk_token="?"))
    plain.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    transformers.PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="?").save_pretrained(
        path
    )
    config = transformers.GPT2Config(
        vocab_size=len(letters),
        n_positions=160,
        n_embd=16,
        n_layer=1,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(path)
    return path


def test_a_saved_model_answers_like_the_original(folder):
    model = load_causal(folder).eval()
    tokens = torch.tensor([model.encode("Ada Birch is")])
    peer = transformers.GPT2LMHeadModel.from_pretrained(folder).eval()
    assert tokens.tolist()[0][:3] == [ord(c) - 32 for c in "Ada"]
    with torch.no_grad():
        assert_close(model(tokens), peer(tokens).logits)


def test_a_pickle_is_refused_before_it_is_opened(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")  # would run `false`
    with pytest.raises(InvalidData, match=r"pytorch_model\.bin") as caught:
        load_causal(folder)
    assert "safetensors" in caught.value.fix
    with pytest.raises(InvalidData, match="pickle"):
        refuse_pickles(folder / "pytorch_model.bin")


def test_a_folder_without_model_or_weights_is_named(folder, tmp_path_factory):
    with pytest.raises(MissingFile, match=r"config\.json|no transformers model"):
        load_causal(tmp_path_factory.mktemp("empty"))
    (folder / "model.safetensors").unlink()
    with pytest.raises(MissingFile, match="no weights"):
        load_causal(folder)


def test_without_transformers_the_extra_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtra, match="transformers") as caught:
        load_causal(folder)
    assert "unseen[language]" in caught.value.fix


def test_a_checkpoint_without_its_head_is_refused(folder):
    """A tied head is not missing (GPT-2 above); a base model has none."""
    config = transformers.GPT2Config.from_pretrained(folder, tie_word_embeddings=False)
    transformers.GPT2Model(config).save_pretrained(folder)
    with pytest.raises(InvalidData, match=r"has no lm_head\.weight for a GPT2LMHeadModel") as found:
        load_causal(folder)
    assert "GPT2Model" in found.value.fix


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", b"{"),
        ("config.json", b'{"model_type": "unheard"}'),
        ("tokenizer.json", b"{"),
        ("tokenizer.json", b"{}"),
        ("model.safetensors", b"0123456789"),
    ],
)
def test_a_broken_file_is_an_error_of_the_folder(folder, file, content):
    (folder / file).write_bytes(content)
    with pytest.raises(CorruptFile, match=r"cannot be loaded") as found:
        load_causal(folder)
    assert found.value.why
    assert "save_pretrained" in found.value.fix


def test_a_missing_tokenizer_and_one_of_a_larger_model_are_named(folder):
    config = transformers.GPT2Config.from_pretrained(folder, vocab_size=50)
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)
    with pytest.raises(InvalidData, match="95 tokens, GPT2LMHeadModel 50"):
        load_causal(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(MissingFile, match="no tokenizer"):
        load_causal(folder)


def test_weights_that_are_no_numbers_are_refused(folder):
    model = transformers.GPT2LMHeadModel.from_pretrained(folder)
    model.transformer.h[0].mlp.c_fc.weight.data[0, 0] = torch.nan
    model.save_pretrained(folder)
    with pytest.raises(InvalidData, match=r"mlp\.c_fc\.weight .* hold NaN"):
        load_causal(folder)


def test_scoring_leaves_dropout_off(folder):
    """GPT-2 has dropout: a second reading would differ from the first."""
    model = load_causal(folder)
    tokens = torch.tensor([model.encode("Ada Birch")])
    with torch.no_grad():
        before = model(tokens)
        choice_likelihoods(model, ["Ada"], [[" is", " was"]])
        assert not model.model.training
        assert_close(model(tokens), before)
