"""Runs of several seeds: trained together they are those trained alone; cached ones are not trained
again.
"""

from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

from unseen.engine.loop import Budget
from unseen.engine.vectorized import choose
from unseen.engine.vectorized.choose import Backend
from unseen.errors import Divergence
from unseen.lab import Lab
from unseen.methods.early_stopping import EarlyStopping
from unseen.methods.erm import ERM
from unseen.methods.sam import SAM
from unseen.models.mlp import mlp
from unseen.runs.tensors import TensorCache
from unseen.subjects import training
from unseen.subjects.domains import of_domains
from unseen.subjects.subject import Subject
from unseen.subjects.training import TrainingRuns
from unseen.tasks.domains import Domains, shifting_clusters

BUDGET = Budget(steps=12, batch_size=8)


@dataclass(frozen=True)
class Memory:
    """A keeper in memory that loses what it is told to."""

    kept: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def __call__(self, key, make):
        if str(key) not in self.kept:
            self.kept[str(key)] = make()
        return self.kept[str(key)]


def clusters() -> Subject:
    return replace(
        of_domains(Domains(shifting_clusters), Lab())[0],
        model=lambda: mlp([2, 8, 2]),
        budget=BUDGET,
    )


def weights(runs) -> list[Tensor]:
    return [torch.cat([p.detach().flatten() for p in run.model.parameters()]) for run in runs]


@pytest.fixture
def stacked(monkeypatch):
    monkeypatch.setattr(
        choose, "choose_backend", lambda jobs: Backend(len(jobs.models) > 1, "forced")
    )


@pytest.mark.usefixtures("stacked")
def test_seeds_trained_together_stop_early_as_those_trained_alone():
    subject = replace(clusters(), budget=replace(BUDGET, select_every=3))
    method = ERM(subject.budget)
    together = TrainingRuns(subject, Lab()).seeds(method, 3)
    alone = [TrainingRuns(subject, Lab())(method, seed) for seed in range(3)]
    for one, other in zip(together, alone, strict=True):
        assert one.curves["select_loss"] == pytest.approx(other.curves["select_loss"], rel=1e-4)
    for one, other in zip(weights(together), weights(alone), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.usefixtures("stacked")
@pytest.mark.parametrize(
    "method",
    [ERM(BUDGET), SAM(budget=BUDGET), EarlyStopping(2, BUDGET)],
    ids=lambda m: type(m).__name__,
)
def test_seeds_trained_together_are_those_trained_alone(method):
    subject = clusters()
    together = TrainingRuns(subject, Lab()).seeds(method, 3)
    alone = [TrainingRuns(subject, Lab())(method, seed) for seed in range(3)]
    for one, other in zip(weights(together), weights(alone), strict=True):
        torch.testing.assert_close(
            one, other, rtol=1e-4, atol=1e-5
        )  # float32, another order of sums
    assert all(run.task is subject.task for run in together)
    assert not torch.equal(*weights(together)[:2])


@pytest.mark.usefixtures("stacked")
def test_only_seeds_that_are_not_cached_are_trained(monkeypatch):
    subject, memory, trained = clusters(), Memory(), []
    lab, method = Lab(keeper=memory), ERM(BUDGET)

    def counting(method, models, task, labs):
        trained.append(len(models))
        return together(method, models, task, labs)

    together = training.train_together
    monkeypatch.setattr(training, "train_together", counting)
    first = weights(TrainingRuns(subject, lab).seeds(method, 3))
    memory.kept.pop(
        list(memory.kept)[1]
    )  # killed before the second run and what follows were stored
    memory.kept.pop(list(memory.kept)[1])
    second = weights(TrainingRuns(subject, lab).seeds(method, 3))
    third = weights(TrainingRuns(subject, lab).seeds(method, 3))
    assert trained == [3, 2]
    for one, other, again in zip(first, second, third, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        assert torch.equal(other, again)


@pytest.mark.usefixtures("stacked")
def test_a_seed_that_diverges_is_an_error_and_leaves_nothing_behind():
    runs = TrainingRuns(clusters(), Lab())
    with pytest.raises(Divergence):
        runs.seeds(ERM(replace(BUDGET, lr=1e38)), 3)
    (one,) = weights([runs(ERM(BUDGET), 1)])
    (other,) = weights([TrainingRuns(clusters(), Lab())(ERM(BUDGET), 1)])
    assert torch.equal(one, other)


@pytest.mark.parametrize("n", [1, 2])
def test_a_kept_run_has_the_curves_of_the_first(n, tmp_path):
    subject = replace(clusters(), budget=replace(BUDGET, select_every=3))
    lab = Lab(keeper=TensorCache(tmp_path))
    first = TrainingRuns(subject, lab).seeds(ERM(subject.budget), n)
    again = TrainingRuns(subject, lab).seeds(ERM(subject.budget), n)
    assert again[0].model is not first[0].model
    for one, other in zip(first, again, strict=True):
        assert {name: list(values) for name, values in one.curves.items()} == other.curves
        assert len(other.curves["loss"]) == BUDGET.steps
        assert torch.equal(*weights([one, other]))
