"""German credit: 1,000 loans of a bank, good or bad (Hofmann, 1994, doi:10.24432/C5NC77)."""

from collections.abc import Sequence
from pathlib import Path

from unseen.data.packing import UCI, read_member, uci_origins
from unseen.data.registered_file import CC_BY, RegisteredFile


def pack(downloads: Sequence[Path]) -> bytes:
    """Fields separated by single commas, however they were."""
    text = read_member(downloads[0], "german.data").decode()
    lines = text.replace(",", " ").splitlines()
    return "".join(",".join(line.split()) + "\n" for line in lines if line.strip()).encode()


FILES = {
    "german-credit/german.csv": RegisteredFile(
        sha256="ec12a88b9fc14d74ba646ea0410cf7ff4533bec2eb61652f8ad76796bbfec017",
        size=79_793,
        licence=CC_BY,
        page=f"{UCI}/dataset/144",
        origins=uci_origins("statlog/german/german.data", "144/statlog+german+credit+data"),
        pack=pack,
    ),
}
