"""ASDiv: word problems of grades 1 to 6 with the kind of operation (Miao et al., 2020,
arXiv:2106.15772).
"""

from functools import partial

from unseen.data.packing import gzip_member
from unseen.data.registered_file import RegisteredFile

REPOSITORY = "https://raw.githubusercontent.com/chaochun/nlu-asdiv-dataset"
COMMIT = "883f90a9a65b"
CONTENT = {
    "ASDiv.xml": (
        175_635,
        "ef8904068482919ac48c8eeaaf6df344b8a308ba66d048c2d4d87eab82dc4929",
    ),
}

FILES = {
    f"asdiv/{name}.gz": RegisteredFile(
        sha256=sha256,
        size=size,
        licence="CC BY-NC 4.0",
        page="https://github.com/chaochun/nlu-asdiv-dataset",
        origins=tuple((f"{REPOSITORY}/{version}/dataset/{name}",) for version in (COMMIT, "HEAD")),
        pack=partial(gzip_member, name=name),
    )
    for name, (size, sha256) in CONTENT.items()
}
