"""tap against a loop over examples, in float64, on every kind of layer; and what it refuses."""

import gc

import pytest
import torch
import torch.nn.functional as F
from oracles import gradients as oracle
from torch import nn

from unseen.engine.gradient_factors import FullGradient, LinearFactor
from unseen.engine.layer_taps import _Call
from unseen.engine.tap import forms, tap, tap_and_reduce
from unseen.errors import InvalidData, UnsupportedLayer
from unseen.models.conv import Norm, cnn, resnet
from unseen.models.mlp import mlp

B = 5
transformers = pytest.importorskip("transformers")


def cross_entropy(model, batch):
    return F.cross_entropy(model(batch["x"]).flatten(1), batch["y"], reduction="none")


def next_token(model, batch):
    out = model(batch["tokens"])
    logits = getattr(out, "logits", out)[:, :-1]
    loss = F.cross_entropy(logits.flatten(0, 1), batch["tokens"][:, 1:].flatten(), reduction="none")
    return loss.view(len(logits), -1).mean(1)


def images(classes, channels=1, side=8, b=B):
    return {"x": torch.randn(b, channels, side, side).double(), "y": torch.randint(classes, (b,))}


def vectors(classes, *shape, b=B):
    return {"x": torch.randn(b, *shape).double(), "y": torch.randint(classes, (b,))}


def tokens(vocabulary, length, b=B):
    return {"tokens": torch.randint(vocabulary, (b, length))}


class Shared(nn.Module):
    """One linear map called twice, at positions and at a single one."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.inner(torch.tanh(self.inner(x))).mean(1))


class SharedConv(nn.Module):
    """A convolution called at two resolutions, and an input that is changed in place after it was
    used.
    """

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(2, 2, 3, padding=1), nn.Linear(2, 3)

    def forward(self, x):
        x = F.max_pool2d(torch.relu_(self.conv(x)), 2)
        return self.head(self.conv(x).mean((2, 3)))


class Language(nn.Module):
    """Token and position embeddings, the former tied to the output, and a padding index."""

    def __init__(self, tied=True, flat_positions=False):
        super().__init__()
        self.embed, self.position = nn.Embedding(11, 8, padding_idx=0), nn.Embedding(7, 8)
        self.norm, self.mix = nn.LayerNorm(8), nn.Linear(8, 8)
        self.head = nn.Linear(8, 11, bias=False)
        self.flat = flat_positions
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, tokens):
        position = torch.arange(tokens.shape[1])
        x = self.embed(tokens) + self.position(position if self.flat else position[None])
        return self.head(self.norm(self.mix(x).cumsum(1)))


class Composite(nn.Module):
    """Own parameter beside parts with parameters."""

    def __init__(self):
        super().__init__()
        self.scale, self.inner = nn.Parameter(torch.randn(4)), nn.Linear(6, 4)

    def forward(self, x):
        return self.inner(x) * self.scale


class Swap(nn.Module):
    def __init__(self, *axes):
        super().__init__()
        self.axes = axes

    def forward(self, x):
        return x.transpose(*self.axes)


def batchnorm_eval():
    model = resnet((4, 6), norm=Norm.BATCH, classes=3)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 0.5, 2)
    return model.eval()


def gpt2(tied=True):
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=13,
            n_positions=9,
            n_embd=8,
            n_layer=2,
            n_head=2,
            bos_token_id=0,
            eos_token_id=0,
            tie_word_embeddings=tied,
            attn_implementation="eager",
        )
    ).eval()


def llama():
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=13,
            hidden_size=8,
            intermediate_size=12,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=16,
            attn_implementation="eager",
        )
    ).eval()


CASES = {
    "mlp": lambda: (mlp([6, 7, 3]), vectors(3, 6), cross_entropy),
    "one example": lambda: (mlp([6, 7, 3]), vectors(3, 6, b=1), cross_entropy),
    "as wide as the batch": lambda: (mlp([5, 5, 5]), vectors(5, 5), cross_entropy),
    "positions": lambda: (
        nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(18, 3)),
        vectors(3, 2, 3, 4),
        cross_entropy,
    ),
    "small cnn": lambda: (cnn((4, 6), 3), images(3, side=12), cross_entropy),
    "inplace relu": lambda: (
        nn.Sequential(
            nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 3), nn.ReLU(inplace=True)
        ),
        vectors(3, 4),
        cross_entropy,
    ),
    "strided conv": lambda: (
        nn.Sequential(
            nn.Conv2d(2, 4, (3, 2), stride=(2, 1), padding=(1, 0)), nn.Tanh(), nn.Conv2d(4, 3, 4)
        ),
        images(3, 2, 8, 1),
        cross_entropy_pooled,
    ),
    "dilated conv": lambda: (
        nn.Sequential(
            nn.Conv2d(2, 3, 3, dilation=2, padding="same"), nn.Tanh(), nn.Conv2d(3, 3, 1, stride=2)
        ),
        images(3, 2),
        cross_entropy_pooled,
    ),
    "grouped conv": lambda: (
        nn.Sequential(
            nn.Conv2d(4, 6, 3, groups=2, padding=1),
            nn.Tanh(),
            nn.Conv2d(6, 6, 3, groups=6),
            nn.Conv2d(6, 3, 1, groups=3),
        ),
        images(3, 4),
        cross_entropy_pooled,
    ),
    "circular conv": lambda: (
        nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"),
        images(3, 2),
        cross_entropy_pooled,
    ),
    "conv1d": lambda: (
        nn.Sequential(
            nn.Conv1d(3, 4, 3, stride=2, padding=1, dilation=2),
            nn.Tanh(),
            nn.Conv1d(4, 3, 1, stride=2),
        ),
        vectors(3, 3, 9),
        cross_entropy_pooled,
    ),
    "conv wide": lambda: (
        nn.Sequential(nn.Conv2d(8, 24, 3), nn.Tanh(), nn.Conv2d(24, 3, 1)),
        images(3, 8, 4),
        cross_entropy_pooled,
    ),
    "transposed conv": lambda: (
        nn.Sequential(nn.ConvTranspose2d(2, 3, 3, stride=2), nn.PReLU(3), nn.Conv2d(3, 3, 3)),
        images(3, 2, 4),
        cross_entropy_pooled,
    ),
    "shared": lambda: (Shared(), vectors(3, 4, 6), cross_entropy),
    "shared conv": lambda: (SharedConv(), images(3, 2), cross_entropy),
    "tied": lambda: (Language(), tokens(11, 7), next_token),
    "untied": lambda: (Language(tied=False), tokens(11, 7), next_token),
    "layernorm 2d": lambda: (
        nn.Sequential(nn.LayerNorm((3, 4)), nn.Flatten(), nn.RMSNorm(12), nn.Linear(12, 3)),
        vectors(3, 3, 4),
        cross_entropy,
    ),
    "groupnorm resnet": lambda: (resnet((4, 8), classes=3), images(3), cross_entropy),
    "batchnorm eval": lambda: (batchnorm_eval(), images(3), cross_entropy),
    "batchnorm1d eval": lambda: (
        nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)).eval(),
        vectors(3, 4),
        cross_entropy,
    ),
    "composite": lambda: (Composite(), vectors(4, 6), cross_entropy),
    "token mixing": lambda: (
        nn.Sequential(nn.Linear(4, 4), Swap(1, 2), nn.Linear(6, 2), nn.Flatten(), nn.Linear(8, 3)),
        vectors(3, 6, 4),
        cross_entropy,
    ),
    "gpt2": lambda: (gpt2(), tokens(13, 6), next_token),
    "gpt2 untied": lambda: (gpt2(tied=False), tokens(13, 6), next_token),
    "llama": lambda: (llama(), tokens(13, 6), next_token),
}


def cross_entropy_pooled(model, batch):
    return F.cross_entropy(model(batch["x"]).flatten(2).mean(2), batch["y"], reduction="none")


def close(actual, expected):
    """To 1e-9 of the largest entry: entries near zero are differences of large ones."""
    torch.testing.assert_close(
        actual, expected, rtol=1e-9, atol=1e-9 * max(1e-3, expected.abs().max().item())
    )


@pytest.mark.parametrize("case", CASES)
def test_every_form_equals_a_loop_over_examples(case):
    model, batch, f = CASES[case]()
    model.double()
    other = {name: tensor.flip(0)[: max(1, len(tensor) - 2)] for name, tensor in batch.items()}
    mine, theirs = tap(model, batch, f), tap(model, other, f)
    ref, far = (
        oracle.per_example_gradients(model, batch, f),
        oracle.per_example_gradients(model, other, f),
    )
    assert list(mine) == list(ref)
    for name, form in mine.items():
        expected, v = ref[name], torch.randn(3, *ref[name].shape[1:]).double()
        flat = expected.flatten(1)
        assert len(form) == len(expected)
        close(form.gradients(), expected)
        close(form.total(), expected.sum(0))
        close(form.norms2(), flat.square().sum(1))
        into = torch.ones_like(expected[0])
        close(form.add_sum_and_norms(into), flat.square().sum(1))
        close(into, 1 + expected.sum(0))
        close(form.dots(theirs[name]), flat @ far[name].flatten(1).T)
        close(form.along(v), flat @ v.flatten(1).T)
        close(form.along(v[0]), flat @ v[0].flatten())
        close(form.take(torch.tensor([len(flat) - 1, 0])).total(), expected[-1] + expected[0])


def test_sums_over_parameters_are_those_of_the_whole_gradient():
    model, batch, f = CASES["small cnn"]()
    model.double()
    mine, ref = (
        tap(model, batch, f),
        oracle.flattened(oracle.per_example_gradients(model, batch, f)),
    )
    close(sum(form.dots(form) for form in mine.values()), ref @ ref.T)
    close(sum(form.norms2() for form in mine.values()), ref.square().sum(1))


def test_frozen_parameters_are_left_out_and_unused_ones_are_zero():
    model, batch, f = CASES["mlp"]()
    model.double()
    model[1].weight.requires_grad_(False)
    model[1].register_module("spare", nn.Linear(2, 2).double())
    mine = tap(model, batch, f)
    assert "1.weight" not in mine
    assert mine["1.spare.weight"].norms2().eq(0).all()
    assert mine["1.spare.weight"].gradients().shape == (B, 2, 2)
    close(mine["1.bias"].gradients(), oracle.per_example_gradients(model, batch, f)["1.bias"])


def _snapshot(model):
    return (
        [layer.training for layer in model.modules()],
        [p.requires_grad for p in model.parameters()],
        [p.grad for p in model.parameters()],
        [len(layer._forward_hooks) + len(layer._forward_pre_hooks) for layer in model.modules()],
        [tensor.clone() for tensor in model.state_dict().values()],
    )


def _same(a, b):
    assert a[:4] == b[:4]
    assert all(torch.equal(x, y) for x, y in zip(a[4], b[4], strict=True))


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(training):
    model = mlp([6, 7, 3], dropout=0.5).train(training)
    model[1].bias.requires_grad_(False)
    next(model.parameters()).grad = torch.ones(7, 6)
    batch = {"x": torch.randn(B, 6), "y": torch.randint(3, (B,))}
    before = _snapshot(model)
    tap(model, batch, cross_entropy)
    _same(before, _snapshot(model))

    def broken(model, batch):
        model(batch["x"])
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        tap(model, batch, broken)
    _same(before, _snapshot(model))
    with pytest.raises(RuntimeError):  # in the middle of the forward pass
        tap(model, {"x": torch.randn(B, 5), "y": batch["y"]}, cross_entropy)
    _same(before, _snapshot(model))


def test_a_batch_that_asks_for_gradients_itself():
    model, batch, f = CASES["mlp"]()
    model.double()
    ref = oracle.per_example_gradients(model, batch, f)
    asking = {**batch, "x": batch["x"].clone().requires_grad_()}
    for name, form in tap(model, asking, f).items():
        close(form.gradients(), ref[name])
    assert asking["x"].grad is None


def test_dropout_gradients_are_those_of_the_drawn_masks():
    model = mlp([6, 7, 3], dropout=0.5).double()
    batch = vectors(3, 6)
    torch.manual_seed(3)
    mine = tap(model, batch, cross_entropy)
    torch.manual_seed(3)
    cross_entropy(model, batch).sum().backward()
    for name, p in model.named_parameters():
        close(mine[name].total(), p.grad)


def test_a_tensor_of_the_loss_that_asks_for_gradients_is_no_parameter():
    model, batch, _ = CASES["mlp"]()
    model.double()
    leaf = torch.randn(6).double().requires_grad_()

    def f(model, batch):
        return cross_entropy(model, {**batch, "x": batch["x"] * leaf})

    ref = oracle.per_example_gradients(model, batch, f)
    for name, form in tap(model, batch, f).items():
        close(form.gradients(), ref[name])
    assert leaf.grad is None


def test_reduced_is_tap_without_keeping_the_forms():
    model, batch, f = CASES["gpt2"]()
    model.double()
    ref = {name: form.gradients() for name, form in tap(model, batch, f).items()}
    mine = tap_and_reduce(model, batch, f, lambda name, form: (name, form.gradients()))
    for name, grads in ref.items():
        assert mine[name][0] == name
        close(mine[name][1], grads)


def test_layers_under_no_grad_have_no_gradient():
    model, batch, _ = CASES["mlp"]()
    model.double()

    def distil(model, batch):
        with torch.no_grad():
            target = model(batch["x"] + 1)
        return (model(batch["x"]) - target).square().sum(1)

    ref = oracle.per_example_gradients(model, batch, distil)
    for name, form in tap(model, batch, distil).items():
        close(form.gradients(), ref[name])


class Outside(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 6)

    def forward(self, x):
        return F.linear(self.inner(x), self.inner.weight)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attend = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x):
        return self.attend(x, x, x)[0].mean(1)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.LSTM(6, 3, batch_first=True)

    def forward(self, x):
        return self.cell(x)[0].mean(1)


class Flattens(nn.Module):
    """Merges examples and positions before a layer."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 3)

    def forward(self, x):
        return self.inner(x.flatten(0, 1)).view(len(x), -1, 3).mean(1)


class SequenceFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 3)

    def forward(self, x):
        return self.inner(x.transpose(0, 1)).mean(0)


class Changes(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 6)

    def forward(self, x):
        x = x * 1.0
        y = self.inner(x)
        x += 1
        return x + y


REFUSED = {
    "batchnorm in training mode": (
        lambda: nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3)),
        (6,),
        "BatchNorm1d `1`",
    ),
    "batchnorm without parameters": (
        lambda: nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3, affine=False)),
        (6,),
        "BatchNorm1d `1`",
    ),
    "batchnorm without statistics": (
        lambda: nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3, track_running_stats=False)).eval(),
        (6,),
        "`1`",
    ),
    "input changed in place": (Changes, (6,), "Linear `inner`"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_exact_answer_is_refused_by_name(case):
    make, shape, named = REFUSED[case]
    model, batch = make(), {"x": torch.randn(B, *shape), "y": torch.randint(3, (B,))}
    before = _snapshot(model)
    with pytest.raises(UnsupportedLayer, match=named) as error:
        tap(model, batch, cross_entropy)
    assert error.value.why
    assert error.value.fix
    _same(before, _snapshot(model))


NO_FACTORS = {
    "weight used outside": (Outside, lambda: vectors(6, 6)),
    "several inputs": (Attention, lambda: vectors(6, 4, 6)),
    "several outputs": (Recurrent, lambda: vectors(3, 4, 6)),
    "positions merged with examples": (Flattens, lambda: vectors(3, 4, 6)),
    "sequence first": (SequenceFirst, lambda: vectors(3, 4, 6)),
    "sequence first, as long as the batch": (SequenceFirst, lambda: vectors(3, B, 6)),
}


@pytest.mark.parametrize("case", NO_FACTORS)
def test_what_has_no_factors_is_computed_of_each_example_alone(case):
    make, data = NO_FACTORS[case]
    model, batch = make().double(), data()
    before = _snapshot(model)
    ref = oracle.per_example_gradients(model, batch, cross_entropy)
    mine = tap(model, batch, cross_entropy)
    assert any(isinstance(form, FullGradient) for form in mine.values())
    for name, form in mine.items():
        close(form.gradients(), ref[name])
    _same(before, _snapshot(model))


@pytest.mark.parametrize("length", [4, B])
def test_positions_without_a_batch_axis_are_exact(length):
    model, batch = Language(flat_positions=True).double(), tokens(11, length)
    ref = oracle.per_example_gradients(model, batch, next_token)
    for name, form in tap(model, batch, next_token).items():
        close(form.gradients(), ref[name])


def test_a_batch_that_equals_a_length_by_accident_is_exact_after_others_were_checked():
    model = Language(flat_positions=True).double()
    for batch in (tokens(11, 6), tokens(11, 7, b=7), tokens(11, 6, b=6)):
        ref = oracle.per_example_gradients(model, batch, next_token)
        for name, form in tap(model, batch, next_token).items():
            close(form.gradients(), ref[name])


@pytest.mark.parametrize(
    "average",
    [
        lambda model, batch: cross_entropy(model, batch).mean(),
        lambda model, batch: cross_entropy(model, batch)[:-1],
        lambda model, batch: model(batch["x"]),
    ],
)
def test_an_averaged_loss_is_refused(average):
    model, batch, _ = CASES["mlp"]()
    with pytest.raises(InvalidData, match="one number per example"):
        tap(model.double(), batch, average)


def test_a_loss_without_parameters_is_refused():
    model, batch, f = CASES["mlp"]()
    model.double().requires_grad_(False)
    with pytest.raises(InvalidData, match="does not depend"):
        tap(model, batch, f)


def test_an_embedding_that_counts_over_the_batch_is_refused():
    model = nn.Sequential(nn.Embedding(5, 3, scale_grad_by_freq=True), nn.Flatten())
    with pytest.raises(UnsupportedLayer, match="scale_grad_by_freq"):
        tap(model, {"x": torch.randint(5, (B, 1)), "y": torch.randint(3, (B,))}, cross_entropy)


class Scaled(nn.Linear):
    """A subclass with a forward pass of its own must not be taken for its parent."""

    def forward(self, x):
        return 3 * super().forward(x)


def test_a_subclass_with_its_own_forward_is_treated_as_it_computes():
    model, batch = nn.Sequential(Scaled(6, 3)).double(), vectors(3, 6)
    ref = oracle.per_example_gradients(model, batch, cross_entropy)
    mine = tap(model, batch, cross_entropy)
    assert isinstance(mine["0.weight"], FullGradient)
    close(mine["0.weight"].gradients(), ref["0.weight"])


def test_a_layer_type_can_be_registered():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 6))

        def forward(self, x):
            return 2 * x @ self.weight.T

    @forms.register
    def _(layer: Twice, x: torch.Tensor, g: torch.Tensor):
        return {"weight": LinearFactor(x[:, None], 2 * g[:, None], layer.weight.shape)}

    model, batch = nn.Sequential(Twice()).double(), vectors(3, 6)
    mine = tap(model, batch, cross_entropy)["0.weight"]
    assert isinstance(mine, LinearFactor)
    close(mine.gradients(), oracle.per_example_gradients(model, batch, cross_entropy)["0.weight"])


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 6))

    def forward(self, x):
        return F.linear(F.dropout(x), self.weight)


def test_a_random_layer_without_a_registered_form_draws_for_each_example():
    model, batch = nn.Sequential(Noisy(), nn.Linear(3, 3)).double(), vectors(3, 6)
    forms = tap(model, batch, cross_entropy)
    assert all(isinstance(form, FullGradient) for form in forms.values())
    torch.manual_seed(5)
    found = tap(model, batch, cross_entropy)
    torch.manual_seed(5)
    ref = oracle.per_example_gradients(model, batch, cross_entropy)
    for name, form in found.items():
        close(form.gradients(), ref[name])


def test_nothing_of_the_graph_is_left_after_a_tap_or_a_refusal():
    """A circle through the graph's hooks is invisible to the collector: it kept every batch of a
    training run.
    """
    model, batch = mlp([4, 6, 3]).double(), vectors(3, 4)
    # tracebacks of other tests may hold theirs
    before = {id(thing) for thing in gc.get_objects() if type(thing) is _Call}
    tap_and_reduce(model, batch, cross_entropy, lambda name, form: form.total())
    with pytest.raises(InvalidData, match="one number per example"):
        tap(model, batch, lambda model, batch: cross_entropy(model, batch).mean())
    gc.collect()
    after = {id(thing) for thing in gc.get_objects() if type(thing) is _Call}
    assert after <= before
