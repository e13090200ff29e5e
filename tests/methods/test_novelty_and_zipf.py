"""Curricula of novelty and unequal shares choose examples, and nothing else."""

import pytest
import torch

from unseen.engine.batches import Columns
from unseen.engine.loop import Budget, erm_step, train
from unseen.engine.mixture import Mixture
from unseen.engine.parameters import state
from unseen.engine.toy import toy_subject
from unseen.errors import InvalidData, UnknownName
from unseen.lab import Lab
from unseen.methods import novelty_curriculum, zipf_sampling
from unseen.methods.novelty_curriculum import NoveltyCurriculum
from unseen.methods.zipf_sampling import ZipfSampling
from unseen.task import Split, Use

BUDGET = Budget(steps=12, batch_size=4)
METHODS = (NoveltyCurriculum(budget=BUDGET), ZipfSampling(budget=BUDGET))


def drawn(method, monkeypatch, task, module):
    """The training data that a method hands to the loop."""
    found = []

    def watch(model, task, step, budget, lab):
        found.append(task)
        return train(model, task, step, budget, lab)

    monkeypatch.setattr(module, "train", watch)
    subject = toy_subject()
    trained = method.fit(subject.model, task, Lab())
    assert trained.task is task
    return next(iter(found[0].of(Use.TRAIN).values())).data


def test_a_curriculum_starts_with_its_share_and_ends_with_everything(monkeypatch):
    task = toy_subject().task
    data = drawn(METHODS[0], monkeypatch, task, novelty_curriculum)
    n = len(data)
    assert data.visible(0) == -(-n // 5)
    assert data.visible(11) == n


def test_by_a_column_the_lowest_values_come_first_and_share_their_weight():
    data = Columns(x=torch.zeros(4, 1), length=torch.tensor([7, 2, 7, 3]))
    weights = ZipfSampling(1.0, "length").weigh(data, Lab()).weights
    assert torch.allclose(weights * 11 / 6, torch.tensor([1 / 6, 1, 1 / 6, 1 / 2]).double())
    with pytest.raises(UnknownName, match="column"):
        ZipfSampling(column="lengths").weigh(data, Lab())


def test_exponent_zero_draws_all_equally(monkeypatch):
    task = toy_subject().task
    data = drawn(ZipfSampling(0.0, budget=BUDGET), monkeypatch, task, zipf_sampling)
    assert torch.allclose(data.weights, data.weights[:1].expand(len(data)))


@pytest.mark.parametrize("method", METHODS)
def test_weights_differ_from_plain_training_and_repeat(method):
    def weights(fit):
        subject = toy_subject()
        return torch.cat([p.flatten() for p in state(fit(subject).model).values()])

    first, second = (weights(lambda s: method.fit(s.model, s.task, Lab())) for _ in range(2))
    plain = weights(lambda s: train(s.model, s.task, erm_step, BUDGET, Lab()))
    assert torch.equal(first, second)
    assert not torch.equal(first, plain)


@pytest.mark.parametrize("method", METHODS)
def test_streams_are_refused(method):
    subject = toy_subject()
    task = subject.task
    splits = {name: s for name, s in task.splits.items() if s.use is not Use.TRAIN}
    stream = Mixture({"a": Columns(x=torch.zeros(2, 1), y=torch.zeros(2))})
    splits["train"] = Split(stream, Use.TRAIN)
    object.__setattr__(task, "splits", splits)
    with pytest.raises(InvalidData, match="is a Mixture"):
        method.fit(subject.model, task, Lab())
