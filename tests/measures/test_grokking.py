"""Oddness, neuron alignment and grokking time from their extreme values."""

import pytest
import torch
from hypothesis import given
from hypothesis.strategies import floats, integers
from torch import nn

from unseen.engine.batches import Columns
from unseen.errors import InvalidData, UnknownName, UnsupportedLayer
from unseen.lab import Lab
from unseen.measures.grokking import (
    NeuronAlignment,
    Oddness,
    grokking_time,
    neuron_alignment,
    oddness,
)
from unseen.method import Trained
from unseen.models.two_layer import TwoLayer
from unseen.objectives import binary
from unseen.task import Axis, Split, Task, Use

LAB = Lab(seed=1, dtype=torch.float64)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=Lab(seed=seed).generator(), dtype=torch.float64)


def trained(model, x, y=None):
    y = torch.zeros(len(x), dtype=torch.int64) if y is None else y
    splits = {
        "train": Split(Columns(x=x, y=y), Use.TRAIN),
        "centres": Split(Columns(x=x, y=y), Use.EVALUATE),
    }
    return Trained(model.double(), Task(name="t", axis=Axis.IID, objective=binary, splits=splits))


class Even(nn.Module):
    """The XOR solution |u·x| − |v·x| on the first two axes."""

    def forward(self, x):
        return x[:, 0].abs() - x[:, 1].abs()


@given(seed=integers(0, 99), scale=floats(0.1, 10.0))
def test_oddness_is_one_for_linear_zero_for_even_and_between_for_sums(seed, scale):
    x = normal(40, 5, seed=seed)
    odd, even = scale * x @ normal(5, seed=seed + 1), x[:, 0].abs() - x[:, 1].abs()
    assert oddness(odd, -odd) == pytest.approx(1)
    assert oddness(even, even) == 0
    value = oddness(odd + even, even - odd)
    share = odd.square().sum() / (odd.square().sum() + even.square().sum())
    assert value == pytest.approx(share.item())
    assert oddness(-3 * (odd + even), -3 * (even - odd)) == pytest.approx(value), (
        "scale and sign do not matter"
    )


def test_oddness_is_the_sheet_formula_for_mirrored_inputs():
    x = normal(30, 4)
    x = torch.cat([x, -x])  # a sample that is its own mirror image
    f = (x @ normal(4, 6, seed=2)).relu() @ normal(6, seed=3)
    g = (-x @ normal(4, 6, seed=2)).relu() @ normal(6, seed=3)
    assert oddness(f, g) == pytest.approx(
        ((f - g).square().mean() / (4 * f.square().mean())).item()
    )


def test_measure_equals_the_function_and_ignores_batches():
    with LAB.seeded():
        model = TwoLayer(4, 6, init=1.0).double().train()
    x = normal(50, 4)
    subject = trained(model, x)
    reading = Oddness(split="train", batch_size=7)(subject, LAB)
    assert reading.value == pytest.approx(oddness(model(x), model(-x)))
    assert reading.low <= reading.value <= reading.high
    again = Oddness(split="train")(subject, LAB)
    assert (again.value, again.low, again.high) == pytest.approx(
        (reading.value, reading.low, reading.high)
    )
    assert model.training
    assert Oddness(split="train")(trained(Even(), x), LAB).value == 0
    assert Oddness(split="train")(
        trained(nn.Linear(4, 3, bias=False), x), LAB
    ).value == pytest.approx(1)


def test_oddness_of_nothing_is_refused():
    with pytest.raises(InvalidData, match="0/0"):
        oddness(torch.zeros(3), torch.zeros(3))
    with pytest.raises(InvalidData, match="sum of squares"):
        oddness(torch.tensor([float("nan")]), torch.zeros(1))
    with pytest.raises(UnknownName, match="split"):
        Oddness(split="tset")(trained(Even(), normal(3, 2)), LAB)


def network(weight, head):
    model = TwoLayer(len(weight[0]), len(weight))
    model.hidden.weight.data = torch.tensor(weight)
    model.head = torch.tensor(head, dtype=torch.float64)
    return model


CENTRES = torch.tensor([[2.0, 0, 0], [-2, 0, 0], [0, 2, 0], [0, -2, 0]], dtype=torch.float64)
LABELS = torch.tensor([1, 1, 0, 0])


def test_neurons_vote_for_the_centre_they_point_at():
    weight = [[3.0, 1, 0], [-3, 1, 0], [1, -3, 0], [0, 4, 3]]
    right = NeuronAlignment()(
        trained(network(weight, [0.5, 0.5, -0.5, -0.5]), CENTRES, LABELS), LAB
    )
    assert right.value == 1
    half = NeuronAlignment()(trained(network(weight, [0.5, -0.5, 0.5, -0.5]), CENTRES, LABELS), LAB)
    assert half.value == 0.5
    assert half.low < 0.5 < half.high
    assert half.detail.tolist() == [True, False, False, True]


@given(seed=integers(0, 99), scale=floats(0.01, 100.0))
def test_alignment_ignores_lengths_and_signs_of_weights(seed, scale):
    head, cosines = normal(9, seed=seed), normal(9, 4, seed=seed + 1) / 5
    found = neuron_alignment(cosines, head, LABELS)
    turned = neuron_alignment(-cosines, scale * head, LABELS)
    assert torch.equal(found.agrees, turned.agrees)
    assert found.cosine == pytest.approx(cosines.abs().amax(1).mean().item())
    assert neuron_alignment(cosines, -head, LABELS).share == pytest.approx(1 - found.share)


def test_alignment_needs_directions_and_a_two_layer_network():
    with pytest.raises(InvalidData, match="not finite"):
        NeuronAlignment()(trained(network([[0.0, 0, 0]], [1.0]), CENTRES, LABELS), LAB)
    with pytest.raises(UnsupportedLayer, match="Even"):
        NeuronAlignment()(trained(Even(), CENTRES, LABELS), LAB)


def test_grokking_time_is_the_first_step_near_the_end():
    assert grokking_time([0, 1, 5, 10, 100], [0.5, 0.51, 0.9, 0.96, 1.0]) == 10
    assert grokking_time([0, 1, 5], [0.2, 0.2, 0.2]) == 0
    assert grokking_time([0, 1, 5, 10], [0.5, 0.51, 0.9, 0.96], share=0.5) == 0
    for steps, values in (
        ([], []),
        ([0, 1], [0.5]),
        ([0, 1], [0.5, float("nan")]),
        ([1, 0], [0.5, 0.6]),
    ):
        with pytest.raises(InvalidData, match="grokking_time"):
            grokking_time(steps, values)
