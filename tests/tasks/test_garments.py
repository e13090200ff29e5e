"""Images of which few have labels, and the study that pretrains on the others."""

import pytest
import torch

from unseen.engine.batches import whole
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.studies import unsupervised_pretraining
from unseen.study import Scale
from unseen.study.grid import Cell
from unseen.task import Use
from unseen.tasks.garments import TOPS, Garments, example
from unseen.tasks.images import Images


def test_few_images_have_labels_and_no_image_is_in_two_parts():
    task = example().build(Lab())
    parts = {name: whole(split.data, Lab()) for name, split in task.splits.items()}
    assert {name: len(batch["x"]) for name, batch in parts.items()} == {
        "train": 30,
        "unlabelled": 300,
        "test": 100,
    }
    assert {*parts["unlabelled"]} == {"x"}
    assert task.splits["unlabelled"].use is Use.ADAPT
    rows = torch.cat([parts["train"]["x"], parts["unlabelled"]["x"]])
    assert len(rows.unique(dim=0)) == 330
    assert rows.mean().abs() < 1e-5
    with pytest.raises(InvalidConfig, match="empty split"):
        Garments(unlabelled=0)


def test_labels_say_whether_it_is_a_top():
    spec = example()
    images = Images(spec.collection, n_train=330, n_test=100, side=7).build(Lab())
    theirs, ours = (whole(t.split("test").data, Lab()) for t in (images, spec.build(Lab())))
    assert torch.equal(theirs["x"].flatten(1), ours["x"])
    assert [int(y) in TOPS for y in theirs["y"]] == [bool(y) for y in ours["y"]]


def test_the_study_reads_them_at_its_longer_scale():
    cells = {
        cell.setting.task.n
        for cell in unsupervised_pretraining.study.scales[Scale.PAPER].cells()
        if cell.setting.part == "garments"
    }
    assert cells == {50, 100, 200, 500, 1_000, 2_000}
    setting = unsupervised_pretraining.Setting("garments", example())
    rows = list(unsupervised_pretraining.run(Cell(setting, None, 0), Lab()))
    errors = {row["arm"]: row["error"] for row in rows}
    assert {*errors} == {"pretrain", "one start", "logistic regression"}
    assert all(0 <= error < 0.35 for error in errors.values())
