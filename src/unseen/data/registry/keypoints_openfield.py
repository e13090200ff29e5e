"""A mouse in an open field with four body points, from the examples of DeepLabCut (Mathis et al.,
2018, doi:10.1038/s41593-018-0209-y): 116 frames of one film, grey, at a quarter of their size."""

import csv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unseen.data.packing import npz_archive, shrink_image
from unseen.data.registered_file import RegisteredFile

REPOSITORY = "https://github.com/DeepLabCut/DeepLabCut"
COMMIT = "2df0f46c8c8c56c8238b46b3d58384163bafb2f0"
FOLDER, TABLE = "examples/openfield-Pranav-2018-10-30", "labeled-data/m4s1/CollectedData_Pranav.csv"
SIZE, SMALLER = (160, 120), 4


def pack(downloads: Sequence[Path]) -> bytes:
    """`images`, `keypoints` [frame, point, (x, y)] in pixels of the small image, `bodyparts` and
    `names`."""
    with zipfile.ZipFile(downloads[0]) as archive:
        top = f"{archive.namelist()[0].split('/')[0]}/{FOLDER}"
        _, parts, _, *rows = csv.reader(archive.read(f"{top}/{TABLE}").decode().splitlines())
        rows = sorted(rows)
        images = [shrink_image(archive.read(f"{top}/{row[0]}"), SIZE, "L") for row in rows]
    points = np.array([row[1:] for row in rows], dtype=np.float64).reshape(len(rows), -1, 2)
    return npz_archive(
        {
            "images": np.stack(images),
            "keypoints": (points / SMALLER).astype(np.float32),
            "bodyparts": np.array(parts[1::2]),
            "names": np.array([row[0].split("/")[-1] for row in rows]),
        }
    )


FILES = {
    "keypoints-openfield/keypoints_openfield.npz": RegisteredFile(
        sha256="10cb165c302ce441672efde16210214f7b0579438cdeeabe1cdb431a84c2bf61",
        size=1_403_063,
        licence="LGPL-3.0 (repository)",
        page=f"{REPOSITORY}/tree/{COMMIT}/{FOLDER}",
        origins=((f"{REPOSITORY}/archive/{COMMIT}.zip",),),
        pack=pack,
    ),
}
