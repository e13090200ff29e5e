"""The E2E data-to-text set with corrected meaning representations: attributes of a restaurant and
sentences about it (Dušek, Howcroft & Rieser, 2019, arXiv:1911.03905).
"""

from functools import partial

from unseen.data.packing import gzip_member
from unseen.data.registered_file import RegisteredFile

REPOSITORY = "https://raw.githubusercontent.com/tuetschek/e2e-cleaning"
COMMIT = "164acdf98614"
CONTENT = {
    "devel-fixed.no-ol": (
        108_972,
        "bb88df2565826a463f96e93a5ab69a8c6460de54f2e68179eb94f0019f430d4d",
    ),
    "test-fixed": (
        129_813,
        "99b43c2769a09d62fc5d37dcffaa59d4092bcffdc611f226258681df61269b17",
    ),
}

FILES = {
    f"e2e-nlg/{part}.csv.gz": RegisteredFile(
        sha256=sha256,
        size=size,
        licence="CC BY-SA 4.0",
        page="https://github.com/tuetschek/e2e-cleaning",
        origins=tuple(
            (f"{REPOSITORY}/{version}/cleaned-data/{part}.csv",) for version in (COMMIT, "HEAD")
        ),
        pack=partial(gzip_member, name=f"{part}.csv"),
    )
    for part, (size, sha256) in CONTENT.items()
}
