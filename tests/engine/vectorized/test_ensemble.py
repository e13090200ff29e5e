"""The stacked run equals the loop over the same models: float64, so that only real differences
count.
"""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from unseen.engine import parameters
from unseen.engine.batches import Columns
from unseen.engine.loop import Budget, Optimizer, Schedule, erm_step, train
from unseen.engine.vectorized.choose import choose_backend, train_many, try_train_many
from unseen.engine.vectorized.ensemble import Ensemble
from unseen.engine.vectorized.loop import TrainingRuns, train_stacked
from unseen.engine.vectorized.steps import VectorizedStep, mean, norms_of_models
from unseen.errors import Divergence, InvalidData, UnsupportedLayer
from unseen.lab import Lab
from unseen.methods.adversarial_training import AdversarialTraining
from unseen.methods.mixup import Mixup
from unseen.methods.sam import SAM, to_radius
from unseen.methods.vrex import VREx
from unseen.models.mlp import mlp
from unseen.objectives import classify
from unseen.task import Axis, Split, Task, Use

K = 4
LABS = [Lab(seed, dtype=torch.float64) for seed in range(K)]
BUDGET = Budget(steps=25, batch_size=8, lr=0.01)
EXACT = {"rtol": 1e-9, "atol": 1e-11}


def conv() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.LayerNorm(3),
        nn.Linear(3, 3),
    )


class Tied(nn.Module):
    """A weight used twice, a frozen parameter and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(5, 5, bias=False)
        self.head = nn.Linear(5, 3)
        self.frozen = nn.Parameter(torch.ones(5), requires_grad=False)
        self.register_buffer("scale", torch.full((5,), 0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.inner(torch.tanh(self.inner(x))) * self.frozen + self.scale)


MAKE = {
    "mlp": (lambda: mlp([5, 7, 6, 3]), (5,)),
    "tied": (Tied, (5,)),
    "conv": (conv, (1, 5, 5)),
    "batch norm": (lambda: mlp([5, 7, 3], norm=nn.BatchNorm1d), (5,)),
}


def task(shape=(5,), seed=0, n=30) -> Task:
    def columns(name: str, size: int) -> Columns:
        g = Lab(seed).child(name).generator()
        return Columns(
            x=torch.randn(size, *shape, generator=g), y=torch.randint(3, (size,), generator=g)
        )

    splits = {
        "a": Split(columns("a", n), Use.TRAIN, "a"),
        "b": Split(columns("b", n + 5), Use.TRAIN, "b"),
        "held": Split(columns("held", 20), Use.SELECT),
    }
    return Task(name="small", axis=Axis.IID, objective=classify, splits=splits)


def fresh(make) -> list[nn.Module]:
    models = []
    for lab in LABS:
        with lab.child("init").seeded():
            models.append(make().double())
    return models


def compare(make, steps, budgets, tasks, watch=None) -> None:
    """Weights, buffers and curves of the stacked run against `train` called in a loop."""
    models = fresh(make)
    together, alone = copy.deepcopy(models), copy.deepcopy(models)
    results = train_stacked(TrainingRuns(together, tasks, steps, budgets, LABS, watch))
    for k in range(K):
        reference = train(alone[k], tasks[k], steps[k], budgets[k], LABS[k], watch)
        assert_close(dict(together[k].state_dict()), dict(alone[k].state_dict()), **EXACT)
        assert results[k].curves.keys() == reference.curves.keys()
        for name, values in reference.curves.items():
            assert list(results[k].curves[name]) == pytest.approx(list(values), rel=1e-8), name
        assert_close(dict(results[k].start), dict(reference.start), rtol=0, atol=0)
        assert not together[k].training


BUDGETS = {
    "adamw": BUDGET,
    "adam decay": replace(BUDGET, optimizer=Optimizer.ADAM, weight_decay=0.1),
    "sgd momentum": replace(
        BUDGET, optimizer=Optimizer.SGD, momentum=0.9, schedule=Schedule.COSINE, warmup=5
    ),
    "matrices only": replace(BUDGET, weight_decay=0.3, decay_vectors=False, clip=0.05, drops=(10,)),
    "select": replace(BUDGET, lr=0.1, select_every=3),
}


@pytest.mark.parametrize("budget", BUDGETS.values(), ids=BUDGETS)
@pytest.mark.parametrize("model", ["mlp", "tied"])
def test_stacked_equals_loop_for_every_budget(model, budget):
    make, shape = MAKE[model]
    compare(make, [erm_step] * K, [budget] * K, [task(shape)] * K)


@pytest.mark.parametrize("model", MAKE)
def test_stacked_equals_loop_for_every_layer(model):
    make, shape = MAKE[model]
    # SGD: a bias before batch normalisation has gradient 0 up to rounding, which Adam would blow up
    # to a full step
    compare(make, [erm_step] * K, [BUDGETS["sgd momentum"]] * K, [task(shape)] * K)


@pytest.mark.parametrize("optimizer", Optimizer)
def test_own_rates_decays_and_clips(optimizer):
    base = replace(BUDGET, optimizer=optimizer, momentum=0.5 if optimizer is Optimizer.SGD else 0.0)
    budgets = [
        replace(base, lr=0.004 * (k + 1), weight_decay=0.1 * k, clip=0.2 + k) for k in range(K)
    ]
    compare(MAKE["mlp"][0], [erm_step] * K, budgets, [task()] * K)


def test_chain_of_linear_layers_spares_vmap(monkeypatch):
    monkeypatch.setattr(Ensemble, "evaluate", lambda *_, **__: pytest.fail("vmap was used"))
    compare(MAKE["mlp"][0], [erm_step] * K, [BUDGETS["sgd momentum"]] * K, [task()] * K)
    relu = nn.ReLU()  # one module in two places
    twice = lambda: nn.Sequential(nn.Linear(5, 4), relu, nn.Linear(4, 4), relu, nn.Linear(4, 3))  # noqa: E731
    compare(twice, [erm_step] * K, [BUDGETS["sgd momentum"]] * K, [task()] * K)


def test_own_data_and_watched_quantities():
    budget = replace(BUDGET, watch_at=(0, 7, 25), select_every=10)
    watch = {"norm": lambda model: float(parameters.norm(dict(model.named_parameters())))}
    own = [task(seed=k % 3) for k in range(K)]  # some share their numbers, but not their tensors
    compare(MAKE["mlp"][0], [erm_step] * K, [budget] * K, own, watch)
    some = [own[0], own[1], *own[: K - 2]]  # and some their tensors
    compare(MAKE["mlp"][0], [erm_step] * K, [budget] * K, some, watch)


def test_data_too_large_for_one_table_are_gathered_model_by_model(monkeypatch):
    monkeypatch.setattr("unseen.engine.vectorized.loop.GATHER_LIMIT", 0)
    compare(MAKE["mlp"][0], [erm_step] * K, [BUDGET] * K, [task(seed=k) for k in range(K)])


@pytest.mark.parametrize("radii", [[0.1] * K, [0.3 * k for k in range(K)]], ids=["shared", "own"])
@pytest.mark.parametrize("model", MAKE)
def test_two_pass_step_with_own_radius(model, radii):
    make, shape = MAKE[model]
    steps = [SAM(rho=rho).step for rho in radii]
    compare(make, steps, [BUDGETS["sgd momentum"]] * K, [task(shape)] * K)


@pytest.mark.parametrize(
    "method", [VREx(weight=3.0, warmup=0), Mixup(), AdversarialTraining(passes=2)], ids=type
)
@pytest.mark.parametrize("model", ["mlp", "tied", "batch norm"])
def test_hooks_combine(model, method):
    """SAM's ascent with another reduction of the losses, and on other minibatches."""
    (make, shape), step = MAKE[model], method.step
    steps = [
        replace(step, ascent=to_radius, settings={**step.settings, "rho": 0.1 * k})
        for k in range(K)
    ]
    compare(make, steps, [BUDGETS["sgd momentum"]] * K, [task(shape)] * K)


def test_at_a_stationary_point_no_ascent_is_taken():
    def zeros() -> nn.Module:
        model = mlp([5, 7, 3])
        for p in model.parameters():
            nn.init.zeros_(p)
        return model

    own = task()
    first = next(iter(own.of(Use.TRAIN)))
    still = replace(own, splits={**own.splits, first: replace(own.splits[first], data=balanced())})
    steps = [SAM(rho=0.5).step] * K
    compare(zeros, steps, [replace(BUDGET, batch_size=9)] * K, [still] * K)


def balanced() -> Columns:
    """Every class equally often, so that a network of zeros has gradient zero."""
    return Columns(x=torch.ones(9, 5, dtype=torch.float64), y=torch.arange(9) % 3)


def variance_penalty(model, draw, objective, *, weight):
    """V-REx: mean of the environments' losses plus `weight` times their variance."""
    losses = torch.stack([objective.loss(model, batch).mean() for batch in draw.fit.values()])
    return losses.mean() + weight * losses.var()


def test_penalty_with_own_weight():
    steps = [
        VectorizedStep(criterion=variance_penalty, settings={"weight": float(k)}) for k in range(K)
    ]
    compare(MAKE["mlp"][0], steps, [BUDGET] * K, [task()] * K)


def test_train_many_equals_loop_and_records_its_choice():
    models, reference = fresh(MAKE["mlp"][0]), fresh(MAKE["mlp"][0])
    budget = replace(BUDGET, steps=50)
    results = train_many(models, task(), erm_step, budget, LABS)
    for k in range(K):
        train(reference[k], task(), erm_step, budget, LABS[k])
        assert_close(dict(models[k].state_dict()), dict(reference[k].state_dict()), **EXACT)
        assert results[k].model is models[k]
        assert results[k].curves["stacked"] in ([0.0], [1.0])


def hooked() -> nn.Module:
    model = mlp([5, 4, 3])
    next(model.parameters()).register_hook(lambda gradient: gradient * gradient.abs())
    return model


def frozen_statistics() -> nn.Module:
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    model[1].eval()
    return model


OBSTACLES = {
    "stays in evaluation mode": {"models": lambda: fresh(frozen_statistics)},
    "pass through hooks": {"models": lambda: fresh(hooked)},
    "dropout": {"models": lambda: fresh(lambda: mlp([5, 4, 3], dropout=0.5))},
    "no stacked form": {
        "steps": [lambda model, draw, objective: erm_step(model, draw, objective)] * K
    },
    "budgets differ": {"budgets": [replace(BUDGET, batch_size=4 + k) for k in range(K)]},
    "different numbers of examples": {"tasks": [task(n=30 + k) for k in range(K)]},
    "too few steps": {"budgets": [replace(BUDGET, steps=5)] * K},
}


@pytest.mark.parametrize("why", OBSTACLES)
def test_what_cannot_be_stacked_is_looped_with_a_reason(why):
    given = {
        "models": lambda: fresh(MAKE["mlp"][0]),
        "tasks": [task()] * K,
        "steps": [erm_step] * K,
        "budgets": [BUDGET] * K,
    }
    given |= OBSTACLES[why]
    models = given.pop("models")
    chosen = choose_backend(TrainingRuns(models(), labs=LABS, **given))
    assert not chosen.stacked
    assert why in chosen.why
    trained, reference = models(), models()
    train_many(trained, given["tasks"], given["steps"], given["budgets"], LABS)
    for k in range(K):
        train(reference[k], given["tasks"][k], given["steps"][k], given["budgets"][k], LABS[k])
        assert_close(dict(trained[k].state_dict()), dict(reference[k].state_dict()), rtol=0, atol=0)


def test_step_whose_stacked_form_lies_is_looped():
    def centred(model, batch, objective):  # among many the mean is over the rows of all models
        return {**batch, "x": batch["x"] - batch["x"].mean(0)}, objective.loss

    wrong = VectorizedStep(mean, centred)
    jobs = TrainingRuns(
        fresh(MAKE["mlp"][0]), [task()] * K, [wrong] * K, [replace(BUDGET, steps=50)] * K, LABS
    )
    assert "does not give the loop's weights" in choose_backend(jobs).why


def test_diverged_model_leaves_the_others_as_they_are():
    budgets = [
        replace(BUDGET, steps=50, optimizer=Optimizer.SGD, lr=1e300 if k == 1 else 0.01)
        for k in range(K)
    ]
    models, reference = fresh(MAKE["mlp"][0]), fresh(MAKE["mlp"][0])
    results = train_stacked(TrainingRuns(models, [task()] * K, [erm_step] * K, budgets, LABS))
    assert isinstance(results[1], Divergence)
    train(reference[2], task(), erm_step, budgets[2], LABS[2])
    assert_close(dict(models[2].state_dict()), dict(reference[2].state_dict()), **EXACT)
    with pytest.raises(Divergence, match="Model 1 of 4"):
        train_many(fresh(MAKE["mlp"][0]), task(), erm_step, budgets, LABS)
    assert [
        isinstance(r, Divergence)
        for r in try_train_many(fresh(MAKE["mlp"][0]), task(), erm_step, budgets, LABS)
    ] == [
        False,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("model", MAKE)
def test_ensemble_forward_equals_each_model(model):
    make, shape = MAKE[model]
    models = [m.eval() for m in fresh(make)]
    x = torch.randn(6, *shape, dtype=torch.float64, generator=Lab(1).generator())
    ensemble = Ensemble(models).eval()
    assert_close(ensemble(x), torch.stack([m(x) for m in models]), rtol=1e-12, atol=1e-12)
    ensemble.write(models[::-1])
    assert_close(ensemble(x), torch.stack([m(x) for m in models[::-1]]), rtol=1e-12, atol=1e-12)


def test_refusals():
    with pytest.raises(UnsupportedLayer, match="Model 1"):
        Ensemble([mlp([5, 4, 3]), mlp([5, 6, 3])])
    with pytest.raises(UnsupportedLayer, match="Model 1"):
        Ensemble(
            [nn.Sequential(nn.Linear(2, 2), nn.ReLU()), nn.Sequential(nn.Linear(2, 2), nn.Tanh())]
        )
    with pytest.raises(InvalidData, match="no models"):
        Ensemble([])
    with pytest.raises(InvalidData, match="labs"):
        train_many(fresh(MAKE["mlp"][0]), task(), erm_step, BUDGET, LABS[:2])


@pytest.mark.parametrize("k", [1, 3, 32])
def test_norms_of_stacked_models_equal_those_of_single_ones_to_the_last_bit(k: int):
    generator = Lab().generator()
    shapes = [(64, 64), (64,), (8, 1, 3, 3), ()]
    stacks = {str(i): torch.randn(k, *shape, generator=generator) for i, shape in enumerate(shapes)}
    assert torch.equal(norms_of_models(stacks), torch.func.vmap(parameters.norm)(stacks))
