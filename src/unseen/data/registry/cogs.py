"""COGS: sentences and logical forms (Kim & Linzen, 2020, arXiv:2010.05465)."""

from functools import partial

from unseen.data.packing import gzip_member
from unseen.data.registered_file import RegisteredFile

COMMIT = "165a7b669eade971fa47bf568a2e51925360fed8"
ADDRESS = f"https://raw.githubusercontent.com/najoungkim/COGS/{COMMIT}/data"
SIZES = {"train": 627_092, "dev": 79_407, "test": 79_117, "gen": 861_398}
CHECKSUMS = {
    "train": "220b3804b562c0156ee986eff1bdd15c27e52142549362a64f57baf86e304c78",
    "dev": "ab66388a309c7ac1ad210c781a6a0ce12281a9ef24619a12422a752cef61bc21",
    "test": "68f8e51e9f6d9cd22d64efe68dd21d7ea5ba327e9a2359481030161aea757035",
    "gen": "d013d9eee0bafc153f8decc85f42814ac97260f84964d980e1e2b84577b82361",
}

FILES = {
    f"cogs/{part}.tsv.gz": RegisteredFile(
        sha256=CHECKSUMS[part],
        size=size,
        licence="MIT",
        page="https://github.com/najoungkim/COGS",
        origins=((f"{ADDRESS}/{part}.tsv",),),
        pack=partial(gzip_member, name=f"{part}.tsv"),
    )
    for part, size in SIZES.items()
}
