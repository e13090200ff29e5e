"""ERM, SAM, early stopping, group DRO and inverse frequency against their definitions."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from unseen.engine import parameters
from unseen.engine.batches import Columns
from unseen.engine.loop import Budget, Draw, Optimizer, draws, erm_step, mean_loss, train
from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.lab import Lab
from unseen.methods.asam import ASAM
from unseen.methods.early_stopping import EarlyStopping
from unseen.methods.erm import ERM
from unseen.methods.group_reweighting import (
    GroupDRO,
    Groups,
    InverseFrequency,
    group_dro_step,
    groups_of,
    mirror_ascent,
    reweighted_step,
)
from unseen.methods.sam import SAM
from unseen.models.mlp import mlp
from unseen.objectives import classify
from unseen.task import Axis, Objective, Split, Task, Use

LAB = Lab(dtype=torch.float64)
SGD = Budget(
    steps=12, batch_size=16, lr=0.1, optimizer=Optimizer.SGD, momentum=0.9, weight_decay=0.01
)


def task(n: int = 40, select: bool = False) -> Task:
    g = Lab(8).generator()
    x = torch.randn(n, 4, generator=g, dtype=torch.float64)
    site = (torch.arange(n) % 5 == 0).long() * 2  # groups 0 (80 %) and 2 (20 %)
    columns = Columns(x=x, y=(x[:, 0] + site > 0.5).long(), site=site)
    splits = {"train": Split(columns, Use.TRAIN)}
    if select:
        splits["held"] = Split(columns.subset(slice(0, 10)), Use.SELECT)
    return Task(name="t", axis=Axis.SITE, splits=splits, objective=classify)


def model(*, dropout: float = 0.0, norm: type[nn.Module] | None = None) -> nn.Module:
    with Lab(1).seeded():
        return mlp([4, 6, 2], dropout=dropout, norm=norm).double()


def test_erm_is_the_loop_with_the_mean_loss():
    a, b = model(), model()
    ERM(SGD).fit(a, task(), LAB)
    train(b, task(), erm_step, SGD, LAB)
    assert_close(dict(a.state_dict()), dict(b.state_dict()), rtol=0, atol=0)


class Quadratic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))


A = torch.tensor([[3.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
QUADRATIC = Objective(
    loss=lambda m, batch: (m.w @ A @ m.w / 2).expand(len(batch["x"])),
    score=lambda m, batch: batch["x"].sum(1),
)
ONE = Draw({"train": {"x": torch.zeros(3, 1, dtype=torch.float64)}}, {})


@pytest.mark.parametrize("rho", [0.0, 0.1, 1.0])
def test_sam_on_a_quadratic_equals_the_hand_formula(rho):
    m = Quadratic()
    w = m.w.detach().clone()
    g = A @ w
    loss = SAM(rho=rho).step(m, ONE, QUADRATIC)
    assert_close(m.w.grad, A @ (w + rho * g / g.norm()))
    assert float(loss) == pytest.approx(float(w @ A @ w / 2))
    assert_close(m.w.detach(), w, rtol=0, atol=0)


def test_sam_without_radius_is_erm_and_with_radius_is_two_explicit_passes():
    a, b, c, d = (model() for _ in range(4))
    SAM(rho=0.0, budget=SGD).fit(a, task(), LAB)
    ERM(SGD).fit(b, task(), LAB)
    assert_close(dict(a.state_dict()), dict(b.state_dict()), rtol=0, atol=0)
    SAM(rho=0.2, budget=SGD).fit(c, task(), LAB)
    optimizer = torch.optim.SGD(d.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    for draw in draws(task(), SGD, LAB):  # first step up, second step down, as in the paper's code
        params = list(d.parameters())
        gradient = torch.autograd.grad(mean_loss(d, draw.fit, classify), params)
        norm = torch.sqrt(sum(x.square().sum() for x in gradient))
        moves = [0.2 * x / norm for x in gradient]
        with torch.no_grad():
            for p, move in zip(params, moves, strict=True):
                p += move
        optimizer.zero_grad()
        mean_loss(d, draw.fit, classify).backward()
        with torch.no_grad():
            for p, move in zip(params, moves, strict=True):
                p -= move
        optimizer.step()
    assert_close(dict(c.state_dict()), dict(d.state_dict()), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("rho", [0.0, 0.1, 1.0])
def test_adaptive_sam_on_a_quadratic_equals_the_hand_formula(rho):
    m = Quadratic()
    w = m.w.detach().clone()
    g, t = A @ w, w.abs() + 0.01
    loss = ASAM(rho=rho, eta=0.01).step(m, ONE, QUADRATIC)
    assert_close(m.w.grad, A @ (w + rho * t**2 * g / (t * g).norm()))
    assert float(loss) == pytest.approx(float(w @ A @ w / 2))
    assert_close(m.w.detach(), w, rtol=0, atol=0)


def test_adaptive_sharpness_does_not_see_how_layers_share_their_scale():
    class Product(nn.Module):
        def __init__(self, scale: float) -> None:
            super().__init__()
            self.a = nn.Parameter(torch.tensor([2.0 * scale, -1.0 * scale], dtype=torch.float64))
            self.b = nn.Parameter(torch.tensor([0.5 / scale, 3.0 / scale], dtype=torch.float64))

    risen = []
    objective = replace(
        QUADRATIC, loss=lambda m, batch: ((m.a * m.b).sum().square()).expand(len(batch["x"]))
    )
    for scale in (1.0, 10.0):
        m = Product(scale)
        ASAM(rho=0.1, eta=0.0).step(m, ONE, objective)
        # the gradient at w + ε; of a it is divided by the scale, so that a · ∂a is not
        risen.append((m.a.detach() * m.a.grad, m.b.detach() * m.b.grad))
    assert_close(risen[0], risen[1])


def test_adaptive_sam_without_radius_is_erm_and_refuses_a_negative_one():
    a, b = model(), model()
    ASAM(rho=0.0, budget=SGD).fit(a, task(), LAB)
    ERM(SGD).fit(b, task(), LAB)
    assert_close(dict(a.state_dict()), dict(b.state_dict()), rtol=0, atol=0)
    with pytest.raises(InvalidConfig, match="rho=-1"):
        ASAM(rho=-1)


def test_sam_passes_share_the_dropout_mask_and_count_batch_norm_once():
    draw = next(draws(task(), SGD, LAB))
    noisy = model(dropout=0.5).train()
    with Lab(3).seeded():
        SAM(rho=0.0).step(noisy, draw, classify)
    at_once = [p.grad.clone() for p in noisy.parameters()]
    noisy.zero_grad()
    with Lab(3).seeded():
        erm_step(noisy, draw, classify)
    assert_close(at_once, [p.grad for p in noisy.parameters()])
    normed, single = model(norm=nn.BatchNorm1d).train(), model(norm=nn.BatchNorm1d).train()
    SAM(rho=0.3).step(normed, draw, classify)
    erm_step(single, draw, classify)
    assert_close(dict(normed.named_buffers()), dict(single.named_buffers()))


def test_early_stopping_returns_the_best_weights_read():
    budget = replace(SGD, steps=30, lr=0.5)
    trained = EarlyStopping(every=3, budget=budget).fit(model(), task(select=True), LAB)
    assert trained.curves["selected"] == list(range(3, 31, 3))
    held = task(select=True).splits["held"].data.columns
    with torch.no_grad():
        loss = float(classify.loss(trained.model, held).mean())
    assert loss == pytest.approx(min(trained.curves["select_loss"]))
    with pytest.raises(InvalidConfig, match="no SELECT split"):
        EarlyStopping(every=3, budget=budget).fit(model(), task(), LAB)
    with pytest.raises(InvalidConfig, match="every=40"):
        EarlyStopping(every=40, budget=budget)


GROUPS = Groups(torch.tensor([0, 2]), torch.tensor([32, 8]))


def test_group_weights_follow_the_closed_form():
    """With losses that training cannot change, q after T steps is proportional to exp(η T ℓ)."""
    fixed = Objective(
        loss=lambda m, b: 0 * m.w.sum() + 0.3 + b["site"].double() * 0.4, score=QUADRATIC.score
    )
    draw = Draw({"train": {"x": torch.zeros(4, 1), "site": torch.tensor([0, 2, 0, 2])}}, {})
    q = torch.full((2,), 0.5, dtype=torch.float64)
    for _ in range(20):
        group_dro_step(Quadratic(), draw, fixed, weights=q, groups=GROUPS, column="site", rate=0.05)
    assert_close(q, (0.05 * 20 * torch.tensor([0.3, 1.1], dtype=torch.float64)).softmax(0))
    start = torch.tensor([0.2, 0.8], dtype=torch.float64)
    by_hand = start * torch.exp(0.5 * torch.tensor([2.0, 1.0], dtype=torch.float64))
    assert_close(
        mirror_ascent(start, torch.tensor([2.0, 1.0], dtype=torch.float64), 0.5),
        by_hand / by_hand.sum(),
    )


def test_group_gradient_is_the_weighted_sum_and_an_absent_group_is_left_out():
    batch = task().splits["train"].data[:12]
    m = model()
    q = torch.tensor([0.25, 0.75], dtype=torch.float64)
    group_dro_step(
        m, Draw({"train": batch}, {}), classify, weights=q, groups=GROUPS, column="site", rate=0.0
    )
    got = [p.grad.clone() for p in m.parameters()]
    losses = classify.loss(m, batch)
    wanted = 0.25 * losses[batch["site"] == 0].mean() + 0.75 * losses[batch["site"] == 2].mean()
    assert_close(got, list(torch.autograd.grad(wanted, list(m.parameters()))))
    alone = {k: v[batch["site"] == 0] for k, v in batch.items()}
    m.zero_grad()
    group_dro_step(
        m, Draw({"train": alone}, {}), classify, weights=q, groups=GROUPS, column="site", rate=0.1
    )
    assert all(torch.isfinite(p.grad).all() for p in m.parameters())
    assert float(q[0]) > 0.25


def test_inverse_frequency_gives_every_group_the_same_say():
    batch = task().splits["train"].data[torch.arange(40)]
    m, weights = model(), 40 / (2 * torch.tensor([32.0, 8.0], dtype=torch.float64))
    draw = Draw({"train": batch}, {})
    loss = reweighted_step(m, draw, classify, weights=weights, groups=GROUPS, column="site")
    losses = classify.loss(m, batch).detach()
    assert float(loss) == pytest.approx(
        float((losses[batch["site"] == 0].mean() + losses[batch["site"] == 2].mean()) / 2)
    )


def test_group_methods_train_and_record():
    found = groups_of(task(), "site", LAB)
    assert (found.values.tolist(), found.counts.tolist()) == ([0, 2], [32, 8])
    trained = GroupDRO(rate=0.5, budget=SGD).fit(model(), task(), LAB)
    weights = [trained.curves[f"weight {g}"][0] for g in (0, 2)]
    assert sum(weights) == pytest.approx(1)
    again = GroupDRO(rate=0.5, budget=SGD).fit(model(), task(), LAB)
    assert_close(dict(trained.model.state_dict()), dict(again.model.state_dict()), rtol=0, atol=0)
    uniform = InverseFrequency(budget=SGD).fit(model(), task(), LAB)
    assert (
        float(
            parameters.distance(
                parameters.copy_parameters(uniform.model), parameters.copy_parameters(trained.model)
            )
        )
        > 0
    )
    assert all(map(math.isfinite, uniform.curves["loss"]))


def test_one_step_of_the_classes_is_a_step_down_the_loss_they_name():
    """A whole pass in one step of plain SGD: inverse frequency descends the mean of the groups'
    means, group DRO their weighted sum, from equal weights that the first losses have raised."""
    once = Budget(steps=1, batch_size=40, lr=0.1, optimizer=Optimizer.SGD)
    batch = task().splits["train"].data[torch.arange(40)]
    net = model()
    each = torch.stack([classify.loss(net, batch)[batch["site"] == g].mean() for g in (0, 2)])
    q = (2.0 * each.detach()).softmax(0)
    for method, loss in (
        (InverseFrequency(budget=once), each.mean()),
        (GroupDRO(rate=2.0, budget=once), q @ each),
    ):
        gradients = torch.autograd.grad(loss, list(net.parameters()), retain_graph=True)
        trained = method.fit(model(), task(), LAB)
        for p, start, g in zip(
            trained.model.parameters(), net.parameters(), gradients, strict=True
        ):
            assert_close(p.detach(), start.detach() - 0.1 * g)
    assert [trained.curves[f"weight {g}"][0] for g in (0, 2)] == pytest.approx(q.tolist())


def test_refusals():
    with pytest.raises(InvalidConfig, match="rho=-1"):
        SAM(rho=-1)
    with pytest.raises(InvalidConfig, match="rate=-1"):
        GroupDRO(rate=-1)
    with pytest.raises(UnknownName, match="`hospital`"):
        GroupDRO(group="hospital", budget=SGD).fit(model(), task(), LAB)
    with pytest.raises(InvalidData, match="float64"):
        InverseFrequency(group="x", budget=SGD).fit(model(), task(), LAB)
