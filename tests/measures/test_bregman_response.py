import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from unseen.engine.curvature import gauss_newton
from unseen.engine.parameters import trainable
from unseen.errors import Divergence, InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.measures.bregman_response import Proximal, ResponseCorrelation, bregman
from unseen.measures.leave_one_out import correlation, proportionality


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=Lab(seed).generator(), dtype=torch.float64)


def outputs(model: nn.Module, batch: dict) -> torch.Tensor:
    return model(batch["x"])


def squared(z: torch.Tensor, batch: dict) -> torch.Tensor:
    return (z - batch["y"]).square().sum(1) / 2


def entropy(z: torch.Tensor, batch: dict) -> torch.Tensor:
    return F.cross_entropy(z, batch["y"], reduction="none")


def first(model: nn.Module, batch: dict) -> torch.Tensor:
    return model(batch["x"])[:, 0]


def small(*layers: nn.Module) -> nn.Module:
    with Lab(4).seeded():
        return nn.Sequential(*[layer() for layer in layers]).double()  # type: ignore[operator]


def test_quadratic_model_in_closed_form():
    """Linear model, squared loss: θ(ε) solves (XᵀX/N + ε zzᵀ + λ)(θ − θ_s) = −ε ∇L(z) exactly,
    whatever ε.
    """
    n, d = 12, 4
    x, y, asked = normal(n, d), normal(n, 1, seed=1), normal(5, d, seed=2)
    with Lab(3).seeded():
        model = nn.Linear(d, 1, bias=False).double()
    theta, damping, copies = model.weight.detach().T, 0.1, -2.0
    rows = torch.tensor([0, 7])
    found = Proximal(damping, copies, tolerance=1e-6).responses(
        model, {"x": x, "y": y}, rows, outputs, squared, {"x": asked}, first
    )
    wanted = []
    for z, target in zip(x[rows], y[rows], strict=True):
        epsilon = copies / n
        matrix = (
            x.T @ x / n + epsilon * torch.outer(z, z) + damping * torch.eye(d, dtype=torch.float64)
        )
        moved = torch.linalg.solve(matrix, -epsilon * (z @ theta - target) * z)
        wanted.append(asked @ moved / copies)
    assert_close(found, torch.stack(wanted, 1), rtol=1e-4, atol=1e-6)
    assert torch.equal(model.weight.detach().T, theta)  # the model itself stays


def test_divergences_are_kl_and_half_the_squared_distance():
    at, h = normal(6, 3), normal(6, 3, seed=1)
    classes = {"y": torch.tensor([0, 1, 2, 0, 1, 2])}
    kl = F.kl_div(h.log_softmax(1), at.log_softmax(1), reduction="none", log_target=True).sum(1)
    assert_close(bregman(entropy, at, classes)(h), kl)  # of p_s against p: the labels drop out
    assert_close(bregman(entropy, at, {"y": classes["y"].flip(0)})(h), kl)
    assert_close(bregman(squared, at, {"y": normal(6, 3, seed=2)})(h), (h - at).square().sum(1) / 2)
    assert_close(
        bregman(entropy, at, classes)(at), torch.zeros(6, dtype=torch.float64), atol=1e-12, rtol=0
    )


def test_response_of_a_network_is_its_gauss_newton_influence_to_first_order():
    model = small(lambda: nn.Linear(4, 6), nn.Tanh, lambda: nn.Linear(6, 3))
    data, asked = {"x": normal(15, 4), "y": torch.arange(15) % 3}, {"x": normal(7, 4, seed=5)}
    params, n, damping = trainable(model), 15, 0.02
    product = gauss_newton(model, [data], outputs, entropy)
    sizes = {name: p.numel() for name, p in params.items()}

    def shaped(v: torch.Tensor) -> dict:
        return {
            k: part.view(params[k].shape)
            for k, part in zip(sizes, v.split([*sizes.values()]), strict=True)
        }

    def row(f, batch: dict, k: int) -> torch.Tensor:
        one = {name: tensor[k : k + 1] for name, tensor in batch.items()}
        return torch.cat(
            [g.flatten() for g in torch.autograd.grad(f(model, one).sum(), [*params.values()])]
        )

    basis = torch.eye(sum(sizes.values()), dtype=torch.float64)
    matrix = torch.stack(
        [torch.cat([t.flatten() for t in product(shaped(v)).values()]) for v in basis]
    )
    losses = torch.stack([row(lambda m, b: entropy(m(b["x"]), b), data, k) for k in range(5)])
    queries = torch.stack([row(first, asked, k) for k in range(7)])
    influence = -queries @ torch.linalg.solve(matrix + damping * basis, losses.T) / n
    found = Proximal(damping, -0.01, tolerance=1e-5).responses(
        model, data, torch.arange(5), outputs, entropy, asked, first
    )
    assert correlation(influence, found).value > 0.9999
    assert proportionality(influence, found).value == pytest.approx(1, abs=0.01)


def test_order_of_the_data_does_not_matter():
    model = small(lambda: nn.Linear(4, 3), nn.Tanh, lambda: nn.Linear(3, 3))
    data, asked = {"x": normal(9, 4), "y": torch.arange(9) % 3}, {"x": normal(2, 4, seed=5)}
    order = torch.randperm(9, generator=Lab().generator())
    shuffled = {name: tensor[order] for name, tensor in data.items()}
    one = Proximal(0.1, tolerance=1e-6).responses(
        model, data, order[:2], outputs, entropy, asked, first
    )
    other = Proximal(0.1, tolerance=1e-6).responses(
        model, shuffled, torch.arange(2), outputs, entropy, asked, first
    )
    assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_refusals():
    with pytest.raises(InvalidConfig, match="no minimum"):
        Proximal(0.0)
    with pytest.raises(InvalidConfig, match="no minimum"):
        Proximal(0.1, copies=0.0)
    model = small(lambda: nn.Linear(4, 3))
    data = {"x": normal(9, 4), "y": torch.arange(9) % 3}
    one = {name: tensor[:1] for name, tensor in data.items()}
    with pytest.raises(Divergence, match=r"of the gradient after 1 iterations"):
        Proximal(1e-6, iterations=1, tolerance=1e-9).response(model, data, outputs, entropy, one)
    with pytest.raises(InvalidData, match="no examples"):
        Proximal(0.1).response(model, {k: v[:0] for k, v in data.items()}, outputs, entropy, data)
    with pytest.raises(InvalidData, match="NaN"):
        ResponseCorrelation()(
            {"scores": normal(2, 4) * torch.nan, "responses": normal(2, 4)}, Lab()
        )
