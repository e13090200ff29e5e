"""USPS: 9,298 grey images of handwritten digits from envelopes (Hull, 1994)."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unseen.data.packing import gunzip
from unseen.data.registered_file import NO_LICENCE, RegisteredFile

HASTIE = "https://hastie.su.domains/ElemStatLearn"


def pack(downloads: Sequence[Path]) -> bytes:
    """Train and test tables (digit, then 256 values in [−1, 1]) as npz with values in [0, 1]."""
    arrays: dict[str, Any] = {}
    for part, path in zip(("train", "test"), downloads, strict=True):
        table = np.loadtxt(io.BytesIO(gunzip(path.read_bytes())), dtype=np.float32)
        # float32 throughout: the roundings of the copies in circulation, hence the same checksum
        arrays[f"x_{part}"] = (table[:, 1:] + np.float32(1)) / np.float32(2)
        arrays[f"y_{part}"] = table[:, 0].astype(np.int32)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


FILES = {
    "usps/usps.npz": RegisteredFile(
        sha256="3afd7b5214b5e3ee03cf9f8466b20c3b6dc9a315010af18895c5da0ff6132829",
        size=2_408_168,
        licence=NO_LICENCE,
        page=f"{HASTIE}/data.html",
        origins=((f"{HASTIE}/datasets/zip.train.gz", f"{HASTIE}/datasets/zip.test.gz"),),
        pack=pack,
    ),
}
