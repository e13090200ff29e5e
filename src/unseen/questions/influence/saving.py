"""What an influence run keeps on disk: the factors of a model, and the running best of an
unfinished corpus.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from unseen.attributions.influence import CURVATURE
from unseen.errors import CorruptFile, InvalidConfig, InvalidData
from unseen.identity import Identity, differing
from unseen.runs.progress import watcher
from unseen.runs.tensors import (
    TensorCache,
    UnfinishedFile,
    key_of,
    laid_out_as_read,
    load_weights,
    read_weights,
    save_weights,
)

T = TypeVar("T")
log = logging.getLogger("unseen.influence")
ABOUT = "unseen/about"


@dataclass(frozen=True)
class TopFile:
    """The state of one process between two stretches of a corpus, in a file that carries what
    decides the result.
    """

    cache: TensorCache
    identity: Identity
    rank: int = 0

    @property
    def path(self) -> Path:
        path = self.cache.path(self.identity)
        return path.with_name(f"top-{path.stem[-12:]}-{self.rank}.safetensors")

    def load(self) -> dict[str, Tensor] | None:
        text = self.cache.text(self.identity)
        if text is None or not self.path.is_file():
            return None
        try:
            return read_weights(self.path, text)
        except CorruptFile as error:
            log.warning("%s; the corpus is read from its start.", error.what)
            return None

    def save(self, state: dict[str, Tensor]) -> None:
        text = self.cache.text(self.identity)
        if text is not None:
            with self.cache.writing():
                save_weights(self.path, state, text)


@dataclass(frozen=True)
class FactorFile:
    """A keeper that puts factors into a file of the user's choice, and everything else into
    `other`.

    The file carries what the factors were fitted on; they are refused for anything else.
    """

    path: Path
    settings: Mapping[str, str]
    other: TensorCache

    def __call__(
        self, key: str | Identity, make: Callable[[], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        if isinstance(key, str) or key.name != CURVATURE:
            return self.other(key, make)
        text = self.other.text(key) or ""
        if self.path.exists():
            return self._read(text)
        with self.other.writing():
            made = laid_out_as_read(make())
        settings = "\n".join(f"{name}={value}" for name, value in self.settings.items())
        save_weights(
            self.path, made | {ABOUT: torch.tensor([*settings.encode()], dtype=torch.uint8)}, text
        )
        self.other.forget_unfinished(key)
        return made

    def state_file(self, key: Identity, name: str, decisive: str) -> UnfinishedFile:
        """Sums of a fit that is not finished lie in the home, whatever file the factors are for."""
        return self.other.state_file(key, name, decisive)

    def _read(self, text: str) -> dict[str, Tensor]:
        tensors = load_weights(self.path)
        about = tensors.pop(ABOUT, None)
        if about is None:
            raise InvalidData(
                f"{self.path} holds no factors.",
                why="it was not written by unseen influence --factors.",
                fix="name another file; one that is absent is made.",
            )
        known = dict(line.split("=", 1) for line in bytes(about.tolist()).decode().splitlines())
        other = [name for name, value in self.settings.items() if known.get(name) != value]
        if other:
            raise InvalidData(
                f"The factors in {self.path} were fitted with "
                + ", ".join(f"{name}={known.get(name, '(unknown)')}" for name in other)
                + "; asked is "
                + ", ".join(f"{name}={self.settings[name]}" for name in other)
                + ".",
                why="another curvature gives other scores.",
                fix="use the same settings, or name another file.",
            )
        self._refuse_others(text)
        return tensors

    def _refuse_others(self, text: str) -> None:
        """Raises unless the factors would come out again; another checkpoint is refused by
        `Factors.of`.
        """
        found = key_of(self.path)
        parts = differing(found or "", text)
        if not text or found is None:
            raise InvalidData(
                f"Whether the factors in {self.path} fit cannot be known.",
                why="the data or the code that decide them cannot be read."
                if found
                else "the file does not say.",
                fix="remove the file, or leave --factors out.",
            )
        if parts and "weights" not in parts:
            raise InvalidData(
                f"The factors in {self.path} were fitted with other {', '.join(parts)}.",
                why="they would not come out again.",
                fix="remove the file, or name another one.",
            )


def factor_keeper(path: Path, settings: Mapping[str, str], other: TensorCache) -> FactorFile:
    """The keeper with the factors in this file, refused if its suffix says another format."""
    if path.suffix != ".safetensors":
        raise InvalidConfig(
            f"--factors {path} has the suffix `{path.suffix}`.",
            why="factors are written as safetensors.",
            fix=f"use --factors {path.with_suffix('.safetensors')}",
        )
    return FactorFile(path, settings, other)


@dataclass
class Phases:
    """The lab's sink: every loop gets a line of its own with an estimate, named by what it does."""

    names: list[str] = field(default_factory=list)
    """Of the loops to come, in order."""

    def log(self, path: tuple[str, ...], scalars: Mapping[str, float]) -> None:
        log.info(
            "%s %s",
            "/".join(path),
            " ".join(f"{name}={value:.6g}" for name, value in scalars.items()),
        )

    def track(self, path: tuple[str, ...], items: Iterable[T], total: int | None) -> Iterator[T]:
        watch = watcher()
        watch.begin(
            f"influence: {self.names.pop(0) if self.names else ' '.join(path) or 'pass'}",
            1,
            0,
            "done",
        )
        try:
            yield from watch.sink.track(path, items, total)
        finally:
            watch.end()


@dataclass
class Quiet:
    """A sink that shows nothing; also of all processes but the first."""

    names: list[str] = field(default_factory=list)

    def log(self, path: tuple[str, ...], scalars: Mapping[str, float]) -> None: ...

    def track(self, path: tuple[str, ...], items: Iterable[T], total: int | None) -> Iterator[T]:
        return iter(items)
