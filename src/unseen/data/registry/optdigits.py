"""Optical recognition of handwritten digits: 5,620 images of 8 × 8 (Alpaydin & Kaynak, 1998)."""

from functools import partial

from unseen.data.packing import UCI, gzip_member, uci_origins
from unseen.data.registered_file import CC_BY, RegisteredFile

HEAD = ",".join([*(f"Block {k}" for k in range(1, 65)), "Class"]).encode() + b"\n"
"""Names of the columns; the release has none."""
ARCHIVE = "80/optical+recognition+of+handwritten+digits"

FILES = {
    "optdigits/optdigits.tra.gz": RegisteredFile(
        sha256="83b5fd08ac1e96b0509c7fbac516c0259026240b432cc738dbd746e3a8549834",
        size=112_739,
        licence=CC_BY,
        page=f"{UCI}/dataset/80",
        origins=uci_origins("optdigits/optdigits.tra", ARCHIVE),
        pack=partial(gzip_member, name="optdigits.tra", head=HEAD),
    ),
    "optdigits/optdigits.tes.gz": RegisteredFile(
        sha256="01eb9e7627f764dc96a2dc1dfcca661b33751eda5db9833e1ca531115309731e",
        size=53_601,
        licence=CC_BY,
        page=f"{UCI}/dataset/80",
        origins=uci_origins("optdigits/optdigits.tes", ARCHIVE),
        pack=partial(gzip_member, name="optdigits.tes", head=HEAD),
    ),
}
