"""Full-batch gradient descent and its reduced dynamics against the definition and against each
other.
"""

from math import exp

import pytest
import torch
from torch import nn

from tests.oracles import two_layer as oracle
from unseen.engine.batches import Columns, whole
from unseen.engine.evaluate import outputs
from unseen.errors import Divergence, InvalidConfig, InvalidData, UnsupportedLayer
from unseen.lab import Lab
from unseen.methods.gradient_descent import (
    GradientDescent,
    GramDynamics,
    gram_path,
    linear_path,
    slope_of,
)
from unseen.models.two_layer import TwoLayer
from unseen.objectives import binary
from unseen.task import Axis, Objective, Split, Task, Use
from unseen.tasks.xor_clusters import XorClusters, bayes_error

LAB = Lab(seed=4, dtype=torch.float64)
SMALL = XorClusters(n=20, dim=300, mean_norm2=40.0, noise=0.1, n_evaluate=15)


def squared(model, batch):
    return (model(batch["x"]) - batch["y"]).square()


SQUARED = Objective(loss=squared, score=squared)


def network(dim=300, width=10, init=0.01):
    with LAB.child("init").seeded():
        return TwoLayer(dim, width, init=init).double()


def task_of(x, y, objective=binary):
    return Task(
        name="own",
        axis=Axis.IID,
        objective=objective,
        splits={"train": Split(Columns(x=x, y=y), Use.TRAIN)},
    )


def test_gradient_descent_is_the_definition():
    task, model = SMALL.build(LAB), network()
    data = whole(task.splits["train"].data, LAB)
    expected = oracle.descend(
        model.hidden.weight.detach().numpy(),
        model.head.numpy(),
        data["x"].numpy(),
        2 * data["y"].numpy() - 1,
        0.5,
        5,
    )
    trained = GradientDescent(steps=5, lr=0.5).fit(model, task, LAB).model
    torch.testing.assert_close(
        trained.hidden.weight.detach(), torch.tensor(expected), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("objective", [binary, SQUARED])
def test_reduced_dynamics_are_gradient_descent(objective):
    data = SMALL.build(LAB).splits["train"].data.columns
    task = task_of(data["x"], data["y"], objective)
    slow = GradientDescent(steps=50, lr=0.02).fit(network(), task, LAB)
    fast = GramDynamics(steps=50, lr=0.02).fit(network(), task, LAB)
    torch.testing.assert_close(
        fast.model.hidden.weight, slow.model.hidden.weight, rtol=0, atol=1e-10
    )
    assert slow.curves["loss"][-1] < slow.curves["loss"][0] / 2, (
        "the comparison must cover real training"
    )
    assert fast.curves["loss"] == pytest.approx(
        slow.curves["loss"], abs=1e-6
    )  # the loop records float32
    assert torch.equal(fast.start["hidden.weight"], network().hidden.weight)


def test_reduced_dynamics_are_gradient_descent_in_float32_and_over_several_fit_splits():
    lab = Lab(seed=4)
    data = SMALL.build(lab).splits["train"].data
    halves = {
        name: Split(data.subset(part), Use.TRAIN)
        for name, part in (("a", slice(10)), ("b", slice(10, 20)))
    }
    task = Task(name="halves", axis=Axis.IID, objective=binary, splits=halves)
    slow = GradientDescent(steps=50, lr=0.02).fit(network(), task, lab).model
    fast = GramDynamics(steps=50, lr=0.02).fit(network(), task, lab).model
    assert slow.hidden.weight.dtype == torch.float32
    torch.testing.assert_close(fast.hidden.weight, slow.hidden.weight, rtol=0, atol=1e-5)


def test_moments_give_norms_and_outputs_of_the_trained_network():
    task, model = SMALL.build(LAB), network()
    batch, judged = whole(task.splits["train"].data, LAB), whole(task.splits["test"].data, LAB)
    x, z, w = batch["x"], judged["x"], model.hidden.weight.detach().clone()
    path = gram_path(x @ x.T, x @ w.T, model.head, slope_of(binary, batch), 0.05, 30)
    *_, last = path
    trained = GradientDescent(steps=30, lr=0.05).fit(model, task, LAB).model
    weight = trained.hidden.weight.detach()
    torch.testing.assert_close(
        last.norms2(w.square().sum(1), x @ w.T), weight.square().sum(1), rtol=1e-10, atol=0
    )
    expected = outputs(trained, task.splits["test"].data, LAB)
    torch.testing.assert_close(
        (z @ w.T + z @ x.T @ last.coefficients).relu() @ model.head, expected
    )


def test_one_sample_is_one_dimensional_logistic_descent():
    x = torch.zeros(1, 5, dtype=torch.float64)
    x[0, 2] = 2.0
    task, model = task_of(x, torch.tensor([1])), network(dim=5, width=16, init=0.3)
    active = model.hidden(x)[0] > 0
    assert 0 < active.sum() < 16
    # every active neuron moves by lr g a x, so f grows by lr g ‖x‖² Σ a² = lr g ‖x‖² · active/width
    # while no neuron switches (lr is small enough, and the test asserts it)
    f = model(x).item()
    for _ in range(3):
        f += 0.001 * 4.0 * active.double().mean().item() / (1 + exp(f))
    for method in (GradientDescent(3, 0.001), GramDynamics(3, 0.001)):
        trained = method.fit(network(dim=5, width=16, init=0.3), task, LAB).model
        assert torch.equal(trained.hidden(x)[0] > 0, active)
        assert trained(x).item() == pytest.approx(f, abs=1e-12)


def test_nearly_orthogonal_samples_are_fitted_in_one_step_flipped_or_not():
    # p = 25 n‖μ‖²: the one-step classifier Σ y x is dominated by each sample's own term. (With ‖μ‖²
    # ≫ p/n it is not: one step is then linear in the clusters, which XOR defeats.)
    task = XorClusters(n=40, dim=40_000, mean_norm2=40.0, noise=0.3, n_evaluate=10).build(LAB)
    data = task.splits["train"].data
    trained = GramDynamics(steps=1, lr=1e-3).fit(network(40_000, 50, 1e-6), task, LAB).model
    assert torch.equal(outputs(trained, data, LAB) > 0, data.columns["y"] > 0)
    far = XorClusters(n=40, dim=400, mean_norm2=40_000.0, noise=0.0, n_evaluate=10).build(LAB)
    trained = GramDynamics(steps=1, lr=1e-3).fit(network(400, 50, 1e-6), far, LAB).model
    data = far.splits["train"].data
    assert not torch.equal(outputs(trained, data, LAB) > 0, data.columns["y"] > 0)


def test_order_of_samples_and_neurons_does_not_matter():
    data = SMALL.build(LAB).splits["train"].data.columns
    order, neurons = torch.randperm(20, generator=LAB.generator()), torch.arange(9, -1, -1)
    plain = GramDynamics(30, 0.05).fit(network(), task_of(data["x"], data["y"]), LAB).model
    shuffled = network()
    shuffled.hidden.weight.data = shuffled.hidden.weight.data[neurons]
    shuffled.head = shuffled.head[neurons]
    shuffled = (
        GramDynamics(30, 0.05).fit(shuffled, task_of(data["x"][order], data["y"][order]), LAB).model
    )
    torch.testing.assert_close(
        shuffled.hidden.weight, plain.hidden.weight[neurons], rtol=0, atol=1e-12
    )


def test_rotating_data_and_weights_leaves_outputs_alone():
    data = SMALL.build(LAB).splits["train"].data.columns
    rotation = torch.linalg.qr(
        torch.randn(300, 300, generator=LAB.generator(), dtype=torch.float64)
    ).Q
    x = data["x"].double()
    plain = GramDynamics(30, 0.05).fit(network(), task_of(x, data["y"]), LAB).model
    turned = network()
    turned.hidden.weight.data = turned.hidden.weight.data @ rotation
    turned = GramDynamics(30, 0.05).fit(turned, task_of(x @ rotation, data["y"]), LAB).model
    torch.testing.assert_close(turned(x @ rotation), plain(x), rtol=0, atol=1e-10)


def test_linear_path_is_gradient_descent_of_a_linear_model_from_zero():
    task = SMALL.build(LAB)
    batch = whole(task.splits["train"].data, LAB)
    model = nn.Linear(300, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    trained = GradientDescent(steps=40, lr=0.05).fit(model, task, LAB).model
    *_, c = linear_path(batch["x"] @ batch["x"].T, slope_of(binary, batch), 0.05, 40)
    torch.testing.assert_close(batch["x"].T @ c, trained.weight.detach()[0], rtol=0, atol=1e-12)


def test_no_network_beats_the_bayes_floor():
    # n‖μ‖⁴/p = 133: clusters overlap, and the trained network's clean error stays above the best
    # rule's
    spec = XorClusters(n=300, dim=600, mean_norm2=16.0, noise=0.1, n_evaluate=4_000)
    task = spec.build(LAB)
    trained = GramDynamics(steps=60, lr=0.02).fit(network(600, 60, 1e-4), task, LAB).model
    wrong = (outputs(trained, task.splits["test"].data, LAB) > 0) != (
        task.splits["test"].data.columns["y"] > 0
    )
    floor = bayes_error(16.0)
    assert floor > 0.004
    assert wrong.double().mean().item() > floor - 5 * (floor / 4_000) ** 0.5


@pytest.mark.parametrize("method", [GradientDescent, GramDynamics])
@pytest.mark.parametrize("bad", [{"lr": 0.0}, {"lr": -1.0}, {"lr": float("nan")}, {"steps": -1}])
def test_bad_rates_are_refused(method, bad):
    with pytest.raises(InvalidConfig, match="positive"):
        method(**bad)


def test_other_networks_are_refused_by_the_fast_path():
    with pytest.raises(UnsupportedLayer, match="use GradientDescent"):
        GramDynamics().fit(nn.Linear(300, 1), SMALL.build(LAB), LAB)


def test_streams_are_refused():
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            yield {"x": torch.zeros(2), "y": torch.tensor(1)}

    task = Task(
        name="stream", axis=Axis.IID, objective=binary, splits={"train": Split(Stream(), Use.TRAIN)}
    )
    with pytest.raises(InvalidData, match="is a stream"):
        GradientDescent().fit(nn.Linear(2, 1), task, LAB)


def test_divergence_is_an_error():
    data = SMALL.build(LAB).splits["train"].data.columns
    with pytest.raises(Divergence, match="lower `lr`"):
        GramDynamics(steps=60, lr=1e9).fit(network(), task_of(data["x"], data["y"], SQUARED), LAB)


@pytest.mark.parametrize("bad", [{"width": 0}, {"dim": 0}, {"init": -1.0}])
def test_impossible_networks_are_refused(bad):
    with pytest.raises(InvalidConfig, match="out of range"):
        TwoLayer(**{"dim": 3, "width": 2, **bad})


def test_the_head_is_fixed_and_balanced_in_size():
    model = network(width=64)
    assert [name for name, _ in model.named_parameters()] == ["hidden.weight"]
    assert torch.equal(model.head.abs(), torch.full((64,), 1 / 8, dtype=torch.float64))
    assert 0 < (model.head > 0).sum() < 64
