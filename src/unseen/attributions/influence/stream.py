"""The fitted examples as numbered batches, shared out among processes."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

from unseen.engine.batches import length, once, size
from unseen.lab import Lab
from unseen.task import Batch, Task, Use


@dataclass(frozen=True, eq=False)
class Stream:
    """The FIT splits one after the other; batch n belongs to process n mod size."""

    task: Task
    batch_size: int
    lab: Lab

    @property
    def known(self) -> int | None:
        """Number of examples; None for a stream."""
        lengths = [length(split.data) for split in self.task.of(Use.FIT).values()]
        return None if any(n is None for n in lengths) else sum(n or 0 for n in lengths)

    @property
    def batches(self) -> int | None:
        """Number of batches; None for a stream."""
        lengths = [length(split.data) for split in self.task.of(Use.FIT).values()]
        return None if any(n is None for n in lengths) else sum(ceil((n or 0) / self.batch_size) for n in lengths)

    def all(self) -> Iterator[tuple[int, int, Batch]]:
        """(number of the batch, number of its first example, batch)."""
        number = start = 0
        for split in self.task.of(Use.FIT).values():
            for batch in once(split.data, self.batch_size, self.lab):
                yield number, start, batch
                number, start = number + 1, start + size(batch)

    def mine(self, most: int) -> Iterator[tuple[int, Batch]]:
        """This process's batches among those that begin before example `most`."""
        ranks = self.lab.ranks
        for number, start, batch in self.lab.track(self.all(), self.batches):
            if start >= most:
                return
            if number % ranks.size == ranks.rank:
                yield number, batch
