"""Representativeness of attributes: its identities, and the replay of what follows a layer."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from properties import examples
from torch import nn

from unseen.engine.attributes import (
    EXCLUSIVE,
    attribute_shares,
    concept_means,
    concept_shares,
    find_layer,
    layer_outputs,
    peaks,
    representativeness,
)
from unseen.engine.batches import Columns
from unseen.errors import InvalidData, UnknownName, UnsupportedLayer
from unseen.lab import Lab
from unseen.models.conv import cnn, resnet

LAB = Lab(seed=0)


def means(concepts: int, attributes: int, seed: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.rand(concepts, attributes, generator=draw, dtype=torch.float64) + 0.01


@examples(10)
@given(
    c=st.integers(2, 6), d=st.integers(1, 8), scale=st.floats(0.01, 100), seed=st.integers(0, 99)
)
def test_shares_sum_to_one_and_roa_obeys_its_identities(c, d, scale, seed):
    r = means(c, d, seed)
    p_a, p_c, roa = attribute_shares(r), concept_shares(r), representativeness(r)
    assert p_a.sum(1) == pytest.approx(1)
    assert p_c.sum(0) == pytest.approx(1)
    others = torch.stack([p_c[[k for k in range(c) if k != row]].sum(0) for row in range(c)])
    assert others == pytest.approx(1 - p_c)
    assert roa == pytest.approx(p_a / (1 - p_c))
    assert (roa >= p_a - 1e-12).all()
    assert representativeness(scale * r) == pytest.approx(roa)
    order = torch.randperm(d, generator=torch.Generator().manual_seed(seed))
    assert representativeness(r[:, order]) == pytest.approx(roa[:, order])


def test_a_repeated_concept_shares_its_attributes_and_an_exclusive_one_is_capped():
    r = torch.tensor([[1.0], [1.0], [0.5]], dtype=torch.float64)
    assert concept_shares(r)[0] == pytest.approx(0.4)
    assert concept_shares(torch.cat([r, r[:1]]))[0] == pytest.approx(1 / 3.5)
    roa = representativeness(torch.eye(3, dtype=torch.float64))
    assert roa.diagonal() == pytest.approx(1 / EXCLUSIVE)
    assert (roa - roa.diagonal().diag() == 0).all()
    dead = representativeness(torch.tensor([[1.0, 0.0], [2.0, 0.0]], dtype=torch.float64))
    assert dead[:, 1].tolist() == [0, 0]


def test_what_is_no_share_is_refused():
    with pytest.raises(InvalidData, match="one concept only"):
        representativeness(torch.ones(1, 3))
    with pytest.raises(InvalidData, match="down to -1"):
        representativeness(torch.tensor([[1.0, -1.0], [1.0, 1.0]]))
    with pytest.raises(InvalidData, match="Concept 1 activates no attribute"):
        representativeness(torch.tensor([[1.0, 1.0], [0.0, 0.0]]))


def images(n: int = 12) -> Columns:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(n, 1, 8, 8, generator=draw)
    return Columns(x=x, y=torch.arange(n) % 3)


def test_the_rest_of_a_model_is_replayed_on_masked_maps():
    """Against a model cut in two by hand."""
    with LAB.seeded():
        model = cnn((4, 6), classes=3).train()
    data = images()
    outputs = layer_outputs(model, "4", data, LAB, batch_size=5)
    assert model.training
    head = model.eval()[5:]
    mask = torch.tensor([True, False, True, True, False, False])
    kept = outputs.maps * mask[None, :, None, None]
    assert torch.equal(outputs.maps, model[:5](data.columns["x"]).detach())
    torch.testing.assert_close(outputs.answer(mask), head(kept).detach())
    torch.testing.assert_close(outputs.logits, model(data.columns["x"]).detach())
    assert torch.equal(outputs.activations(), outputs.maps.amax((2, 3)))
    r = concept_means(outputs.activations(), outputs.labels, torch.arange(3))
    assert r[1] == pytest.approx(outputs.maps[1::3].amax((2, 3)).mean(0))


def test_only_the_first_examples_of_each_class_are_read():
    with LAB.seeded():
        model = cnn((4,), classes=3)
    outputs = layer_outputs(model, "1", images(), LAB, most=2, batch_size=5)
    assert outputs.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert peaks(torch.ones(2, 3)).shape == (2, 3)


def test_layers_are_named_or_found_and_what_goes_past_them_is_refused():
    with LAB.seeded():
        model, residual = cnn((4, 6), classes=3), resnet((4, 8), 1, classes=3)
    assert find_layer(model, "") is model[4]
    with pytest.raises(UnknownName, match="layer `relu4`"):
        find_layer(model, "relu4")
    with pytest.raises(UnsupportedLayer, match="no module that is a ReLU"):
        find_layer(nn.Sequential(nn.Linear(2, 2), nn.Tanh()), "")
    with pytest.raises(UnsupportedLayer, match=r"do not follow from layer `4\.conv1` alone"):
        layer_outputs(residual, "4.conv1", images(), LAB)
    block = layer_outputs(residual, "4", images(), LAB)
    assert block.maps.shape[1] == 8
    lost = torch.full((3, 1, 8, 8), torch.nan)
    with pytest.raises(InvalidData, match="not finite"):
        layer_outputs(model, "4", Columns(x=lost, y=torch.arange(3)), LAB)
