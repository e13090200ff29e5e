"""What is registered about one data file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

Pack = Callable[[Sequence[Path]], bytes]
"""The file's bytes from the downloads."""


@dataclass(frozen=True, kw_only=True)
class RegisteredFile:
    """One data file: what it must hold, who allows its use, and from where it can be made."""

    sha256: str
    """Of the content (`unseen.data.files.content_sha256`), so that a recompressed copy of the
    same data verifies, too."""
    size: int
    """Bytes to expect, about."""
    licence: str
    page: str
    """Where a person reads about the data."""
    origins: tuple[tuple[str, ...], ...]
    """Tried in this order, each the addresses of all downloads that the file is made of; empty:
    only shipped."""
    pack: Pack


CC_BY = "CC BY 4.0"
NO_LICENCE = "no licence stated by the authors; fetched from their page, not redistributed"
