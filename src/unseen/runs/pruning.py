"""Removes stored things by kind, age and size; nothing that a running process writes, and nothing
behind a link.
"""

import os
import shutil
import stat
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unseen.errors import InvalidConfig, UnknownName
from unseen.runs.inventory import FORGONE, Inventory, StoredItem, inventory
from unseen.runs.locks import removing
from unseen.runs.store import is_abandoned

LOCKED_BY_NOBODY = {"data", "influence/corpora", "examples", "slurm"}
"""Rooms whose writers take no lock: what was changed lately may be being written."""
LATELY = 3600.0


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which stored things are to go."""

    kinds: Sequence[str] = ()
    """Empty: all."""
    older_than: float = 0.0
    """Seconds since they were written."""
    limit: int | None = None
    """Bytes that may stay of these kinds: the oldest go first. None: none stays for its size."""

    def __post_init__(self) -> None:
        if not self.kinds and not self.older_than and self.limit is None:
            raise InvalidConfig(
                "Nothing says what is to go.",
                why="everything at once is a folder that you can delete.",
                fix="--kind factors, --older-than 30d or --limit 10GB (from Python kinds=, "
                "older_than=, limit=).",
            )
        if self.older_than < 0 or (self.limit or 0) < 0:
            raise InvalidConfig(
                f"older_than={self.older_than}, limit={self.limit}.",
                why="an age and a size are at least 0.",
                fix="older_than=30 * 86400, limit=10**10",
            )


@dataclass(frozen=True, kw_only=True)
class Pruning:
    """What a selection meets: what goes, and what stays because it may be being written."""

    selection: Selection
    items: tuple[StoredItem, ...]
    busy: tuple[StoredItem, ...] = ()
    is_dry: bool = True
    errors: tuple[str, ...] = field(default=())
    """Of what could not be removed."""

    @property
    def size(self) -> int:
        return sum(one.size for one in self.items)


def check_kinds(stored: Inventory, kinds: Sequence[str]) -> None:
    """Raises for a kind that there is not."""
    known = {*FORGONE, *stored.kinds}
    for kind in kinds:
        if kind not in known:
            raise UnknownName.near("kind of stored things", kind, known)


def select(stored: Inventory, selection: Selection, now: float | None = None) -> list[StoredItem]:
    """The things of a selection, the oldest first."""
    check_kinds(stored, selection.kinds)
    kinds = set(selection.kinds or stored.kinds)
    of_kinds = sorted(
        (one for one in stored.items if one.kind in kinds), key=lambda one: (one.changed, one.path)
    )
    oldest = (time.time() if now is None else now) - selection.older_than
    found, left = [], sum(one.size for one in of_kinds)
    for one in of_kinds:
        if one.changed > oldest or (selection.limit is not None and left <= selection.limit):
            continue
        found.append(one)
        left -= one.size
    return found


def prune(home: Path, selection: Selection, is_dry: bool = True) -> Pruning:
    """Removes what the selection meets; a dry run says only what that would be."""
    gone: list[StoredItem] = []
    busy: list[StoredItem] = []
    errors: list[str] = []
    for one in select(inventory(home), selection):
        if not os.access(one.path.parent, os.W_OK):
            errors.append(f"{one.path}: its folder is read-only, or not yours")
            continue
        with removing(home, one.room) as is_free:
            if not is_free or _may_be_written(one):
                busy.append(one)
                continue
            error = "" if is_dry else _remove(one.path)
        if error:
            errors.append(error)
        else:
            gone.append(one)
    return Pruning(
        selection=selection,
        items=tuple(gone),
        busy=tuple(busy),
        is_dry=is_dry,
        errors=tuple(errors),
    )


def _may_be_written(one: StoredItem) -> bool:
    if one.path.name.startswith(".tmp-"):
        return not is_abandoned(one.path)
    return one.room in LOCKED_BY_NOBODY and time.time() - one.changed < LATELY


def _remove(path: Path) -> str:
    """Why it could not be removed; empty if it was."""
    try:
        about = os.lstat(path)
        if stat.S_ISLNK(about.st_mode):  # put there since the list was made
            return f"{path} is a link, which is not followed"
        if stat.S_ISDIR(about.st_mode):
            # renamed first: a folder that is half removed must not be found under its name
            doomed = path.with_name(f".tmp-{path.name}-{uuid.uuid4().hex[:8]}")
            os.rename(path, doomed)
            shutil.rmtree(doomed)
        else:
            os.unlink(path)
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"{path}: {error.strerror or error}"
    return ""
