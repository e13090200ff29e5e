"""Ghost batch norm against the definition, against batch norm, and against one batch-norm call per
ghost.
"""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis.strategies import integers, sampled_from
from torch import nn

from tests.oracles import ghosts as oracle
from unseen.engine.batches import Columns
from unseen.engine.loop import Budget, Optimizer, erm_step, train
from unseen.errors import InvalidConfig, InvalidData, UnsupportedLayer
from unseen.lab import Lab
from unseen.methods.ghost_batch_norm import (
    GhostBatchNorm,
    GhostBatchNorm1d,
    GhostBatchNorm2d,
    _as_channels,
    _factors,
    convert,
    shares,
)
from unseen.models.conv import Norm, resnet
from unseen.models.mlp import mlp
from unseen.objectives import classify
from unseen.task import Axis, Split, Task, Use

SHAPES = {"vectors": (3,), "one place": (3, 1, 1), "maps": (3, 4, 2)}


def layers(shape, ghost, dtype=torch.float64, **options):
    """A ghost layer and a batch norm with the same, not trivial, parameters and buffers."""
    with Lab(seed=5).seeded():
        kind = GhostBatchNorm1d if len(shape) == 1 else GhostBatchNorm2d
        layer = kind(shape[0], ghost, **options).to(dtype)
        plain = (nn.BatchNorm1d if len(shape) == 1 else nn.BatchNorm2d)(shape[0], **options).to(
            dtype
        )
        for name, value in layer.state_dict().items():
            if value.is_floating_point():
                value.copy_(1 + torch.rand_like(value))
            plain.state_dict()[name].copy_(value)
    return layer, plain


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=Lab(seed=seed).generator(), dtype=dtype) * 2 + 1


def results(layer, x, weighting):
    """Output, gradients of input, weight and bias, and the buffers after one training step."""
    x = x.clone().requires_grad_()
    y = layer(x)
    grads = torch.autograd.grad((y * weighting).sum(), (x, layer.weight, layer.bias))
    return (y.detach(), *grads, layer.running_mean.clone(), layer.running_var.clone())


@given(
    seed=integers(0, 99),
    k=integers(1, 5),
    ghost=integers(2, 6),
    rest=integers(0, 5),
    shape=sampled_from([*SHAPES]),
)
def test_it_is_the_definition(seed, k, ghost, rest, shape):
    rest = rest % ghost
    n = k * ghost + (0 if rest == 1 else rest)
    layer, _ = layers(SHAPES[shape], ghost)
    x, weighting = normal(n, *SHAPES[shape], seed=seed), normal(n, *SHAPES[shape], seed=seed + 1)
    free = x.clone().requires_grad_()
    y, mean, variance = oracle.normalise(
        free, layer.weight, layer.bias, layer.running_mean.clone(), layer.running_var.clone(), ghost
    )
    expected = torch.autograd.grad((y * weighting).sum(), (free, layer.weight, layer.bias))
    for a, b in zip(
        results(layer, x, weighting), (y.detach(), *expected, mean, variance), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_one_ghost_is_batch_norm(shape):
    layer, plain = layers(shape, 24, torch.float32)
    x, weighting = (
        normal(24, *shape, dtype=torch.float32),
        normal(24, *shape, seed=1, dtype=torch.float32),
    )
    for a, b in zip(results(layer, x, weighting), results(plain, x, weighting), strict=True):
        assert torch.equal(a, b)
    assert layer.num_batches_tracked == plain.num_batches_tracked == 1


@pytest.mark.parametrize("momentum", [0.1, 0.7, None])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("n", [24, 27])
def test_ghosts_are_batch_norm_calls_in_order(shape, momentum, n):
    layer, plain = layers(shape, 6, torch.float32, momentum=momentum)
    x, weighting = (
        normal(n, *shape, dtype=torch.float32),
        normal(n, *shape, seed=1, dtype=torch.float32),
    )
    found = results(layer, x, weighting)
    free = x.clone().requires_grad_()
    y = torch.cat([plain(part) for part in free.split(6)])
    expected = torch.autograd.grad((y * weighting).sum(), (free, plain.weight, plain.bias))
    # float32 rounding of sums over 24 examples
    for a, b in zip(
        found, (y.detach(), *expected, plain.running_mean, plain.running_var), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    assert layer.num_batches_tracked == plain.num_batches_tracked
    torch.testing.assert_close(layer.eval()(x), plain.eval()(x))


def test_fused_gradients_pass_the_numerical_check():
    layer, _ = layers((2,), 3)
    x = normal(6, 2).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, w, b: torch.func.functional_call(layer, {"weight": w, "bias": b}, (x,)),
        (x, layer.weight, layer.bias),
    )


def test_ghosts_as_channels_are_the_loop():
    layer, other = layers((3, 4, 2), 6)
    x = normal(24, 3, 4, 2)
    torch.testing.assert_close(_as_channels(x, other, _factors(other, 4), 6), layer(x))
    torch.testing.assert_close(other.running_var, layer.running_var)
    torch.testing.assert_close(other.running_mean, layer.running_mean)


@pytest.mark.parametrize(
    "options", [{"affine": False}, {"track_running_stats": False}, {"eps": 0.5}]
)
def test_options_of_batch_norm_hold(options):
    plain = nn.BatchNorm1d(3, **options).double()
    layer = convert(copy.deepcopy(plain), 4)
    x = normal(8, 3)
    if options.get("track_running_stats") is False:
        assert torch.equal(layer(x), plain(x)), (
            "without running statistics it is batch norm in every mode"
        )
    else:
        torch.testing.assert_close(layer(x), torch.cat([plain(x[:4]), plain(x[4:])]))
    torch.testing.assert_close(layer.eval()(x), plain.eval()(x))


@given(k=integers(1, 9), seed=integers(0, 99))
def test_shares_replay_the_updates(k, seed):
    rng = Lab(seed=seed).numpy()
    factors, values, running = rng.uniform(0, 1, k).tolist(), rng.normal(size=k), 3.0
    kept, weights = shares(factors)
    for factor, value in zip(factors, values, strict=True):
        running = (1 - factor) * running + factor * value
    assert running == pytest.approx(3.0 * kept + float(values @ weights))
    assert kept + sum(weights) == pytest.approx(1)


def test_convert_keeps_state_and_function_and_shared_layers():
    model = resnet((4, 8), 1, norm=Norm.BATCH)
    names, values = (
        [*model.state_dict()],
        {name: tensor.clone() for name, tensor in model.state_dict().items()},
    )
    x = torch.randn(6, 1, 8, 8, generator=Lab().generator())
    before = copy.deepcopy(model).eval()(x)
    new = convert(model, 4)
    assert [*new.state_dict()] == names
    assert all(torch.equal(values[name], tensor) for name, tensor in new.state_dict().items())
    assert not any(type(m) is nn.BatchNorm2d for m in new.modules())
    assert torch.equal(new.eval()(x), before)
    norm = nn.BatchNorm1d(3)
    twice = convert(nn.Sequential(norm, nn.Linear(3, 3), norm), 2)
    assert twice[0] is twice[2]


def test_small_batches_fall_back_with_a_warning():
    layer, plain = layers((3,), 8)
    x = normal(5, 3)
    with pytest.warns(UserWarning, match="smaller than the ghost size 8"):
        y = layer(x)
    assert torch.equal(y, plain(x))


def test_bad_ghosts_are_refused():
    for ghost in (1, 0, -4):
        with pytest.raises(InvalidConfig, match="at least two"):
            GhostBatchNorm1d(3, ghost)
        with pytest.raises(InvalidConfig, match="at least two"):
            convert(mlp([2, 3, 2], norm=nn.BatchNorm1d), ghost)
        with pytest.raises(InvalidConfig, match="at least two"):
            GhostBatchNorm(ghost=ghost)
    with pytest.raises(InvalidData, match="leaves a ghost of one example"):
        GhostBatchNorm1d(3, 4)(torch.randn(9, 3))
    with pytest.raises(UnsupportedLayer, match="BatchNorm3d"):
        convert(nn.Sequential(nn.BatchNorm3d(2)), 4)
    with pytest.raises(UnsupportedLayer, match="no batch norm"):
        convert(mlp([2, 3, 2]), 4)
    with pytest.raises(ValueError, match="expected 4D input"):
        GhostBatchNorm2d(3, 4)(torch.randn(8, 3))


def test_training_with_one_ghost_per_batch_is_training_with_batch_norm():
    x = normal(64, 5, dtype=torch.float32)
    data = Columns(x=x, y=(x[:, 0] > 1).long())
    task = Task(
        name="t", axis=Axis.IID, objective=classify, splits={"train": Split(data, Use.TRAIN)}
    )

    def fitted(ghost, batch_size):
        with Lab(seed=1).seeded():
            model = mlp([5, 8, 2], norm=nn.BatchNorm1d)
        budget = Budget(steps=20, batch_size=batch_size, lr=0.1, optimizer=Optimizer.SGD)
        if ghost is None:
            return train(model, task, erm_step, budget, Lab(seed=2)).curves["loss"]
        return GhostBatchNorm(ghost, budget).fit(model, task, Lab(seed=2)).curves["loss"]

    assert fitted(32, 32) == fitted(None, 32)
    assert fitted(8, 32) != fitted(None, 32)
    assert fitted(8, 32)[-1] < fitted(8, 32)[0]
