"""English questions and SQL: GeoQuery and Advising with splits by question and by query pattern
(Finegan-Dollak et al., 2018, arXiv:1806.09029).
"""

from functools import partial

from unseen.data.packing import gzip_member
from unseen.data.registered_file import RegisteredFile

REPOSITORY = "https://raw.githubusercontent.com/jkkummerfeld/text2sql-data"
COMMIT = "5050bad2309a"
CONTENT = {
    "geography.json": (
        14_977,
        "b20ad8ed357029c9efa49aa64434729f624591850f66b1137cabcc0e45273c1b",
        "none stated",
    ),
    "advising.json": (
        101_260,
        "ec8d6a2d570b1768b25ef51d2445bb599b537d9b3d802bf498513a70337599bd",
        "CC BY 4.0",
    ),
}

FILES = {
    f"text-to-sql/{name}.gz": RegisteredFile(
        sha256=sha256,
        size=size,
        licence=licence,
        page="https://github.com/jkkummerfeld/text2sql-data",
        origins=tuple((f"{REPOSITORY}/{version}/data/{name}",) for version in (COMMIT, "HEAD")),
        pack=partial(gzip_member, name=name),
    )
    for name, (size, sha256, licence) in CONTENT.items()
}
