"""Membranes of neurons in electron microscopy: the 30 labelled slices of the ISBI 2012 challenge
(Arganda-Carreras et al., 2015, doi:10.3389/fnana.2015.00142), at half of their size."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unseen.data.packing import npz_archive, shrink_image, shrink_labels
from unseen.data.registered_file import RegisteredFile

REPOSITORY = "https://github.com/zhixuhao/unet"
COMMIT = "b45af4d458437d8281cc218a07fd4380818ece4a"
SLICES, SIZE = 30, (256, 256)


def pack(downloads: Sequence[Path]) -> bytes:
    """`x` grey slices in order, `y` 1 where no membrane is."""
    with zipfile.ZipFile(downloads[0]) as archive:
        top = f"{archive.namelist()[0].split('/')[0]}/data/membrane/train"
        x = [shrink_image(archive.read(f"{top}/image/{k}.png"), SIZE, "L") for k in range(SLICES)]
        y = [shrink_labels(archive.read(f"{top}/label/{k}.png"), SIZE) for k in range(SLICES)]
    return npz_archive({"x": np.stack(x), "y": (np.stack(y) > 127).astype(np.uint8)})


FILES = {
    "em-membrane-small/isbi2012_256.npz": RegisteredFile(
        sha256="3e44ec6b1195760e1e564160fc277b18e89744971e01276f9cb63d23238cd052",
        size=1_934_321,
        licence="terms of the challenge: free for non-commercial research on segmentation",
        page="https://imagej.net/events/isbi-2012-segmentation-challenge",
        origins=((f"{REPOSITORY}/archive/{COMMIT}.zip",),),
        pack=pack,
    ),
}
