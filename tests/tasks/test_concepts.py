"""Generated levels, natural categories and attribute tables."""

import numpy as np
import pytest
import torch

from unseen.errors import InvalidConfig, UnknownName
from unseen.lab import Lab
from unseen.measures.concept_complexity import image_entropy
from unseen.tasks.concepts import (
    GENERATED,
    SHAPES,
    AttributeConcept,
    Concepts,
    Level,
    Table,
    read_attributes,
    shape_mask,
)

LAB = Lab(seed=1)


def test_shapes_differ_and_lie_inside_the_image():
    masks = [shape_mask(shape, 0, 0, 0, 0.6) for shape in SHAPES]
    for k, mask in enumerate(masks):
        assert 20 < mask.sum() < 500
        assert not mask[0].any()
        assert not mask[:, 0].any()
        assert all((mask != other).mean() > 0.02 for other in masks[:k])
    disc = masks[0]
    assert np.array_equal(disc, disc.T)
    assert disc.sum() == pytest.approx(np.pi * (0.6 * 0.9 * 16) ** 2, rel=0.05)
    with pytest.raises(UnknownName):
        shape_mask("disk", 0, 0, 0, 1)


def test_levels_differ_as_they_say_and_the_last_two_are_visually_complex():
    task = Concepts(levels=GENERATED, n_train=8, n_test=2).build(LAB)
    data = task.split("train").data.columns
    assert data["y"].unique().tolist() == list(range(40))
    fixed = data["x"][data["y"] == 0]
    assert (fixed == fixed[:1]).all()
    bits = [float(image_entropy(data["x"][data["level"] == k]).mean()) for k in range(5)]
    assert max(bits[:3]) < 2 < 6 < bits[3] < bits[4]
    grey = data["x"][data["level"] == 1]
    assert (grey[:, 0] == grey[:, 1]).all()


@pytest.mark.parametrize("level", [Level.OPTDIGITS, Level.FASHION])
def test_natural_levels_have_three_equal_channels_and_all_classes(level):
    task = Concepts(levels=(level,), n_train=6, n_test=4).build(LAB)
    train, test = (task.split(name).data.columns for name in ("train", "test"))
    assert train["x"].shape == (60, 3, 32, 32)
    assert train["y"].bincount().tolist() == [6] * 10
    assert test["y"].bincount().tolist() == [4] * 10
    assert 0 <= train["x"].min() <= train["x"].max() <= 1


def test_characters_are_drawn_by_other_people_in_the_test():
    task = Concepts(levels=(Level.OMNIGLOT,), characters=4).build(LAB)
    train, test = (task.split(name).data.columns for name in ("train", "test"))
    assert train["y"].bincount().tolist() == [13] * 4
    assert test["y"].bincount().tolist() == [7] * 4


def test_held_out_concepts_are_seen_nowhere_in_training():
    spec = Concepts(levels=(Level.FIXED, Level.POSE), n_train=4, n_test=2)
    halves = [Concepts(spec.levels, 4, 2, held_out=rest).build(LAB) for rest in (0, 1)]
    novel = [set(task.split("novel").data.columns["y"].tolist()) for task in halves]
    for task, held_out in zip(halves, novel, strict=True):
        for name in ("train", "test"):
            assert not held_out & set(task.split(name).data.columns["y"].tolist())
    assert novel[0] | novel[1] == set(range(16))
    assert not novel[0] & novel[1]


def test_tables_hold_what_their_authors_wrote():
    awa, zoo = read_attributes(Table.AWA2), read_attributes(Table.ZOO)
    assert awa.values.shape == (50, 85)
    assert float(awa.values.float().mean()) == pytest.approx(0.3675, abs=1e-4)
    tiger = awa.items.index("tiger")
    assert awa.values[tiger, awa.names.index("stripes")]
    assert not awa.values[tiger, awa.names.index("flippers")]
    assert zoo.values.shape == (100, 23)
    assert (zoo.values[:, -7:].sum(1) == 1).all()
    assert zoo.values[zoo.items.index("wren"), zoo.names.index("feathers")]


def test_a_concept_of_a_table_is_not_among_its_inputs():
    task = AttributeConcept(Table.ZOO, "milk").build(LAB)
    train, test = (task.split(name).data.columns for name in ("train", "test"))
    assert train["x"].shape == (50, 22)
    assert not set(train["index"].tolist()) & set(test["index"].tolist())
    known = read_attributes(Table.ZOO)
    assert torch.equal(train["y"], known.values[train["index"], known.names.index("milk")].long())
    with pytest.raises(UnknownName, match="attribute `mlik`"):
        AttributeConcept(Table.ZOO, "mlik").build(LAB)


def test_out_of_range_is_refused():
    for wrong in ({"levels": ()}, {"n_train": 0}, {"held_out": 2}, {"characters": 1}):
        with pytest.raises(InvalidConfig):
            Concepts(**wrong)
