"""The sums of a fit between two batches, so that a killed one goes on where it was, with the same
numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from unseen.engine.kron import Covariances, KroneckerBlock, blocks_of
from unseen.identity import Identity
from unseen.lab import Keeper, Lab

State = dict[str, Tensor]
NEXT = "unseen/next"
"""The batch after those in a stored sum."""


@runtime_checkable
class SumsStore(Protocol):
    """Where sums are kept; `runs/tensors.py` has the file."""

    def load(self) -> State | None: ...
    def is_due(self) -> bool: ...
    def save(self, state: State) -> None: ...


@runtime_checkable
class KeeperOfSums(Protocol):
    """A keeper that also has room for what is not finished."""

    def state_file(self, key: Identity, name: str, decisive: str) -> SumsStore: ...


@runtime_checkable
class KeeperWithLimit(Protocol):
    """A keeper that can say beforehand that a value will not be kept."""

    def foresee(self, key: Identity, size: int) -> None: ...


class Forgetful:
    """Keeps nothing."""

    def load(self) -> State | None:
        return None

    def is_due(self) -> bool:
        return False

    def save(self, state: State) -> None: ...


@dataclass(frozen=True)
class AgreedSums:
    """Sums that the processes of a sharded model store together: what they cannot go on from
    together is forgotten.
    """

    store: SumsStore
    lab: Lab

    def load(self) -> State | None:
        state, ranks = self.store.load(), self.lab.ranks
        following = 0 if state is None else int(state[NEXT])
        # the rounds that were done: in each of them every process has a batch
        return state if are_equal(-(-(following - ranks.rank) // ranks.size), self.lab) else None

    def is_due(self) -> bool:
        return bool(self.lab.sum(torch.tensor(float(self.store.is_due()))))

    def save(self, state: State) -> None:
        self.store.save(state)


def are_equal(number: int, lab: Lab) -> bool:
    """Whether all processes have the same number."""
    total, squares = lab.sum(torch.tensor([number, number**2], dtype=torch.float64)).tolist()
    return bool(lab.ranks.size * squares == total**2)


class NotStored(Exception):
    """Nothing is stored under a key."""


def keep_together(
    lab: Lab, key: Identity, make: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """`lab.keep` for what all processes make together: where one of them has not stored it, as on a
    machine of its own, all make it.
    """

    def refuse() -> dict[str, Tensor]:
        raise NotStored

    if lab.ranks.size == 1:
        return lab.keep(key, make)
    try:
        stored = lab.keep(key, refuse)
    except NotStored:
        stored = None
    if int(lab.sum(torch.tensor(float(stored is not None)))) == lab.ranks.size:
        return stored or {}
    made = make()
    return lab.keep(key, lambda: made)


def sums_store(keeper: Keeper, key: Identity, name: str, decisive: str) -> SumsStore:
    """The place for the sums `name` of a value; `decisive` is what decides them beside its key."""
    if isinstance(keeper, KeeperOfSums):
        return keeper.state_file(key, name, decisive)
    return Forgetful()


@dataclass
class FirstPass:
    """Covariances of the layers over the batches before `next`."""

    sums: dict[str, Covariances] = field(default_factory=dict)
    plain: dict[str, KroneckerBlock] = field(default_factory=dict)
    """Of layers without covariances."""
    examples: int = 0
    next: int = 0

    @property
    def has_positions(self) -> bool:
        """Whether every layer seen has several positions per example."""
        seen = [one.positions / max(1.0, one.examples) for one in self.sums.values()]
        seen += [block.positions for block in self.plain.values()]
        return bool(seen) and all(each > 1 for each in seen)

    def tensors(self) -> State:
        made = {
            "unseen/examples": torch.tensor(self.examples),
            NEXT: torch.tensor(self.next),
        }
        for name, one in self.sums.items():
            parts = {"right": one.right, "left": one.left, "counts": one.counts}
            made |= {f"sums/{name}/{part}": t for part, t in parts.items() if t is not None}
            made[f"sums/{name}/scalars"] = torch.tensor(
                [one.positions, one.examples], dtype=torch.float64
            )
        for name, block in self.plain.items():
            made |= {f"plain/{key}": tensor for key, tensor in block.tensors(name).items()}
        return made

    @property
    def factor_bytes(self) -> int:
        """What a file of the factors takes that these sums will give, scalars aside."""
        size = sum(t.nbytes for block in self.plain.values() for t in block.tensors("").values())
        for one in self.sums.values():
            assert one.right is not None
            left = one.left if one.left is not None else one.counts
            assert left is not None
            o, i = len(left), len(one.right)
            size += one.right.nbytes + (0 if one.left is None else one.left.nbytes)
            size += (o * i + o + i) * one.right.element_size()
        return size

    @classmethod
    def of(cls, state: State, device_of: Callable[[str], torch.device]) -> "FirstPass":
        """What `tensors` wrote, each block where `device_of` says."""
        plain = move_blocks(_below(state, "plain/"), device_of)
        parts = move_blocks(_below(state, "sums/"), device_of)
        names = dict.fromkeys(key.rpartition("/")[0] for key in parts)
        return cls(
            sums={name: _covariances(parts, name) for name in names},
            plain=blocks_of(plain),
            examples=int(state["unseen/examples"]),
            next=int(state[NEXT]),
        )


def _covariances(parts: State, name: str) -> Covariances:
    right, left, counts = (parts.get(f"{name}/{part}") for part in ("right", "left", "counts"))
    positions, examples = parts[f"{name}/scalars"].tolist()
    return Covariances(right, left, counts, positions, examples)


def move_blocks(state: State, device_of: Callable[[str], torch.device]) -> State:
    """The parts of each block (`name/part`) where its layer is; numbers stay on the CPU."""
    return {
        key: t if key.endswith("/scalars") else t.to(device_of(key.rpartition("/")[0]))
        for key, t in state.items()
    }


def _below(state: State, start: str) -> State:
    return {name.removeprefix(start): t for name, t in state.items() if name.startswith(start)}
