"""How downloads are brought into the layout that loaders read, where several data sets share it.

A data set's own way to pack stands in its file of the registry.
"""

import gzip
import io
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unseen.data.registered_file import RegisteredFile
from unseen.errors import CorruptFile

UCI = "https://archive.ics.uci.edu"


def read_member(path: Path, name: str) -> bytes:
    """The file called `name` in a zip archive, or the download itself when it is no archive.

    Unpacks gzip.
    """
    if not zipfile.is_zipfile(path):
        return gunzip(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        # releases differ in folders and capitals; __MACOSX holds resource forks of the same names
        found = [
            member
            for member in archive.namelist()
            if member.split("/")[-1].lower() == name.lower() and not member.startswith("__MACOSX")
        ]
        if len(found) != 1:
            raise CorruptFile(
                f"{path.name} holds {len(found)} files called {name}.",
                why="exactly one was expected.",
                fix="the origin has changed its layout; download the file by hand.",
            )
        return archive.read(found[0])


def gunzip(data: bytes) -> bytes:
    """The bytes without gzip compression, if they have it."""
    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


def copy_member(downloads: Sequence[Path], name: str) -> bytes:
    return read_member(downloads[0], name)


def gzip_member(
    downloads: Sequence[Path], name: str, head: bytes = b"", skip_lines: int = 0
) -> bytes:
    """gzip of `head` and the download without its first lines."""
    data = read_member(downloads[0], name)
    for _ in range(skip_lines):
        data = data.partition(b"\n")[2]
    return gzip.compress(head + data, 9, mtime=0)


def zip_archive(files: Mapping[str, bytes], compression: int) -> bytes:
    """A zip archive of these files, the same bytes whenever it is made."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, compress_type=compression)
    return buffer.getvalue()


def npz_archive(arrays: Mapping[str, NDArray]) -> bytes:
    """Compressed arrays by name."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **dict(arrays))  # type: ignore[arg-type]
    return buffer.getvalue()


def shrink_image(data: bytes, size: tuple[int, int], mode: str) -> NDArray[np.uint8]:
    """An image file in mode "L" or "RGB", every pixel the mean of the ones that it covers."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert(mode).resize(size, Image.Resampling.BOX))


def shrink_labels(data: bytes, size: tuple[int, int]) -> NDArray[np.uint8]:
    """An image file of class numbers, every pixel the one that lies at its middle."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.resize(size, Image.Resampling.NEAREST))


def repack_folder(
    downloads: Sequence[Path], folder: str = "", omit: Sequence[str] = (), keep: str = ""
) -> bytes:
    """tar.xz of the files below a folder of a repository's zip, and of the file `keep` at its top.

    Left out are those whose name holds one of `omit`.
    """
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(downloads[0]) as archive,
        tarfile.open(fileobj=buffer, mode="w:xz") as out,
    ):
        for member in sorted(archive.namelist()):
            inside = member.partition("/")[2]  # the archive's own folder comes first
            name = inside.removeprefix(folder)
            wanted = inside.startswith(folder) and not any(part in name for part in omit)
            if member.endswith("/") or not (wanted or inside == keep):
                continue
            info = tarfile.TarInfo(name)
            info.size = archive.getinfo(member).file_size
            out.addfile(info, io.BytesIO(archive.read(member)))
    return buffer.getvalue()


def refuse_download(downloads: Sequence[Path]) -> bytes:
    """Packs files that are only shipped."""
    raise CorruptFile(
        "This file is part of the package.", why="it has no download.", fix="reinstall unseen."
    )


def uci_origins(path: str, archive: str) -> tuple[tuple[str, ...], ...]:
    """A file of the UCI repository: by its own address, else out of the data set's zip."""
    return (
        (f"{UCI}/ml/machine-learning-databases/{path}",),
        (f"{UCI}/static/public/{archive}.zip",),
    )


def idx_files(
    folder: str,
    licence: str,
    page: str,
    mirrors: Sequence[str],
    files: Mapping[str, tuple[str, int]],
) -> dict[str, RegisteredFile]:
    """Files in MNIST's format; `files` has the checksum and size of each. No mirror: shipped."""
    return {
        f"{folder}/{name}.gz": RegisteredFile(
            sha256=sha256,
            size=size,
            licence=licence,
            page=page,
            origins=tuple((f"{mirror}/{name}.gz",) for mirror in mirrors),
            pack=partial(gzip_member, name=name) if mirrors else refuse_download,
        )
        for name, (sha256, size) in files.items()
    }
