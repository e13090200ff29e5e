"""Public data files: shipped with the package, in a folder of yours, in the cache, or fetched from
their origin.
"""

import gzip
import hashlib
import lzma
import os
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib import resources
from pathlib import Path

import pooch

from unseen.data.registered_file import RegisteredFile
from unseen.data.registry import find_file
from unseen.errors import CorruptFile, MissingFile, UnseenError


def data_file(name: str, registered: Mapping[str, RegisteredFile] | None = None) -> Path:
    """The verified file, for example `data_file("fashion-mnist/train-images-idx3-ubyte.gz")`.

    What it must hold stands in `unseen.data.registry`, or in `registered`.

    Looked up in this order: shipped with the package; the folder `UNSEEN_DATA` (same layout); the
    cache (`UNSEEN_HOME` or the user's cache folder); the public origin, kept in the cache. Wherever
    it lies, its content is checked against the registered SHA-256 once per process and file state
    (path, size, time of change).
    """
    entry = find_file(name) if registered is None else registered[name]
    for folder in data_folders():
        path = folder / name
        if path.is_file():
            check(path, entry)
            return path
    if not entry.origins:
        raise MissingFile(
            f"The data file {name} is missing from the installed package.",
            why=f"it is shipped in {data_folders()[0]} and has no other origin.",
            fix="pip install --force-reinstall unseen",
        )
    return fetch(name, entry, home() / "data" / name)


def home() -> Path:
    """Where unseen keeps files of its own: `UNSEEN_HOME`, else the user's cache folder."""
    return Path(os.environ.get("UNSEEN_HOME") or pooch.os_cache("unseen")).expanduser()


def data_folders() -> list[Path]:
    """The folders that hold data, in the order of lookup."""
    shipped = Path(str(resources.files("unseen"))) / "data"
    own = os.environ.get("UNSEEN_DATA")
    return [shipped, *([Path(own).expanduser()] if own else []), home() / "data"]


def check(path: Path, entry: RegisteredFile) -> None:
    """Refuses a file whose content is not the registered one."""
    state = path.stat()
    found = _checksum(str(path), state.st_size, state.st_mtime_ns)
    if found != entry.sha256:
        raise CorruptFile(
            f"{path} does not hold the expected data.",
            why=f"the SHA-256 of its content is {found[:16]}…, expected {entry.sha256[:16]}….",
            fix="delete it and run again, or get it anew from "
            f"{(entry.origins or ((entry.page,),))[0][0]}",
        )


@lru_cache(maxsize=1024)
def _checksum(path: str, size: int, changed: int) -> str:
    return content_sha256(Path(path))


def content_sha256(path: Path) -> str:
    """SHA-256 of what a file holds, however it is packed.

    gzip, or xz of one file: of the uncompressed bytes. zip, npz, tar: of name, length and bytes of
    each member, sorted by name, without folders and `__MACOSX`. Anything else: of the bytes.
    """
    digest = hashlib.sha256()
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as file:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
        elif path.suffix == ".xz" and ".tar" not in path.suffixes:
            digest.update(lzma.decompress(path.read_bytes()))
        elif path.suffix in (".zip", ".npz", ".xz"):
            for name, data in sorted(_members(path)):
                digest.update(f"{name}\0{len(data)}\0".encode())
                digest.update(data)
        else:
            digest.update(path.read_bytes())
    except (
        EOFError,
        zlib.error,
        lzma.LZMAError,
        gzip.BadGzipFile,
        tarfile.TarError,
        zipfile.BadZipFile,
    ) as error:
        raise CorruptFile(
            f"{path} cannot be unpacked.",
            why=str(error),
            fix="delete it and run again, or copy it anew.",
        ) from error
    return digest.hexdigest()


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    if path.suffix == ".xz":
        with tarfile.open(path, "r:xz") as tar:
            for info in tar:
                if info.isfile():
                    yield info.name.removeprefix("./"), tar.extractfile(info).read()  # type: ignore[union-attr]
    else:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if not name.endswith("/") and not name.startswith("__MACOSX"):
                    yield name, archive.read(name)


def fetch(name: str, entry: RegisteredFile, target: Path) -> Path:
    """Downloads what the entry needs, packs it, checks it, and only then gives it its name in the
    cache.
    """
    failures: list[str] = []
    corrupted: CorruptFile | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".part-") as folder:
            for urls in entry.origins:
                try:
                    made = _fetch_from(entry, urls, Path(folder) / target.name)
                except CorruptFile as error:  # the next origin may hold the right file
                    corrupted = error
                except _Unreachable as error:
                    failures.append(str(error))
                else:
                    os.replace(made, target)  # atomic: another process sees the whole file or none
                    return target
    except OSError as error:
        if isinstance(error, UnseenError):
            raise
        raise MissingFile(
            f"The data file {name} cannot be written below {target.parent}.",
            why=f"downloads are kept there ({error.strerror or error}).",
            fix="free some space, or set UNSEEN_HOME to a folder that you may write.",
        ) from error
    if corrupted is not None:
        raise corrupted
    raise MissingFile(
        f"The data file {name} is not on this machine and could not be downloaded.",
        why="; ".join(failures) + f" (about {entry.size / 1e6:.1f} MB, licence: {entry.licence}).",
        fix=f"connect to the network, or put it at {target}, "
        f"or set UNSEEN_DATA to a folder that holds {name}. Its page: {entry.page}",
    )


class _Unreachable(Exception):
    """An address that gave nothing."""


def _fetch_from(entry: RegisteredFile, urls: Sequence[str], path: Path) -> Path:
    """The file from one origin, packed and checked."""
    downloads = [_download(url, path.parent / f"download{k}") for k, url in enumerate(urls)]
    try:
        path.write_bytes(entry.pack(downloads))
    except (
        ValueError,
        KeyError,
        EOFError,
        zlib.error,
        gzip.BadGzipFile,
        zipfile.BadZipFile,
    ) as error:
        raise CorruptFile(
            f"{urls[0]} does not hold the expected data.",
            why=str(error),
            fix="look at the address in a browser; the origin may have moved.",
        ) from error
    check(path, entry)
    return path


def _download(url: str, path: Path) -> Path:
    path.unlink(missing_ok=True)  # of an earlier origin
    try:
        with _quiet():
            return Path(pooch.retrieve(url, known_hash=None, fname=path.name, path=path.parent))
    except OSError as error:
        if error.errno is not None:  # the disk's; no network, no such page, timeout carry no number
            raise
        raise _Unreachable(f"{url}: {type(error).__name__}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """pooch tells the checksum of unknown downloads; ours is checked after packing."""
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("WARNING")
    try:
        yield
    finally:
        logger.setLevel(level)
