"""Layers and models that nobody here wrote: per-example gradients equal a float64 loop over the
examples, or the model is refused by name. Each also with an operation in place, an order that is
undone, or a run for all examples at once.
"""

from functools import partial

import pytest
import torch
from oracles import gradients as oracle
from torch import nn

from unseen.engine.tap import tap
from unseen.errors import UnsupportedLayer

transformers = pytest.importorskip("transformers")
N = 4
LENGTH = 5


def floats(*shape):
    return lambda: torch.randn(N, *shape).double()


def numbers(*shape):
    return lambda: torch.randint(1, 7, (N, *shape))


class Run(nn.Module):
    """A layer with the inputs that it wants, made of one batch, and its first output."""

    def __init__(self, layer, call=None):
        super().__init__()
        self.layer, self.call = layer, call or (lambda layer, x: layer(x))

    def forward(self, x):
        y = self.call(self.layer, x)
        return y[0] if isinstance(y, tuple) else y


LAYERS = {
    "Linear": (lambda: Run(nn.Linear(4, 3)), floats(2, 4)),
    "NonDynamicallyQuantizableLinear": (
        lambda: Run(nn.modules.linear.NonDynamicallyQuantizableLinear(4, 3)),
        floats(4),
    ),
    "Bilinear": (lambda: Run(nn.Bilinear(4, 4, 3), lambda layer, x: layer(x, x.sin())), floats(4)),
    "Conv1d": (lambda: Run(nn.Conv1d(2, 3, 2)), floats(2, 5)),
    "Conv2d": (lambda: Run(nn.Conv2d(2, 3, 2)), floats(2, 4, 4)),
    "Conv3d": (lambda: Run(nn.Conv3d(2, 3, 2)), floats(2, 3, 3, 3)),
    "ConvTranspose1d": (lambda: Run(nn.ConvTranspose1d(2, 3, 2)), floats(2, 5)),
    "ConvTranspose2d": (lambda: Run(nn.ConvTranspose2d(2, 3, 2)), floats(2, 4, 4)),
    "ConvTranspose3d": (lambda: Run(nn.ConvTranspose3d(2, 3, 2)), floats(2, 3, 3, 3)),
    "Embedding": (lambda: Run(nn.Embedding(7, 3)), numbers(5)),
    "EmbeddingBag": (lambda: Run(nn.EmbeddingBag(7, 3)), numbers(5)),
    "BatchNorm1d": (lambda: Run(nn.BatchNorm1d(3)), floats(3, 5)),
    "BatchNorm2d": (lambda: Run(nn.BatchNorm2d(3)), floats(3, 2, 2)),
    "BatchNorm3d": (lambda: Run(nn.BatchNorm3d(3)), floats(3, 2, 2, 2)),
    "SyncBatchNorm": (lambda: Run(nn.SyncBatchNorm(3)), floats(3, 5)),
    "InstanceNorm1d": (lambda: Run(nn.InstanceNorm1d(3, affine=True)), floats(3, 5)),
    "InstanceNorm2d": (lambda: Run(nn.InstanceNorm2d(3, affine=True)), floats(3, 2, 2)),
    "InstanceNorm3d": (lambda: Run(nn.InstanceNorm3d(3, affine=True)), floats(3, 2, 2, 2)),
    "LayerNorm": (lambda: Run(nn.LayerNorm(4)), floats(2, 4)),
    "RMSNorm": (lambda: Run(nn.RMSNorm(4)), floats(2, 4)),
    "GroupNorm": (lambda: Run(nn.GroupNorm(2, 4)), floats(4, 3)),
    "PReLU": (lambda: Run(nn.PReLU(4)), floats(4, 3)),
    "RNN": (lambda: Run(nn.RNN(4, 3, batch_first=True)), floats(5, 4)),
    "LSTM": (lambda: Run(nn.LSTM(4, 3, batch_first=True)), floats(5, 4)),
    "GRU": (lambda: Run(nn.GRU(4, 3, bidirectional=True, batch_first=True)), floats(5, 4)),
    "RNNCell": (lambda: Run(nn.RNNCell(4, 3)), floats(4)),
    "LSTMCell": (lambda: Run(nn.LSTMCell(4, 3)), floats(4)),
    "GRUCell": (lambda: Run(nn.GRUCell(4, 3)), floats(4)),
    "MultiheadAttention": (
        lambda: Run(nn.MultiheadAttention(4, 2, batch_first=True), lambda layer, x: layer(x, x, x)),
        floats(5, 4),
    ),
    "TransformerEncoderLayer": (
        lambda: Run(nn.TransformerEncoderLayer(4, 2, 6, batch_first=True)),
        floats(5, 4),
    ),
    "TransformerDecoderLayer": (
        lambda: Run(
            nn.TransformerDecoderLayer(4, 2, 6, batch_first=True),
            lambda layer, x: layer(x, x.sin()),
        ),
        floats(5, 4),
    ),
    "Transformer": (
        lambda: Run(
            nn.Transformer(4, 2, 1, 1, 6, batch_first=True), lambda layer, x: layer(x, x.sin())
        ),
        floats(5, 4),
    ),
    "AdaptiveLogSoftmaxWithLoss": (
        lambda: Run(
            nn.AdaptiveLogSoftmaxWithLoss(8, 7, [2, 4], div_value=2),
            lambda layer, x: layer.log_prob(x),
        ),
        floats(8),
    ),
}


def test_every_class_with_parameters_is_in_the_zoo():
    bases = {"Module", "RNNBase", "RNNCellBase", "Container"}
    found = {
        name
        for name, kind in vars(nn).items()
        if isinstance(kind, type)
        and issubclass(kind, nn.Module)
        and (hasattr(kind, "reset_parameters") or hasattr(kind, "_reset_parameters"))
        and not name.startswith("Lazy")  # they become one of the others when they first run
    }
    assert found - bases <= LAYERS.keys()


class Plain(nn.Module):
    def __init__(self, layer, example):
        super().__init__()
        self.layer = layer
        self.register_buffer("fixed", example[:1].clone())

    def forward(self, x):
        return self.layer(x)


class InPlace(Plain):
    def forward(self, x):
        return torch.relu_(self.layer(x))


class Permuted(Plain):
    def forward(self, x):
        order = x.flatten(1).double().sin().sum(1).argsort()
        return self.layer(x[order])[order.argsort()]


class Shared(Plain):
    """Runs on one fixed example for all, and is read by its mean."""

    def forward(self, x):
        return self.layer(x) * (1 + self.layer(self.fixed)[0])


def sines(model, batch):
    return model(batch["x"]).flatten(1).sin().mean(1)


def exact_or_refused(model, batch, f, tolerance=1e-8):
    """Whether `tap` equals the loop; False where it refuses what autograd refuses, too."""
    try:
        expected = oracle.per_example_gradients(model, batch, f)
    except RuntimeError:
        with pytest.raises(UnsupportedLayer) as error:
            tap(model, batch, f)
        assert error.value.fix
        return False
    largest = max(rows.abs().max() for rows in expected.values())
    close = partial(torch.testing.assert_close, rtol=tolerance, atol=tolerance * largest)
    for name, form in tap(model, batch, f).items():
        rows = expected[name]
        close(form.gradients(), rows)
        close(form.total(), rows.sum(0))
        close(form.norms2().sqrt(), rows.flatten(1).norm(dim=1))
    return True


@pytest.mark.parametrize("kind", [Plain, InPlace, Permuted, Shared])
@pytest.mark.parametrize("name", LAYERS)
def test_layers_of_torch(name, kind):
    make, data = LAYERS[name]
    batch = {"x": data()}
    model = kind(make(), batch["x"]).double().eval()
    for p in model.parameters():
        nn.init.uniform_(p, -0.9, 0.9)  # gains and biases away from one and zero
    is_exact = exact_or_refused(model, batch, sines)
    assert is_exact or kind is InPlace


SMALL = {
    "vocab_size": 13,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
DISENTANGLED = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
LOOPED = {"experts_implementation": "eager"}
"""One expert after the other: the grouped product knows no float64."""
GROUPED = {**SMALL, "num_key_value_heads": 1}
LM, CLASSIFIER = "ForCausalLM", "ForSequenceClassification"
MODELS = {
    "Bert": (CLASSIFIER, SMALL),
    "Roberta": (CLASSIFIER, SMALL),
    "Electra": (CLASSIFIER, {**SMALL, "embedding_size": 8}),
    "Albert": (CLASSIFIER, {**SMALL, "embedding_size": 6}),
    "DistilBert": (
        CLASSIFIER,
        {
            "vocab_size": 13,
            "dim": 8,
            "n_layers": 1,
            "n_heads": 2,
            "hidden_dim": 12,
            "pad_token_id": 0,
        },
    ),
    "Deberta": (CLASSIFIER, {**SMALL, **DISENTANGLED}),
    "DebertaV2": (
        CLASSIFIER,
        {**SMALL, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    ),
    "MPNet": (CLASSIFIER, SMALL),
    "MobileBert": (
        CLASSIFIER,
        {**SMALL, "embedding_size": 8, "intra_bottleneck_size": 8, "true_hidden_size": 8},
    ),
    "ConvBert": (
        CLASSIFIER,
        {**SMALL, "embedding_size": 8, "conv_kernel_size": 3, "head_ratio": 1},
    ),
    "FNet": (CLASSIFIER, SMALL),
    "Camembert": (CLASSIFIER, SMALL),
    "XLMRoberta": (CLASSIFIER, SMALL),
    "ModernBert": (CLASSIFIER, {**SMALL, "cls_token_id": 1, "sep_token_id": 2}),
    "GPT2": (LM, {"vocab_size": 13, "n_positions": 16, "n_embd": 8, "n_layer": 1, "n_head": 2}),
    "GPTNeo": (
        LM,
        {**SMALL, "num_layers": 1, "num_heads": 2, "attention_types": [[["global"], 1]]},
    ),
    "GPTNeoX": (LM, SMALL),
    "OPT": (LM, {**SMALL, "ffn_dim": 12, "word_embed_proj_dim": 8}),
    "Bloom": (LM, {"vocab_size": 13, "hidden_size": 8, "n_layer": 1, "n_head": 2}),
    "Llama": (LM, GROUPED),
    "Mistral": (LM, GROUPED),
    "Qwen2": (LM, GROUPED),
    "Qwen3": (LM, {**GROUPED, "head_dim": 4}),
    "Gemma": (LM, {**GROUPED, "head_dim": 4}),
    "Phi": (LM, SMALL),
    "Mixtral": (LM, {**GROUPED, "num_local_experts": 2, "num_experts_per_tok": 1, **LOOPED}),
    "T5": (
        CLASSIFIER,
        {
            "vocab_size": 13,
            "d_model": 8,
            "d_kv": 4,
            "d_ff": 12,
            "num_layers": 1,
            "num_heads": 2,
            "pad_token_id": 0,
            "eos_token_id": 2,
            "decoder_start_token_id": 0,
        },
    ),
    "Bart": (
        CLASSIFIER,
        {
            "vocab_size": 13,
            "d_model": 8,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 12,
            "decoder_ffn_dim": 12,
            "max_position_embeddings": 16,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 2,
        },
    ),
    "Mamba": (
        LM,
        {"vocab_size": 13, "hidden_size": 8, "num_hidden_layers": 1, "state_size": 4},
    ),
    "Rwkv": (
        LM,
        {"vocab_size": 13, "hidden_size": 8, "num_hidden_layers": 2, "attention_hidden_size": 8},
    ),
}
NAMES = {"GPT2ForCausalLM": "GPT2LMHeadModel"}


def logits(model, batch):
    """A number per example: for language models over all positions."""
    out = model(batch["x"]).logits
    return out.flatten(1).sin().mean(1)


class Twin(nn.Module):
    """A linear map in a form that gives the same numbers in another way."""

    def __init__(self, inner, kind):
        super().__init__()
        self.inner, self.kind = inner, kind

    def forward(self, x):
        if self.kind == "in place":
            return self.inner(x).mul_(1.5)
        if self.kind == "shared":
            fixed = torch.ones(1, *x.shape[1:], dtype=x.dtype)
            return self.inner(x) + self.inner(fixed)[0]
        order = x.flatten(1).sin().sum(1).argsort()
        return self.inner(x[order])[order.argsort()]


def with_twin(model, kind):
    """The first linear map on [batch, length, features] replaced."""
    for name, layer in model.named_modules():
        if type(layer) is nn.Linear and "gate" not in name:
            setattr(
                model.get_submodule(name.rpartition(".")[0]),
                name.rpartition(".")[2],
                Twin(layer, kind),
            )
            return model
    raise AssertionError("no linear map that this class calls as a module")


def build(name):
    head, config = MODELS[name]
    kind = getattr(transformers, NAMES.get(f"{name}{head}", f"{name}{head}"))
    torch.manual_seed(0)
    return kind(getattr(transformers, f"{name}Config")(**config)).double().eval()


KINDS = ("in place", "shared", "permuted")
CASES = [
    *((name, "") for name in MODELS),
    *((name, KINDS[k % 3]) for k, name in enumerate(MODELS)),  # one twin per class
]
WITHOUT_BACKWARD = {"Rwkv"}
"""Models that change weights in place in evaluation mode, so that autograd fails, too."""
IN_FLOAT32 = {"Gemma"}
"""Models that compute a part in float32 whatever their type."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "twin"), CASES)
def test_models_of_transformers(name, twin):
    model = build(name)
    tokens = torch.randint(3, 13, (N, LENGTH))
    tokens[:, -1] = 2  # what some read as the end
    model = with_twin(model, twin) if twin else model
    tolerance = 1e-5 if name in IN_FLOAT32 else 1e-8
    is_exact = exact_or_refused(model, {"x": tokens}, logits, tolerance)
    assert is_exact == (name not in WITHOUT_BACKWARD)
