"""Reuter_50_50: news by 15 of the 50 authors, 50 training and 50 test texts of each (Liu, 2011,
doi:10.24432/C5DS42)."""

import io
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from unseen.data.registered_file import RegisteredFile

REPOSITORY = "https://github.com/jgscott/STA380"
COMMIT = "691d1b0d58b740467ebc4488a849fd4ae4de520d"
AUTHORS = (
    *("AaronPressman", "BenjaminKangLim", "DarrenSchuettler", "EricAuchard", "HeatherScoffield"),
    *("JimGilchrist", "JohnMastrini", "KeithWeir", "KirstinRidley", "LynneO'Donnell"),
    *("MarkBendeich", "MichaelConnor", "PatriciaCommins", "RobinSidel", "SarahDavison"),
)


def pack(downloads: Sequence[Path]) -> bytes:
    """tar.xz of these authors' texts, C50train and C50test."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(downloads[0]) as archive,
        tarfile.open(fileobj=buffer, mode="w:xz") as out,
    ):
        for member in sorted(archive.namelist()):
            name = member.partition("/data/ReutersC50/")[2]
            if not name.endswith(".txt") or name.split("/")[1] not in AUTHORS:
                continue
            info = tarfile.TarInfo(name)
            info.size = archive.getinfo(member).file_size
            out.addfile(info, io.BytesIO(archive.read(member)))
    return buffer.getvalue()


FILES = {
    "reuters-c50-subset/reuters_c50_subset.tar.xz": RegisteredFile(
        sha256="3ccd324e02a2c3fb83e4a1aecfff814d39eea803ea9dd11c85a394c700d048fa",
        size=1_053_404,
        licence="CC BY 4.0 as distributed by UCI (texts © Reuters)",
        page="https://archive.ics.uci.edu/dataset/217",
        origins=((f"{REPOSITORY}/archive/{COMMIT}.zip",),),
        pack=pack,
    ),
}
