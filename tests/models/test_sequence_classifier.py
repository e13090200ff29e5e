"""Classifiers of transformers: the same logits, padding that changes nothing, and gradients that
influence can use.
"""

import sys

import pytest
import torch
from language import letters
from torch.testing import assert_close

from unseen.attributions.influence import Curvature, Fisher, Influence
from unseen.errors import InvalidConfig, InvalidData, MissingExtra, MissingFile, UnknownName
from unseen.lab import Lab
from unseen.method import Trained
from unseen.models.pretrained import load_causal
from unseen.models.sequence_classifier import SequenceClassifier, load_classifier
from unseen.objectives import classify
from unseen.task import Axis, Split, Task, Use

transformers = pytest.importorskip("transformers")
TEXTS = ["good", "bad and long", "a", "good good"]


def saved(path, kind):
    letters(path)
    common = {"vocab_size": 95, "num_labels": 2, "pad_token_id": 0, "id2label": {0: "no", 1: "yes"}}
    torch.manual_seed(0)
    if kind == "bert":
        config = transformers.BertConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
            max_position_embeddings=32, **common,
        )  # fmt: skip
        model = transformers.BertForSequenceClassification(config)
    else:
        config = transformers.LlamaConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
            bos_token_id=None, eos_token_id=None, **common,
        )  # fmt: skip
        model = transformers.LlamaForSequenceClassification(config)
    model.save_pretrained(path)
    return path, model.eval()


@pytest.fixture(params=["bert", "llama"])
def both(request, tmp_path):
    path, peer = saved(tmp_path, request.param)
    return load_classifier(path), peer


def test_each_text_is_classified_as_if_it_were_alone(both):
    model, peer = both
    data = model.columns(TEXTS, ["yes", "no", 1, 0])
    assert data.columns["y"].tolist() == [1, 0, 1, 0]
    assert model.classes == ["no", "yes"]
    with torch.no_grad():
        alone = [
            peer(input_ids=torch.tensor([model.tokenizer.encode(text)])).logits for text in TEXTS
        ]
        assert_close(model(data.columns["x"]), torch.cat(alone), atol=1e-5, rtol=1e-5)


def test_influence_runs_through_it_as_by_brute_force(both):
    model, _ = both
    data = model.columns(TEXTS, [1, 0, 1, 0])
    task = Task(
        name="texts", axis=Axis.IID, splits={"train": Split(data, Use.TRAIN)}, objective=classify
    )
    loss = classify.loss
    attribute = Influence(curvature=Curvature.IDENTITY, fisher=Fisher.EMPIRICAL)
    found = attribute.prepare(Trained(model, task), Lab())
    scores = found(data.columns, lambda m, b: -loss(m, b)).scores
    tracked = [
        p
        for name in found.layers
        for p in model.get_submodule(name).parameters(recurse=False)
        if p.requires_grad
    ]

    def row(k):
        each = loss(model, {name: column[k : k + 1] for name, column in data.columns.items()})
        return torch.cat([g.flatten() for g in torch.autograd.grad(each[0], tracked)])

    rows = torch.stack([row(k) for k in range(len(TEXTS))])
    gram = rows @ rows.T / len(rows)
    assert_close(scores, gram, atol=1e-5, rtol=1e-3)


def test_the_padding_token_inside_a_text_is_text(both):
    model, _ = both
    x = torch.tensor([[0, 5, 0, 7, 0, 0], [0, 0, 0, 0, 0, 0]])
    assert model.real(x).tolist() == [[True] * 4 + [False] * 2, [True] + [False] * 5]


def test_refusals(tmp_path, monkeypatch):
    path, peer = saved(tmp_path, "bert")
    model = load_classifier(path)
    with pytest.raises(UnknownName, match="maybe"):
        model.columns(["a"], ["maybe"])
    with pytest.raises(InvalidData, match="2 texts and 1 labels"):
        model.columns(["a", "b"], [0])
    peer.config.pad_token_id = None
    with pytest.raises(InvalidConfig, match="no padding token"):
        SequenceClassifier(peer, model.tokenizer)
    with pytest.raises(MissingFile, match="no transformers model"):
        load_classifier(tmp_path / "none")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtra, match="transformers"):
        load_classifier(path)


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_a_checkpoint_without_its_head_is_refused_and_so_is_a_classifier_as_a_language_model(
    kind, tmp_path
):
    path, peer = saved(tmp_path, kind)
    with pytest.raises(InvalidData, match=r"has no .* for a \w+ForCausalLM|has no .*LMHead"):
        load_causal(path)
    peer.base_model.save_pretrained(path)
    with pytest.raises(InvalidData, match=r"has no .*(classifier|score)\."):
        load_classifier(path)
