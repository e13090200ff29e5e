"""Texts out of files, folders and archives, a piece at a time: nothing is held but the piece at
hand.

`.jsonl` holds one object with a text per line; any other file is one text in UTF-8. Both may be
compressed (`.gz`) or lie in a folder or a tar archive.
"""

import codecs
import gzip
import json
import logging
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from io import BufferedIOBase
from pathlib import Path

from unseen.characters import find_half
from unseen.data.files import data_folders
from unseen.errors import CorruptFile, InvalidData, MissingFile, UnknownName

log = logging.getLogger("unseen.corpus")
PIECE = 1 << 16
"""Bytes that are read and tokenised at a time."""


class Cut(StrEnum):
    """What becomes of a file that ends in the middle of a line or a character."""

    REFUSE = "refuse"
    """An error that names line and byte."""
    SKIP = "skip"
    """The broken end is left out, and this is said."""


@dataclass(frozen=True)
class Piece:
    """A stretch of one document; consecutive pieces with the same number belong together."""

    document: int
    file: str
    line: int
    """Of a `.jsonl` file, from 1; 0: the file is the document."""
    text: str


Note = Callable[[str], None]


def pieces(
    paths: Sequence[str | Path], field: str, cut: Cut, note: Note = log.warning
) -> Iterator[Piece]:
    """All documents in the order of the paths, numbered from 0. A file without any text raises."""
    document = 0
    for given in paths:
        named = not locate(given).is_dir()
        for name, file in _open_files(locate(given), str(given)):
            with file:
                last = -1
                for line, text in _texts(name, file, field, cut, note):
                    if line != last:  # the next document begins
                        document, last = document + (last >= 0), line
                    yield Piece(document, name, line, text)
            if last >= 0:
                document += 1
            elif named:
                raise InvalidData(
                    f"{name} holds no text.",
                    why="nothing can be learned from nothing.",
                    fix="leave the file out.",
                )
            else:
                note(f"{name} holds no text and is left out.")


def locate(path: str | Path) -> Path:
    """The path as it is, or below the data folders (`tinyshakespeare/input.txt.gz` in
    UNSEEN_DATA).
    """
    for folder in (Path(), *data_folders()):
        if (folder / path).exists():
            return folder / path
    raise MissingFile(
        f"There is no file or folder `{path}`.",
        why="the corpus is read from it.",
        fix="check the path; names like tinyshakespeare/input.txt.gz are also looked up in "
        "UNSEEN_DATA.",
    )


def _open_files(path: Path, name: str) -> Iterator[tuple[str, BufferedIOBase]]:
    """Name, as the user gave it, and bytes of each file at a path, in order of name (of an archive:
    in its order).
    """
    if path.is_dir():
        inside = sorted(
            file for file in path.rglob("*") if file.is_file() and not file.name.startswith(".")
        )
        if not inside:
            raise InvalidData(
                f"The folder {path} is empty.",
                why="there is nothing to read.",
                fix="check the path.",
            )
        for file in inside:
            yield from _open_files(file, f"{name}/{file.relative_to(path)}")
    elif ".tar" in path.suffixes or path.suffix in (".tgz", ".txz"):
        try:
            with tarfile.open(path) as archive:
                for member in archive:
                    if isinstance(handle := archive.extractfile(member), BufferedIOBase):
                        yield f"{name}/{member.name}", handle
        except (tarfile.TarError, EOFError) as error:
            raise _damage_error(path, error) from error
    else:
        yield name, gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # noqa: SIM115 - closed by the reader


def _texts(
    name: str, file: BufferedIOBase, field: str, cut: Cut, note: Note
) -> Iterator[tuple[int, str]]:
    """(line, text) of a file; of a plain text (0, piece) again and again."""
    kind = name.removesuffix(".gz")
    try:
        if kind.endswith((".jsonl", ".ndjson")):
            yield from _lines(name, file, field, cut, note)
        else:
            yield from _plain(name, file, cut, note)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _damage_error(name, error) from error


def _damage_error(name: object, error: Exception) -> CorruptFile:
    return CorruptFile(
        f"{name} cannot be unpacked.", why=str(error), fix="it is cut off or damaged: copy it anew."
    )


def _plain(name: str, file: BufferedIOBase, cut: Cut, note: Note) -> Iterator[tuple[int, str]]:
    """Pieces that end where a line or word does, so that they can be tokenised one by one."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    at, rest = 0, ""
    while True:
        chunk = file.read(PIECE)
        begun = len(decoder.getstate()[0])
        try:
            text = rest + decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            if chunk or cut is Cut.REFUSE:
                raise _no_utf8(name, at - begun + error.start) from None
            note(
                f"{name} ends in the middle of a character at byte {at - begun + error.start:,}; "
                "it is left out."
            )
            text = rest
        if at == 0:
            text = text.removeprefix("\ufeff")
        at += len(chunk)
        if not chunk:
            if text:
                yield 0, text
            return
        end = max(text.rfind("\n") + 1, 0) or text.rfind(" ")
        end = end if end > 0 else len(text)
        if text[:end]:
            yield 0, text[:end]
        rest = text[end:]


def _lines(
    name: str, file: BufferedIOBase, field: str, cut: Cut, note: Note
) -> Iterator[tuple[int, str]]:
    at = 0
    for number, raw in enumerate(file, 1):
        start, at = at, at + len(raw)
        if not raw.strip():
            continue
        try:
            row = json.loads(raw.decode("utf-8-sig" if number == 1 else "utf-8"))
        except UnicodeDecodeError as error:
            if raw.endswith(b"\n"):
                raise _no_utf8(name, start + error.start, number) from None
            row = None
        except json.JSONDecodeError as error:
            if raw.endswith(b"\n"):
                raise InvalidData(
                    f"Line {number} of {name} (byte {start:,}) is no JSON: {error.msg} at column "
                    f"{error.colno}.",
                    why="every line of a .jsonl file is one object.",
                    fix=f"mend the line: sed -n {number}p shows it.",
                ) from None
            row = None
        if row is None and not raw.endswith(b"\n"):
            if cut is Cut.REFUSE:
                raise _cut_off(name, number, start, at)
            note(
                f"{name} ends in the middle of line {number} (begun at byte {start:,}); the line "
                "is left out."
            )
            return
        yield number, _field(row, field, name, number)


def _field(row: object, field: str, name: str, number: int) -> str:
    if not isinstance(row, dict):
        raise InvalidData(
            f"Line {number} of {name} is a {type(row).__name__}.",
            why="every line of a .jsonl file is one object.",
            fix=f'write {{"{field}": "…"}}.',
        )
    if field not in row:
        raise UnknownName.near(f"field in line {number} of {name} called", field, map(str, row))
    if not isinstance(row[field], str):
        raise InvalidData(
            f"`{field}` in line {number} of {name} is a {type(row[field]).__name__}.",
            why="the text of a document is a string.",
            fix="name another field, or mend the line.",
        )
    if half := find_half(row[field]):
        raise InvalidData(
            f"`{field}` in line {number} of {name} holds half a character, {half}.",
            why="the text was cut through an emoji or another sign of two parts.",
            fix="remove it.",
        )
    return row[field]


def _cut_off(name: str, line: int, start: int, end: int) -> InvalidData:
    return InvalidData(
        f"{name} ends in the middle of line {line}: begun at byte {start:,}, cut off at byte "
        f"{end:,}.",
        why="the file was not written or copied to its end.",
        fix="copy it anew, or read what is there with --cut-off skip (Cut.SKIP).",
    )


def _no_utf8(name: str, byte: int, line: int = 0) -> InvalidData:
    return InvalidData(
        f"{name} is not UTF-8: byte {byte:,}{f' in line {line}' if line else ''} begins no "
        "character.",
        why="guessing another encoding would turn letters into others.",
        fix="convert it: iconv -f latin1 -t utf-8 FILE > NEW.",
    )
