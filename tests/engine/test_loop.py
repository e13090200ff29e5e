"""The training loop against torch.optim by hand, and what it must never do."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils.data import Dataset

from unseen.engine import parameters
from unseen.engine.batches import Columns, orders
from unseen.engine.loop import Budget, Draw, Optimizer, Schedule, draws, erm_step, mean_loss, train
from unseen.errors import Divergence, InvalidConfig
from unseen.lab import Lab
from unseen.models.mlp import mlp
from unseen.objectives import classify
from unseen.task import Axis, Split, Task, Use

LAB = Lab(3, dtype=torch.float64)
BUDGET = Budget(steps=20, batch_size=8, lr=0.01)


class Tripwire(Dataset):
    """Evaluation data that raise when anyone looks."""

    def __len__(self) -> int:
        raise AssertionError("an evaluation split was opened")

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        raise AssertionError("an evaluation split was opened")


def columns(n: int, name: str = "train") -> Columns:
    g = Lab().child(name).generator()
    x = torch.randn(n, 4, generator=g, dtype=torch.float64)
    return Columns(x=x, y=(x[:, 0] > 0).long())


def task(**more: Split) -> Task:
    splits = {
        "train": Split(columns(30), Use.TRAIN),
        "judged": Split(Tripwire(), Use.EVALUATE),
        **more,
    }
    return Task(name="t", axis=Axis.IID, splits=splits, objective=classify)


def model(dropout: float = 0.0) -> nn.Module:
    with Lab(1).seeded():
        return mlp([4, 5, 2], dropout=dropout).double()


def by_hand(budget: Budget, optimizer: torch.optim.Optimizer, m: nn.Module) -> list[float]:
    data, index, losses = columns(30), orders(30, 8, LAB.child("train")), []
    for step in range(budget.steps):
        for group in optimizer.param_groups:
            group["lr"] = budget.lr * budget.rate(step)
        batch = data[next(index)]
        loss = nn.functional.cross_entropy(m(batch["x"]), batch["y"])
        optimizer.zero_grad()
        loss.backward()
        if budget.clip < math.inf:
            torch.nn.utils.clip_grad_norm_(m.parameters(), budget.clip)
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


CASES = {
    "adam": (
        replace(BUDGET, optimizer=Optimizer.ADAM, betas=(0.8, 0.95), weight_decay=0.1),
        lambda m: torch.optim.Adam(m.parameters(), betas=(0.8, 0.95), weight_decay=0.1),
    ),
    "adamw": (
        replace(BUDGET, weight_decay=0.1),
        lambda m: torch.optim.AdamW(m.parameters(), weight_decay=0.1),
    ),
    "sgd": (
        replace(
            BUDGET,
            optimizer=Optimizer.SGD,
            momentum=0.9,
            weight_decay=0.1,
            schedule=Schedule.COSINE,
            warmup=4,
        ),
        lambda m: torch.optim.SGD(m.parameters(), lr=1.0, momentum=0.9, weight_decay=0.1),
    ),
    "clip": (
        replace(BUDGET, clip=0.01),
        lambda m: torch.optim.AdamW(m.parameters(), weight_decay=0.0),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_equals_torch_optim_by_hand(case):
    budget, optimizer = CASES[case]
    a, b = model(), model()
    trained = train(a, task(), erm_step, budget, LAB)
    losses = by_hand(budget, optimizer(b), b)
    assert trained.curves["loss"] == pytest.approx(losses, rel=1e-6)  # losses are kept in float32
    assert_close(dict(a.state_dict()), dict(b.state_dict()), rtol=1e-9, atol=1e-12)
    assert_close(dict(trained.start), parameters.copy_parameters(model()), rtol=0, atol=0)


def test_clip_bounds_the_sgd_step():
    a = model()
    before = parameters.copy_parameters(a)
    train(
        a,
        task(),
        erm_step,
        Budget(steps=1, batch_size=8, lr=1.0, optimizer=Optimizer.SGD, clip=0.003),
        LAB,
    )
    assert float(parameters.distance(parameters.copy_parameters(a), before)) == pytest.approx(
        0.003, rel=1e-3
    )


def test_decay_spares_vectors_on_request():
    budget = Budget(steps=1, lr=0.1, weight_decay=0.5, decay_vectors=False)
    groups = budget.optimizer_of(model()).param_groups
    assert [(g["weight_decay"], {p.dim() for p in g["params"]}) for g in groups] == [
        (0.5, {2}),
        (0.0, {1}),
    ]


def test_schedule_values():
    assert [Budget(warmup=4).rate(s) for s in (0, 1, 3, 4, 900)] == [0.25, 0.5, 1.0, 1.0, 1.0]
    cosine = Budget(steps=110, warmup=10, schedule=Schedule.COSINE)
    assert [cosine.rate(s) for s in (10, 60, 110)] == pytest.approx([1.0, 0.5, 0.0])
    drops = Budget(drops=(5, 8), drop=0.1)
    assert [drops.rate(s) for s in (4, 5, 7, 8)] == pytest.approx([1, 0.1, 0.1, 0.01])


def test_same_lab_same_weights_and_another_seed_others():
    a, b, c = model(0.5), model(0.5), model(0.5)
    torch.manual_seed(5)
    train(a, task(), erm_step, BUDGET, LAB)
    torch.manual_seed(6)  # the global generator has no say, not even in dropout
    train(b, task(), erm_step, BUDGET, LAB)
    train(c, task(), erm_step, BUDGET, replace(LAB, seed=4))
    assert_close(dict(a.state_dict()), dict(b.state_dict()), rtol=0, atol=0)
    assert (
        float(parameters.distance(parameters.copy_parameters(a), parameters.copy_parameters(c)))
        > 1e-3
    )


def test_the_global_generator_is_left_alone():
    torch.manual_seed(5)
    wanted = torch.rand(1)
    torch.manual_seed(5)
    train(model(0.5), task(), erm_step, BUDGET, LAB)
    assert torch.rand(1) == wanted


def test_adding_a_split_does_not_change_the_stream_of_another():
    alone = [d.fit["train"]["y"].tolist() for d in draws(task(), BUDGET, LAB)]
    more = task(
        other=Split(columns(50, "other"), Use.TRAIN), blind=Split(columns(20, "blind"), Use.ADAPT)
    )
    both = list(draws(more, BUDGET, LAB))
    assert [d.fit["train"]["y"].tolist() for d in both] == alone
    assert set(both[0].fit) == {"train", "other"}
    assert set(both[0].adapt) == {"blind"}
    assert [d.step for d in both] == list(range(20))


def test_mean_loss_weighs_examples_not_splits():
    m = model()
    a, b = columns(30)[:2], columns(30)[2:9]
    got = mean_loss(m, {"a": a, "b": b}, classify)
    together = {k: torch.cat([a[k], b[k]]) for k in a}
    assert_close(got, classify.loss(m, together).mean())


def test_watched_values_at_their_steps():
    budget = replace(BUDGET, watch_at=(0, 7, 20))
    seen = []

    def norm(m: nn.Module) -> float:
        seen.append(m.training)
        return float(parameters.norm(parameters.copy_parameters(m)))

    trained = train(model(), task(), erm_step, budget, LAB, {"norm": norm})
    assert trained.curves["watched"] == [0, 7, 20]
    assert seen == [False] * 3
    short = model()
    train(short, task(), erm_step, replace(BUDGET, steps=7), LAB)
    assert trained.curves["norm"][0] == pytest.approx(
        float(parameters.norm(parameters.copy_parameters(model())))
    )
    assert trained.curves["norm"][1] == pytest.approx(
        float(parameters.norm(parameters.copy_parameters(short)))
    )
    assert trained.curves["norm"][2] == pytest.approx(
        float(parameters.norm(parameters.copy_parameters(trained.model)))
    )
    assert train(model(), task(), erm_step, BUDGET, LAB, {"norm": norm}).curves["watched"] == [20]


def test_selection_restores_the_best_weights_read():
    held = columns(12, "held")
    budget = Budget(steps=24, batch_size=8, lr=3.0, optimizer=Optimizer.SGD, select_every=4)
    trained = train(model(), task(held=Split(held, Use.SELECT)), erm_step, budget, LAB)
    reads = trained.curves["select_loss"]
    best = trained.curves["selected"][reads.index(min(reads))]
    again = model()
    train(again, task(), erm_step, replace(budget, steps=best, select_every=0), LAB)
    assert_close(dict(trained.model.state_dict()), dict(again.state_dict()), rtol=1e-12, atol=0)
    assert len(reads) == 6
    with torch.no_grad():
        assert min(reads) == pytest.approx(float(classify.loss(trained.model, held.columns).mean()))


def test_frozen_parameters_stay_and_mode_ends_in_evaluation():
    m = model()
    m[1].weight.requires_grad_(False)
    before = m[1].weight.clone()
    trained = train(m, task(), erm_step, replace(BUDGET, weight_decay=0.5), LAB)
    assert_close(m[1].weight, before, rtol=0, atol=0)
    assert "1.weight" not in trained.start
    assert not m.training


def test_no_steps_change_nothing():
    trained = train(model(), task(), erm_step, Budget(steps=0), LAB)
    assert_close(dict(trained.model.state_dict()), dict(model().state_dict()), rtol=0, atol=0)
    assert trained.curves["loss"] == []


def test_divergence_is_an_error_that_names_the_step():
    def poisoned(m: nn.Module, draw: Draw, objective) -> torch.Tensor:
        loss = erm_step(m, draw, objective)
        return loss * float("nan") if draw.step == 5 else loss

    with pytest.raises(Divergence, match="step 5"):
        train(model(), task(), poisoned, BUDGET, LAB)
    with pytest.raises(Divergence, match=r"lower `lr`"):
        train(
            model(),
            task(),
            erm_step,
            Budget(steps=30, batch_size=8, lr=1e300, optimizer=Optimizer.SGD),
            LAB,
        )


def test_refusals():
    with pytest.raises(InvalidConfig, match="no SELECT split"):
        train(model(), task(), erm_step, replace(BUDGET, select_every=5), LAB)
    for wrong in (
        {"steps": -1},
        {"batch_size": 0},
        {"lr": 0.0},
        {"lr": math.nan},
        {"weight_decay": -1.0},
        {"clip": 0.0},
    ):
        with pytest.raises(InvalidConfig, match="out of range"):
            Budget(**wrong)


def test_names_of_optimizer_and_schedule_are_their_members():
    """A string that equals "sgd" must not train by AdamW."""
    by_name = Budget(optimizer="sgd", schedule="cosine")
    assert by_name == Budget(optimizer=Optimizer.SGD, schedule=Schedule.COSINE)
    assert isinstance(by_name.optimizer_of(nn.Linear(2, 2)), torch.optim.SGD)
    assert by_name.schedule is Schedule.COSINE
    with pytest.raises(InvalidConfig, match="optimizer='lion'"):
        Budget(optimizer="lion")
