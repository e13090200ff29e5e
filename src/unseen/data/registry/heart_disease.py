"""Heart disease at four hospitals: 920 patients (Janosi et al., 1988, doi:10.24432/C52P4X)."""

from functools import partial

from unseen.data.packing import UCI, copy_member, uci_origins
from unseen.data.registered_file import CC_BY, RegisteredFile

SITES = {
    "cleveland": ("a74b7efa387bc9d108d7d0115d831fe9b414b29ae7124f331b622b4efa0427c8", 18_461),
    "hungarian": ("d1ad108f785768cd3d7e82dc522e6f5a61eea93cccfb3a46ee8076f73fc3d796", 10_263),
    "switzerland": ("834a405ccf5b66ab4056bb77794adc8df0b7125186454c0a1d002d33c6c3b314", 4_109),
    "va": ("e7c93d8d0d2acdadfa4c5e8de768e2191e7f618b952e29623f1f0d5949ff6b8f", 6_737),
}
"""Checksum and size of each hospital's file."""

FILES = {
    f"heart-disease/processed.{site}.data": RegisteredFile(
        sha256=sha256,
        size=size,
        licence=CC_BY,
        page=f"{UCI}/dataset/45",
        origins=uci_origins(f"heart-disease/processed.{site}.data", "45/heart+disease"),
        pack=partial(copy_member, name=f"processed.{site}.data"),
    )
    for site, (sha256, size) in SITES.items()
}
