"""Store: one directory per finished cell. Files are the truth; `index.py` has the database over
them.

    <home>/runs/<study>/<key>/run.json            a finished cell: cell, rows, facts (+ safetensors
    that it kept) <home>/runs/<study>/<key>.failed.json         why a cell failed, with its
    traceback <home>/runs/<study>/.kept-<key>/              tensors of an unfinished cell
    <home>/runs/<study>/.tmp-<key>-<host>-<pid>-… being written; never read, cleaned once its
    process is gone

A directory is written under a temporary name, synced and renamed, so it is complete or absent
whatever kills the process. Of two processes that finish the same cell the first to rename wins and
the other discards its copy.
"""

import contextlib
import errno
import hashlib
import json
import logging
import os
import re
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from unseen.errors import CorruptFile, MissingFile

SCHEMA = 1
"""Part of every key: a change of what run.json means makes old directories invisible, not wrong."""

Value: TypeAlias = float | int | str | bool
_ABANDONED = 3600.0
log = logging.getLogger("unseen.store")


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished cell. `rows` depend on cell and code only; what varies between repetitions is in
    `facts`.
    """

    study: str
    key: str
    cell: Mapping[str, Any]
    rows: Sequence[Mapping[str, Value]]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A cell that raised. `lasting` if it would raise again: the same cell and code, nothing
    missing outside.
    """

    study: str
    key: str
    cell: Mapping[str, Any]
    kind: str
    what: str
    traceback: str = ""
    lasting: bool = True


def home(given: str | os.PathLike[str] | None = None) -> Path:
    """Where results are kept: the given place, `UNSEEN_HOME`, or the platform's cache directory."""
    if given or os.environ.get("UNSEEN_HOME"):
        return Path(given or os.environ["UNSEEN_HOME"]).expanduser()
    import pooch  # an import of 0.1 s that most calls do not need

    return Path(pooch.os_cache("unseen"))


@dataclass(frozen=True)
class Store:
    root: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root))

    def folder(self, study: str) -> Path:
        return self.root / "runs" / study

    def run_folder(self, study: str, key: str) -> Path:
        return self.folder(study) / key

    def tensor_folder(self, study: str, key: str) -> Path:
        """Where an unfinished cell keeps tensors; they move beside its run.json."""
        return self.folder(study) / f".kept-{key}"

    def get(self, study: str, key: str) -> Run | None:
        """The finished cell, or None if it is absent or damaged (said in a warning: it will be
        computed again).
        """
        path = self.run_folder(study, key) / "run.json"
        try:
            return _parse(path.read_bytes(), path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, CorruptFile) as error:
            log.warning(
                "%s is damaged and counts as missing: %s", path, getattr(error, "what", error)
            )
            return None

    def put(self, run: Run) -> None:
        """Stores a finished cell. A sound directory that is already there stays as it is."""
        with _explain_os_errors(self.run_folder(run.study, run.key)):
            self._put(run)

    def _put(self, run: Run) -> None:
        final, kept = self.run_folder(run.study, run.key), self.tensor_folder(run.study, run.key)
        temporary = (
            self.folder(run.study)
            / f".tmp-{run.key}-{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        )
        temporary.mkdir(parents=True)
        try:
            _write(temporary / "run.json", _text(run).encode())
            # another process that finishes this cell meanwhile takes them along, and is the first
            with contextlib.suppress(FileNotFoundError):
                for file in sorted(kept.glob("*.safetensors")):
                    _link(file, temporary / file.name)
            _sync(temporary)
            while not _rename(temporary, final):
                if self.get(run.study, run.key) is not None:
                    break
                self._discard(final)
            _sync(final.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(kept, ignore_errors=True)
        self._failure_path(run.study, run.key).unlink(missing_ok=True)

    def fail(self, failure: Failure) -> None:
        write_atomic(
            self._failure_path(failure.study, failure.key),
            json.dumps(vars(failure), indent=1) + "\n",
        )

    def failure(self, study: str, key: str) -> Failure | None:
        """Why the cell failed when it ran last, or None."""
        path = self._failure_path(study, key)
        try:
            return Failure(**json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError):
            log.warning("%s is damaged; the failure that it told of is forgotten.", path)
            return None

    def forget(self, study: str, key: str) -> None:
        """Removes a cell, finished or failed."""
        with _explain_os_errors(self.run_folder(study, key)):
            if self.run_folder(study, key).exists():
                self._discard(self.run_folder(study, key))
            shutil.rmtree(self.tensor_folder(study, key), ignore_errors=True)
            self._failure_path(study, key).unlink(missing_ok=True)

    def studies(self) -> list[str]:
        return _names(self.root / "runs")

    def keys(self, study: str) -> list[str]:
        """The cells that have a directory, damaged or not."""
        return [name for name in _names(self.folder(study)) if (self.folder(study) / name).is_dir()]

    def runs(self, study: str) -> Iterator[Run]:
        """Every sound finished cell of a study, whatever its code version."""
        for key in self.keys(study):
            run = self.get(study, key)
            if run is not None:
                yield run

    def clean(self, study: str) -> list[Path]:
        """Removes temporary directories whose process is gone; returns them."""
        gone = [path for path in self.folder(study).glob(".tmp-*") if is_abandoned(path)]
        for path in gone:
            _remove(path)
        return gone

    def probe(self) -> None:
        """Raises now what a write would raise after an hour of computing."""
        path = self.root / f".probe-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        with _explain_os_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            try:
                _write(path, b"x" * 4096)
            finally:
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)

    def _failure_path(self, study: str, key: str) -> Path:
        return self.folder(study) / f"{key}.failed.json"

    def _discard(self, path: Path) -> None:
        # renamed first: a directory that is half removed must not be found under its name
        doomed = (
            path.parent
            / f".tmp-{path.name}-{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        )
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, doomed)
        _remove(doomed)


def write_atomic(path: str | os.PathLike[str], data: str | bytes) -> None:
    """The whole content or none: written beside, synced, renamed. A full or read-only disk raises
    `MissingFile`.
    """
    path, content = Path(path), data.encode() if isinstance(data, str) else data
    with _explain_os_errors(path):
        try:
            _write_whole(path, content)
        except FileNotFoundError:  # another process that finished removed the folder meanwhile
            _write_whole(path, content)


def _write_whole(path: Path, content: bytes) -> None:
    beside = (
        path.parent
        / f".tmp-{path.name}-{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        _write(beside, content)
        os.replace(beside, path)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
    _sync(path.parent)


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values, equal bytes."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def _text(run: Run) -> str:
    rows = ",\n  ".join(
        json.dumps(dict(row), ensure_ascii=False, allow_nan=False) for row in run.rows
    )
    head = {
        "schema": SCHEMA,
        "study": run.study,
        "key": run.key,
        "cell": run.cell,
        "sha256": _digest(run.rows),
    }
    lines = [f' "{name}": {json.dumps(value, ensure_ascii=False)}' for name, value in head.items()]
    lines += [
        f' "rows": [\n  {rows}\n ]' if rows else ' "rows": []',
        f' "facts": {json.dumps(dict(run.facts))}',
    ]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _parse(data: bytes, path: Path) -> Run:
    try:
        read = json.loads(data)
        run = Run(**{name: read[name] for name in ("study", "key", "cell", "rows", "facts")})
        sound = read["sha256"] == _digest(run.rows) and run.key == path.parent.name
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptFile(f"{type(error).__name__}: {error}") from error
    if not sound:
        raise CorruptFile("its rows or its name do not fit its checksum.")
    return run


def _digest(rows: Sequence[Mapping[str, Value]]) -> str:
    return hashlib.sha256(canonical([list(row.items()) for row in rows]).encode()).hexdigest()


def _names(folder: Path) -> list[str]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    return []


def _write(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _link(file: Path, to: Path) -> None:
    """The same file under a second name, so that a failure afterwards loses neither."""
    try:
        os.link(file, to)
    except OSError:  # a file system without links
        shutil.copyfile(file, to)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def _sync(folder: Path) -> None:
    """Makes a rename durable, where the system has a way to ask for it."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _rename(temporary: Path, final: Path) -> bool:
    try:
        os.rename(temporary, final)
    except OSError as error:
        if (
            error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EACCES)
            and final.exists()
        ):
            return False
        raise
    return True


def is_abandoned(path: Path) -> bool:
    owner = re.fullmatch(r"\.tmp-.*?-(?P<host>.+)-(?P<pid>\d+)-[0-9a-f]{8}", path.name)
    if owner and os.name == "posix" and owner["host"] == socket.gethostname():
        try:
            os.kill(int(owner["pid"]), 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
    with contextlib.suppress(FileNotFoundError):
        return time.time() - path.stat().st_mtime > _ABANDONED
    return False


def check_writable(path: Path) -> None:
    """Refuses a file that could not be written, before the work for it."""
    with _explain_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass


@contextlib.contextmanager
def _explain_os_errors(path: Path) -> Iterator[None]:
    """What the operating system refused, as an error that says what to do."""
    try:
        yield
    except MissingFile:
        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise MissingFile(
            f"{path} cannot be written: {error.strerror or error}.",
            why="the disk is full."
            if full
            else "the place is read-only, not a directory, or not yours.",
            fix="free some space and run again; finished cells are kept."
            if full
            else "choose another place: --home DIR or UNSEEN_HOME=DIR for results, --report PATH "
            "for a report.",
        ) from error
