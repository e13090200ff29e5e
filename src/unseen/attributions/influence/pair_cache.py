"""Gradients of a pass for later ones: in memory as far as they fit, then on disk, so that the model
need not run again.
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from io import FileIO
from pathlib import Path
from typing import cast
from weakref import finalize

import torch
from torch import Tensor

from unseen.engine.factor_pairs import FactorPair

log = logging.getLogger("unseen.influence")
GIB = 1 << 30
LASTING = Path("/var/tmp")
"""For files that outlast a restart: on disk, where `/tmp` may be memory."""
Place = tuple[int, int]
"""A batch, and a part of it: a piece under one draw of its labels."""


@dataclass(eq=False)
class PairCache:
    """Pairs as long as they fit into `budget` bytes of memory, then into `disk` bytes of a file."""

    budget: int
    disk: int = 0
    is_open: bool = True
    """Whether anything is to be held."""
    pairs: dict[Place, dict[str, FactorPair]] = field(default_factory=dict)
    """Those in memory."""
    used: int = 0
    left_out: int = 0
    """Bytes for which there was room in neither."""
    file: "PairFile | None" = None

    def __contains__(self, place: object) -> bool:
        return place in self.pairs or (self.file is not None and place in self.file.templates)

    def store(self, place: Place, pairs: Mapping[str, FactorPair]) -> None:
        """Keeps a part of a batch if there is room for it."""
        if not self.is_open:
            return
        wanted = sum(pair.bytes for pair in pairs.values())
        if self.used + wanted <= self.budget:
            self.pairs[place], self.used = dict(pairs), self.used + wanted
            return
        if self.file is None and self.disk:
            self.file = PairFile(self.disk)
        if self.file is None or not self.file.write(place, pairs, wanted):
            self.left_out += wanted

    def read(self, place: Place) -> dict[str, FactorPair] | None:
        """What was kept of a part, on its devices; None where the model has to run."""
        if place in self.pairs or self.file is None:
            return self.pairs.get(place)
        return self.file.read(place)

    def is_narrow(self, place: Place) -> bool:
        """Whether a part was kept in bfloat16."""
        held = self.pairs.get(place) or (self.file.templates.get(place, {}) if self.file else {})
        return any(pair.a.dtype == torch.bfloat16 for pair in held.values())

    def clear(self) -> None:
        """Gives memory and disk back; nothing is held from now on."""
        self.is_open = False
        self.pairs.clear()
        if self.file is not None:
            self.file.close()

    @property
    def bytes_on_disk(self) -> int:
        """What the file took."""
        return 0 if self.file is None else self.file.end

    def sentence(self) -> str:
        """What a reader should know; empty where everything was held in memory."""
        said = []
        if self.bytes_on_disk:
            said.append(
                f"{_size(self.bytes_on_disk)} of gradients waited in a temporary file (`disk`), so "
                "that the model did not run again for them."
            )
        if self.left_out:
            advice = "With more `disk` they wait in a temporary file."
            obstacle = self.file.obstacle if self.file else ""
            said.append(
                f"The model ran again for {_size(self.left_out)} of gradients that were not held. "
                f"{obstacle or advice}"
            )
        return " ".join(said)


class PairFile:
    """Pairs in a file that has no name: a process that is killed leaves nothing behind.

    Plain reads and writes: mapped pages would count as memory of the process. The file takes at
    most what it leaves free, and what cannot be written or read is not held.
    """

    def __init__(self, allowance: int) -> None:
        self.allowance, self.end, self.obstacle = allowance, 0, ""
        self.templates: dict[Place, dict[str, FactorPair]] = {}
        """Pairs without numbers: classes, shapes, strides and dtypes."""
        self.layouts: dict[Hashable, dict[str, FactorPair]] = {}
        self.starts: dict[Place, int] = {}
        self.devices: dict[str, torch.device] = {}
        self.folder = LASTING
        try:
            self.folder = scratch_folder()
        except OSError as error:
            self._stop(f"No folder takes temporary files ({error.strerror or error}).")
        self.file: FileIO | None = None

    def write(self, place: Place, pairs: Mapping[str, FactorPair], size: int) -> bool:
        """Whether there was room for these pairs of so many bytes."""
        try:
            if not self._has_room(size):
                return False
            file = self._open()
            file.seek(self.end)
            for pair in pairs.values():
                for tensor in (pair.a, pair.g):
                    _write(file, _bytes_of(_dense(tensor.detach().cpu())))
        except OSError as error:
            self._stop(f"{self.folder} takes no more ({error.strerror or error}).")
            return False
        self.templates[place] = self._templates_like(pairs)
        self.devices |= {name: pair.a.device for name, pair in pairs.items()}
        self.starts[place], self.end = self.end, self.end + size
        return True

    def read(self, place: Place) -> dict[str, FactorPair] | None:
        """The pairs of a place, equal to those that were written; None where there are none."""
        if self.file is None or place not in self.templates:
            return None
        try:
            self.file.seek(self.starts[place])
            return {
                name: self._read(self.file, name, pair)
                for name, pair in self.templates[place].items()
            }
        except OSError as error:
            self._stop(f"{self.folder} could not be read ({error.strerror or error}).")
            del self.templates[place]
            return None

    def _open(self) -> FileIO:
        if self.file is None:
            # without a buffer in between it is the plain file
            file = tempfile.TemporaryFile(dir=self.folder, buffering=0)  # noqa: SIM115 - see below
            self.file = cast(FileIO, file)
            finalize(self, self.file.close)
        return self.file

    def _templates_like(self, pairs: Mapping[str, FactorPair]) -> dict[str, FactorPair]:
        """Those of an earlier place where it was alike: small pieces of memory that stay would keep
        large ones from being used again.
        """
        layout = tuple(
            (name, type(pair), pair.sizes, *((t.stride(), t.dtype) for t in (pair.a, pair.g)))
            for name, pair in pairs.items()
        )
        if layout not in self.layouts:
            self.layouts[layout] = {
                name: replace(pair, a=_template(pair.a), g=_template(pair.g))
                for name, pair in pairs.items()
            }
        return self.layouts[layout]

    def _read(self, file: FileIO, name: str, template: FactorPair) -> FactorPair:
        found = []
        for like in (template.a, template.g):
            tensor = torch.empty_like(like, device="cpu")
            _read_into(file, _bytes_of(tensor))
            found.append(tensor.to(self.devices[name]))
        return replace(template, a=found[0], g=found[1])

    def close(self) -> None:
        """Gives the disk back."""
        self.templates.clear()
        if self.file is not None:
            self.file.close()

    def _has_room(self, size: int) -> bool:
        if self.end + size > self.allowance:
            return False
        free = shutil.disk_usage(self.folder).free
        if free - size < self.end + size:
            self._stop(
                f"The file in {self.folder} took no more than it left free there ({_size(free)})."
            )
        return not self.obstacle

    def _stop(self, obstacle: str) -> None:
        """Nothing more is written."""
        if not self.obstacle:
            log.info("%s", obstacle)
        self.obstacle = self.obstacle or obstacle


def scratch_folder() -> Path:
    """Where large temporary files go: where `TMPDIR` says, else `/var/tmp`, else where the system
    says.
    """
    if os.environ.get("TMPDIR") or not os.access(LASTING, os.W_OK):
        return Path(tempfile.gettempdir())
    return LASTING


def _size(count: int) -> str:
    return f"{count / GIB:.2g} GiB" if count > GIB / 10 else f"{max(1, count >> 20)} MiB"


def _template(tensor: Tensor) -> Tensor:
    """The tensor without its numbers, with the strides that `_dense` gives it."""
    return torch.empty_like(tensor, device="meta")


def _dense(tensor: Tensor) -> Tensor:
    """The tensor without gaps or repetition, its axes in memory as they were: products of another
    layout differ in their last digits.
    """
    is_dense = torch.empty_like(tensor, device="meta").stride() == tensor.stride()
    return tensor if is_dense else torch.empty_like(tensor).copy_(tensor)


def _bytes_of(tensor: Tensor) -> memoryview:
    """The memory of a dense tensor."""
    flat = tensor.as_strided((tensor.numel(),), (1,))
    return flat.view(torch.uint8).numpy().data


def _write(file: FileIO, data: memoryview) -> None:
    while len(data):
        data = data[file.write(data) :]


def _read_into(file: FileIO, data: memoryview) -> None:
    while len(data):
        count = file.readinto(data)
        if not count:
            raise OSError("it ends too early")
        data = data[count:]
