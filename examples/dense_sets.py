"""Writes three public sets of dense labels as the folders that `unseen dense` reads.

    python examples/dense_sets.py membranes em/       # masks of cell membranes, 30 slices
    python examples/dense_sets.py roads camvid/       # 11 classes of road scenes, 60 frames
    python examples/dense_sets.py mouse mouse/        # four points of a mouse, every second frame
    unseen dense em/images em/labels --shots 10

They are read from UNSEEN_DATA, or fetched from their public origin once (docs/dense.md).
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unseen.data.files import data_file

UNLABELLED, VOID = 11, 255
"""CamVid's number of pixels without a class, and what `unseen dense` takes for one."""


def write_image(folder: Path, name: str, pixels: NDArray[np.uint8]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / f"{name}.png")


def write_membranes(to: Path) -> None:
    """The membrane is the mask."""
    data = np.load(data_file("em-membrane-small/isbi2012_256.npz"))
    for k, (image, elsewhere) in enumerate(zip(data["x"], data["y"], strict=True)):
        write_image(to / "images", f"{k:03d}", image)
        write_image(to / "labels", f"{k:03d}", (255 * (1 - elsewhere)).astype(np.uint8))


def write_roads(to: Path) -> None:
    """The training frames, in the order of the film."""
    data = np.load(data_file("camvid-small/camvid_120x160.npz"))
    for k, (image, classes) in enumerate(zip(data["x_train"], data["y_train"], strict=True)):
        write_image(to / "images", f"{k:03d}", image)
        labels = np.where(classes == UNLABELLED, VOID, classes).astype(np.uint8)
        write_image(to / "labels", f"{k:03d}", labels)


def write_mouse(to: Path) -> None:
    """Every second frame with the positions of its four points."""
    data = np.load(data_file("keypoints-openfield/keypoints_openfield.npz"))
    (to / "labels").mkdir(parents=True, exist_ok=True)
    for k in range(0, len(data["images"]), 2):
        write_image(to / "images", f"{k:03d}", data["images"][k])
        pairs = zip(data["bodyparts"], data["keypoints"][k], strict=True)
        lines = ["name,x,y", *(f"{name},{x:.2f},{y:.2f}" for name, (x, y) in pairs)]
        (to / "labels" / f"{k:03d}.csv").write_text("\n".join(lines) + "\n", "utf-8")


SETS: Mapping[str, Callable[[Path], None]] = {
    "membranes": write_membranes,
    "roads": write_roads,
    "mouse": write_mouse,
}


def main(name: str, folder: str) -> None:
    SETS[name](Path(folder))
    print(f"unseen dense {folder}/images {folder}/labels --shots 10".replace("//", "/"))


if __name__ == "__main__":
    main(*sys.argv[1:])
