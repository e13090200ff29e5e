"""Per-example gradients of adapters of the library peft and of compiled models equal a loop over
examples in float64.
"""

import pytest
import torch
import torch.nn.functional as F
from oracles import gradients as oracle
from torch import nn

from unseen.engine.tap import tap

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
SIZES = {"vocab_size": 13, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def classifier():
    config = transformers.BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12,
        max_position_embeddings=32, **SIZES,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config)


def decoder():
    config = transformers.GPT2Config(n_positions=32, n_embd=8, n_layer=1, n_head=2, **SIZES)
    return transformers.GPT2LMHeadModel(config)


def low_rank(**more):
    return peft.LoraConfig(
        task_type="SEQ_CLS", r=2, target_modules=["query", "value"], init_lora_weights=False, **more
    )


ADAPTERS = {
    "LoRA": (classifier, low_rank),
    "DoRA": (classifier, lambda: low_rank(use_dora=True)),
    "prompt": (
        classifier,
        lambda: peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=3),
    ),
    "prompt of a decoder": (
        decoder,
        lambda: peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
    ),
    "prefix": (
        decoder,
        lambda: peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
    ),
    "P-tuning": (
        classifier,
        lambda: peft.PromptEncoderConfig(
            task_type="SEQ_CLS", num_virtual_tokens=3, encoder_hidden_size=8
        ),
    ),
    "IA³": (
        classifier,
        lambda: peft.IA3Config(
            task_type="SEQ_CLS", target_modules=["key", "value"], feedforward_modules=[]
        ),
    ),
}


def bounded(model, batch):
    """One number per example of whatever a model of transformers answers."""
    return model(input_ids=batch["x"]).logits.flatten(1).sin().mean(1)


def assert_exact(model, batch, f, names):
    expected = oracle.per_example_gradients(names, batch, f)
    found = tap(model, batch, f)
    assert len(found) == len(expected) > 0
    largest = max(rows.abs().max() for rows in expected.values())
    for form, rows in zip(found.values(), expected.values(), strict=True):
        torch.testing.assert_close(form.gradients(), rows, rtol=1e-9, atol=1e-10 * float(largest))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ADAPTERS)
def test_adapters(name):
    make, config = ADAPTERS[name]
    torch.manual_seed(0)
    model = peft.get_peft_model(make(), config()).double().eval()
    assert_exact(model, {"x": torch.randint(3, 13, (5, 6))}, bounded, model)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_models(backend):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    batch = {"x": torch.randn(5, 4).double(), "y": torch.randint(3, (5,))}

    def loss(model, batch):
        return F.cross_entropy(model(batch["x"]), batch["y"], reduction="none")

    assert_exact(torch.compile(model, backend=backend), batch, loss, model)
