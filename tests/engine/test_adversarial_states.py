"""Directions that raise a loss, and means over rows."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from unseen.engine.adversarial_states import (
    ascent_directions,
    average_by_row,
    cosines,
    distant_target,
    imposter,
    paired_cosines,
    random_directions,
)
from unseen.errors import InvalidConfig, InvalidData


def states(n=6, d=4, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_linear_loss_rises_by_the_radius_times_the_norm_of_its_gradient():
    z, slope = states(), states(seed=1)
    slope[2] = 0  # a token that the loss does not read stays where it is
    moved = imposter(z, lambda x: (x * slope).sum(), 0.5)
    assert_close(((moved - z) * slope).sum(), 0.5 * slope.norm(dim=1).sum())
    lengths = torch.full((6,), 0.5, dtype=torch.float64)
    lengths[2] = 0
    assert_close((moved - z).norm(dim=1), lengths)
    assert not moved.requires_grad


def test_each_token_may_have_its_own_radius():
    z, radii = states(), torch.arange(6.0, dtype=torch.float64)[:, None]
    moved = imposter(z, lambda x: x.square().sum(), radii)
    assert_close(moved, z * (1 + radii / z.norm(dim=1, keepdim=True)))


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_directions_have_norm_one_however_small_the_gradient(scale):
    slope = states().float() * scale
    found = ascent_directions(states(seed=1).float(), lambda x: (x * slope).sum())
    assert_close(found.norm(dim=1), torch.ones(6))
    assert_close(found, states().float() / states().float().norm(dim=1, keepdim=True))


def test_a_distant_target_goes_up_one_loss_and_then_down_another():
    z = torch.zeros(3, 2, dtype=torch.float64)
    moved = distant_target(z, lambda x: x[:, 0].sum(), lambda x: x[:, 1].sum(), 2.0)
    assert_close(moved, torch.tensor([[2.0, -2.0]] * 3, dtype=torch.float64))
    # the second direction is taken where the first step ended
    flat = distant_target(z, lambda x: x[:, 0].sum(), lambda x: x[:, 0].square().sum(), 2.0)
    assert_close(flat, torch.zeros(3, 2, dtype=torch.float64))


def test_a_token_that_the_contrast_does_not_read_stays_where_it_is():
    """There the divergence has a gradient of rounding errors, which has a direction."""
    z, slope = states().float(), states(seed=1).float()
    slope[2] = 0
    logits = z @ states(4, 9, seed=2).float()

    def divergence(x):
        log_q = (x @ states(4, 9, seed=2).float()).log_softmax(1)
        return torch.nn.functional.kl_div(
            log_q, logits.log_softmax(1), reduction="batchmean", log_target=True
        )

    assert ascent_directions(z, divergence).norm(dim=1).max() > 0.9
    moved = distant_target(z, lambda x: (x * slope).sum(), divergence, 0.5)
    assert_close(moved[2], z[2], rtol=0, atol=0)
    assert ((moved - z).norm(dim=1)[[0, 1, 3, 4, 5]] > 0).all()


def test_means_and_cosines_equal_a_loop():
    z, rows = states(7), torch.tensor([0, 2, 1, 0, 2, 2, 1])
    means = average_by_row(z, rows, 3)
    for k in range(3):
        assert_close(means[k], torch.stack([z[t] for t in range(7) if rows[t] == k]).mean(0))
    other = states(3, seed=3)
    for i in range(3):
        for j in range(3):
            a, b = means[i].numpy(), other[j].numpy()
            expected = a @ b / np.sqrt((a @ a) * (b @ b))
            assert cosines(means, other)[i, j] == pytest.approx(expected, abs=1e-12)
    assert_close(paired_cosines(means, other), cosines(means, other).diagonal())
    assert not cosines(torch.zeros(1, 4), torch.ones(1, 4)).any()


def test_random_directions_are_drawn_from_the_generator():
    first, again = (
        random_directions(states(500), torch.Generator().manual_seed(0)) for _ in range(2)
    )
    assert torch.equal(first, again)
    assert_close(first.norm(dim=1), torch.ones(500, dtype=torch.float64))
    assert first.mean(0).norm() < 0.15  # 500 directions in 4 dimensions: standard error 0.045


def test_refusals():
    with pytest.raises(InvalidConfig, match=r"radius=-0\.1"):
        imposter(states(), lambda x: x.sum(), -0.1)
    with pytest.raises(InvalidConfig, match="radius=-1"):
        distant_target(states(), lambda x: x.sum(), lambda x: x.sum(), -1.0)
    with pytest.raises(InvalidData, match="Row 1 of the batch has padding only"):
        average_by_row(states(), torch.tensor([0, 0, 2, 2, 2, 0]), 3)
