"""SVAMP's training pool: MAWPS and ASDiv-A with equations over numbered quantities, and SVAMP
itself in that form (Patel et al., 2021, arXiv:2103.07191).
"""

from functools import partial

from unseen.data.packing import gzip_member
from unseen.data.registered_file import RegisteredFile

REPOSITORY = "https://raw.githubusercontent.com/arkilpatel/SVAMP"
COMMIT = "689d7ccac74b"
CONTENT = {
    "train": (
        222_705,
        "c761cdc6390a67a285c6c346a2931f61bc8f47430eceaeb123cc3d0263efa821",
    ),
    "dev": (
        45_219,
        "978425fa0820a147a20d3cb305a571d77b8ba0d1ccec4a96dd1470bf0079c338",
    ),
}

FILES = {
    f"svamp/mawps-asdiv-a_svamp_{part}.csv.gz": RegisteredFile(
        sha256=sha256,
        size=size,
        licence="MIT",
        page="https://github.com/arkilpatel/SVAMP",
        origins=tuple(
            (f"{REPOSITORY}/{version}/data/mawps-asdiv-a_svamp/{part}.csv",)
            for version in (COMMIT, "HEAD")
        ),
        pack=partial(gzip_member, name=f"{part}.csv"),
    )
    for part, (size, sha256) in CONTENT.items()
}
