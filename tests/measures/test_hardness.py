"""Data Maps against their definition, the loss among choices, and probes that never saw an item."""

from math import log, sqrt

import pytest
import torch

from unseen.engine.loop import Budget, erm_step, train
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.measures.hardness import (
    DataMapRecorder,
    DataMaps,
    TrainingRecord,
    choice_loss,
    data_map,
    probe_losses,
    prototype_distance,
    quarters,
)
from unseen.models.mlp import mlp
from unseen.testing import small_subject


def record(epochs, examples, seed=0):
    p = torch.rand(epochs, examples, generator=Lab(seed).generator(), dtype=torch.float64)
    return TrainingRecord(p, p > 0.5)


def test_the_closed_form_of_three_epochs():
    p = torch.tensor([[0.2], [0.6], [1.0]])
    found = data_map(TrainingRecord(p, p > 0.5))
    assert found.confidence.item() == pytest.approx(0.6)
    assert found.variability.item() == pytest.approx(sqrt(0.32 / 3))
    assert found.correctness.item() == pytest.approx(2 / 3)


def test_it_equals_a_loop_over_examples_and_epochs():
    given = record(5, 7)
    found = data_map(given)
    for k in range(7):
        values = given.probability[:, k].tolist()
        mean = sum(values) / 5
        assert found.confidence[k].item() == pytest.approx(mean, abs=1e-12)
        spread = sqrt(sum((v - mean) ** 2 for v in values) / 5)
        assert found.variability[k].item() == pytest.approx(spread, abs=1e-12)
        assert found.correctness[k].item() == sum(v > 0.5 for v in values) / 5
    assert {round(5 * c) for c in found.correctness.tolist()} <= set(range(6))
    hardest = found.order()
    assert found.confidence[hardest].tolist() == sorted(found.confidence.tolist())


def test_the_order_of_epochs_changes_nothing_and_ties_go_by_index():
    given = record(4, 6)
    back = TrainingRecord(given.probability.flip(0), given.right.flip(0))
    assert torch.allclose(data_map(given).variability, data_map(back).variability)
    flat = TrainingRecord(torch.full((2, 3), 0.5), torch.zeros(2, 3, dtype=torch.bool))
    assert data_map(flat).order().tolist() == [0, 1, 2]


def test_a_watch_records_a_training_run():
    subject, lab = small_subject(), Lab()
    task = subject.task
    watch = DataMapRecorder(task.split("train"), task.objective.loss, task.objective.score, lab)
    model = mlp([4, 16, 2])
    for _ in range(3):
        model = train(model, task, erm_step, Budget(steps=10), lab).model
        value = watch(model)
    found = data_map(watch.record)
    assert watch.record.probability.shape[0] == 3
    assert watch.record.probability[-1].mean().item() == pytest.approx(value)
    assert 0 <= found.confidence.min() <= found.confidence.max() <= 1
    with pytest.raises(InvalidData, match="Nothing was recorded"):
        _ = DataMapRecorder(
            task.split("train"), task.objective.loss, task.objective.score, lab
        ).record


def test_a_model_that_learned_nothing_has_no_map():
    given = record(3, 60)
    with pytest.raises(InvalidData, match="maps noise"):
        DataMaps(chance=0.5)(given, Lab())
    learned = TrainingRecord(given.probability, torch.ones(3, 60, dtype=torch.bool))
    reading = DataMaps(chance=0.5)(learned, Lab())
    assert reading.low < reading.value < reading.high
    assert torch.allclose(reading.detail, 1 - data_map(learned).confidence)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (record(1, 3), "undefined"),
        (TrainingRecord(torch.full((2, 3), 1.5), torch.ones(2, 3, dtype=torch.bool)), "outside"),
        (TrainingRecord(torch.full((2, 1), torch.nan), torch.ones(2, 1, dtype=torch.bool)), "NaN"),
    ],
)
def test_no_map_without_epochs_and_probabilities(given, named):
    with pytest.raises(InvalidData, match=named):
        data_map(given)


def test_the_loss_among_choices_is_that_of_a_softmax():
    total = torch.tensor([log(1.0), log(3.0), log(4.0)]) - 20
    assert choice_loss(total, 1) == pytest.approx(-log(3 / 8), abs=1e-5)
    assert choice_loss(total + 7, 1) == pytest.approx(choice_loss(total, 1), abs=1e-5)


def items(n=40, noise=0.1):
    draw = Lab(5).generator()
    answers = torch.randint(3, (n,), generator=draw).tolist()
    features = []
    for answer in answers:
        x = noise * torch.randn(3, 4, generator=draw)
        x[answer, 0] += 1.0
        features.append(x)
    return features, answers


def test_a_probe_finds_what_the_choices_show_and_never_trains_on_an_item():
    features, answers = items()
    losses = probe_losses(features, answers, Lab())
    assert losses.mean() < 0.8 * log(3)
    # one wrong label is hard for the probes of the other items, whatever its own fold
    wrong = [*answers]
    wrong[3] = (answers[3] + 1) % 3
    assert probe_losses(features, wrong, Lab())[3] > log(3)


def test_probes_on_noise_are_no_better_than_chance():
    features, answers = items(noise=0.0)
    bare = [torch.zeros_like(x) for x in features]
    assert probe_losses(bare, answers, Lab()).mean() == pytest.approx(log(3), abs=1e-6)


def test_a_probe_needs_folds():
    features, answers = items(4)
    with pytest.raises(InvalidConfig, match="5 folds"):
        probe_losses(features, answers, Lab())


def test_distance_from_prototypes_is_that_from_the_nearest_centre():
    draw = Lab(2).generator()
    centres = 50 * torch.eye(3, dtype=torch.float64)
    x = torch.cat([centres[k] + torch.randn(40, 3, generator=draw) for k in range(3)])
    means = torch.stack([x[40 * k : 40 * k + 40].mean(0) for k in range(3)])
    found = prototype_distance(x, Lab(), prototypes=3)
    assert torch.allclose(found, torch.cdist(x, means).min(1).values.double(), atol=1e-4)
    moved = prototype_distance(x + 5, Lab(), prototypes=3)
    assert torch.allclose(found, moved, atol=1e-4)
    with pytest.raises(InvalidConfig, match="121 prototypes of 120 items"):
        prototype_distance(x, Lab(), prototypes=121)


def test_quarters_are_in_order_of_hardness():
    hardness = torch.tensor([5.0, 1.0, 3.0, 1.0, 9.0, 2.0])
    parts = quarters(hardness)
    assert torch.cat(parts).tolist() == [1, 3, 5, 2, 0, 4]
    assert [len(part) for part in parts] == [2, 2, 1, 1]
    with pytest.raises(InvalidData, match="no four quarters"):
        quarters(hardness[:3])
