"""Adaptation trains a task's own numbers and nothing else."""

import copy
from dataclasses import replace

import pytest
import torch

from unseen.engine.batches import Columns
from unseen.engine.dense import dense
from unseen.engine.loop import Budget
from unseen.errors import InvalidConfig, InvalidData
from unseen.identity.tensors import digest_of
from unseen.lab import Lab
from unseen.methods.episodic_training import EpisodicTraining, augment, half_from_half
from unseen.methods.few_shot_tuning import Adapt, FewShotTuning, switch_of
from unseen.models.token_matching import FewShotPredictor, Shape, token_matcher
from unseen.task import Axis, Split, Task, Use

SHAPE = Shape(side=16, width=16, heads=2)
SHORT = Budget(steps=4, batch_size=8, lr=1e-2)


def uniform(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*size, generator=torch.Generator().manual_seed(seed))


def task_of(n: int = 8, **columns: torch.Tensor) -> Task:
    x = uniform(n, 3, 16, 16)
    data = Columns(**{"x": x, "y": x[:, :2].round(), **columns})
    return Task(
        name="channels", axis=Axis.TASK, splits={"train": Split(data, Use.TRAIN)}, objective=dense
    )


@pytest.fixture
def switch():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return token_matcher(SHAPE, ("edges", "masks"))


def digest(switch, without: str = "") -> str:
    own = {id(p) for p in switch.parameters_of(without)} if without else set()
    return digest_of({n: p for n, p in switch.named_parameters() if id(p) not in own})


def test_adapting_a_task_changes_no_tensor_of_another(switch):
    before = digest(switch)
    predictor = FewShotTuning("new", budget=SHORT).fit(switch, task_of(), Lab()).model
    assert predictor.switch is switch
    rest = {n: p for n, p in switch.named_parameters() if not n.startswith("sets.2.")}
    assert digest_of(rest) == before
    images = uniform(2, 3, 16, 16, seed=4)
    first = predictor(images).detach()
    FewShotTuning("second", budget=SHORT).fit(switch, task_of(), Lab(1))
    assert torch.equal(predictor(images).detach(), first)
    moved = zip(switch.parameters_of("new"), switch.parameters_of("second"), strict=True)
    assert any(not torch.equal(a, b) for a, b in moved)
    assert all(p.requires_grad for p in switch.parameters())


@pytest.mark.parametrize("adapt", [Adapt.DECODER, Adapt.ALL])
def test_what_trains_more_than_biases_trains_a_copy(switch, adapt):
    before = digest(switch)
    predictor = FewShotTuning("new", adapt, budget=SHORT).fit(switch, task_of(), Lab()).model
    assert digest(switch) == before
    assert "new" not in switch.tasks
    network, other = predictor.switch.module, switch.module
    assert not torch.equal(network.decoder.head.weight, other.decoder.head.weight)
    same = torch.equal(network.label_encoder.patches.weight, other.label_encoder.patches.weight)
    assert same == (adapt is Adapt.DECODER)


def test_without_adaptation_the_mean_biases_predict(switch):
    task = task_of()
    predictor = FewShotTuning("new", Adapt.NONE).fit(switch, task, Lab()).model
    columns = task.split("train").data.columns
    with torch.no_grad():
        expected = FewShotPredictor(switch, None, columns["x"], columns["y"])(columns["x"])
        assert torch.equal(predictor(columns["x"]), expected)


def test_the_support_holds_at_most_so_many_images(switch):
    predictor = FewShotTuning("new", Adapt.NONE, support=3).fit(switch, task_of(), Lab()).model
    assert predictor.support.keys[0].shape[1] == 3 * SHAPE.grid**2


def test_masked_pixels_take_no_part(switch):
    known = uniform(8, 2, 16, 16, seed=7) < 0.7
    y = task_of().split("train").data.columns["y"]
    found = []
    for value in (0.0, float("nan")):
        task = task_of(y=torch.where(known, y, torch.full_like(y, value)), known=known)
        model = FewShotTuning("new", budget=SHORT).fit(copy.deepcopy(switch), task, Lab()).model
        with torch.no_grad():
            found.append(model(uniform(2, 3, 16, 16, seed=4)))
    assert torch.equal(*found)


def test_one_image_needs_its_mirror_image(switch):
    with pytest.raises(InvalidData, match="one labelled image"):
        FewShotTuning("new", augment=False, budget=SHORT).fit(switch, task_of(1), Lab())
    FewShotTuning("new", budget=SHORT).fit(switch, task_of(1), Lab())


def test_a_task_that_was_trained_is_not_new(switch):
    for adapt in Adapt:
        with pytest.raises(InvalidConfig, match="`edges`"):
            FewShotTuning("edges", adapt, budget=SHORT).fit(switch, task_of(), Lab())


def test_labels_outside_the_range_are_refused(switch):
    with pytest.raises(InvalidData, match="255"):
        FewShotTuning("new").fit(switch, task_of(y=255 * uniform(8, 1, 16, 16)), Lab())


def test_other_models_are_refused():
    with pytest.raises(InvalidConfig, match="no tokens"):
        switch_of(torch.nn.Linear(2, 2))
    with pytest.raises(InvalidConfig, match="Episodes train token matching"):
        EpisodicTraining(tasks=("a", "b")).fit(torch.nn.Linear(2, 2), task_of(), Lab())


def test_the_share_that_is_adapted_is_small():
    switch = token_matcher()
    assert 0.001 < FewShotTuning("new").share(switch) < 0.03
    assert FewShotTuning("new", Adapt.NONE).share(switch) == 0
    assert FewShotTuning("new", Adapt.ALL).share(switch) == 1
    assert FewShotTuning("new", Adapt.DECODER).share(switch) > FewShotTuning("new").share(switch)


METHOD = EpisodicTraining(
    tasks=("a", "b"), episodes=2, pretraining=SHORT, budget=replace(SHORT, batch_size=16), shots=4
)


def test_episodes_give_every_task_biases_of_its_own():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        switch = token_matcher(SHAPE)
    METHOD.fit(switch, task_of(32), Lab())
    assert switch.tasks == ["a", "b"]
    pairs = zip(switch.parameters_of("a"), switch.parameters_of("b"), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)


def test_the_loss_of_an_episode_is_on_the_second_half_alone(switch):
    images, labels = uniform(6, 3, 16, 16), uniform(6, 1, 16, 16, seed=1)
    network = switch.module
    with torch.no_grad():
        found = half_from_half(network, images, labels)
        support = network.encode_support(images[:3], labels[:3])
        logits = network(images[3:], support)
        expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels[3:])
    torch.testing.assert_close(found, expected)


def test_labels_of_a_new_task_stay_inside():
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        found = augment(uniform(4, 1, 16, 16), uniform(4, 3, 16, 16, seed=1), generator)
        assert found.shape == (4, 1, 16, 16)
        assert found.min() >= 0
        assert found.max() <= 1


@pytest.mark.parametrize(
    "wrong", [{"episodes": 0}, {"augmented": 2.0}, {"negated": ("c",)}, {"shots": 0}]
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(InvalidConfig):
        replace(METHOD, **wrong)


def test_names_and_channels_must_agree():
    with pytest.raises(InvalidConfig, match="3 names for 2 channels"):
        replace(METHOD, tasks=("a", "b", "c")).fit(token_matcher(SHAPE), task_of(), Lab())
