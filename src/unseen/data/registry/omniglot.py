"""Omniglot, the small background sets: handwritten characters of five alphabets each, every
character by twenty people (Lake, Salakhutdinov & Tenenbaum, 2015, Science 350)."""

from collections.abc import Sequence
from pathlib import Path

from unseen.data.registered_file import RegisteredFile

REPOSITORY = "https://github.com/brendenlake/omniglot"
RAW = "https://raw.githubusercontent.com/brendenlake/omniglot"


def pack(downloads: Sequence[Path]) -> bytes:
    """The archive as it is."""
    return downloads[0].read_bytes()


def _archive(number: int, sha256: str, size: int) -> dict[str, RegisteredFile]:
    name = f"images_background_small{number}.zip"
    return {
        f"omniglot/{name}": RegisteredFile(
            sha256=sha256,
            size=size,
            licence="MIT",
            page=REPOSITORY,
            origins=((f"{RAW}/master/python/{name}",),),
            pack=pack,
        )
    }


FILES = {
    **_archive(1, "aac1da404020f9e5eea0e272ed832ed7b4c7de93eaebbce38a6f029c79c33c2b", 1_319_022),
    **_archive(2, "784f904710ec3612bc1c455af21a4dd77f810a4b2ea2292ce7a95e49dcdbbb7d", 1_580_917),
}
