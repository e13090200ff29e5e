"""Flipped labels of a problem with known answers are found; order and refusal."""

import pytest
import torch

from unseen import objectives, stats
from unseen.engine.batches import Columns
from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.lab import Lab
from unseen.measures.label_errors import out_of_fold_loss
from unseen.models.mlp import mlp
from unseen.task import Axis, Split, Task, Use


def blobs(n=400, share=0.1, seed=0):
    """Three separated clusters; a share of the labels moved to another class."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(3, (n,), generator=generator)
    x = 4 * torch.eye(3)[y] + torch.randn(n, 3, generator=generator)
    flipped = torch.rand(n, generator=generator) < share
    y = torch.where(flipped, (y + torch.randint(1, 3, (n,), generator=generator)) % 3, y)
    return Columns(x=x, y=y), flipped


def task(data):
    return Task(
        name="t",
        axis=Axis.IID,
        splits={"train": Split(data, Use.TRAIN)},
        objective=objectives.classify,
    )


def model():
    return mlp([3, 32, 3])


def test_flipped_labels_rank_first():
    data, flipped = blobs()
    scores = out_of_fold_loss(model, task(data), Lab(), epochs=20)
    assert stats.auc(scores.numpy(), flipped.numpy()).low > 0.95
    assert torch.equal(scores, out_of_fold_loss(model, task(data), Lab(), epochs=20))


def test_no_example_is_judged_by_a_model_that_was_fitted_on_it():
    data = Columns(x=torch.randn(11, 3), y=torch.arange(11) % 3, index=torch.arange(11))
    fitted, judged = {}, {}

    def loss(model, batch):
        seen = (fitted if model.training else judged).setdefault(id(model), set())
        seen.update(batch["index"].tolist())
        return objectives.cross_entropy(model, batch)

    models = []  # kept alive, so that no identity is used twice
    watched = Task(
        name="t",
        axis=Axis.IID,
        splits={"train": Split(data, Use.TRAIN)},
        objective=objectives.Objective(loss, objectives.correct),
    )
    out_of_fold_loss(
        lambda: models.append(model()) or models[-1],
        watched,
        Lab(),
        folds=4,
        epochs=3,
        batch_size=2,
    )
    assert len(models) == 4
    assert sorted(k for seen in judged.values() for k in seen) == list(range(11))
    for key, seen in judged.items():
        assert seen == set(range(11)) - fitted[key]


def test_a_network_that_memorises_its_labels_does_not_hide_the_flips():
    data, flipped = blobs(share=0.15, seed=1)
    scores = out_of_fold_loss(lambda: mlp([3, 256, 256, 3]), task(data), Lab(), epochs=40)
    assert stats.auc(scores.numpy(), flipped.numpy()).value > 0.9


@pytest.mark.parametrize("folds", [0, 1, 41])
def test_folds_outside_their_range_are_refused(folds):
    with pytest.raises(InvalidData, match="folds"):
        out_of_fold_loss(model, task(blobs(n=40)[0]), Lab(), folds=folds)


def test_what_cannot_be_ranked_is_refused():
    data, _ = blobs(n=40)
    with pytest.raises(InvalidConfig):
        out_of_fold_loss(model, task(data), Lab(), epochs=0)
    with pytest.raises(UnknownName):
        out_of_fold_loss(model, task(data), Lab(), split="trian")
