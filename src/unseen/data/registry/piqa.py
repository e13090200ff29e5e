"""PIQA, validation part: two ways to reach a goal (Bisk et al., 2020, arXiv:1911.11641)."""

from functools import partial

from unseen.data.packing import copy_member, gzip_member
from unseen.data.registered_file import RegisteredFile

REPOSITORY = "https://raw.githubusercontent.com/ybisk/ybisk.github.io"
VERSIONS = ("21edab439af6", "HEAD")
LICENCE = "Academic Free License 3.0"
PAGE = "https://github.com/ybisk/ybisk.github.io/tree/master/piqa"

FILES = {
    "piqa/valid.jsonl.gz": RegisteredFile(
        sha256="93503cc97c679e459b065c3d13e848282e44b2a25213985bed3e5d458abef72d",
        size=132_291,
        licence=LICENCE,
        page=PAGE,
        origins=tuple((f"{REPOSITORY}/{version}/piqa/data/valid.jsonl",) for version in VERSIONS),
        pack=partial(gzip_member, name="valid.jsonl"),
    ),
    "piqa/valid-labels.lst": RegisteredFile(
        sha256="b4192dc3a2a0363d9d60ccf79800cbbe2f32ebb17726efdde6970e0b8131bceb",
        size=3_676,
        licence=LICENCE,
        page=PAGE,
        origins=tuple(
            (f"{REPOSITORY}/{version}/piqa/data/valid-labels.lst",) for version in VERSIONS
        ),
        pack=partial(copy_member, name="valid-labels.lst"),
    ),
}
