"""Lab: where a computation runs and which randomness it draws."""

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from unseen.identity import Identity

T = TypeVar("T")


@runtime_checkable
class Ranks(Protocol):
    """The processes that share one computation; `engine/ranks.py` has the one over
    torch.distributed.
    """

    @property
    def rank(self) -> int: ...
    @property
    def size(self) -> int: ...
    def sum(self, x: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class SingleProcess:
    """One process: sums are the identity."""

    rank: int = 0
    size: int = 1

    def sum(self, x: Tensor) -> Tensor:
        return x


@runtime_checkable
class Sink(Protocol):
    """Where scalars and progress go; the shell draws bars, trackers forward."""

    def log(self, path: tuple[str, ...], scalars: Mapping[str, float]) -> None: ...
    def track(
        self, path: tuple[str, ...], items: Iterable[T], total: int | None
    ) -> Iterator[T]: ...


@dataclass(frozen=True)
class Silent:
    """Drops scalars, shows nothing."""

    def log(self, path: tuple[str, ...], scalars: Mapping[str, float]) -> None: ...

    def track(self, path: tuple[str, ...], items: Iterable[T], total: int | None) -> Iterator[T]:
        return iter(items)


@runtime_checkable
class Keeper(Protocol):
    """Stores expensive tensors between runs; `runs/tensors.py` has the one on disk."""

    def __call__(
        self, key: str | Identity, make: Callable[[], dict[str, Tensor]]
    ) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class Forget:
    """Makes everything anew."""

    def __call__(
        self, key: str | Identity, make: Callable[[], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        return make()


@dataclass(frozen=True)
class Lab:
    """Place (device, dtype, processes) and randomness (seed, path) of a computation.

    `child` names a stream: equal seed and path give equal numbers, whatever else runs and in which
    order.
    """

    seed: int = 0
    device: torch.device = torch.device("cpu")
    dtype: torch.dtype = torch.float32
    path: tuple[str, ...] = ()
    ranks: Ranks = SingleProcess()
    sink: Sink = Silent()
    keeper: Keeper = Forget()

    def child(self, *names: str | int) -> "Lab":
        return replace(self, path=(*self.path, *map(str, names)))

    @property
    def signature(self) -> tuple[str, ...]:
        """All of this lab that decides a number: its stream, and where and in how many processes it
        computes.
        """
        return (str(self.seed), *self.path, str(self.device), str(self.dtype), str(self.ranks.size))

    @property
    def entropy(self) -> int:
        """63 bits that depend on seed and path only."""
        text = "\0".join((str(self.seed), *self.path))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1

    def generator(self) -> torch.Generator:
        """A new CPU generator at the start of this lab's stream (same numbers on every device)."""
        return torch.Generator().manual_seed(self.entropy)

    def numpy(self) -> np.random.Generator:
        return np.random.default_rng(self.entropy)

    @contextlib.contextmanager
    def seeded(self) -> Iterator[None]:
        """Inside the block torch's global generator follows this lab's stream; outside nothing
        changes.

        For code that offers no generator argument: layer initialisation, dropout.
        """
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self.entropy)
            yield

    def log(self, **scalars: float) -> None:
        self.sink.log(self.path, scalars)

    def track(self, items: Iterable[T], total: int | None = None) -> Iterator[T]:
        """The items, with progress shown by the sink."""
        return self.sink.track(self.path, items, total)

    def keep(self, key: str | Identity, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """`make()` once, then the stored tensors under the same key: everything that decides them
        (`identity.identify`).

        A text as key is for values that only the code of the running study decides.
        """
        return self.keeper(key, make)

    def sum(self, x: Tensor) -> Tensor:
        """Sum over all processes of this computation."""
        return self.ranks.sum(x)
