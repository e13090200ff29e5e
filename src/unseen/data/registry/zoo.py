"""Zoo: 101 animals, 16 attributes and seven types (Forsyth, 1990, doi:10.24432/C5R59V)."""

from collections.abc import Sequence
from pathlib import Path

from unseen.data.packing import UCI, read_member, uci_origins
from unseen.data.registered_file import CC_BY, RegisteredFile

HEAD = (
    "animal_name,hair,feathers,eggs,milk,airborne,aquatic,predator,toothed,backbone,breathes,"
    "venomous,fins,legs,tail,domestic,catsize,type\n"
)
"""Names of the columns; the release has none."""


def pack(downloads: Sequence[Path]) -> bytes:
    """The release behind a line of names."""
    return HEAD.encode() + read_member(downloads[0], "zoo.data").replace(b"\r\n", b"\n")


FILES = {
    "zoo/zoo.data": RegisteredFile(
        sha256="2df02e92d9752240b8432ad1edc09eb1ec811b51594d68bf067046632824d629",
        size=4_260,
        licence=CC_BY,
        page=f"{UCI}/dataset/111",
        origins=uci_origins("zoo/zoo.data", "111/zoo"),
        pack=pack,
    ),
}
