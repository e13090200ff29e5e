"""A user's own text as the training examples of a language model: files, folders or JSON lines, cut
into token windows.

Ready examples in UNSEEN_DATA: `tinyshakespeare/input.txt.gz`, `federalist/federalist.jsonl.gz` (a
document per line), `british-fiction/british_fiction_excerpts.tar.xz` (a document per novel).
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.objectives import next_token
from unseen.task import Axis, Split, Task, Use
from unseen.tasks.text_corpus.reading import Cut, Note, Piece, locate, log, pieces
from unseen.tasks.text_corpus.windows import (
    Encode,
    MappedWindows,
    Windows,
    map_windows,
    require_window_length,
)

__all__ = ["Cut", "Encode", "MappedWindows", "TextCorpus", "Windows", "utf8_bytes"]
PROBE = "The 3 naïve foxes jumped; 100% sure? “Yes”, said Ångström.\n\tend\n"


def utf8_bytes(text: str) -> list[int]:
    """A tokenizer for models of bytes: 256 tokens."""
    return list(text.encode())


@dataclass(frozen=True)
class TextCorpus:
    """Windows of `length` tokens as the one split to fit; `document` numbers the text that each
    belongs to.

    Streamed, and read anew in every pass; with `folder`, tokenised once into memory-mapped files
    below it, so that windows can be read by number.
    """

    files: tuple[str, ...]
    encode: Encode = utf8_bytes
    length: int = 128
    field: str = "text"
    """Of a JSON line."""
    cut: Cut = Cut.REFUSE
    most: int = 0
    """Windows to read at most; 0: all."""
    folder: str = ""
    note: Note = log.warning
    """Told what was left out."""

    def build(self, lab: Lab) -> Task:
        if not self.files:
            raise InvalidConfig(
                "The corpus names no file.",
                why="there is nothing to read.",
                fix='files=("a.txt",).',
            )
        require_window_length(self.length)
        for file in self.files:
            locate(file)
        data = Split(self._data(), Use.TRAIN)
        return Task(
            name="text corpus", axis=Axis.IID, splits={"corpus": data}, objective=next_token
        )

    def read(self) -> Iterator[Piece]:
        """The documents, a piece at a time."""
        return pieces(self.files, self.field, self.cut, self.note)

    def _data(self) -> Windows | MappedWindows:
        if not self.folder:
            return Windows(self.read, self.encode, self.length, self.most)
        return map_windows(
            Path(self.folder) / self.mark, self.read, self.encode, self.length, self.most
        )

    @property
    def mark(self) -> str:
        """A hash of the files' paths, sizes and times and of what the tokenizer makes of a
        sentence.
        """
        parts = [self.field, str(self.cut), str(list(self.encode(PROBE)))]
        for path in map(locate, self.files):
            inside = sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]
            parts += [f"{f.resolve()} {f.stat().st_size} {f.stat().st_mtime_ns}" for f in inside]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def example() -> TextCorpus:
    return TextCorpus((__file__,), length=32)
