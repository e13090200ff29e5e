"""24 small tasks of input and output, with instructions that people wrote (Honovich et al., 2022,
arXiv:2205.10782).
"""

import io
import json
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from unseen.data.registered_file import RegisteredFile

REPOSITORY = "https://github.com/orhonovich/instruction-induction"
MOST = 300
"""Pairs of each file that are kept."""
FOLDERS = (["data", "annotations"], ["data", "raw"], ["data", "README.md"], ["LICENSE"])


def pack(downloads: Sequence[Path]) -> bytes:
    """The folder `data` of the repository without its ready prompts, the first 300 pairs of each
    file, as tar.xz.
    """
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(downloads[0]) as archive,
        tarfile.open(fileobj=buffer, mode="w:xz") as out,
    ):
        for name in sorted(archive.namelist()):
            inside = name.split("/")[1:]  # the archive's own folder comes first
            if name.endswith("/") or inside[:2] not in FOLDERS:
                continue
            content = first_pairs(archive.read(name))
            info = tarfile.TarInfo("/".join(inside))
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def first_pairs(content: bytes) -> bytes:
    """The file with its first 300 examples; as it is where it has no more."""
    try:
        entry = json.loads(content)
        pairs = entry["examples"]
    except (ValueError, KeyError, TypeError):
        return content
    if len(pairs) <= MOST:
        return content
    entry["examples"] = dict(list(pairs.items())[:MOST])
    return json.dumps(entry, indent=1, ensure_ascii=False).encode()


FILES = {
    "instruction-induction/instruction_induction_subset.tar.xz": RegisteredFile(
        sha256="27a0cc6ce53e4c71219a733a7147977be86142b239a201fd84b1e8957f6776cb",
        size=1_700_000,
        licence="Apache-2.0",
        page=REPOSITORY,
        origins=((f"{REPOSITORY}/archive/f7304ae0a35239c9819a08f93fd58426f6b4e4c1.zip",),),
        pack=pack,
    ),
}
