"""Tensors on disk: safetensors only, written atomically, checked when read. A pickle is never
opened.

A pickle runs code of whoever made it as soon as it is loaded; safetensors holds numbers and names.
"""

import hashlib
import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from unseen.errors import CorruptFile, InvalidData, MissingFile
from unseen.identity import Identity, Structure, differing, identify
from unseen.identity.tensors import digest_of
from unseen.runs.code_keys import code_of_objects
from unseen.runs.inventory import CURVATURE, factor_bytes
from unseen.runs.locks import writing
from unseen.runs.provenance import processor
from unseen.runs.sizes import LIMIT, factor_limit, format_size
from unseen.runs.store import home, write_atomic

log = logging.getLogger("unseen.artefacts")
_PICKLES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt")
_MAGIC = (b"PK\x03\x04", *(b"\x80" + bytes([protocol]) for protocol in range(1, 6)))
"""A zip as torch.save writes it, and the first bytes of pickles of protocols 1 to 5."""


WRITE_EVERY = 30.0
"""Seconds between two writes of an unfinished state."""
_STARTED = time.time()
CodeVersion = Callable[[tuple[object, ...]], str]
"""The version of Unseen's code that these definitions reach; empty where it cannot be known."""


@cache
def code_version(definitions: tuple[object, ...]) -> str:
    """The version of Unseen's code that these definitions reach; empty if its sources were edited
    under a running process.
    """
    code = code_of_objects(*definitions)
    # what runs is what was imported, not what the file says now
    is_edited = any(path.stat().st_mtime > _STARTED for path in code.files)
    return "" if is_edited else code.version


@dataclass
class UnfinishedFile:
    """The state of a computation that is not finished, in a file beside that of its value."""

    path: Path
    key: str | None
    """What decides the value, and the state; None where it cannot be known: nothing is kept."""
    has_room: Callable[[Path, Mapping[str, Tensor]], bool]
    every: float
    """Seconds between two writes, at least."""
    _wrote: float = field(default_factory=time.monotonic)
    _took: float = 0.0

    def load(self) -> dict[str, Tensor] | None:
        """The state as it was written last; None where there is none of this key."""
        if self.key is None or not self.path.is_file():
            return None
        try:
            return read_weights(self.path, self.key)
        except (CorruptFile, OSError) as error:
            log.warning("%s It starts anew.", getattr(error, "what", error))
            return None

    def is_due(self) -> bool:
        """Whether enough time has passed that writing takes no more than a twentieth of it."""
        wait = max(self.every, 20 * self._took if self.every else 0.0)
        return self.key is not None and time.monotonic() - self._wrote >= wait

    def save(self, state: dict[str, Tensor]) -> None:
        """Writes the state, whole or not at all."""
        began = time.monotonic()
        if self.key is not None and self.has_room(self.path, state):
            save_weights(self.path, state, self.key)
        self._wrote = time.monotonic()
        self._took = self._wrote - began


@dataclass(frozen=True)
class TensorCache:
    """The keeper of one cell: `make()` once, then the file, which carries its key.

    A damaged file, or one that was made under another key, is made again, with a warning. What has
    an identity that cannot be known is made every time, and that is said once.
    """

    folder: Path
    code: CodeVersion | None = None
    """None where the folder itself stands for the code: a cell of a study has one for each
    version.
    """
    home: Path | None = None
    """The home that the folder lies in, whose locks and limit then hold; None: neither."""
    _told: set[str] = field(default_factory=set, compare=False, repr=False)

    def __call__(
        self, key: str | Identity, make: Callable[[], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        text = self.text(key)
        if text is None:
            return make()
        path = self.path(key)
        if path.exists():
            try:
                return read_weights(path, text)
            except (CorruptFile, OSError) as error:
                log.warning("%s is made again: %s", path, getattr(error, "what", error))
        with self.writing():
            began = time.process_time()
            tensors = make()
            if self.home is not None:
                tensors = laid_out_as_read(tensors)
            if self._has_room(path, tensors):
                save_weights(path, tensors, text, time.process_time() - began)
            self.forget_unfinished(key)
        return tensors

    def number(self, name: str, parts: Mapping[str, object], measure: Callable[[], float]) -> float:
        """What was measured on this machine under these parts, of a model its structure: a speed
        does not depend on weights. Measured every time where it cannot be known what decides it.
        """
        given = {
            part: Structure(value) if isinstance(value, nn.Module) else value
            for part, value in parts.items()
        }
        key = identify(name, machine=processor(), **given)
        if key.unknown:
            return measure()
        made = self(key, lambda: {"number": torch.tensor(measure(), dtype=torch.float64)})
        return float(made["number"])

    def state_file(self, key: Identity, name: str, decisive: str) -> UnfinishedFile:
        """A place for a part of an unfinished value, which `decisive` decides beside its key."""
        path, text = self.path(key), self.text(key)
        return UnfinishedFile(
            path.with_name(f"{path.stem}-{name}.part{path.suffix}"),
            None if text is None else f"{text}\n{name}: {decisive}",
            self._has_room,
            WRITE_EVERY,
        )

    def forget_unfinished(self, key: str | Identity) -> None:
        """Removes the parts of a value that is finished."""
        path = self.path(key)
        for part in path.parent.glob(f"{path.stem}-*.part{path.suffix}"):
            part.unlink(missing_ok=True)

    def writing(self, room: str = "") -> AbstractContextManager[None]:
        """Inside the block `unseen cache --prune` removes nothing here, or in this other room."""
        if self.home is None:
            return nullcontext()
        return writing(self.home, room or self.folder.name)

    def foresee(self, key: Identity, size: int) -> None:
        """Says before the work that its result of this size will not be kept, where the limit of
        factor files does not allow it.
        """
        if self.text(key) is not None:
            self._allows(self.path(key), size)

    def _has_room(self, path: Path, tensors: Mapping[str, Tensor]) -> bool:
        return self._allows(path, sum(tensor.nbytes for tensor in tensors.values()))

    def _allows(self, path: Path, size: int) -> bool:
        """Whether the limit of factor files allows one more; says so where it does not."""
        limit = factor_limit() if self.home is not None else None
        if limit is None or self.home is None or not path.name.startswith(CURVATURE):
            return True
        present = factor_bytes(self.home)
        if present + size <= limit:
            return True
        if str(path) in self._told:  # when the fit began
            return False
        self._told.add(str(path))
        self._warn_once(
            f"Factors of {format_size(size)} are not kept, they will be fitted again: factor files "
            f"take {format_size(present)} already, and {LIMIT} is {format_size(limit)}. Raise it, "
            "or make room: unseen cache --prune --kind factors --limit "
            f"{format_size(max(0, limit - size)).replace(' ', '')}"
        )
        return False

    def _warn_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            log.warning("%s", text)

    def text(self, key: str | Identity) -> str | None:
        """The key as text; None, and a line that says why, where it cannot be known."""
        if isinstance(key, str):
            return key
        code = "none" if self.code is None or key.unknown else self.code(key.code)
        if code and not key.unknown:
            return key.text("" if self.code is None else code)
        why = (
            "; ".join(key.unknown[:3]) or "the source of Unseen was edited after this process began"
        )
        self._warn_once(f"No {key.name} is kept, an interrupted command starts anew: {why}.")
        return None

    def path(self, key: str | Identity) -> Path:
        """Readable start of the key, then its hash: two keys never share a file."""
        text = self.text(key) or ""
        start = key if isinstance(key, str) else key.name
        readable = "".join(c if c.isalnum() else "-" for c in start)[:40].strip("-")
        return (
            self.folder / f"{readable}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.safetensors"
        )

    def holds(self, key: str | Identity) -> bool:
        """Whether the value need not be made again."""
        text = self.text(key)
        return text is not None and key_of(self.path(key)) == text


def home_cache(name: str) -> TensorCache:
    """What `unseen audit` and its siblings keep in the user's home, under keys that include
    Unseen's own code.
    """
    factor_limit()  # a limit that cannot be read is refused before the work
    return TensorCache(home() / name, code_version, home())


def laid_out_as_read(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in the order of memory that a file gives back: eigenvectors come in columns, and
    products of another layout differ in their last digits from those of a repeated command.
    """
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def key_of(path: Path) -> str | None:
    """The key that a file was made under; None where there is no such file, or none in it."""
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("key")
    except (SafetensorError, OSError, ValueError, RuntimeError):
        return None


def save_weights(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    key: str = "",
    seconds: float | None = None,
) -> None:
    """Writes named tensors with a checksum of their content, the key that they were made under
    and the CPU seconds that they took.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # a clone each: safetensors refuses tensors that share memory, for example tied weights
    plain = {name: tensor.clone() for name, tensor in plain.items()}
    about = {"sha256": digest_of(plain)}
    about |= {"key": key} if key else {}
    about |= {} if seconds is None else {"seconds": f"{seconds:.2f}"}
    write_atomic(path, save(plain, about))


def load_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file. Pickles are refused, by suffix and by their first
    bytes.
    """
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
            fix="if you trust it, convert it once: safetensors.torch.save_file(torch.load(PATH, "
            "weights_only=True), "
            '"weights.safetensors").',
        )
    if path.suffix != ".safetensors":
        raise InvalidData(
            f"{path} has the suffix `{path.suffix}`.",
            why="weights are read from .safetensors files only.",
            fix="save them with safetensors.torch.save_file.",
        )
    return read_weights(path)


def read_weights(path: Path, key: str = "") -> dict[str, Tensor]:
    """The tensors of a whole file; with a key only if they were made under it."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            about = file.metadata() or {}
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise CorruptFile(
            f"{path} is not a whole safetensors file ({error}).",
            why="it was cut off or changed after it was written.",
            fix="remove it and make it again, or copy it again from its origin.",
        ) from error
    checksum = about.get("sha256")
    if checksum is not None and checksum != digest_of(
        tensors
    ):  # files of other programs carry no checksum
        raise CorruptFile(
            f"{path} does not fit its checksum.",
            why="its numbers changed after it was written.",
            fix="remove it and make it again.",
        )
    if key and about.get("key") != key:
        found = about.get("key", "")
        raise CorruptFile(
            f"{path} was made for something else "
            f"({', '.join(differing(key, found)) if found else 'it does not say what'}).",
            why="its numbers belong to another model, other data or other code.",
            fix="remove it and make it again.",
        )
    return tensors
