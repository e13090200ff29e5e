"""A corpus as windows of equal length: streamed, or memory-mapped so that any window can be read by
number.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from unseen.errors import InvalidConfig, InvalidData
from unseen.tasks.text_corpus.reading import Piece

Encode: TypeAlias = Callable[[str], Sequence[int]]
"""Text to token numbers; called with pieces that end where a word or line does."""


def row(
    tokens: Sequence[int] | NDArray[np.integer], length: int, document: int
) -> dict[str, Tensor]:
    """One window: `tokens` filled up with 0, `mask` (counted by the loss) and `attention_mask` true
    on real ones.
    """
    filled, real = torch.zeros(length, dtype=torch.int64), torch.zeros(length, dtype=torch.bool)
    filled[: len(tokens)] = torch.as_tensor(np.asarray(tokens, dtype=np.int64))
    real[: len(tokens)] = True
    return {
        "tokens": filled,
        "mask": real,
        "attention_mask": real.clone(),
        "document": torch.tensor(document),
    }


def require_window_length(length: int) -> int:
    if length < 2:
        raise InvalidConfig(
            f"Windows of {length} tokens.",
            why="a window needs a token and its successor.",
            fix="use length=128.",
        )
    return length


class Windows(IterableDataset[dict[str, Tensor]]):
    """The windows of a corpus in order, tokenised as they are read; only one window and one piece
    are in memory.

    Windows do not cross documents and do not overlap: the first token of each is context only. The
    last of a document is filled up; a single left-over token, which predicts nothing, is dropped.
    """

    def __init__(
        self, read: Callable[[], Iterable[Piece]], encode: Encode, length: int, most: int = 0
    ) -> None:
        self.read, self.encode, self.length, self.most = (
            read,
            encode,
            require_window_length(length),
            most,
        )

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for number, (document, tokens) in enumerate(self._cut()):
            if self.most and number >= self.most:
                return
            yield row(tokens, self.length, document)

    def _cut(self) -> Iterator[tuple[int, list[int]]]:
        document, held = -1, list[int]()
        for piece in self.read():
            if piece.document != document:
                if len(held) > 1:
                    yield document, held
                document, held = piece.document, []
            held += self.encode(piece.text)
            for start in range(0, len(held) - self.length + 1, self.length):
                yield document, held[start : start + self.length]
            held = held[len(held) // self.length * self.length :]
        if len(held) > 1:
            yield document, held


@dataclass(frozen=True, eq=False)
class MappedWindows(Dataset[dict[str, Tensor]]):
    """The same windows out of a folder of memory-mapped token numbers: any of them by its number,
    none in memory.
    """

    folder: Path
    length: int
    most: int = 0

    @cached_property
    def about(self) -> dict[str, object]:
        return json.loads((self.folder / "about.json").read_text("utf-8"))

    @property
    def digest(self) -> str:
        """SHA-256 over the tokens and the places where documents begin."""
        return str(self.about["sha256"])

    @property
    def content_digest(self) -> str:
        """What decides every example: the tokens, and how they are cut."""
        return f"{self.digest} {self.length} {self.most}"

    @cached_property
    def tokens(self) -> NDArray[np.int32]:
        return np.load(self.folder / "tokens.npy", mmap_mode="r")

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """First token of each document, and the number of all."""
        return np.load(self.folder / "starts.npy", mmap_mode="r")

    @cached_property
    def first(self) -> NDArray[np.int64]:
        """First window of each document, and the number of all."""
        sizes = np.diff(self.starts)
        whole, rest = np.divmod(sizes, self.length)
        return np.concatenate([[0], np.cumsum(whole + (rest > 1))])

    def __len__(self) -> int:
        n = int(self.first[-1])
        return min(n, self.most) if self.most else n

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not 0 <= int(index) < len(self):
            raise IndexError(index)
        document = int(np.searchsorted(self.first, int(index), side="right")) - 1
        start = int(self.starts[document]) + (int(index) - int(self.first[document])) * self.length
        end = min(start + self.length, int(self.starts[document + 1]))
        return row(self.tokens[start:end], self.length, document)

    @property
    def omissions(self) -> list[str]:
        """Which documents give no window, in words."""
        sizes = np.diff(self.starts)
        said = []
        for tokens, kind in ((0, "empty documents"), (1, "documents of a single token")):
            if count := int((sizes == tokens).sum()):
                said.append(
                    f"{count:,} {kind if count > 1 else kind.replace('documents', 'document')} of "
                    f"{len(sizes):,} {'are' if count > 1 else 'is'} left out: a token is predicted "
                    "from one before it."
                )
        return said

    def source(self, document: int) -> str:
        """File and line of a document."""
        file, line = np.load(self.folder / "where.npy", mmap_mode="r")[document]
        files = self.about["files"]
        assert isinstance(files, list)
        return f"{files[int(file)]}:{int(line)}" if line else str(files[int(file)])


def map_windows(
    folder: Path, read: Callable[[], Iterable[Piece]], encode: Encode, length: int, most: int = 0
) -> MappedWindows:
    """The windows in `folder`; tokenised once and written in one step, so that a killed run leaves
    nothing half done.
    """
    require_window_length(length)
    if not (folder / "about.json").is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".part-"))
        try:
            _write(part, read(), encode)
            os.replace(part, folder)
        except OSError:
            if not (folder / "about.json").is_file():  # else another process was faster
                raise
        finally:
            shutil.rmtree(part, ignore_errors=True)
    made = MappedWindows(folder, length, most)
    if not len(made):
        raise InvalidData(
            "The corpus holds no window of two tokens.",
            why="nothing could be predicted.",
            fix="give more text.",
        )
    return made


def _write(folder: Path, read: Iterable[Piece], encode: Encode) -> None:
    digest, total, document = hashlib.sha256(), 0, -1
    starts, where, files = list[int](), list[tuple[int, int]](), list[str]()
    with ExitStack() as stack:
        raw = stack.enter_context(open(folder / "tokens.raw", "wb"))
        for piece in read:
            if piece.document != document:
                if not files or files[-1] != piece.file:
                    files.append(piece.file)
                document = piece.document
                starts.append(total)
                where.append((len(files) - 1, piece.line))
            tokens = np.asarray(encode(piece.text), dtype=np.int32)
            digest.update(tokens.tobytes())
            raw.write(tokens.tobytes())
            total += len(tokens)
    starts.append(total)
    digest.update(np.asarray(starts, dtype=np.int64).tobytes())
    _as_npy(folder / "tokens.raw", folder / "tokens.npy", total)
    np.save(folder / "starts.npy", np.asarray(starts, dtype=np.int64))
    np.save(folder / "where.npy", np.asarray(where, dtype=np.int64).reshape(-1, 2))
    about = {"sha256": digest.hexdigest(), "files": files, "tokens": total, "documents": len(where)}
    (folder / "about.json").write_text(json.dumps(about), "utf-8")


def _as_npy(raw: Path, target: Path, n: int) -> None:
    """The numbers under a header that numpy maps: the length is known only after the last of
    them.
    """
    with open(raw, "rb") as source, open(target, "wb") as out:
        header = {"descr": "<i4", "fortran_order": False, "shape": (n,)}
        np.lib.format.write_array_header_1_0(out, header)
        shutil.copyfileobj(source, out, 1 << 20)
    raw.unlink()
