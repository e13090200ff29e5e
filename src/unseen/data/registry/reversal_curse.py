"""Data of the reversal curse (Berglund et al., 2024, arXiv:2309.12288)."""

import io
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from unseen.data.registered_file import NO_LICENCE, RegisteredFile

REPOSITORY = "https://github.com/lukasberglund/reversal_curse"


def pack(downloads: Sequence[Path]) -> bytes:
    """The folder `data` of the repository, without the tables that repeat others, as tar.xz."""
    redundant = {"all.jsonl", "top_celebrities.txt"}
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(downloads[0]) as archive,
        tarfile.open(fileobj=buffer, mode="w:xz") as out,
    ):
        for name in sorted(archive.namelist()):
            inside = name.split("/")[1:]  # the archive's own folder comes first
            if inside[:1] != ["data"] or name.endswith("/") or inside[-1] in redundant:
                continue
            info = tarfile.TarInfo("/".join(inside[1:]))
            info.size = archive.getinfo(name).file_size
            out.addfile(info, io.BytesIO(archive.read(name)))
    return buffer.getvalue()


FILES = {
    "reversal-curse/reversal_curse.tar.xz": RegisteredFile(
        sha256="bd1d6d0117491bafa447a4d594e097e5d0d9b0204eb25d91f21a44b122d0e480",
        size=1_500_000,
        licence=NO_LICENCE,
        page=REPOSITORY,
        origins=((f"{REPOSITORY}/archive/6af5f418755d528304e406361e86477637d21c84.zip",),),
        pack=pack,
    ),
}
