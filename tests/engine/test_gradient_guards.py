"""What no factor may get wrong in silence: each model against a float64 loop over its examples, or
refused by name.
"""

import pytest
import torch
import torch.nn.functional as F
from oracles import gradients as oracle
from torch import nn
from torch.nn.utils import prune

from unseen.engine.gradient_check import check_gradients, remembered_checks
from unseen.engine.tap import tap, tap_and_reduce
from unseen.errors import UnsupportedLayer
from unseen.models.transformer import Decoder, Transformer
from unseen.objectives import sequence_log_probability

B = 5


def cross_entropy(model, batch):
    return F.cross_entropy(model(batch["x"]), batch["y"], reduction="none")


class TokenMLP(nn.Module):
    """A linear map on [batch, tokens, features] whose output, a view, is changed in place."""

    def __init__(self):
        super().__init__()
        self.up, self.act, self.out = nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Linear(8, 3)

    def forward(self, x):
        return self.out(self.act(self.up(x)).mean(1))


class Prompted(nn.Module):
    """A layer that runs once for all examples, [1, …], and is read in some way."""

    def __init__(self, use):
        super().__init__()
        self.embed, self.prompt = nn.Embedding(11, 4), nn.Embedding(6, 4)
        self.map, self.out, self.use = nn.Linear(4, 4), nn.Linear(4, 3), use

    def forward(self, x):
        shared = self.map(self.prompt(torch.arange(6)[None]))
        return self.out(torch.tanh(self.embed(x) + self.use(shared, len(x))).mean(1))


class Sorted(nn.Module):
    """Sorts by length, runs a layer and undoes the order."""

    def __init__(self):
        super().__init__()
        self.embed, self.layer, self.out = nn.Embedding(11, 4), nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x):
        order = (x != 0).sum(1).argsort(descending=True, stable=True)
        return self.out(self.layer(self.embed(x)[order]).tanh().mean(1)[order.argsort()])


class Experts(nn.Module):
    """Each example goes to the expert that its features choose."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(4, 2)
        self.experts = nn.ModuleList(nn.Linear(4, 3) for _ in range(2))

    def forward(self, x):
        weights = self.gate(x).softmax(1)
        chosen, out = weights.argmax(1), x.new_zeros(len(x), 3)
        for k, expert in enumerate(self.experts):
            rows = (chosen == k).nonzero().flatten()
            if len(rows):
                out = out.index_add(0, rows, expert(x[rows]) * weights[rows, k, None])
        return out


class Centred(nn.Module):
    """Subtracts the mean over the batch, with or without its gradient."""

    def __init__(self, detach):
        super().__init__()
        self.inner, self.out, self.detach = nn.Linear(4, 4), nn.Linear(4, 3), detach

    def forward(self, x):
        h = self.inner(x)
        centre = h.mean(0)
        return self.out(torch.tanh(h - (centre.detach() if self.detach else centre)))


class Attention(nn.Module):
    def __init__(self, batch_first=True):
        super().__init__()
        self.attend, self.out = (
            nn.MultiheadAttention(4, 2, batch_first=batch_first),
            nn.Linear(4, 3),
        )
        self.first = batch_first

    def forward(self, x):
        x = x if self.first else x.transpose(0, 1)
        y = self.attend(x, x, x)[0]
        return self.out((y if self.first else y.transpose(0, 1)).mean(1))


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out = nn.Linear(4, 3)

    def forward(self, x):
        return self.out(self.encoder(x).mean(1))


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.cell, self.out = kind(4, 3, batch_first=True), nn.Linear(3, 3)

    def forward(self, x):
        return self.out(self.cell(x)[0][:, -1])


class Bag(nn.Module):
    """An embedding bag that gets all examples in one row and where each begins."""

    def __init__(self):
        super().__init__()
        self.bag, self.out = nn.EmbeddingBag(11, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.out(self.bag(x.flatten(), torch.arange(0, x.numel(), x.shape[1])))


class Positions(nn.Module):
    """Position embeddings without an axis of examples."""

    def __init__(self):
        super().__init__()
        self.embed, self.position, self.out = (
            nn.Embedding(11, 4),
            nn.Embedding(9, 4),
            nn.Linear(4, 3),
        )

    def forward(self, x):
        return self.out(torch.tanh(self.embed(x) + self.position(torch.arange(x.shape[1]))).mean(1))


class Checkpointed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.inner, self.out, self.reentrant = nn.Linear(4, 6), nn.Linear(6, 3), reentrant
        self.first = nn.Linear(4, 4)

    def forward(self, x):
        from torch.utils.checkpoint import checkpoint

        def run(x):
            return torch.tanh(self.inner(x))

        return self.out(checkpoint(run, self.first(x), use_reentrant=self.reentrant))


class Outside(nn.Module):
    """The weight of a layer is read outside it, and a list of parameters is nobody's."""

    def __init__(self):
        super().__init__()
        self.inner, self.free = nn.Linear(4, 4), nn.ParameterList([torch.randn(4, 3)])

    def forward(self, x):
        return F.linear(self.inner(x), self.inner.weight) @ self.free[0]


def reparametrized(kind):
    inner = nn.Linear(4, 4)
    if kind == "weight_norm hook":
        inner = nn.utils.weight_norm(inner)
    if kind == "weight_norm":
        inner = nn.utils.parametrizations.weight_norm(inner)
    if kind == "spectral_norm":
        inner = nn.utils.parametrizations.spectral_norm(inner)
    if kind == "orthogonal":
        inner = nn.utils.parametrizations.orthogonal(inner)
    if kind == "pruning":
        inner = prune.l1_unstructured(inner, "weight", amount=0.5)
    return nn.Sequential(inner, nn.Tanh(), nn.Linear(4, 3))


def vectors(*shape):
    return {"x": torch.randn(B, *shape).double(), "y": torch.randint(3, (B,))}


def texts():
    x = torch.randint(1, 11, (B, 6))
    x[0, 2:], x[2, 4:] = 0, 0
    return {"x": x, "y": torch.randint(3, (B,))}


EXACT = {
    "in-place after a view": (TokenMLP, lambda: vectors(6, 4)),
    "in-place after affine InstanceNorm": (
        lambda: nn.Sequential(
            nn.InstanceNorm1d(4, affine=True), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(24, 3)
        ),
        lambda: vectors(4, 6),
    ),
    "shared, broadcast": (lambda: Prompted(lambda q, n: q), texts),
    "shared, q[0]": (lambda: Prompted(lambda q, n: q[0]), texts),
    "shared, mean": (lambda: Prompted(lambda q, n: q.mean(0)), texts),
    "shared, sum": (lambda: Prompted(lambda q, n: q.sum(0)), texts),
    "shared, repeat": (lambda: Prompted(lambda q, n: q.repeat(n, 1, 1)), texts),
    "sorted and undone": (Sorted, texts),
    "experts": (Experts, lambda: vectors(4)),
    "attention": (Attention, lambda: vectors(6, 4)),
    "attention, sequence first": (lambda: Attention(batch_first=False), lambda: vectors(6, 4)),
    "transformer encoder": (Encoder, lambda: vectors(6, 4)),
    "LSTM": (lambda: Recurrent(nn.LSTM), lambda: vectors(6, 4)),
    "GRU": (lambda: Recurrent(nn.GRU), lambda: vectors(6, 4)),
    "embedding bag with offsets": (Bag, texts),
    "positions [t, d]": (Positions, texts),
    "checkpoint": (lambda: Checkpointed(False), lambda: vectors(4)),
    "weights read outside": (Outside, lambda: vectors(4)),
    **{
        kind: (lambda kind=kind: reparametrized(kind), lambda: vectors(4))
        for kind in ("weight_norm hook", "weight_norm", "spectral_norm", "orthogonal", "pruning")
    },
}


def build(make):
    return make().double().eval()


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
@pytest.mark.parametrize("case", EXACT)
def test_gradients_are_those_of_a_loop_over_examples(case):
    make, data = EXACT[case]
    model, batch = build(make), data()
    ref = oracle.per_example_gradients(model, batch, cross_entropy)
    mine = tap(model, batch, cross_entropy)
    assert list(mine) == list(ref)
    largest = max(rows.abs().max() for rows in ref.values())
    for name, form in mine.items():
        torch.testing.assert_close(form.gradients(), ref[name], rtol=1e-9, atol=1e-10 * largest)
        torch.testing.assert_close(form.total(), ref[name].sum(0), rtol=1e-9, atol=1e-9 * largest)


def test_only_what_has_no_factors_is_done_example_by_example():
    model, batch = build(Encoder), vectors(6, 4)
    found = check_gradients(model, batch, cross_entropy)
    assert {name.split("self_attn.")[-1] for name in found.one_by_one} == {
        "in_proj_weight",
        "in_proj_bias",
        "out_proj.weight",
        "out_proj.bias",
    }
    assert "out.weight" in found.factored
    assert "encoder.layers.0.self_attn" in found.sentence()
    assert "of each example alone, all at once" in found.sentence()


def test_a_sound_model_passes_both_guards_to_rounding():
    model, batch = (
        build(lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))),
        vectors(4),
    )
    found = check_gradients(model, batch, cross_entropy)
    assert found.scaling_error < 1e-14
    assert found.sum_error < 1e-14
    assert not found.one_by_one
    assert found.sentence() == ""


def contrastive(model, batch):
    z = model(batch["x"])
    return F.cross_entropy(z @ z.T, torch.arange(len(z)), reduction="none")


MIXING = {
    "centred": (lambda: Centred(False), cross_entropy, "before `out`"),
    "centred by a constant": (lambda: Centred(True), cross_entropy, "before `out`"),
    "contrastive loss": (lambda: nn.Linear(4, 3), contrastive, "the function of model and batch"),
    "batch norm by batch": (
        lambda: nn.Sequential(
            nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 3)
        ),
        cross_entropy,
        "BatchNorm1d `1`",
    ),
}


@pytest.mark.parametrize("case", MIXING)
def test_losses_that_depend_on_other_examples_are_refused_by_name(case):
    make, f, named = MIXING[case]
    with pytest.raises(UnsupportedLayer, match=named) as error:
        tap(build(make), vectors(4), f)
    assert error.value.why
    assert error.value.fix


def test_what_autograd_cannot_differentiate_is_refused():
    with pytest.raises(UnsupportedLayer, match="backward pass of f fails") as error:
        tap(build(lambda: Checkpointed(True)), vectors(4), cross_entropy)
    assert "use_reentrant=False" in error.value.fix


class Spectral(nn.Module):
    """A filter with complex weights."""

    def __init__(self):
        super().__init__()
        self.w, self.out = nn.Parameter(torch.randn(4, 3, dtype=torch.cfloat)), nn.Linear(16, 3)

    def forward(self, x):
        return self.out(torch.fft.irfft2(torch.fft.rfft2(x) * self.w, s=(4, 4)).flatten(1))


def test_complex_parameters_have_complex_gradients():
    model, batch = Spectral(), vectors(4, 4)
    model.w.data, model.out = model.w.data.cdouble(), model.out.double()
    ref = oracle.per_example_gradients(model, batch, cross_entropy)
    mine = tap(model, batch, cross_entropy)
    for name, form in mine.items():
        rows = ref[name].flatten(1)
        torch.testing.assert_close(form.gradients(), ref[name])
        torch.testing.assert_close(form.norms2(), rows.abs().square().sum(1))
        torch.testing.assert_close(form.dots(form), (rows @ rows.conj().T).real)
        v = torch.randn_like(ref[name][0])
        torch.testing.assert_close(form.along(v), (rows @ v.conj().flatten()).real)
        into = torch.zeros_like(ref[name][0])
        form.add_sum_and_norms(into)
        torch.testing.assert_close(into, ref[name].sum(0))


def test_a_check_is_remembered_until_the_model_changes():
    model, batch = (
        build(lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))),
        vectors(4),
    )
    first = check_gradients(model, batch, cross_entropy)
    assert check_gradients(model, vectors(4), cross_entropy) is first  # other data of the same kind
    model[0].weight.data.mul_(2)
    assert check_gradients(model, batch, cross_entropy) is first  # other values
    model[1] = nn.Tanh()
    second = check_gradients(model, batch, cross_entropy)
    assert second is not first
    model[0].weight.requires_grad_(False)
    assert check_gradients(model, batch, cross_entropy) is not second
    third = check_gradients(model, batch, cross_entropy)
    assert check_gradients(model, batch, contrastive_free) is not third  # another function
    assert len(remembered_checks(model)) == 4


def contrastive_free(model, batch):
    return model(batch["x"]).square().sum(1)


def test_neither_the_generator_nor_buffers_nor_modes_move():
    model = nn.Sequential(
        nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4)), nn.Dropout(0.5), nn.Linear(4, 3)
    ).train()
    batch = {"x": torch.randn(B, 4), "y": torch.randint(3, (B,))}
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    check_gradients(model, batch, cross_entropy)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(layer.training for layer in model.modules())


def test_streams_that_sort_differently_from_the_first_batch_are_noticed():
    """The first batch holds texts of one length, so nothing is permuted there."""
    model = build(Sorted)
    same = {"x": torch.randint(1, 11, (B, 6)), "y": torch.randint(3, (B,))}
    for _ in range(20):
        tap_and_reduce(model, same, cross_entropy, lambda name, form: form.total())
    later = texts()
    for _ in range(20):
        found = tap(model, later, cross_entropy)
    ref = oracle.per_example_gradients(model, later, cross_entropy)
    torch.testing.assert_close(found["layer.bias"].gradients(), ref["layer.bias"])


class RareExperts(nn.Module):
    """Most examples go to the first expert; a check of a few sees no other one."""

    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        self.out = nn.Linear(4, 3)

    def forward(self, x):
        chosen, out = (x[:, 0] > 5).long(), x.new_zeros(len(x), 4)
        for k, expert in enumerate(self.experts):
            if (chosen == k).any():
                out[chosen == k] = expert(x[chosen == k]).tanh()
        return self.out(out)


@pytest.mark.parametrize("rare", [[4], [4, 12]])
def test_a_layer_that_only_unchecked_examples_reach_has_their_gradients(rare):
    """One such example alone looks like a layer that is shared by all examples."""
    model = build(RareExperts)
    for rows in ([], rare):
        batch = {"x": torch.randn(20, 4).double(), "y": torch.randint(3, (20,))}
        batch["x"][rows, 0] = 9.0
        found = tap(model, batch, cross_entropy)
        ref = oracle.per_example_gradients(model, batch, cross_entropy)
        for name, form in found.items():
            torch.testing.assert_close(form.gradients(), ref[name])


class SortedList(Sorted):
    """The same without an index: rows one by one, in the order of a list."""

    def forward(self, x):
        order = (x != 0).sum(1).argsort(descending=True, stable=True).tolist()
        y = self.layer(self.embed(self.rows(x, order))).tanh().mean(1)
        return self.out(self.rows(y, [order.index(k) for k in range(len(x))]))

    def rows(self, x, order):
        return torch.stack([x[k] for k in order])


class SortedSlices(SortedList):
    def rows(self, x, order):
        return torch.cat([x[k : k + 1] for k in order])


class SortedParts(SortedList):
    def rows(self, x, order):
        parts = x.split(1)
        return torch.cat([parts[k] for k in order])


class SortedRows(SortedList):
    def rows(self, x, order):
        rows = list(x)
        return torch.stack([rows[k] for k in order])


class SortedProducts(SortedList):
    def rows(self, x, order):
        table = torch.eye(len(x), dtype=torch.float64)[:, order].T
        return (table @ x.flatten(1).double()).to(x.dtype).reshape(x.shape)


@pytest.mark.parametrize(
    "make", [SortedList, SortedSlices, SortedParts, SortedRows, SortedProducts]
)
def test_an_order_that_the_checked_examples_leave_idle_is_noticed(make):
    model = build(make)
    same = {"x": torch.randint(1, 11, (B, 6)), "y": torch.randint(3, (B,))}
    tap(model, same, cross_entropy)
    later = texts()
    found = tap(model, later, cross_entropy)
    ref = oracle.per_example_gradients(model, later, cross_entropy)
    torch.testing.assert_close(found["layer.bias"].gradients(), ref["layer.bias"])


def test_a_decoder_that_indexes_masks_and_positions_keeps_its_factors():
    torch.manual_seed(0)
    model = Transformer(Decoder(vocabulary=20, width=16, layers=1, heads=2, context=12)).eval()
    batch = {"tokens": torch.randint(1, 20, (6, 8))}
    check = check_gradients(model, batch, sequence_log_probability)
    assert not check.one_by_one
