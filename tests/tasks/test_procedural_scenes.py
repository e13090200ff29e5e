"""Labels of drawn scenes against loops over pixels."""

import pytest
import torch

from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.tasks.procedural_scenes import (
    HELD_OUT,
    TRAINING,
    Label,
    ProceduralScenes,
    border_distance,
    draw_scenes,
    edges,
)

SCENES = draw_scenes(6, 24, Lab(3))


def test_border_distance_is_a_loop_over_pixels():
    found = border_distance(SCENES.index)
    for n in range(2):
        index = SCENES.index[n]
        for y in range(24):
            for x in range(24):
                others = (index != index[y, x]).nonzero().float()
                nearest = (others - torch.tensor([y, x])).norm(dim=1).min().clamp_max(5)
                expected = nearest if index[y, x] >= 0 else 0.0
                assert found[n, y, x] == pytest.approx(float(expected))


def test_edges_are_a_loop_over_neighbours():
    found, index = edges(SCENES.index), SCENES.index
    for y in range(24):
        for x in range(24):
            around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
            inside = [(a, b) for a, b in around if 0 <= a < 24 and 0 <= b < 24]
            assert found[0, y, x] == any(index[0, a, b] != index[0, y, x] for a, b in inside)


@pytest.mark.parametrize("label", list(Label))
def test_labels_are_values_between_0_and_1_and_not_constant(label):
    values = SCENES.label(label)
    assert values.shape == (6, 24, 24)
    assert values.min() >= 0
    assert values.max() <= 1
    assert values.std() > 0.01


def test_labels_that_train_are_not_held_out():
    assert not {*TRAINING} & {*HELD_OUT}
    assert {*TRAINING, *HELD_OUT} == {*Label}


def test_halves_lie_in_their_objects_and_meet_normals():
    objects = SCENES.index >= 0
    for half, normal in ((Label.UPPER, Label.NORMAL_Y), (Label.LEFT, Label.NORMAL_X)):
        inside = SCENES.label(half) > 0
        assert (inside <= objects).all()
        assert torch.equal(inside, objects & (SCENES.label(normal) < 0.5))


def test_the_centre_is_the_peak_of_its_heat():
    scenes = draw_scenes(20, 32, Lab(4))
    heat = scenes.label(Label.CENTRE)
    for n in range(20):
        row, column = scenes.centre[n, scenes.count[n] - 1].round().long()  # the front is seen
        assert heat[n, row, column] > 0.7


def test_the_scenes_do_not_depend_on_which_labels_are_asked_for():
    one, other = (
        ProceduralScenes(labels=labels, n_train=4, n_test=3).build(Lab(1))
        for labels in (TRAINING, (Label.BORDER,))
    )
    assert torch.equal(one.split("train").data[:]["x"], other.split("train").data[:]["x"])
    assert other.split("train").data[:]["y"].shape == (4, 1, 24, 24)
    assert not torch.equal(one.split("train").data[:3]["x"], one.split("test").data[:]["x"])


@pytest.mark.parametrize("wrong", [{"labels": ()}, {"n_train": 0}, {"side": 8}])
def test_what_cannot_be_drawn_is_refused(wrong):
    with pytest.raises(InvalidConfig):
        ProceduralScenes(**wrong)
