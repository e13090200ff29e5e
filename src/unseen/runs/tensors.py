"""Tensors on disk: safetensors only, written atomically, checked when read. A pickle is never opened.

A pickle runs code of whoever made it as soon as it is loaded; safetensors holds numbers and names.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from unseen.errors import Corrupted, InvalidData, MissingFile
from unseen.runs.store import write_atomic

log = logging.getLogger("unseen.artefacts")
_PICKLES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt")
_MAGIC = (b"PK\x03\x04", *(b"\x80" + bytes([protocol]) for protocol in range(1, 6)))
"""A zip as torch.save writes it, and the first bytes of pickles of protocols 1 to 5."""


@dataclass(frozen=True)
class Kept:
    """The keeper of one cell: `make()` once, then the file. A damaged file is made again, with a warning."""

    folder: Path

    def __call__(self, key: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        path = self.path(key)
        if path.exists():
            try:
                return _checked(path)
            except (Corrupted, OSError) as error:
                log.warning("%s is damaged and made again: %s", path, getattr(error, "what", error))
        tensors = make()
        save_weights(path, tensors)
        return tensors

    def path(self, key: str) -> Path:
        """Readable start of the key, then its hash: two keys never share a file."""
        readable = "".join(c if c.isalnum() else "-" for c in key)[:40].strip("-")
        return self.folder / f"{readable}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.safetensors"


def save_weights(path: str | os.PathLike[str], tensors: Mapping[str, Tensor]) -> None:
    """Writes named tensors with a checksum of their content."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # a clone each: safetensors refuses tensors that share memory, for example tied weights
    plain = {name: tensor.clone() for name, tensor in plain.items()}
    write_atomic(path, save(plain, {"sha256": _digest(plain)}))


def load_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file. Pickles are refused, by suffix and by their first bytes."""
    path = Path(path)
    try:
        with open(path, "rb") as file:
            start = file.read(4)
    except OSError as error:
        raise MissingFile(
            f"{path} cannot be read: {error.strerror or error}.",
            why="the weights of the model are read from it.",
            fix="check the path.",
        ) from error
    if path.suffix in _PICKLES or start.startswith(_MAGIC):
        raise InvalidData(
            f"{path} is a pickle, not safetensors.",
            why="loading a pickle runs any code that its author put into it.",
            fix="if you trust it, convert it once: safetensors.torch.save_file(torch.load(PATH, weights_only=True), "
            '"weights.safetensors").',
        )
    if path.suffix != ".safetensors":
        raise InvalidData(
            f"{path} has the suffix `{path.suffix}`.",
            why="weights are read from .safetensors files only.",
            fix="save them with safetensors.torch.save_file.",
        )
    return _checked(path)


def _checked(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            expected = (file.metadata() or {}).get("sha256")
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise Corrupted(
            f"{path} is not a whole safetensors file ({error}).",
            why="it was cut off or changed after it was written.",
            fix="remove it and make it again, or copy it again from its origin.",
        ) from error
    if expected is not None and expected != _digest(tensors):  # files of other programs carry no checksum
        raise Corrupted(
            f"{path} does not fit its checksum.",
            why="its numbers changed after it was written.",
            fix="remove it and make it again.",
        )
    return tensors


def _digest(tensors: Mapping[str, Tensor]) -> str:
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return total.hexdigest()
