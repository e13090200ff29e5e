"""Image tasks: IDX bytes made by hand, label noise with its masks, and what differs between equal
and unequal labs.
"""

import gzip
import io
import struct
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unseen.errors import CorruptFile, InvalidConfig
from unseen.lab import Lab
from unseen.task import Use
from unseen.tasks import images
from unseen.tasks.images import Collection, Images, part, read_idx, redraws


def idx(path, values, code, format_, *, pack=False):
    """An IDX file, byte by byte."""
    data = bytes([0, 0, code, values.ndim]) + b"".join(
        struct.pack(">I", size) for size in values.shape
    )
    data += b"".join(struct.pack(format_, value) for value in values.ravel().tolist())
    path.write_bytes(gzip.compress(data) if pack else data)
    return path


@pytest.mark.parametrize(
    ("code", "format_", "dtype"),
    [
        (8, ">B", "u1"),
        (9, ">b", "i1"),
        (11, ">h", "i2"),
        (12, ">i", "i4"),
        (13, ">f", "f4"),
        (14, ">d", "f8"),
    ],
)
@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 1, 2), (0, 2)])
def test_idx_bytes_made_by_hand_are_read_back(tmp_path, code, format_, dtype, pack, shape):
    values = np.arange(np.prod(shape), dtype=dtype).reshape(shape) + 1
    read = read_idx(idx(tmp_path / "a", values, code, format_, pack=pack))
    assert read.dtype == np.dtype(dtype)
    assert np.array_equal(read, values)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda data: data[:-1], "needs 14 bytes"),
        (lambda data: data + b"\0", "needs 14 bytes"),
        (lambda data: data[:6], "within the sizes"),
        (lambda data: b"", "magic"),
        (lambda data: b"\1" + data[1:], "magic"),
        (lambda data: data[:2] + b"\x0a" + data[3:], "magic"),
        (lambda data: gzip.compress(data)[:-5], "end"),
    ],
)
def test_damaged_idx_is_corrupted(tmp_path, damage, says):
    path = idx(tmp_path / "a", np.ones((1, 2), "u1"), 8, ">B")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CorruptFile, match=says):
        read_idx(path)


def columns(spec, split="train", seed=0):
    return spec.build(Lab(seed)).splits[split].data.columns


def test_equal_labs_give_equal_data_and_unequal_ones_do_not():
    one, same, other = (
        columns(images.example()),
        columns(images.example()),
        columns(images.example(), seed=1),
    )
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["x"], other["x"])


def test_adding_a_split_or_examples_changes_nothing_else():
    small = Images(n_train=50, n_test=20)
    large = Images(n_train=50, n_test=30, n_select=40)
    assert torch.equal(columns(small)["index"], columns(large)["index"])
    assert torch.equal(columns(small, "test")["x"], columns(large, "test")["x"][:20])
    fitted, selected = columns(large)["index"], columns(large, "select")["index"]
    assert not set(fitted.tolist()) & set(selected.tolist())


def test_pixels_and_labels_are_those_of_the_file():
    task = Images(n_train=30, n_test=10, standardise=False).build(Lab())
    for split, name in (("train", "train"), ("test", "test")):
        batch, source = task.splits[split].data.columns, part(Collection.FASHION_MNIST_SMALL, name)
        assert torch.equal(batch["y"], source.labels[batch["index"]])
        assert torch.equal(batch["x"], source.pixels(batch["index"]))
        assert 0 <= batch["x"].min() < batch["x"].max() <= 1
    assert task.of(Use.EVALUATE).keys() == {"test"}


def test_fitted_images_are_standardised_and_judged_ones_with_the_same_numbers():
    raw, done = Images(n_train=40, standardise=False), Images(n_train=40)
    train, test = columns(raw)["x"], columns(raw, "test")["x"]
    torch.testing.assert_close(columns(done)["x"].mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(columns(done, "test")["x"], (test - train.mean()) / train.std())


def test_pooling_is_the_mean_over_blocks():
    full, half = (
        columns(Images(n_train=5, standardise=False))["x"],
        columns(Images(n_train=5, side=14, standardise=False))["x"],
    )
    for n, row, column in ((0, 3, 4), (4, 13, 0)):
        block = full[n, 0, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        assert half[n, 0, row, column].item() == pytest.approx(block.mean().item(), abs=1e-6)


@given(n=st.integers(1, 300), share=st.floats(0, 1), less=st.floats(0, 1), seed=st.integers(0, 99))
def test_stronger_noise_redraws_a_superset(n, share, less, seed):
    strong, weak = redraws(n, share, Lab(seed)), redraws(n, share * less, Lab(seed))
    assert int(strong.sum()) == round(share * n)
    assert not (weak & ~strong).any()


def test_masks_tell_redrawn_from_wrong():
    clean, noisy = columns(Images(n_train=1_500)), columns(Images(n_train=1_500, label_noise=0.6))
    assert torch.equal(clean["x"], noisy["x"])
    assert torch.equal(noisy["wrong"], clean["y"] != noisy["y"])
    assert int(noisy["redrawn"].sum()) == 900
    assert not (noisy["wrong"] & ~noisy["redrawn"]).any()
    lucky = int((noisy["redrawn"] & ~noisy["wrong"]).sum())
    assert 45 < lucky < 145  # 900 draws, chance 0.1: mean 90, five standard deviations are 45
    assert not columns(Images(n_train=10, label_noise=1.0), "test")["redrawn"].any()


def test_all_labels_redrawn_carry_no_information_on_the_image():
    batch = columns(Images(n_train=1_500, label_noise=1.0))
    counts = torch.bincount(batch["y"], minlength=10)
    assert batch["redrawn"].all()
    assert (counts - 150).abs().max() < 60  # five standard deviations of a binomial with mean 150


def test_optdigits_are_the_test_digits_of_scikit_learn():
    from sklearn.datasets import load_digits

    digits, source = load_digits(), part(Collection.OPTDIGITS, "test")
    rows = torch.arange(len(digits.target))
    assert np.array_equal(source.labels.numpy(), digits.target)
    assert np.array_equal(source.pixels(rows).numpy()[:, 0] * 16, digits.images)


def test_usps_arrays_are_read_without_pickle(tmp_path, monkeypatch):
    path = tmp_path / "usps.npz"
    monkeypatch.setattr(images, "data_file", lambda name: path)
    x, y = np.random.default_rng(0).random((4, 256), dtype=np.float32), np.arange(4, dtype=np.int32)
    np.savez(path, x_train=x, y_train=y)
    source = part(Collection.USPS, "train")
    assert np.array_equal(source.pixels(torch.tensor([2]))[0, 0].numpy().ravel(), x[2])
    with pytest.raises(CorruptFile, match="x_test"):
        part(Collection.USPS, "test")
    np.savez(path, x_train=x, y_train=np.array([None] * 4))
    with pytest.raises(CorruptFile, match="pickle"):
        part(Collection.USPS, "train")


def test_jpegs_are_decoded_with_the_class_of_their_folder(tmp_path, monkeypatch):
    image = pytest.importorskip("PIL.Image")
    path = tmp_path / "cifar.zip"
    monkeypatch.setattr(images, "data_file", lambda name: path)
    with zipfile.ZipFile(path, "w") as archive:
        for k, name in enumerate(("truck", "cat", "frog")):
            buffer = io.BytesIO()
            image.new("RGB", (32, 32), (100 * k, 50, 0)).save(buffer, "JPEG", quality=100)
            archive.writestr(f"train/{name}/0001.jpg", buffer.getvalue())
    source = part(Collection.CIFAR10, "train")
    assert source.labels.tolist() == [0, 1, 2]  # cat, frog, truck
    assert source.pixels(torch.tensor([1, 2]))[:, 0, 5, 5].mul(255).tolist() == pytest.approx(
        [200, 0], abs=3
    )


@pytest.mark.parametrize(
    "spec",
    [{"n_train": 0}, {"n_test": 0}, {"n_select": -1}, {"label_noise": 1.1}, {"label_noise": -0.1}],
)
def test_values_out_of_range_are_refused(spec):
    with pytest.raises(InvalidConfig, match="out of range"):
        Images(**spec)


def test_too_many_images_and_impossible_pooling_are_refused():
    with pytest.raises(InvalidConfig, match="holds 1500"):
        Images(n_train=1_500, n_select=1).build(Lab())
    with pytest.raises(InvalidConfig, match="divisor of 28"):
        Images(n_train=5, side=13).build(Lab())


def test_unequal_numbers_of_images_and_labels_are_corrupted():
    with pytest.raises(CorruptFile, match="3 images but 2 labels"):
        images._part_in_memory(np.zeros((3, 1, 2, 2)), np.zeros(2), 1.0)
