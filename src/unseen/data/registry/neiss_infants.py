"""Injuries of children under two at 98 emergency departments, 2002 to 2021: every eighth record
(NEISS, US Consumer Product Safety Commission).

Real people and hospitals: report aggregates only, and do not try to name a hospital.
"""

import lzma
from collections.abc import Sequence
from pathlib import Path

from unseen.data.packing import read_member
from unseen.data.registered_file import RegisteredFile

REPOSITORY = "https://github.com/lvalnegri/data-us-neiss"
COMMIT = "c54151e856a8"
EVERY = 8


def pack(downloads: Sequence[Path]) -> bytes:
    """The header line and every eighth record, the first one included."""
    head, *rows = read_member(downloads[0], "infants.csv").splitlines(keepends=True)
    return lzma.compress(head + b"".join(rows[::EVERY]))


FILES = {
    "neiss-infants/neiss_infants_1of8.csv.xz": RegisteredFile(
        sha256="dc8c8e1eb72ac649e6b59729b0624f24cb1268178c0d97de1c273693acb12c48",
        size=433_796,
        licence="MIT (repository); data of the US federal government",
        page=REPOSITORY,
        origins=((f"{REPOSITORY}/raw/{COMMIT}/data-raw/infants.csv.zip",),),
        pack=pack,
    ),
}
