"""Grade, Bloom level, depth and difficulty of 5,120 ARC questions (Hase et al., 2024,
arXiv:2401.06751).
"""

from functools import partial

from unseen.data.packing import gzip_member
from unseen.data.registered_file import RegisteredFile

REPOSITORY = "https://raw.githubusercontent.com/allenai/easy-to-hard-generalization"
COMMIT = "ad8358e42904"
CONTENT = {
    "arc-challenge-easy-annotations.json": (
        32_082,
        "eee0a3ef77cbc6a68c5be9501433ffe304b4dbf0119ec4752d7a7da92eeff1f7",
    ),
}

FILES = {
    f"easy-to-hard/{name}.gz": RegisteredFile(
        sha256=sha256,
        size=size,
        licence="Apache-2.0",
        page="https://github.com/allenai/easy-to-hard-generalization",
        origins=tuple((f"{REPOSITORY}/{version}/data/{name}",) for version in (COMMIT, "HEAD")),
        pack=partial(gzip_member, name=name),
    )
    for name, (size, sha256) in CONTENT.items()
}
