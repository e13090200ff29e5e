"""Tensors come back bit by bit or not at all, and a pickle is never opened."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from unseen.errors import CorruptFile, InvalidData, MissingFile
from unseen.runs.tensors import TensorCache, load_weights, save_weights


class Trap:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_weights_come_back_bit_by_bit(tmp_path):
    shared = torch.randn(3, 2)
    given = {
        "a": shared,
        "tied": shared,
        "transposed": torch.randn(2, 5).T,
        "int": torch.arange(4),
        "half": torch.randn(3).bfloat16(),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "flag": torch.tensor([True, False]),
    }
    save_weights(tmp_path / "w.safetensors", given)
    back = load_weights(tmp_path / "w.safetensors")
    assert back.keys() == given.keys()
    for name, tensor in given.items():
        assert back[name].dtype == tensor.dtype
        assert torch.equal(back[name], tensor)


def test_files_of_other_programs_are_read(tmp_path):
    save_file({"w": torch.ones(2)}, tmp_path / "w.safetensors")
    assert load_weights(tmp_path / "w.safetensors")["w"].tolist() == [1, 1]


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.bin", "w.pkl", "w.safetensors", "w"])
@pytest.mark.parametrize("how", ["torch", "old torch", "pickle"])
def test_a_pickle_is_refused_unopened_whatever_its_name(how, name, tmp_path):
    path, trap = tmp_path / name, tmp_path / "opened"
    if how == "pickle":
        path.write_bytes(pickle.dumps(Trap(trap)))
    else:
        torch.save(Trap(trap), path, _use_new_zipfile_serialization=how == "torch")
    with pytest.raises(InvalidData, match="pickle") as caught:
        load_weights(path)
    assert not trap.exists()
    assert caught.value.why
    assert "save_file" in caught.value.fix


def test_other_files_are_refused(tmp_path):
    (tmp_path / "w.txt").write_text("hello")
    with pytest.raises(InvalidData, match="suffix"):
        load_weights(tmp_path / "w.txt")
    with pytest.raises(MissingFile):
        load_weights(tmp_path / "absent.safetensors")


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text"])
def test_a_damaged_file_is_refused_and_the_keeper_makes_it_again(damage, tmp_path, caplog):
    kept, made = TensorCache(tmp_path), []

    def make():
        made.append(1)
        return {"w": torch.arange(100.0)}

    kept("key", make)
    path = kept.path("key")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes({"cut": data[:-50], "flipped": data, "empty": b"", "text": b"hello"}[damage])
    with pytest.raises(CorruptFile):
        load_weights(path)
    for _ in range(2):
        assert torch.equal(kept("key", make)["w"], torch.arange(100.0))
    assert made == [1, 1]
    assert str(path) in caplog.text


def test_keys_that_read_alike_have_files_of_their_own(tmp_path):
    kept = TensorCache(tmp_path)
    assert len({kept.path(key) for key in ("a b", "a-b", "a/b", "a" * 60, "a" * 61, "..")}) == 6
    assert all(kept.path(key).parent == tmp_path for key in ("../../x", "/etc/x"))


def test_a_number_is_measured_once_for_a_structure(tmp_path):
    measured = []

    def number(model: nn.Module, **parts: object) -> float:
        # a new object each time, as a new process has
        return TensorCache(tmp_path).number(
            "speed", {"model": model, **parts}, lambda: measured.append(1) or len(measured) / 3
        )

    assert number(nn.Linear(2, 3)) == number(nn.Linear(2, 3)) == 1 / 3
    assert number(nn.Linear(2, 4)) == 2 / 3
    assert number(nn.Linear(2, 3), batch=8) == 1
    assert [number(nn.Linear(2, 3), when=lambda: os.environ) for _ in range(2)] == [4 / 3, 5 / 3]
    assert len(list(tmp_path.iterdir())) == 3
