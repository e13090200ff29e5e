"""Science questions of elementary school and grade 8 (Allen Institute, AI2 NDMC, February 2016)."""

from functools import partial

from unseen.data.packing import gzip_member
from unseen.data.registered_file import RegisteredFile

REPOSITORY = "https://raw.githubusercontent.com/allenai/aristo-mini"
COMMIT = "4d99fa4cb9eb"
CONTENT = {
    "AI2-Elementary-NDMC-Feb2016-Train.jsonl": (
        37_143,
        "adef997a0573e88b2c894ce9f71709fbb07b1158c02385e610fb16077b1067af",
    ),
    "AI2-Elementary-NDMC-Feb2016-Dev.jsonl": (
        11_146,
        "5d20b5582e2f8e5ccea148d1c9d67950f56acfe4706ae600febdf23d8b070f52",
    ),
    "AI2-8thGr-NDMC-Feb2016-Train.jsonl": (
        27_813,
        "37762fe7216d7aa0d66499fd4d7d7266c5a584770cdfc30166a6f524bf4455e2",
    ),
    "AI2-8thGr-NDMC-Feb2016-Dev.jsonl": (
        8_020,
        "3b220514640c24afbacb7fa90665998625ed861c4e6077295c4181014baf53d1",
    ),
}

FILES = {
    f"ai2-science/{name}.gz": RegisteredFile(
        sha256=sha256,
        size=size,
        licence="Apache-2.0 (the repository)",
        page="https://github.com/allenai/aristo-mini",
        origins=tuple(
            (f"{REPOSITORY}/{version}/questions/{name}",) for version in (COMMIT, "HEAD")
        ),
        pack=partial(gzip_member, name=name),
    )
    for name, (size, sha256) in CONTENT.items()
}
