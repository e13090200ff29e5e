"""Coherence against its definition; the checks of the sheet; what has no coherence raises."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import gradients as oracle
from properties import examples
from torch import nn

from unseen import objectives
from unseen.engine.batches import Columns
from unseen.errors import InvalidData, UnknownName, UnsupportedLayer
from unseen.lab import Lab
from unseen.measures.coherence import Coherence, agreement, alignment, coherence, unbiased_alpha
from unseen.method import Trained
from unseen.models.conv import Norm, cnn, resnet
from unseen.models.mlp import mlp
from unseen.task import Axis, Split, Task, Use

DOUBLE = Lab(dtype=torch.float64)


def dotted(model, batch):
    """Its per-example gradients are the rows of x themselves."""
    return model(batch["x"]).squeeze(1)


def of_gradients(g, lab=DOUBLE, **options):
    model = nn.Linear(g.shape[1], 1, bias=False).double()
    return coherence(model, dotted, Columns(x=g), lab, **options)


def digits(n=24, classes=3, channels=1, side=8):
    return Columns(x=torch.randn(n, channels, side, side).double(), y=torch.arange(n) % classes)


MODELS = {
    "mlp": lambda: mlp([64, 9, 3]),
    "cnn": lambda: cnn((4, 6), 3),
    "resnet": lambda: resnet((4, 8), classes=3),
    "batchnorm": lambda: resnet((4, 8), classes=3, norm=Norm.BATCH).eval(),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_equals_its_definition(make):
    model, data = make().double(), digits()
    parts = oracle.per_example_gradients(model, data.columns, objectives.cross_entropy)
    g = oracle.flattened(parts)
    got = coherence(model, objectives.cross_entropy, data, DOUBLE, by="y", batch_size=7)
    assert got.alpha == pytest.approx(oracle.coherence(g), rel=1e-9)
    assert got.unbiased_alpha == pytest.approx(oracle.pairwise_coherence(g), rel=1e-9)
    assert got.m_alpha == pytest.approx(24 * got.alpha, rel=1e-12)
    assert got.low <= got.alpha <= got.high
    torch.testing.assert_close(got.norms2, g.square().sum(1), rtol=1e-9, atol=0)
    for name, total in got.total.items():
        torch.testing.assert_close(total, parts[name].sum(0), rtol=1e-9, atol=1e-9)
    for label, part in got.by_class.items():
        rows = g[data.columns["y"] == label]
        assert part.alpha == pytest.approx(oracle.coherence(rows), rel=1e-9)
        assert part.n == 8
    assert sum(part.weight for part in got.by_class.values()) == pytest.approx(1)
    assert sum(part.weight * part.alpha for part in got.by_layer.values()) == pytest.approx(
        got.alpha, rel=1e-9
    )
    for layer, part in got.by_layer.items():
        own = oracle.flattened(
            {name: p for name, p in parts.items() if name.rpartition(".")[0] == layer}
        )
        assert part.alpha == pytest.approx(oracle.coherence(own), rel=1e-9)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_agreement_is_the_dot_product_with_the_mean_of_the_others(make):
    model, data = make().double(), digits(n=10)
    g = oracle.flattened(
        oracle.per_example_gradients(model, data.columns, objectives.cross_entropy)
    )
    total = coherence(model, objectives.cross_entropy, data, DOUBLE).total
    got = agreement(model, objectives.cross_entropy, data, DOUBLE, total, batch_size=4)
    expected = torch.stack([g[i] @ (g.sum(0) - g[i]) / 9 for i in range(10)])
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_copies_of_one_example_agree_fully():
    got = of_gradients(torch.randn(1, 4).double().expand(6, 4).clone())
    assert got.alpha == pytest.approx(1)
    assert got.unbiased_alpha == pytest.approx(1)


def test_orthonormal_gradients_have_m_alpha_one():
    data = Columns(x=torch.eye(5).double(), y=torch.eye(5).double())
    model = nn.Linear(5, 5, bias=False).double()
    nn.init.zeros_(model.weight)  # one-hot linear regression: g_i = −e_i e_iᵀ
    got = coherence(model, objectives.squared_error, data, DOUBLE)
    assert got.m_alpha == pytest.approx(1)
    assert got.unbiased_alpha == pytest.approx(0, abs=1e-12)


def test_opposite_groups_cancel():
    g = torch.randn(1, 4).double().expand(3, 4)
    got = of_gradients(torch.cat([g, -g]))
    assert got.alpha == pytest.approx(0, abs=1e-12)
    assert got.unbiased_alpha == pytest.approx(-1 / 5)


@examples(50)
@given(
    n=st.integers(2, 12),
    d=st.integers(1, 8),
    scale=st.floats(0.1, 10),
    batch_size=st.integers(1, 12),
    groups=st.integers(1, 12),
    seed=st.integers(0, 999),
)
def test_ignores_scale_order_and_batching(n, d, scale, batch_size, groups, seed):
    generator = torch.Generator().manual_seed(seed)
    g = torch.randn(n, d, generator=generator, dtype=torch.float64)
    order = torch.randperm(n, generator=generator)
    got = of_gradients(scale * g[order], batch_size=batch_size, groups=groups)
    assert got.alpha == pytest.approx(oracle.coherence(g), rel=1e-9)
    assert 0 <= got.alpha <= 1 + 1e-9
    torch.testing.assert_close(got.norms2, (scale * g[order]).square().sum(1))


def test_the_interval_covers_the_true_coherence():
    """Gaussian gradients with a known mean: α̂'s target is ‖μ‖²/(‖μ‖² + d)."""
    generator = torch.Generator().manual_seed(0)
    for mean in (0.0, 0.5):
        truth, hits = mean**2 / (mean**2 + 1), 0
        for _ in range(50):
            got = of_gradients(
                mean + torch.randn(200, 20, generator=generator, dtype=torch.float64)
            )
            low, high = unbiased_alpha(got.low, 200), unbiased_alpha(got.high, 200)
            hits += low <= truth <= high
        assert hits >= 43  # of 50: fewer has a probability below 1 % if the coverage is 95 %


def task(data):
    return Task(
        name="t",
        axis=Axis.IID,
        splits={"train": Split(data, Use.TRAIN)},
        objective=objectives.classify,
    )


def test_the_measure_reads_a_split_and_leaves_the_model_alone():
    model = mlp([64, 9, 3], dropout=0.5).double().train()
    subject = Trained(model, task(digits()))
    before = [p.clone() for p in model.parameters()]
    reading = Coherence()(subject, DOUBLE)
    assert (
        reading.value == Coherence()(subject, DOUBLE).value
    )  # the dropout masks come from the lab
    assert reading.detail.shape == (24,)
    assert reading.low <= reading.value <= reading.high
    assert model.training
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    with pytest.raises(UnknownName, match="tran"):
        Coherence(split="tran")(subject, DOUBLE)


class Stream(torch.utils.data.IterableDataset):
    def __init__(self, g):
        self.g = g

    def __iter__(self):
        return iter({"x": row} for row in self.g)


def test_a_stream_gives_the_same():
    g = torch.randn(11, 4).double()
    model = nn.Linear(4, 1, bias=False).double()
    got = coherence(model, dotted, Stream(g), DOUBLE, batch_size=2)
    assert got.alpha == pytest.approx(oracle.coherence(g), rel=1e-9)
    torch.testing.assert_close(got.norms2, g.square().sum(1))


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_examples_are_refused(n):
    with pytest.raises(InvalidData, match=f"{n} example"):
        of_gradients(torch.randn(n, 3).double())
    with pytest.raises(InvalidData, match="at least two"):
        alignment(1.0, 1.0, n)


def test_zero_gradients_are_refused():
    with pytest.raises(InvalidData, match="zero"):
        of_gradients(torch.zeros(4, 3).double())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_gradients_are_refused(bad):
    g = torch.randn(4, 3).double()
    g[1, 1] = bad
    with pytest.raises(InvalidData, match="NaN or infinite"):
        of_gradients(g)


def test_a_class_column_must_exist_and_be_whole_numbers():
    model, data = mlp([64, 3]).double(), digits()
    with pytest.raises(UnknownName):
        coherence(model, objectives.cross_entropy, data, DOUBLE, by="label")
    with pytest.raises(InvalidData, match="one whole number"):
        coherence(model, objectives.cross_entropy, data, DOUBLE, by="x")


def test_batchnorm_in_training_mode_and_averaged_losses_are_refused():
    model = resnet((4,), classes=3, norm=Norm.BATCH).double()
    with pytest.raises(UnsupportedLayer, match="training mode"):
        coherence(model, objectives.cross_entropy, digits(), DOUBLE)
    with pytest.raises(InvalidData, match="one number per example"):
        coherence(
            mlp([64, 3]).double(),
            lambda m, b: objectives.cross_entropy(m, b).mean(),
            digits(),
            DOUBLE,
        )


def test_half_precision_models_are_summed_in_float32():
    lab, model, data = Lab(dtype=torch.bfloat16), mlp([64, 9, 3]).bfloat16(), digits()
    got = coherence(model, objectives.cross_entropy, data, lab)
    assert all(total.dtype == torch.float32 for total in got.total.values())
    assert agreement(model, objectives.cross_entropy, data, lab, got.total).isfinite().all()
    g = oracle.flattened(
        oracle.per_example_gradients(model.double(), data.columns, objectives.cross_entropy)
    )
    assert got.alpha == pytest.approx(oracle.coherence(g), rel=0.05)  # bfloat16 keeps 8 bits
