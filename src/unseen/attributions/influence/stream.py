"""The training examples as numbered batches, shared out among processes."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import ceil

import torch
from jaxtyping import Int
from torch import Tensor

from unseen.engine.batches import gather, length, once, size, to_device
from unseen.errors import InvalidData
from unseen.lab import Lab, Ranks
from unseen.task import Batch, Task, Use


@dataclass(frozen=True, eq=False)
class Stream:
    """The TRAIN splits one after the other; batch n belongs to process n mod size."""

    task: Task
    batch_size: int
    lab: Lab
    _counted: list[int] = field(default_factory=list)

    @property
    def length_if_known(self) -> int | None:
        """Number of examples; None for a stream."""
        lengths = [length(split.data) for split in self.task.of(Use.TRAIN).values()]
        return None if any(n is None for n in lengths) else sum(n or 0 for n in lengths)

    @property
    def batches(self) -> int | None:
        """Number of batches; None for a stream."""
        lengths = [length(split.data) for split in self.task.of(Use.TRAIN).values()]
        return (
            None
            if any(n is None for n in lengths)
            else sum(ceil((n or 0) / self.batch_size) for n in lengths)
        )

    def count(self) -> int:
        """Number of examples; a stream is read once for it."""
        if self.length_if_known is not None:
            return self.length_if_known
        if not self._counted:
            self._counted.append(sum(size(batch) for _, _, batch in self.iterate()))
        return self._counted[0]

    def at(self, rows: Int[Tensor, " n"]) -> Batch:
        """Examples by number over all TRAIN splits, in the order asked for."""
        found: list[Batch] = []
        order: list[Tensor] = []
        start = 0
        for split in self.task.of(Use.TRAIN).values():
            n = length(split.data)
            if n is None:
                raise InvalidData(
                    "Examples of a stream cannot be read by number.",
                    why="a stream is read from its start.",
                    fix="give a map-style dataset (Columns, a memory-mapped array).",
                )
            inside = ((rows >= start) & (rows < start + n)).nonzero().flatten()
            if len(inside):
                found.append(to_device(gather(split.data, rows[inside] - start), self.lab))
                order.append(inside)
            start += n
        back = torch.cat(order).argsort()
        return {
            name: torch.cat([part[name] for part in found])[back.to(found[0][name].device)]
            for name in found[0]
        }

    def iterate(self) -> Iterator[tuple[int, int, Batch]]:
        """(number of the batch, number of its first example, batch)."""
        number = start = 0
        for split in self.task.of(Use.TRAIN).values():
            for batch in once(split.data, self.batch_size, self.lab):
                yield number, start, batch
                number, start = number + 1, start + size(batch)

    def local_batches(self, most: int, is_even: bool = False) -> Iterator[tuple[int, Batch]]:
        """This process's batches among those that begin before example `most`.

        A process that has none, and with `is_even` one that has one fewer than others, gets some
        batch to run and forget: the processes of a sharded model run it equally often, and one
        without a batch learns from it which layers there are. Its number is that of the batch that
        would have been next, negated (`~`).
        """
        ranks, count = self.lab.ranks, 0
        for number, start, batch in self.lab.track(self.iterate(), self.batches):
            if start >= most:
                break
            count = number + 1
            if number % ranks.size == ranks.rank:
                yield number, batch
        if is_idle(count, ranks) and (is_even or count <= ranks.rank):
            yield ~(count - count % ranks.size + ranks.rank), batch


def is_idle(batches: int, ranks: Ranks) -> bool:
    """Whether this process has one batch fewer than others."""
    return ranks.rank >= batches % ranks.size > 0
