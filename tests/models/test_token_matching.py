"""Matching of tokens against loops, its invariances, and what it refuses."""

from itertools import product

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from unseen.errors import InvalidConfig, InvalidData
from unseen.models.token_matching import (
    LEVELS,
    BeitEncoder,
    Matching,
    Shape,
    TokenMatching,
    token_matcher,
)

SMALL = Shape(side=16, patch=4, width=16, depth=4, heads=2)


def normal(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def labels_like(*size: int, seed: int = 1) -> Tensor:
    return torch.rand(*size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def model() -> TokenMatching:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TokenMatching(SMALL).eval()
        torch.nn.init.normal_(model.image_encoder.table, std=0.3)
        torch.nn.init.normal_(model.levels, std=0.03)
    return model


@torch.no_grad()
def predict(model: TokenMatching, queries: Tensor, images: Tensor, labels: Tensor, known=None):
    return model(queries, model.encode_support(images, labels, known))


QUERIES, IMAGES, LABELS = (
    normal(2, 3, 16, 16),
    normal(3, 3, 16, 16, seed=1),
    labels_like(3, 2, 16, 16),
)


@torch.no_grad()
def test_attention_is_a_loop_over_tokens_heads_and_channels(model):
    matching = model.matching[1]
    tokens, support = normal(2, 5, 16), normal(3, 5, 16, seed=2)
    codes = normal(2, 15, 16, seed=3)
    keys, values = matching.keys(support), matching.values(codes)
    found = matching.attend(tokens, keys, values)
    q = matching.norm(matching.query(tokens).unflatten(-1, (2, 8)))
    for n, t, c, h in product(range(2), range(5), range(2), range(2)):
        weights = (matching.scale * (keys[h] @ q[n, t, h])).softmax(0)
        assert_close(weights.sum(), torch.tensor(1.0))
        expected = sum(w * v for w, v in zip(weights, values[c, h], strict=True))
        assert_close(found[n, c, t, 8 * h : 8 * h + 8], expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_attention_is_scaled_dot_product_attention(model):
    matching = model.matching[0]
    keys, values = matching.keys(normal(3, 5, 16)), matching.values(normal(1, 15, 16, seed=1))
    tokens = normal(1, 5, 16, seed=2)
    q = matching.norm(matching.query(tokens).unflatten(-1, (2, 8))).transpose(1, 2)
    expected = torch.nn.functional.scaled_dot_product_attention(
        q, keys[None], values, scale=float(matching.scale)
    )
    expected = expected.transpose(1, 2).flatten(2)
    assert_close(matching.attend(tokens, keys, values)[:, 0], expected, atol=1e-5, rtol=0)


def test_order_and_duplication_of_support_images_change_nothing(model):
    expected = predict(model, QUERIES, IMAGES, LABELS)
    order = [2, 0, 1]
    assert_close(predict(model, QUERIES, IMAGES[order], LABELS[order]), expected, atol=1e-5, rtol=0)
    twice = predict(model, QUERIES, IMAGES.repeat(2, 1, 1, 1), LABELS.repeat(2, 1, 1, 1))
    assert_close(twice, expected, atol=1e-5, rtol=0)


def test_channels_together_are_channels_alone(model):
    together = predict(model, QUERIES, IMAGES, LABELS)
    alone = [predict(model, QUERIES, IMAGES, LABELS[:, c : c + 1]) for c in range(2)]
    assert_close(together, torch.cat(alone, 1), atol=1e-5, rtol=0)


def test_labels_that_are_masked_have_no_effect(model):
    known = torch.rand(LABELS.shape, generator=torch.Generator().manual_seed(5)) < 0.5
    other = torch.where(known, LABELS, torch.full_like(LABELS, float("nan")))
    expected = predict(model, QUERIES, IMAGES, LABELS, known)
    assert torch.equal(predict(model, QUERIES, IMAGES, other, known), expected)
    assert not torch.allclose(predict(model, QUERIES, IMAGES, LABELS), expected)


@torch.no_grad()
def test_one_level_alone_is_the_matching_without_mixing(model):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        fixed = TokenMatching(Shape(**{**vars(SMALL), "mixing": False})).eval()
    weights = model.state_dict()
    del weights["levels"]
    fixed.load_state_dict(weights)
    model.levels.copy_(20 * torch.eye(LEVELS))
    expected = predict(fixed, QUERIES, IMAGES, LABELS)
    assert_close(predict(model, QUERIES, IMAGES, LABELS), expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_equal_weights_are_the_mean_of_the_normalised_levels(model):
    model.levels.zero_()
    raw = model.image_encoder(QUERIES[:, None])
    mean = sum(torch.nn.functional.layer_norm(x, (16,)) for x in raw) / LEVELS
    for level in model.encode(QUERIES):
        assert_close(level, mean, atol=1e-5, rtol=0)


@torch.no_grad()
def test_attention_on_one_token_of_the_same_image_returns_its_label(model):
    tokens = model.encode(IMAGES)
    support = model.match_support(tokens, LABELS)
    for level, (matching, own) in enumerate(zip(model.matching, tokens, strict=True)):
        matching.scale.fill_(1e6)
        found = matching.attend(own, support.keys[level], support.values[level])
        expected = support.values[level].transpose(1, 2).flatten(2).unflatten(1, (3, -1))
        assert_close(found, expected.transpose(0, 1), atol=1e-5, rtol=0)


def test_a_second_image_is_read_and_shares_the_table(model):
    pairs = torch.stack([QUERIES, normal(2, 3, 16, 16, seed=8)], 1)
    support = torch.stack([IMAGES, normal(3, 3, 16, 16, seed=9)], 1)
    found = predict(model, pairs, support, LABELS)
    assert found.shape == (2, 2, 16, 16)
    assert not torch.allclose(found, predict(model, QUERIES, IMAGES, LABELS))
    table = model.image_encoder.positions(2)
    n = SMALL.grid**2
    assert_close(table[:, :n, :n], table[:, n:, n:])  # within either image
    assert_close(table[:, :n, :n], model.image_encoder.positions(1))


def test_tokens_of_the_support_are_as_good_as_its_images(model):
    """Cached tokens give the same bytes as tokens made again."""
    with torch.no_grad():
        support = model.encode_support(IMAGES, LABELS)
        assert torch.equal(model(QUERIES, support), predict(model, QUERIES, IMAGES, LABELS))


def test_keys_begin_as_queries():
    matching = Matching(SMALL, 16)
    assert torch.equal(matching.key.weight, matching.query.weight)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda m: m.encode(normal(1, 3, 20, 20)), "tiles"),
        (lambda m: m.encode_support(IMAGES[:2], LABELS), "every image needs a label"),
        (lambda m: m.encode_support(IMAGES, LABELS[..., :8]), "every image needs a label"),
        (lambda m: m.encode(normal(1, 3, 3, 16, 16)), "Shape(inputs="),
    ],
)
def test_sizes_that_differ_are_refused(model, call, says):
    with pytest.raises(InvalidData) as error:
        call(model)
    assert says in str(error.value)


def test_sizes_that_do_not_divide_are_refused():
    with pytest.raises(InvalidConfig):
        Shape(side=30, patch=4)


def test_a_task_has_less_than_three_percent_of_the_numbers():
    switch = token_matcher(tasks=("edges",))
    assert 0.001 < switch.share() < 0.03
    with switch.use("edges") as model:
        assert model is switch.module


def test_a_beit_is_an_image_encoder():
    transformers = pytest.importorskip("transformers")
    config = transformers.BeitConfig(
        image_size=16, patch_size=4, hidden_size=24, num_hidden_layers=4,
        num_attention_heads=2, intermediate_size=32, use_relative_position_bias=True,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        beit = BeitEncoder(transformers.BeitModel(config, add_pooling_layer=False))
        model = TokenMatching(SMALL, beit).eval()
    assert predict(model, QUERIES, IMAGES, LABELS).shape == (2, 2, 16, 16)
    with pytest.raises(InvalidConfig):
        model.encode(normal(1, 2, 3, 16, 16))
