"""SCAN: commands and actions with every published split (Lake & Baroni, 2018, arXiv:1711.00350)."""

from functools import partial

from unseen.data.packing import repack_folder
from unseen.data.registered_file import RegisteredFile

REPOSITORY = "https://github.com/brendenlake/SCAN"

FILES = {
    "scan/scan.tar.xz": RegisteredFile(
        sha256="5909d2e130a20c4508795648b2b74d73f37c1c9575736019952c20d5e0953d94",
        size=3_900_000,
        licence="BSD",
        page=REPOSITORY,
        origins=((f"{REPOSITORY}/archive/c4b756cbc010d75c912f16c42c8f15dc6b7e6c8f.zip",),),
        pack=partial(repack_folder, omit=(".DS_Store", "README.md", ".gitignore")),
    ),
}
