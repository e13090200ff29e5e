import pytest
import torch
from torch.testing import assert_close

from unseen.engine.parameters import gaussian, shift_parameters, sphere
from unseen.lab import Lab


def test_shifted_moves_and_restores_bit_by_bit_also_after_an_error():
    params = [
        torch.randn(3, 2, generator=Lab(0).generator()).requires_grad_(),
        torch.full((2,), 1e8),
    ]
    before = [p.detach().clone() for p in params]
    with shift_parameters(
        params, [torch.ones(3, 2), torch.full((2,), 1e-3)]
    ):  # 1e8 + 1e-3 − 1e-3 would be 1e8 only by luck
        assert_close(params[0].detach(), before[0] + 1)
    assert_close([p.detach() for p in params], before, rtol=0, atol=0)
    with (
        pytest.raises(ZeroDivisionError),
        shift_parameters(params, [torch.ones(3, 2), torch.ones(2)]),
    ):
        _ = 1 / 0
    assert_close([p.detach() for p in params], before, rtol=0, atol=0)


def test_gradient_is_taken_at_the_shifted_point():
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    with shift_parameters([w], [torch.tensor([0.5, -1.0])]):
        w.square().sum().backward()
    assert_close(w.grad, torch.tensor([3.0, 2.0]))


def test_sphere_has_its_radius_and_no_preferred_direction():
    params = [torch.zeros(2, 2, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)]
    g = Lab(1).generator()
    drawn = torch.stack(
        [torch.cat([t.flatten() for t in sphere(params, 2.0, g)]) for _ in range(2_000)]
    )
    assert_close(drawn.norm(dim=1), torch.full((2_000,), 2.0, dtype=torch.float64))
    # E[x xᵀ] = r²/d I; entries have standard error below 0.03
    assert_close(
        drawn.T @ drawn / 2_000, 0.8 * torch.eye(5, dtype=torch.float64), rtol=0, atol=0.12
    )
    assert drawn.mean(0).abs().max() < 0.1


def test_noise_has_its_scale_and_follows_the_generator():
    x = torch.full((20_000,), 3.0)
    a, b = gaussian(x, 0.5, Lab(2).generator()), gaussian(x, 0.5, Lab(2).generator())
    assert_close(a, b, rtol=0, atol=0)
    assert float((a - x).std()) == pytest.approx(0.5, rel=0.02)
    assert float((a - x).mean()) == pytest.approx(0, abs=0.02)
