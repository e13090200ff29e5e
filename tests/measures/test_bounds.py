"""Generalization measures against slow float64 references, and what they do not depend on."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis.strategies import integers
from torch import nn

from unseen.engine.batches import Columns
from unseen.errors import InvalidData, UnknownName, UnsupportedLayer
from unseen.lab import Lab
from unseen.measures.bounds import MEASURES, SharedPass, adjust_for_size, measure
from unseen.measures.bounds.margins import class_margins, margins
from unseen.measures.bounds.path_norm import path_norm
from unseen.measures.bounds.spectral import convolution_norm, spectral_norm, top_singular
from unseen.measures.bounds.weights import fold_batch_norm
from unseen.method import Trained
from unseen.models.conv import Norm, resnet
from unseen.models.mlp import mlp
from unseen.objectives import binary, classify, next_token, regress
from unseen.task import Axis, Split, Task, Use

LAB = Lab(dtype=torch.float64)


def strided() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, padding=2, dilation=2, groups=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 3),
    )


NETS = {
    "mlp": lambda: mlp([64, 12, 9, 3]),
    "strided": strided,
    "residual": lambda: resnet((4, 8), 1, 3, norm=Norm.BATCH),
}


def subject(name: str, *, seed: int = 0) -> Trained:
    """A network that fits thirty images of 8 × 8 pixels, its start, in float64."""
    with Lab(seed=seed).child(name).seeded():
        model = NETS[name]().double()
        x, y = torch.randn(30, 1, 8, 8, dtype=torch.float64), torch.arange(30) % 3
        start = {key: p.detach().clone() for key, p in model.named_parameters()}
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(60):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    split = Split(Columns(x=x, y=y), Use.TRAIN)
    task = Task(name="images", axis=Axis.IID, splits={"train": split}, objective=classify)
    return Trained(model.eval(), task, {"loss": [0.5] * 20 + [0.001] * 40}, start)


@pytest.fixture(scope="module", params=list(NETS))
def trained(request) -> Trained:
    return subject(request.param)


# references: loops over layers, folding by hand, explicit matrices


def folded_layers(t: Trained) -> list[tuple[nn.Module, np.ndarray, np.ndarray, tuple[int, ...]]]:
    """(module, W, W⁰, spatial size of its input), each BatchNorm folded into the layer that is
    registered before it.
    """
    sizes = {}
    handles = [
        m.register_forward_pre_hook(lambda m, inputs: sizes.update({m: inputs[0].shape[2:]}))
        for m in t.model.modules()
    ]
    with torch.no_grad():
        t.model(t.task.splits["train"].data[:2]["x"])
    for handle in handles:
        handle.remove()
    found = []
    for name, module in t.model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            found.append([module, module.weight, t.start[f"{name}.weight"], sizes[module]])
        elif isinstance(module, nn.BatchNorm2d):
            shape = (-1, 1, 1, 1)
            scale = module.weight / (module.running_var + module.eps).sqrt()
            found[-1][1] = found[-1][1] * scale.view(shape)
            found[-1][2] = found[-1][2] * scale.view(shape)
    return [
        (m, w.detach().numpy(), start.detach().numpy(), tuple(size)) for m, w, start, size in found
    ]


def explicit_norm(module: nn.Module, w: np.ndarray, size: tuple[int, ...]) -> float:
    """The norm of the matrix of a circular convolution, column by column."""
    if isinstance(module, nn.Linear):
        return np.linalg.svd(w, compute_uv=False)[0]
    step = module.stride[0]
    size = tuple(-(-s // step) * step for s in size)
    return np.linalg.svd(circular_matrix(w, size, module), compute_uv=False)[0]


def circular_matrix(w: np.ndarray, size: tuple[int, ...], conv: nn.Module) -> np.ndarray:
    """Σ over taps t of w[t] x[step · position + dilation · t mod size], written as a matrix."""
    out, inside, height, width = w.shape
    groups, step, gap = conv.groups, conv.stride[0], conv.dilation[0]
    rows, columns = size[0] // step, size[1] // step
    matrix = np.zeros((out, rows, columns, inside * groups, *size))
    for o in range(out):
        for i in range(inside):
            channel = o // (out // groups) * inside + i
            for r in range(rows):
                for c in range(columns):
                    for a in range(height):
                        for b in range(width):
                            at = (r * step + a * gap) % size[0], (c * step + b * gap) % size[1]
                            matrix[o, r, c, channel, at[0], at[1]] += w[o, i, a, b]
    return matrix.reshape(out * rows * columns, -1)


def reference(t: Trained) -> dict[str, float]:
    """Every closed form from its equation."""
    layers = folded_layers(t)
    d = len(layers)
    batch = t.task.splits["train"].data[:]
    logits = t.model(batch["x"]).detach().numpy()
    leads = []
    for row, label in zip(logits, batch["y"].tolist(), strict=True):
        leads.append(row[label] - max(row[j] for j in range(len(row)) if j != label))
    gamma = np.quantile(leads, 0.1)
    fro = [(w**2).sum() for _, w, _, _ in layers]
    moved = [((w - s) ** 2).sum() for _, w, s, _ in layers]

    def top(w: np.ndarray) -> float:
        return np.linalg.svd(w.reshape(len(w), -1), compute_uv=False)[0] ** 2

    values = {
        "parameters": sum(w.size for _, w, _, _ in layers),
        "weight_norm": math.sqrt(sum(fro)),
        "distance": math.sqrt(sum(moved)),
        "frobenius_sum": sum(fro),
        "frobenius_distance": sum(moved),
        "frobenius_product": sum(math.log(f) for f in fro),
        "frobenius_product_over_margin": sum(math.log(f) for f in fro) - 2 * math.log(gamma),
        "inverse_margin": 1 / gamma**2,
    }
    values["frobenius_mean"] = math.log(d) + values["frobenius_product"] / d
    over = values["frobenius_product_over_margin"]
    values["frobenius_mean_over_margin"] = math.log(d) + over / d
    for suffix in ("", "_fft"):
        norm2 = (
            (lambda m, w, size: top(w))
            if not suffix
            else (lambda m, w, size: explicit_norm(m, w, size) ** 2)
        )
        spec = [norm2(m, w, size) for m, w, _, size in layers]
        product = sum(math.log(s) for s in spec)
        over = product - 2 * math.log(gamma)
        ranks = sum(f / s for f, s in zip(fro, spec, strict=True))
        values |= {
            "spectral_product" + suffix: product,
            "spectral_product_over_margin" + suffix: over,
            "spectral_start" + suffix: over
            + math.log(sum(f / s for f, s in zip(moved, spec, strict=True))),
            "spectral_origin" + suffix: over + math.log(ranks),
            "frobenius_over_spectral" + suffix: ranks,
            "spectral_mean" + suffix: math.log(d) + product / d,
            "spectral_mean_over_margin" + suffix: math.log(d) + over / d,
            "spectral_distance" + suffix: sum(norm2(m, w - s, size) for m, w, s, size in layers),
        }
    return values


def test_closed_forms_equal_slow_references(trained):
    shared, expected = SharedPass(trained, LAB), reference(trained)
    for name, value in expected.items():
        assert measure(name)(shared, LAB).value == pytest.approx(value, rel=1e-6), name
    assert expected.keys() >= {
        m.name for m in MEASURES if m.family in ("norm", "spectral", "margin")
    }


def test_path_norm_is_the_sum_over_paths():
    t = subject("mlp")
    weights = [m for m in t.model if isinstance(m, nn.Linear)]
    reach = np.ones(64)
    for layer in weights:
        w, b = layer.weight.detach().numpy(), layer.bias.detach().numpy()
        reach = np.array(
            [
                sum(w[o, i] ** 2 * reach[i] for i in range(w.shape[1])) + b[o] ** 2
                for o in range(len(w))
            ]
        )
    assert measure("path_norm")(t, LAB).value == pytest.approx(reach.sum(), rel=1e-9)
    over = measure("path_norm_over_margin")(t, LAB).value
    gamma2 = 1 / measure("inverse_margin")(t, LAB).value
    assert over == pytest.approx(reach.sum() / gamma2, rel=1e-9)


def test_path_norm_of_a_convolution_is_that_of_its_folded_network():
    t = subject("strided")
    layers = folded_layers(t)
    with torch.no_grad():
        x = torch.ones(1, 1, 8, 8, dtype=torch.float64)
        shared = SharedPass(t, LAB)
        biases = [m.bias.square() for m in shared.network.model if hasattr(m, "bias")]
        w = [torch.tensor(w).square() for _, w, _, _ in layers]
        x = F.conv2d(x, w[0], biases[0], stride=2, padding=1)
        x = F.max_pool2d(F.conv2d(x, w[1], biases[1], padding=2, dilation=2, groups=2), 2)
        expected = F.linear(x.flatten(1), w[2], biases[2]).sum().item()
    assert shared.path_norm == pytest.approx(expected, rel=1e-9)


@given(seed=integers(0, 999), size=integers(3, 8), out=integers(1, 4), inside=integers(1, 4))
@settings(deadline=None, max_examples=15)
def test_fft_norm_equals_the_svd_of_the_explicit_matrix(seed, size, out, inside):
    rng = np.random.default_rng(seed)
    stride, dilation = int(rng.integers(1, 3)), int(rng.integers(1, 3))
    conv = nn.Conv2d(inside, out, 3, stride=stride, dilation=dilation)
    w = rng.standard_normal((out, inside, 3, 3))
    even = -(-size // stride) * stride
    exact = np.linalg.svd(circular_matrix(w, (even, even), conv), compute_uv=False)[0]
    found = convolution_norm(
        torch.tensor(w), (size, size), stride=conv.stride, dilation=conv.dilation
    )
    assert found == pytest.approx(exact, rel=1e-9)


def test_one_dimensional_and_grouped_convolutions():
    w = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    basis = torch.eye(4 * 6, dtype=torch.float64).view(-1, 4, 6)
    outputs = F.conv1d(F.pad(basis, (0, 2), mode="circular"), w, groups=2)
    exact = torch.linalg.matrix_norm(outputs.flatten(1), 2).item()
    assert convolution_norm(w, (6,), groups=2) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("shape", [(300, 280), (40, 700), (700, 3)])
def test_spectral_norm_from_scratch_and_from_an_earlier_vector(shape):
    generator = torch.Generator().manual_seed(1)
    w = torch.randn(shape, generator=generator, dtype=torch.float64)
    exact = torch.linalg.svdvals(w)[0].item()
    cold = top_singular(w)
    assert cold.value == pytest.approx(exact, rel=1e-7)
    assert spectral_norm(w).value == pytest.approx(exact, rel=1e-7)
    near = w + 1e-4 * torch.randn(shape, generator=generator, dtype=torch.float64)
    warm = spectral_norm(near, cold.vector)
    assert warm.value == pytest.approx(torch.linalg.svdvals(near)[0].item(), rel=1e-7)
    assert warm.products <= cold.products
    assert top_singular(w, most=2).value == pytest.approx(exact, rel=1e-9)


def test_spectral_norm_of_rank_one_and_of_zeros():
    w = torch.outer(torch.arange(1.0, 5), torch.ones(3)).double()
    assert top_singular(w).value == pytest.approx(math.sqrt(30 * 3))
    assert top_singular(torch.zeros(4, 3, dtype=torch.float64)).value == 0
    with pytest.raises(InvalidData, match="NaN"):
        spectral_norm(torch.full((2, 2), torch.nan))


# BatchNorm


@pytest.mark.parametrize("name", ["strided", "residual"])
def test_folding_leaves_outputs_unchanged_in_float32(name):
    t = subject(name)
    model = t.model.float()
    x = t.task.splits["train"].data[:]["x"].float()

    @torch.no_grad()
    def forward(net: nn.Module) -> torch.Tensor:
        return net(x)

    folded = fold_batch_norm(model, forward)
    norms = [n for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert set(folded.names) == set(norms)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.model.modules())
    assert (forward(folded.model) - forward(model)).abs().max() < 1e-5 * forward(model).abs().max()


def distances(model: nn.Module, start: dict[str, torch.Tensor]) -> tuple[float, float]:
    """The distance over all weights and its square over layers."""
    shared = SharedPass(replace(subject("strided"), model=model, start=start), LAB)
    return measure("distance")(shared, LAB).value, measure("frobenius_distance")(shared, LAB).value


def test_a_start_behind_batch_norm_is_scaled_as_the_weights_are():
    model = subject("strided").model.float().double()
    with torch.no_grad():
        model[1].running_var.fill_(9.0)
        model[1].weight.fill_(2.0)
    own = {name: p.detach().clone() for name, p in model.named_parameters()}
    assert distances(model, own) == (0, 0)
    moved = {**own, "0.weight": own["0.weight"] + 1}
    expected = math.sqrt(own["0.weight"].numel() * 4 / (9 + model[1].eps))
    assert distances(model, moved) == pytest.approx((expected, expected**2), rel=1e-9)
    # with its buffers, the start is folded with its own
    whole = {name: b.detach().clone() for name, b in model.state_dict().items()}
    assert distances(model, whole) == (0, 0)
    whole["1.running_var"].fill_(0.25)
    factor = 2 / math.sqrt(9 + model[1].eps) - 2 / math.sqrt(0.25 + model[1].eps)
    expected = abs(factor) * own["0.weight"].norm().item()
    assert distances(model, whole)[0] == pytest.approx(expected, rel=1e-9)
    # a frozen layer has stayed
    model[0].weight.requires_grad_(False)
    trained = {name: p for name, p in own.items() if name != "0.weight"}
    assert distances(model, trained) == (0, 0)


class NormFirst(nn.Module):
    """BatchNorm before its convolution, and a convolution whose output goes two ways."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.conv = nn.BatchNorm2d(1), nn.Conv2d(1, 4, 3, padding=1)
        self.second, self.head = nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(self.first(x))
        return self.head((F.relu(self.second(y)) + y).mean((2, 3)))


def test_a_norm_that_cannot_be_folded_is_left_out_by_name():
    t = subject("strided")
    with LAB.seeded():
        model = NormFirst().double()
        model(torch.randn(20, 1, 8, 8, dtype=torch.float64))
    with torch.no_grad():
        model.second.weight.fill_(3.0)
    t = replace(t, model=model.eval(), start=None)
    shared = SharedPass(t, LAB)
    assert shared.network.names == ()
    coverage = measure("spectral_product").coverage(shared, LAB)
    assert coverage.left_out == ("first.weight (BatchNorm2d, 1)", "second.weight (BatchNorm2d, 4)")
    assert coverage.share == pytest.approx(1 - 5 / (5 + 36 + 12))


def test_layers_that_a_measure_cannot_read_lower_its_coverage():
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.GRU(8, 5, batch_first=True), nn.Linear(5, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.rnn(x.flatten(1, 2))[0][:, -1])

    t = replace(subject("mlp"), start=None)
    with LAB.seeded():
        t = replace(t, model=Recurrent().double().eval())
    spectral = measure("spectral_product").coverage(t, LAB)
    assert spectral.share == pytest.approx(15 / (15 + 3 * 5 * (8 + 5)))
    assert spectral.left_out == ("rnn.weight_ih_l0 (GRU, 120)", "rnn.weight_hh_l0 (GRU, 75)")
    assert measure("weight_norm").coverage(t, LAB).share == 1


def test_the_model_comes_back_as_it_was(trained):
    before = copy.deepcopy(trained.model.state_dict())
    trained.model.train()
    shared = SharedPass(trained, LAB)
    for one in MEASURES:
        one(shared, LAB)
    assert trained.model.training
    trained.model.eval()
    after = trained.model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


# invariances


def rescaled(t: Trained, c: float, *, bias: bool = True) -> Trained:
    """The first two layers of an MLP scaled by c and 1/c; its start stays."""
    model = copy.deepcopy(t.model)
    first, second = (m for m in list(model)[:4] if isinstance(m, nn.Linear))
    with torch.no_grad():
        first.weight *= c
        second.weight /= c
        if bias:
            first.bias *= c
    return replace(t, model=model)


def test_rescaling_two_layers_leaves_products_and_paths_unchanged():
    t = subject("mlp")
    other = rescaled(t, 3.0)
    same = [
        "path_norm", "path_norm_over_margin", "inverse_margin", "spectral_product",
        "spectral_product_over_margin", "frobenius_product_over_margin", "frobenius_over_spectral",
        "frobenius_mean_over_margin",
    ]  # fmt: skip
    for name in same:
        value = measure(name)(t, LAB).value
        assert measure(name)(other, LAB).value == pytest.approx(value, rel=1e-9), name
    for name in ("frobenius_distance", "distance", "frobenius_sum", "spectral_distance"):
        assert measure(name)(other, LAB).value > 1.5 * measure(name)(t, LAB).value, name
    # without the bias it is another function
    crooked = rescaled(t, 3.0, bias=False)
    for name in ("path_norm", "inverse_margin"):
        value = measure(name)(t, LAB).value
        assert measure(name)(crooked, LAB).value != pytest.approx(value, rel=1e-3), name


def test_size_adjustment():
    plain, log = measure("frobenius_sum"), measure("frobenius_product")
    assert adjust_for_size(plain, 9.0, 4) == pytest.approx(1.5)
    assert adjust_for_size(log, math.log(9.0), 4) == pytest.approx(math.log(1.5))
    assert math.isnan(adjust_for_size(plain, -1.0, 4))
    with pytest.raises(InvalidData, match="0 examples"):
        adjust_for_size(plain, 1.0, 0)


# margins


def test_margins_of_classes_bits_and_tokens():
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 1.0], [1.0, 1.0, 1.0]])
    assert class_margins(logits, torch.tensor([0, 2, -100])).tolist() == [1.0, -4.0]
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(2.0)
    batch = {"x": torch.tensor([[1.0], [1.0]]), "y": torch.tensor([1, 0])}
    assert margins(model, batch, binary).tolist() == [2.0, -2.0]
    tokens = torch.tensor([[0, 1, 2]])
    head = nn.Embedding.from_pretrained(torch.eye(3)[[1, 2, 0]] * 2)
    assert margins(head, {"tokens": tokens}, next_token).tolist() == [2.0, 2.0]
    masked = {"tokens": tokens, "mask": torch.tensor([[1, 1, 0]])}
    assert margins(head, masked, next_token).tolist() == [2.0]
    with pytest.raises(InvalidData, match="no margins"):
        margins(model, {"x": torch.ones(2, 1), "y": torch.tensor([0.3, 1.7])}, regress)


def test_a_negative_margin_is_refused_unless_as_published():
    t = subject("mlp")
    data = t.task.splits["train"].data[:]
    wrong = Split(Columns(x=data["x"], y=(data["y"] + 1) % 3), Use.TRAIN)
    t = replace(t, task=replace(t.task, splits={"train": wrong}))
    with pytest.raises(InvalidData, match="tenth percentile"):
        measure("inverse_margin")(t, LAB)
    published = SharedPass(t, LAB, as_published=True)
    assert published.margin == pytest.approx(abs(float(published.margins.quantile(0.1))))


def test_refusals():
    t = subject("mlp")
    with pytest.raises(InvalidData, match="no `start`"):
        measure("distance")(replace(t, start=None), LAB)
    with pytest.raises(InvalidData, match="no `start`"):
        measure("spectral_distance")(replace(t, start=None), LAB)
    curved = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    with pytest.raises(UnsupportedLayer, match="does not double"):
        measure("path_norm")(replace(t, model=curved.eval()), LAB)
    flat = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64)).double().eval()
    with pytest.raises(InvalidData, match="no linear layer"):
        measure("spectral_product")(replace(t, model=flat), LAB)
    with pytest.raises(UnknownName, match="path_norm"):
        measure("path_norms")


class Attention(nn.Module):
    """Softmax attention, to which equal tokens look linear."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.flatten(1, 2)
        return self.head(self.attention(tokens, tokens, tokens, need_weights=False)[0].mean(1))


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
@pytest.mark.parametrize(
    "activation", [nn.GELU, nn.SiLU, nn.ELU, nn.Softplus, nn.Hardswish, nn.ReLU6, nn.Hardtanh]
)
def test_path_norm_of_a_curved_activation_is_refused(activation, scale):
    with LAB.seeded():
        model = nn.Sequential(nn.Linear(64, 32), activation(), nn.Linear(32, 3))
    with torch.no_grad():
        model[0].weight *= scale
    with pytest.raises(UnsupportedLayer, match="does not double"):
        path_norm(model.eval(), (64,))


def test_path_norm_of_attention_is_refused():
    with LAB.seeded():
        model = Attention().eval()
    with pytest.raises(UnsupportedLayer, match="does not double"):
        path_norm(model, (1, 5, 8))


def test_path_norm_of_an_unfolded_batch_norm_is_refused_by_name():
    t = subject("mlp")
    with LAB.seeded():
        model = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.Linear(8, 3)
        )
    model.double().eval()[3].running_var.fill_(16.0)
    with pytest.raises(UnsupportedLayer, match="`3`"):
        measure("path_norm")(replace(t, model=model), LAB)


def test_a_start_that_does_not_fit_is_refused_where_a_distance_is_read():
    t = subject("mlp")
    first = next(name for name, p in t.model.named_parameters() if p.dim() > 1)
    prefixed = {f"module.{name}": p for name, p in t.start.items()}
    lacking = {name: p for name, p in t.start.items() if name != first}
    transposed = {**t.start, first: t.start[first].T}
    for start in ({}, prefixed, lacking, transposed):
        wrong = SharedPass(replace(t, start=start), LAB)
        for name in ("distance", "frobenius_distance", "spectral_distance", "pac_bayes_start"):
            with pytest.raises(InvalidData, match=f"`start` .*{first}"):
                measure(name)(wrong, LAB)
        measure("spectral_product")(wrong, LAB)
    frozen = copy.deepcopy(t.model)
    frozen.get_parameter(first).requires_grad_(False)
    assert SharedPass(replace(t, model=frozen, start=lacking), LAB).distance2[0] == 0


@pytest.mark.parametrize(
    "parametrize",
    [nn.utils.parametrizations.weight_norm, nn.utils.weight_norm, nn.utils.spectral_norm],
)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_a_computed_weight_is_refused_by_name(parametrize):
    with LAB.seeded():
        body = parametrize(nn.Linear(64, 8))
    model = nn.Sequential(nn.Flatten(), body, nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    t = subject("mlp")
    x = t.task.splits["train"].data[:2]["x"]
    model.double().eval()(x)
    shared = SharedPass(replace(t, model=model, start=dict(model.named_parameters())), LAB)
    for name in ("weight_norm", "distance", "pac_bayes_flatness", "sharpness_flatness"):
        with pytest.raises(UnsupportedLayer, match=r"`1`"):
            measure(name)(shared, LAB)
    with pytest.raises(UnsupportedLayer, match=r"`1`"):
        measure("path_norm")(shared, LAB)
    assert [layer.name for layer in shared.layers] == ["4"]
    assert any(one.startswith("1.") for one in shared.layer_coverage.left_out)


def test_many_examples_are_drawn_at_random_and_counted():
    t = subject("mlp")
    shared = SharedPass(t, LAB, most=12)
    assert sum(len(batch["y"]) for batch in shared.batches) == 12
    assert shared.n == 30
    assert set(shared.batches[0]["y"].tolist()) == {0, 1, 2}


def test_circular_norms_are_not_called_exact_nor_bounds():
    # zero padding differs from a circle, on one pixel most of all
    kernel = torch.tensor([[[1.0, -2.0, 1.0]]], dtype=torch.float64)
    padded = F.conv1d(torch.ones(1, 1, 1, dtype=torch.float64), kernel, padding=1).abs().item()
    assert convolution_norm(kernel, (1,)) == pytest.approx(0, abs=1e-12)
    assert padded == 2
    for one in MEASURES:
        assert "exact" not in one.meaning
        assert "circular" in one.meaning or not one.name.endswith("_fft"), one.name
    assert "bound" not in measure("spectral_product_fft").meaning


def test_names_are_unique_and_say_what_they_mean():
    names = [m.name for m in MEASURES]
    assert len(set(names)) == len(names)
    assert all(m.meaning.endswith(".") and len(m.meaning) < 160 for m in MEASURES)
