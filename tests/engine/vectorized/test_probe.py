"""What a probe has measured is remembered for models, steps and minibatches of one kind."""

import gc
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from types import SimpleNamespace
from typing import Any
from weakref import ref

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from unseen.engine import parameters
from unseen.engine.batches import Columns
from unseen.engine.loop import Budget, Optimizer, erm_step
from unseen.engine.vectorized import choose, probe
from unseen.engine.vectorized.choose import Backend, choose_backend, try_train_many
from unseen.engine.vectorized.loop import TrainingRuns
from unseen.engine.vectorized.steps import VectorizedStep, mean
from unseen.engine.vectorized.structure import structure
from unseen.lab import Forget, Lab
from unseen.methods.sam import SAM
from unseen.models.mlp import mlp
from unseen.objectives import classify
from unseen.task import Axis, Split, Task, Use

BUDGET = Budget(steps=50, batch_size=8, lr=0.01)


def task(seed: int = 0, n: int = 30, width: int = 5) -> Task:
    generator = Lab(seed).generator()
    x, y = torch.randn(n, width, generator=generator), torch.randint(3, (n,), generator=generator)
    splits = {"train": Split(Columns(x=x, y=y), Use.TRAIN)}
    return Task(name="small", axis=Axis.IID, objective=classify, splits=splits)


def runs(
    k: int = 3,
    sizes: tuple[int, ...] = (5, 7, 3),
    step: Any = erm_step,
    given: Task | None = None,
    seed: int = 0,
    **changes: Any,
) -> TrainingRuns:
    labs = [Lab(seed + number) for number in range(k)]
    models = []
    for lab in labs:
        with lab.child("init").seeded():
            models.append(mlp(list(sizes)))
    tasks = [given or task(width=sizes[0])] * k
    return TrainingRuns(models, tasks, [step] * k, [replace(BUDGET, **changes)] * k, labs)


@pytest.fixture
def probes(monkeypatch) -> list[int]:
    """The number of models of each probe that ran, none remembered from other tests."""
    monkeypatch.setattr(probe, "_remembered", {})
    found, measure = [], probe._measure

    def count(jobs: TrainingRuns, n: int) -> float:
        found.append(len(jobs.models))
        return measure(jobs, n)

    monkeypatch.setattr(probe, "_measure", count)
    return found


def test_one_probe_for_other_weights_data_rates_and_lengths(probes):
    first = choose_backend(runs())
    again = [
        runs(seed=7),
        runs(given=task(seed=3, n=41)),
        runs(lr=0.2, weight_decay=0.0, steps=90, warmup=3),
    ]
    assert [choose_backend(one) for one in again] == [first] * 3
    assert probes == [3]


OTHERS = {
    "models": {"k": 4},
    "width": {"sizes": (5, 8, 3)},
    "inputs": {"sizes": (6, 7, 3)},
    "batch": {"batch_size": 9},
    "fewer examples than a batch": {"given": task(n=6)},
    "optimizer": {"optimizer": Optimizer.SGD},
    "decay": {"weight_decay": 0.1},
    "clip": {"clip": 1.0},
    "step": {"step": SAM().step},
    "objective": {
        "given": replace(
            task(), objective=replace(classify, loss=lambda m, b: m(b["x"]).square().sum(1))
        )
    },
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_kind_has_a_probe_of_its_own(name, probes):
    choose_backend(runs())
    choose_backend(runs(**OTHERS[name]))
    assert len(probes) == 2


def test_layers_that_print_alike_are_told_apart(probes):
    class Scaled(nn.Linear):
        def __init__(self, scale: float) -> None:
            super().__init__(5, 3)
            self.scale = scale

        def forward(self, x: Tensor) -> Tensor:
            return self.scale * super().forward(x)

    for scale in (1.0, 2.0):
        models = [Scaled(scale) for _ in range(3)]
        choose_backend(replace(runs(), models=models))
    assert str(Scaled(1.0)) == str(Scaled(2.0))
    assert len(probes) == 2


class Twice(torch.autograd.Function):
    """2 x; its rule for stacks forgets the 2."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return 2 * g

    @staticmethod
    def vmap(info: Any, dims: Any, x: Tensor) -> tuple[Tensor, int]:
        return x, dims[0]


class Settings:
    def __init__(self, is_twice: bool) -> None:
        self.is_twice = is_twice


class Configurable(nn.Module):
    """A network that reads how to compute from an attribute."""

    def __init__(self, how: Any, act: Callable[[Tensor], Tensor] = torch.tanh) -> None:
        super().__init__()
        self.first, self.last, self.how, self.act = nn.Linear(5, 8), nn.Linear(8, 3), how, act

    def forward(self, x: Tensor) -> Tensor:
        inner = self.act(self.first(x))
        is_twice = self.how["is_twice"] if isinstance(self.how, dict) else self.how.is_twice
        return self.last(Twice.apply(inner) if is_twice else inner)


class Slots:
    __slots__ = ("scale",)

    def __init__(self) -> None:
        self.scale = 1.0

    def times(self, x: Tensor) -> Tensor:
        return self.scale * x


class Kind(Enum):
    ONE, OTHER = 1, 2


def double(layer: nn.Module, given: Any, made: Tensor) -> Tensor:
    return 2 * made


def triple(layer: nn.Module, given: Any, made: Tensor) -> Tensor:
    return 3 * made


def deep_settings() -> dict[str, Any]:
    """Objects within objects, one of which holds itself."""
    inner = SimpleNamespace(scale=1.0)
    config = SimpleNamespace(scale=1.0, inner=inner, words=("a", "b"))
    inner.above = config
    act = partial(torch.mul, other=1.0)
    with Lab().seeded():
        teacher = nn.Linear(2, 2)
    return {
        "is_twice": False,
        "config": config,
        "slots": Slots(),
        "act": act,
        "kind": Kind.ONE,
        "table": np.arange(3),
        "module": torch.nn.functional,
        "words": {"a", "b"},
        "queue": deque([1.0]),
        "method": Slots().times,
        "teacher": [teacher],
    }


@pytest.mark.parametrize("kind", [Settings, lambda is_twice: {"is_twice": is_twice}])
def test_an_attribute_that_is_not_printed_is_seen(kind, probes):
    def backend(is_twice: bool) -> Backend:
        given = runs()
        return choose_backend(replace(given, models=[Configurable(kind(is_twice)) for _ in "abc"]))

    backend(False)
    assert "does not give the loop's weights" in backend(True).why
    assert probes == [3, 3]


@pytest.mark.parametrize(
    "change",
    [
        lambda model: setattr(model, "act", torch.sin),
        lambda model: setattr(model, "how", {"is_twice": True}),
        lambda model: setattr(model, "other", torch.ones(2)),
        lambda model: model.register_forward_hook(lambda layer, given, made: 3 * made),
        lambda model: setattr(model.how["config"], "scale", 2.0),
        lambda model: setattr(model.how["config"].inner, "scale", 2.0),
        lambda model: setattr(model.how["slots"], "scale", 2.0),
        lambda model: model.how.update(act=partial(torch.mul, other=2.0)),
        lambda model: model.how.update(kind=Kind.OTHER),
        lambda model: model.how["table"].__setitem__(1, 5),
        lambda model: model.how["words"].add("c"),
        lambda model: model.how["teacher"][0].bias.data.add_(1),
        lambda model: model.how["queue"].append(2.0),
        lambda model: setattr(model.how["method"].__self__, "scale", 2.0),
        lambda model: model.first.register_full_backward_hook(lambda layer, given, made: None),
        lambda model: model.first.register_full_backward_pre_hook(lambda layer, made: None),
    ],
)
def test_models_that_compute_in_other_ways_are_no_stack(change, probes):
    models = [Configurable(deep_settings()) for _ in "abc"]
    change(models[2])
    backend = choose_backend(replace(runs(), models=models))
    assert not backend.stacked
    assert "differ in more than the values" in backend.why
    assert probes == []


def test_different_hooks_are_no_stack(probes):
    models = [Configurable({"is_twice": False}) for _ in "abc"]
    for k, model in enumerate(models):
        model.register_forward_hook(triple if k == 2 else double)
    assert "differ in more than the values" in choose_backend(replace(runs(), models=models)).why


def test_objects_with_equal_parts_are_of_one_structure():
    one, other = (Configurable(deep_settings()) for _ in "ab")
    one.how["self"], other.how["self"] = one, other
    one.register_forward_hook(double)
    other.register_forward_hook(double)
    assert structure(one) == structure(other)
    assert hash(structure(one)) == hash(structure(other))


def test_recurrent_layers_and_equal_tensors_are_of_one_structure():
    def model(seed: int) -> nn.Module:
        with Lab(seed).seeded():
            made = nn.LSTM(3, 4)
        made.scale = torch.ones(3)
        return made

    assert structure(model(0)) == structure(model(1))


def test_a_refusal_is_looked_into_every_time(probes):
    def centred(model, batch, objective):  # among many the mean is over the rows of all models
        return {**batch, "x": batch["x"] - batch["x"].mean(0)}, objective.loss

    jobs = runs(step=VectorizedStep(mean, centred))
    for _ in range(2):
        assert "does not give the loop's weights" in choose_backend(jobs).why
    assert len(probes) == 2
    assert not probe._remembered


def test_a_setting_without_a_hash_is_measured_every_time(probes):
    def weighted(losses, step, *, weights, **given):
        return (torch.stack(list(losses)) * weights[0]).mean()

    for _ in range(2):
        choose_backend(runs(step=VectorizedStep(weighted, fixed={"weights": [2.0]})))
    assert len(probes) == 2


def test_functions_are_not_kept_alive(probes):
    def step_over(data: Tensor) -> VectorizedStep:
        return VectorizedStep(lambda losses, step: losses[0].mean() + 0 * data.sum())

    data = torch.zeros(3)
    gone = ref(data)
    choose_backend(runs(step=step_over(data)))
    assert len(probes) == 1
    del data
    gc.collect()
    assert gone() is None


def test_the_oldest_are_measured_again(probes, monkeypatch):
    monkeypatch.setattr(probe, "MOST_REMEMBERED", 2)
    for k in (2, 3, 4, 4, 3, 2):
        choose_backend(runs(k=k))
    assert probes == [2, 3, 4, 2]


@dataclass(frozen=True)
class NumberKeeper(Forget):
    """A keeper with room for one number."""

    kept: dict[str, float] = field(default_factory=dict)

    def number(self, name: str, parts: Mapping[str, object], measure: Callable[[], float]) -> float:
        assert isinstance(parts["model"], nn.Module)
        if name not in self.kept:
            self.kept[name] = measure()
        return self.kept[name]


def test_a_kept_number_decides_before_that_of_the_process(probes, monkeypatch):
    monkeypatch.setattr(choose, "GAIN", 1.15)
    choose_backend(runs())
    for number in (0.5, 20.0):
        keeper = NumberKeeper(kept={"speed-up of stacked training": number})
        labs = [Lab(k, keeper=keeper) for k in range(3)]
        chosen = choose_backend(replace(runs(), labs=labs))
        assert (chosen.stacked, chosen.speedup) == (number > 1.15, number)
    new = NumberKeeper()
    choose_backend(replace(runs(), labs=[Lab(k, keeper=new) for k in range(3)]))
    assert len(probes) == 1
    assert list(new.kept.values()) == list(probe._remembered.values())


class Buffered(nn.Module):
    """A buffer that no state holds, and a weight under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(5, 5)
        self.other = nn.Linear(5, 5)
        self.other.weight = self.one.weight
        self.head = nn.Linear(5, 3)
        self.register_buffer("shift", torch.full((5,), 0.5), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.other(torch.tanh(self.one(x)) + self.shift))


def test_a_probe_changes_no_model_and_sees_ties_and_buffers(probes):
    jobs = replace(runs(), models=[Buffered() for _ in range(3)])
    before = [parameters.state(model) for model in jobs.models]
    assert "in the probe" in choose_backend(jobs).why
    for model, state in zip(jobs.models, before, strict=True):
        assert_close(parameters.state(model), state, rtol=0, atol=0)
        assert all(p.grad is None for p in model.parameters())


def test_the_choice_does_not_change_with_what_ran_before(probes):
    first, second = runs(), runs()
    for jobs in (first, second):
        try_train_many(jobs.models, jobs.tasks, jobs.steps, jobs.budgets, jobs.labs)
    assert len(probes) == 1
    for one, other in zip(first.models, second.models, strict=True):
        assert_close(parameters.state(one), parameters.state(other), rtol=0, atol=0)
