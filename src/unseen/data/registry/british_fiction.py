"""British novels of the 18th and 19th century, 150,000 characters of each (Computational
Stylistics Group, A Small Collection of British Fiction)."""

import io
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from unseen.data.registered_file import RegisteredFile

REPOSITORY = "https://github.com/computationalstylistics/A_Small_Collection_of_British_Fiction"
COMMIT = "fb0f828d09becbbd5a9c13b24f17603ea24c178b"
START, END = 20_000, 170_000
"""Characters of a novel: prefaces and titles come before."""


def excerpt(novel: str) -> str:
    """The whole lines between the two characters."""
    return novel[novel.find("\n", START) + 1 : novel.rfind("\n", 0, END) + 1]


def pack(downloads: Sequence[Path]) -> bytes:
    """tar.xz of the excerpts; Clarissa is left out."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(downloads[0]) as archive,
        tarfile.open(fileobj=buffer, mode="w:xz") as out,
    ):
        for member in sorted(archive.namelist()):
            folder, _, name = member.partition("/")[2].partition("/")
            if folder != "corpus" or not name or "Clarissa" in name:
                continue
            novel = archive.read(member).decode("utf-8", "replace").replace("\r\n", "\n")
            data = excerpt(novel).encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


FILES = {
    "british-fiction/british_fiction_excerpts.tar.xz": RegisteredFile(
        sha256="93dd8a3321d2f071e80009f1260a3e62ccd6eeacbe2dc7faeaded2896c8e57e4",
        size=1_184_224,
        licence="public domain; the collection has no licence file",
        page=REPOSITORY,
        origins=((f"{REPOSITORY}/archive/{COMMIT}.zip",),),
        pack=pack,
    ),
}
