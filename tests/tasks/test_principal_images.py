import pytest
import torch
from sklearn.decomposition import PCA
from torch.testing import assert_close

from unseen.engine.batches import whole
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.tasks.images import Images
from unseen.tasks.principal_images import PrincipalImages, principal_directions

IMAGES = Images(n_train=150, n_test=40, side=14, label_noise=0.2)


def test_coordinates_equal_sklearn_up_to_sign_and_one_scale():
    task, plain = PrincipalImages(IMAGES, 12).build(Lab(2)), IMAGES.build(Lab(2))
    train, test = (
        whole(plain.splits[name].data, Lab())["x"].flatten(1).double().numpy()
        for name in ("train", "test")
    )
    pca = PCA(12, svd_solver="full").fit(train)
    for name, pixels in (("train", train), ("test", test)):
        wanted = torch.from_numpy(pca.transform(pixels))
        found = whole(task.splits[name].data, Lab())["x"].double()
        scale = torch.from_numpy(pca.transform(train)).square().mean().sqrt()
        assert_close((found * scale).abs(), wanted.abs(), rtol=1e-4, atol=1e-4)
    assert whole(task.splits["train"].data, Lab())["x"].square().mean().item() == pytest.approx(
        1, abs=1e-4
    )
    for column in ("y", "index", "wrong"):
        assert torch.equal(*(whole(t.splits["train"].data, Lab())[column] for t in (task, plain)))


def test_directions_ignore_the_sign_of_the_data():
    x = torch.randn(30, 6, generator=Lab().generator(), dtype=torch.float64)
    x = x - x.mean(0)
    found = principal_directions(x, 4)
    assert_close(found, principal_directions(-x, 4))
    assert_close(found.T @ found, torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-10)
    variance = (x @ found).square().sum(0)
    assert (variance.diff() < 0).all()


def test_more_components_than_there_are_is_refused():
    with pytest.raises(InvalidConfig, match="20 images of 784 numbers have at most 19"):
        PrincipalImages(Images(n_train=20, n_test=5), 20).build(Lab())
