"""What an influence run keeps on disk: the factors of a model, and the running best of an unfinished corpus."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from unseen.attributions.influence.layers import strip_addresses
from unseen.errors import Corrupted, InvalidConfig, InvalidData
from unseen.lab import Keeper
from unseen.runs.progress import watcher
from unseen.runs.tensors import load_weights, save_weights

T = TypeVar("T")
log = logging.getLogger("unseen.influence")
ABOUT = "unseen/about"


@dataclass(frozen=True)
class TopFile:
    """The state of one process between two stretches of a corpus, in a file named by what decides the result."""

    folder: Path
    identity: str
    rank: int = 0

    @property
    def path(self) -> Path:
        return self.folder / f"top-{self.identity[:24]}-{self.rank}.safetensors"

    def load(self) -> dict[str, Tensor] | None:
        if not self.path.is_file():
            return None
        try:
            return load_weights(self.path)
        except Corrupted as error:
            log.warning("%s; the corpus is read from its start.", error.what)
            return None

    def save(self, state: dict[str, Tensor]) -> None:
        save_weights(self.path, state)


@dataclass(frozen=True)
class Steady:
    """A keeper whose keys mean the same in every process, and name the data that they are about."""

    inside: Keeper
    about: str

    def __call__(self, key: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        return self.inside(f"{strip_addresses(key)} {self.about}", make)


@dataclass(frozen=True)
class FactorFile:
    """A keeper that puts factors into a file of the user's choice, and everything else where `other` does.

    The factors carry a hash of their model; `Influence.prepare` refuses them for another one.
    """

    path: Path
    settings: Mapping[str, str]
    other: Keeper

    def __call__(self, key: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        if not key.startswith("factors "):
            return self.other(key, make)
        if self.path.exists():
            return self._read()
        made = make()
        text = "\n".join(f"{name}={value}" for name, value in self.settings.items())
        save_weights(self.path, made | {ABOUT: torch.tensor([*text.encode()], dtype=torch.uint8)})
        return made

    def _read(self) -> dict[str, Tensor]:
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
        return tensors


def factor_keeper(path: Path, settings: Mapping[str, str], other: Keeper) -> FactorFile:
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
        log.info("%s %s", "/".join(path), " ".join(f"{name}={value:.6g}" for name, value in scalars.items()))

    def track(self, path: tuple[str, ...], items: Iterable[T], total: int | None) -> Iterator[T]:
        watch = watcher()
        watch.begin(f"influence: {self.names.pop(0) if self.names else ' '.join(path) or 'pass'}", 1, 0, "done")
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
