"""Latent-variable tasks: what their columns hold, and that splits are told apart."""

import torch

from unseen.lab import Lab
from unseen.task import Use
from unseen.tasks.latent_variables import FactorModel, GaussianClusters, Views

LAB = Lab(seed=1)


def test_unlabelled_data_have_no_target_and_are_no_other_examples():
    for spec in (FactorModel(), GaussianClusters(), Views()):
        task = spec.build(LAB)
        bare = task.splits["unlabelled"]
        assert bare.use is Use.ADAPT
        assert "y" not in bare.data.columns
        for name in ("train", "test"):
            other = task.splits[name].data.columns["x"]
            assert float(torch.cdist(bare.data.columns["x"], other).min()) > 0


def test_more_labels_leave_the_model_and_the_unlabelled_data_alone():
    few, many = (FactorModel(n=n).build(LAB).splits for n in (10, 100))
    same = few["unlabelled"].data.columns["x"], many["unlabelled"].data.columns["x"]
    assert torch.equal(*same)


def test_a_target_outside_the_factors_has_no_part_in_them():
    spec = FactorModel(outside=True)
    known = spec.parameters(LAB)
    assert abs(known["outside"] @ known["loadings"]).max() < 1e-12
    torch.testing.assert_close(spec.population(LAB).best, torch.from_numpy(known["outside"]))


def test_flips_are_in_the_training_labels_alone():
    spec = GaussianClusters(n=4_000, n_evaluate=1_000)
    splits = spec.build(LAB).splits
    for name, share in (("train", 0.1), ("test", 0.0)):
        columns = splits[name].data.columns
        wrong = columns["y"] != spec.labels[columns["component"]]
        assert abs(float(wrong.double().mean()) - share) < 0.02


def test_views_share_their_factors():
    columns = Views(n=4_000, noise=0.5).build(LAB).splits["train"].data.columns
    x, view = columns["x"], columns["view"]
    shared = (x - x.mean(0)).T @ (view - view.mean(0)) / len(x)
    b = torch.from_numpy(Views().loadings(LAB)).float()
    torch.testing.assert_close(shared, b @ b.T, rtol=0, atol=0.05)
