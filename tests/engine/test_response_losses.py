"""Losses over responses: gradients against the closed form, limits and refusals."""

from math import log

import pytest
import torch

from unseen.engine.response_losses import (
    beta_mml,
    dpo,
    imposter_contrast,
    info_nce,
    mle_aug,
    mml,
    replace_diagonal,
    weight_entropy,
)
from unseen.errors import InvalidConfig


def responses(seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = -20 * torch.rand(7, 5, generator=generator, dtype=torch.float64)
    present = torch.rand(7, 5, generator=generator) < 0.7
    present[:, 0] = True
    return values.requires_grad_(), present


@pytest.mark.parametrize("beta", [0.1, 0.25, 1.0])
def test_gradients_weigh_responses_by_softmax(beta):
    values, present = responses()
    (gradient,) = torch.autograd.grad(beta_mml(values, present, beta).sum(), values)
    weights = (beta * values).masked_fill(~present, -torch.inf).softmax(1)
    assert torch.allclose(gradient, -weights, atol=1e-12)
    assert not gradient[~present].any()


def test_limits():
    values, present = responses()
    assert torch.equal(mml(values, present), beta_mml(values, present, 1.0))
    (gradient,) = torch.autograd.grad(beta_mml(values, present, 1e-6).sum(), values)
    uniform = present / present.sum(1, keepdim=True)
    assert torch.allclose(gradient, -uniform.double(), atol=1e-4)
    (mean,) = torch.autograd.grad(mle_aug(values, present).sum(), values)
    assert torch.allclose(mean, -uniform.double(), atol=1e-12)
    (total,) = torch.autograd.grad(mle_aug(values, present, mean=False).sum(), values)
    assert torch.equal(total, -present.double())


def test_one_response_makes_all_losses_equal():
    values, _ = responses()
    present = torch.zeros(7, 5, dtype=torch.bool)
    present[:, 2] = True
    for loss in (mle_aug(values, present), mml(values, present), beta_mml(values, present, 0.25)):
        assert torch.allclose(loss, -values[:, 2])
    assert torch.equal(weight_entropy(values, present), torch.ones(7, dtype=torch.float64))


def test_far_below_the_smallest_number_losses_stay_finite():
    values = torch.full((1, 3), -1e4, requires_grad=True)
    loss = mml(values, torch.ones(1, 3, dtype=torch.bool))
    loss.sum().backward()
    assert loss.item() == pytest.approx(1e4 - log(3), rel=1e-6)
    assert torch.allclose(values.grad, torch.full((1, 3), -1 / 3), atol=1e-3)


def test_entropy_of_the_weights():
    present = torch.ones(2, 4, dtype=torch.bool)
    values = torch.tensor([[-1.0] * 4, [0.0, -1e3, -1e3, -1e3]])
    assert torch.allclose(weight_entropy(values, present), torch.tensor([1.0, 0.0]), atol=1e-6)


def test_preferences_begin_at_log_two_and_change_sign_with_the_pair():
    a, b = torch.randn(2, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(dpo(a, b, a, b), torch.full((9,), log(2), dtype=torch.float64))
    better = a.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(dpo(better, b, b, a, 0.5).sum(), better)
    margin = 0.5 * ((a - b) - (b - a))
    assert torch.allclose(gradient, -0.5 * torch.sigmoid(-margin))
    forward, backward = dpo(a, b, b, a), dpo(b, a, a, b)
    assert torch.allclose(forward - backward, -0.1 * 2 * (a - b))


def test_contrast_is_the_log_of_the_candidates_where_all_are_alike():
    assert torch.allclose(info_nce(torch.zeros(3, 8)), torch.full((3,), log(8)))
    similarity = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.cross_entropy(
        similarity / 0.2, torch.arange(4), reduction="none"
    )
    assert torch.allclose(info_nce(similarity, 0.2), expected)


def test_refusals():
    values, present = responses()
    for beta in (0.0, -1.0, 1.5, float("nan")):
        with pytest.raises(InvalidConfig, match="beta="):
            beta_mml(values, present, beta)
    present[3] = False
    with pytest.raises(InvalidConfig, match="1 prompts have no response"):
        mml(values, present)
    with pytest.raises(InvalidConfig, match="temperature=0"):
        info_nce(torch.zeros(2, 2), 0.0)
    with pytest.raises(InvalidConfig, match="2 candidates for 3 anchors"):
        info_nce(torch.zeros(3, 2))
    with pytest.raises(InvalidConfig, match="beta=0"):
        dpo(*torch.zeros(4, 2), beta=0.0)


def test_an_imposter_is_one_negative_more():
    generator = torch.Generator().manual_seed(0)
    similarity, hard = torch.randn(4, 4, generator=generator), torch.randn(4, generator=generator)
    found = imposter_contrast(similarity, hard, 0.5)
    for i in range(4):
        below = (similarity[i] / 0.5).exp().sum() + (hard[i] / 0.5).exp()
        assert found[i].item() == pytest.approx(
            -log((similarity[i, i] / 0.5).exp() / below), rel=1e-5
        )
    # an imposter that is infinitely far away is none
    far = torch.full((4,), -torch.inf)
    assert torch.allclose(imposter_contrast(similarity, far, 0.5), info_nce(similarity, 0.5))
    other = replace_diagonal(similarity, hard)
    assert torch.equal(other.diagonal(), hard)
    off = ~torch.eye(4, dtype=torch.bool)
    assert torch.equal(other[off], similarity[off])
