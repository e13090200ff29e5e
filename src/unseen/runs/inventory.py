"""What the home holds: every stored thing with its kind, size, age and what it took to compute.

Links are neither followed nor listed, and what Unseen did not write is counted, not listed. Reads
names and heads of files only; torch is not imported.
"""

import json
import os
import re
import stat
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from unseen.data.registry import data_sets, files_of

ROWS, UNFINISHED, FACTORS = "rows", "unfinished", "factors"
FORGONE = {
    ROWS: "cells of studies, computed again by `unseen run`",
    UNFINISHED: "work that was interrupted: it would start anew",
    FACTORS: "curvature, fitted again when influences are asked for",
    "answers": "pages and numbers of past answers: the command has to be given again",
    "downloads": "public data, downloaded again when they are needed",
    "corpora": "texts as token numbers, made again from the texts",
    "examples": "small data that examples write, written again",
    "jobs": "files of ended jobs of a queue; nothing needs them",
}
"""What is lost with each kind; of any other, that it is computed again."""
FOLDERS = {
    "answers": ("answers", re.compile(r"[0-9a-f]{16}")),
    "influence/corpora": ("corpora", re.compile(r"[0-9a-f]{24}")),
    "examples": ("examples", re.compile(r"waterbirds|image-folders")),
    "slurm": (
        "jobs",
        re.compile(r"\d+(_\d+)*_\w+\.(pkl|out|err|sh)|submission_file_.+|[0-9a-f]{32}\.pkl"),
    ),
}
"""Rooms whose entries of such names are stored things as they are, and their kind. A home may be
a folder of the user's with `examples` of their own."""
DATA, DOWNLOADS = "data", "downloads"
TENSORS = re.compile(
    r"(?P<what>.+?)-[0-9a-f]{12}(?:-\d+|-[a-z]+-\d+(?P<part>\.part))?\.safetensors"
)
"""A file of `TensorCache`, or the state of an unfinished computation beside it."""
BEGUN = (".kept-", ".tmp-", ".part-")
"""How names of what is being written begin, or was when its process ended."""
CURVATURE = "curvature"
CELL = re.compile(r"(?P<cell>[0-9a-f]{32})(?P<failed>\.failed\.json)?")
LONGEST_HEAD = 100 << 20


@dataclass(frozen=True, kw_only=True)
class StoredItem:
    """One thing in the home: a file, or a folder that belongs together."""

    kind: str
    path: Path
    room: str
    """What processes lock that write it."""
    size: int
    """Bytes of its files."""
    changed: float
    """When it was written last, in seconds since 1970."""
    about: str = ""
    """What it is, in words."""
    seconds: float | None = None
    """CPU seconds that it took; None where that is not known."""


@dataclass(frozen=True)
class Inventory:
    """The stored things of a home, the largest first, and the bytes that are none of Unseen's."""

    home: Path
    items: tuple[StoredItem, ...]
    foreign: int = 0

    @property
    def size(self) -> int:
        return sum(one.size for one in self.items)

    @property
    def kinds(self) -> Mapping[str, list[StoredItem]]:
        """The items by kind, the kind with the most bytes first."""
        found: dict[str, list[StoredItem]] = defaultdict(list)
        for one in self.items:
            found[one.kind].append(one)
        return dict(sorted(found.items(), key=lambda pair: -sum(one.size for one in pair[1])))


def inventory(home: Path) -> Inventory:
    """What lies in this home now."""
    items = sorted(_items(home), key=lambda one: (-one.size, str(one.path)))
    ours = sum(one.size for one in items)
    everything = _measure(home)[0] if home.is_dir() else 0
    return Inventory(home, tuple(items), max(0, everything - ours))


def factor_bytes(home: Path) -> int:
    """What the factor files of a home take."""
    rooms = [room for room in _folders(home) if room.name != "runs"]
    files = [one for room in rooms for one in _entries(room) if one.name.startswith(CURVATURE)]
    finished = [Path(one.path) for one in files if not one.name.endswith(".part.safetensors")]
    return sum(_measure(path)[0] for path in finished)


def forgone(kind: str) -> str:
    """What has to be done again where things of this kind are gone."""
    return FORGONE.get(kind, f"parts of answers ({kind}), computed again by the same command")


def total_seconds(items: Iterable[StoredItem]) -> tuple[float, int]:
    """CPU seconds that the items took, and of how many that is not known."""
    found = [one.seconds for one in items]
    return sum(s for s in found if s is not None), sum(1 for s in found if s is None)


def _items(home: Path) -> Iterator[StoredItem]:
    for room, (kind, names) in FOLDERS.items():
        for entry in _entries(home / room):
            path = Path(entry.path)
            if entry.name.startswith(BEGUN):
                yield _item(UNFINISHED, path, room)
            elif names.fullmatch(entry.name):
                yield _item(kind, path, room, about=_title(path))
    for folder in _folders(home / DATA):
        if folder.name in data_sets():
            yield from _downloads(folder, folder.name, files_of(folder.name))
    for study in _folders(home / "runs"):
        yield from _cells(study)
    for folder in _folders(home):
        if folder.name not in ("runs", DATA, *FOLDERS):
            yield from _tensors(folder)


def _downloads(folder: Path, name: str, known: Mapping[str, object]) -> Iterator[StoredItem]:
    """The registered files below a folder of the data; what else lies there is the user's."""
    for entry in _entries(folder):
        path, inside = Path(entry.path), f"{name}/{entry.name}"
        if entry.name.startswith(BEGUN):
            yield _item(UNFINISHED, path, DATA)
        elif entry.is_dir(follow_symlinks=False):
            yield from _downloads(path, inside, known)
        elif inside in known:
            yield _item(DOWNLOADS, path, DATA, about=inside)


def _cells(study: Path) -> Iterator[StoredItem]:
    for entry in _entries(study):
        path = Path(entry.path)
        found = CELL.fullmatch(entry.name)
        room = f"runs/{study.name}"
        if found:
            about = f"{study.name}{' (failed)' if found['failed'] else ''}"
            yield _item(ROWS, path, room, about=about, seconds=_seconds_of_run(path))
        elif entry.name.startswith(BEGUN):
            yield _item(UNFINISHED, path, room, about=study.name)


def _tensors(room: Path) -> Iterator[StoredItem]:
    for entry in _entries(room):
        path, found = Path(entry.path), TENSORS.fullmatch(entry.name)
        if entry.name.startswith(BEGUN):
            yield _item(UNFINISHED, path, room.name)
        elif found and _may_be_ours(path):
            what = found["what"].replace("-", " ")
            kind = UNFINISHED if found["part"] or what == "top" else room.name
            kind = FACTORS if found["what"] == CURVATURE and not found["part"] else kind
            seconds = _seconds_of(_head(path))
            yield _item(kind, path, room.name, about=what, seconds=seconds)


def _item(
    kind: str, path: Path, room: str, about: str = "", seconds: float | None = None
) -> StoredItem:
    size, changed = _measure(path)
    return StoredItem(
        kind=kind,
        path=path,
        room=room,
        size=size,
        changed=changed,
        about=about or path.name,
        seconds=seconds,
    )


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in a folder, without links; nothing where it is absent or itself a link."""
    try:
        if not stat.S_ISDIR(os.lstat(folder).st_mode):
            return []
        with os.scandir(folder) as found:
            return sorted((one for one in found if not one.is_symlink()), key=lambda one: one.name)
    except OSError:  # removed meanwhile, or not ours to read
        return []


def _folders(folder: Path) -> list[Path]:
    return [
        Path(one.path)
        for one in _entries(folder)
        if one.is_dir(follow_symlinks=False) and not one.name.startswith(".")
    ]


def _measure(path: Path) -> tuple[int, float]:
    """Bytes and the latest change of a file, or of all files in a folder; links count nothing."""
    try:
        about = os.lstat(path)
    except OSError:
        return 0, 0.0
    if not stat.S_ISDIR(about.st_mode):
        return about.st_size, about.st_mtime
    size, changed = 0, about.st_mtime
    for entry in _entries(path):
        part, when = _measure(Path(entry.path))
        size, changed = size + part, max(changed, when)
    return size, changed


def _title(folder: Path) -> str:
    """Of a stored answer its title."""
    return str(_read_json(folder / "answer.json").get("title", ""))


def _seconds_of_run(path: Path) -> float | None:
    facts = _read_json(path / "run.json").get("facts")
    found = facts.get("seconds") if isinstance(facts, dict) else None
    return float(found) if isinstance(found, int | float) else None


def _may_be_ours(path: Path) -> bool:
    """Whether a file of tensors carries the key that it was made under, or nothing can be read."""
    found = _head(path)
    return found is None or "key" in found


def _seconds_of(head: Mapping[str, object] | None) -> float | None:
    try:
        return float(str((head or {})["seconds"]))
    except (KeyError, ValueError):
        return None


def _head(path: Path) -> Mapping[str, object] | None:
    """What a safetensors file says of itself: a length in eight bytes, then JSON. None where that
    cannot be read.
    """
    try:
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            head = json.loads(file.read(min(length, LONGEST_HEAD)))
        found = head.get("__metadata__", {})
    except (OSError, ValueError, AttributeError, RecursionError, struct.error):
        return None
    return found if isinstance(found, dict) else {}


def _read_json(path: Path) -> Mapping[str, object]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
