"""Sums and gathers over the processes of one computation; the identity when there is one."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor

from unseen.errors import InvalidConfig
from unseen.lab import Ranks, SingleProcess


@dataclass(frozen=True)
class Group:
    """The processes of a torch.distributed group (None: all), each with its share of the data.

    Every process must make the same calls in the same order. Results carry no gradient.
    """

    group: Any = None

    def __post_init__(self) -> None:
        if not (dist.is_available() and dist.is_initialized()):
            raise InvalidConfig(
                "There is no process group.",
                why="sums over processes need torch.distributed.",
                fix="start with torchrun and call torch.distributed.init_process_group(), or use "
                "lab.Alone().",
            )

    @property
    def rank(self) -> int:
        return dist.get_rank(self.group)

    @property
    def size(self) -> int:
        return dist.get_world_size(self.group)

    def sum(self, x: Tensor) -> Tensor:
        """Σ over processes of x, on each of them; `x` stays as it is. Shapes must agree."""
        total = x.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=self.group)
        return total

    def gather(self, x: Shaped[Tensor, "n *rest"]) -> Shaped[Tensor, "total *rest"]:
        """The tensors of all processes one after the other, in order of rank; first axes may
        differ.
        """
        lengths = x.new_zeros(self.size, dtype=torch.int64)
        lengths[self.rank] = len(x)
        sizes = [int(length) for length in self.sum(lengths)]
        # all_gather wants equal shapes: pad to the longest, cut afterwards
        padded = x.new_zeros(max(sizes), *x.shape[1:])
        padded[: len(x)] = x.detach()
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded, group=self.group)
        return torch.cat([part[:length] for part, length in zip(parts, sizes, strict=True)])


def ranks() -> Ranks:
    """The processes that this one was started with (torchrun), or `SingleProcess`."""
    return Group() if dist.is_available() and dist.is_initialized() else SingleProcess()


def share(n: int, among: Ranks) -> range:
    """The indices of 0 … n − 1 that this process reads: contiguous, disjoint, together all."""
    return range(n * among.rank // among.size, n * (among.rank + 1) // among.size)


@contextlib.contextmanager
def process_group() -> Iterator[None]:
    """Inside the block the processes that torchrun started know each other."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or dist.is_initialized():
        yield
        return
    # both: counts are summed on the CPU, scores where the model is
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def local_device(name: str) -> str:
    """Of several processes each has a GPU of its own."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if name == "cuda" else name
