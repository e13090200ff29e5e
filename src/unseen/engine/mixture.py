"""Mixtures: every minibatch comes whole from one of several parts, drawn with shares that may
change from step to step.

A part is data in memory, a mixture, or a function that draws new examples. Parts by length keep one
length per batch (no padding); parts by task, with shares in phases, are curricula and hints.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from unseen.engine.batches import forever, size, to_device
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.task import Batch

Sampler = Callable[[int, torch.Generator], Batch]
"""New examples: so many, drawn from the generator."""

Weights = Mapping[str, float]
"""How often each part is drawn, relative to the others; parts without a weight are not."""

Shares = Weights | Callable[[int], Weights]
"""Weights, or a function from the number of batches drawn before to weights."""

READ_SIZE = 64
"""Examples per batch where a mixture is read one by one."""


@dataclass(frozen=True)
class Phases:
    """Shares by step: `plan` lists how many steps each phase takes and its weights. The last phase
    has no end, whatever its number says.
    """

    plan: Sequence[tuple[int, Weights]]

    def __post_init__(self) -> None:
        if not self.plan or min(steps for steps, _ in self.plan) < 0:
            raise InvalidConfig(
                f"Phases of {[steps for steps, _ in self.plan]} steps.",
                why="there is at least one phase, and none has a negative length.",
                fix='Phases([(500, {"easy": 1.0}), (500, {"easy": 0.5, "hard": 0.5})]).',
            )

    def __call__(self, step: int) -> Weights:
        end = 0
        for steps, weights in self.plan:
            end += steps
            if step < end:
                return weights
        return self.plan[-1][1]


class Mixture(IterableDataset[dict[str, Tensor]]):
    """Parts by name with their shares; equal ones by default.

    Training draws whole batches (`batches`). Read one by one, the examples are an endless stream of
    `lab`, filled up on the right with zeros to `width`.
    """

    def __init__(
        self,
        parts: Mapping[str, Dataset[Any] | Sampler],
        shares: Shares | None = None,
        *,
        width: int | None = None,
        lab: Lab = Lab(),
    ) -> None:
        if not parts:
            raise InvalidConfig(
                "A mixture of no parts.", why="there is nothing to draw.", fix="give a part."
            )
        self.parts, self.width, self.lab = dict(parts), width, lab
        self.shares: Shares = dict.fromkeys(parts, 1.0) if shares is None else shares
        self.weights(0)

    def weights(self, step: int) -> list[float]:
        """The parts' weights after `step` batches, in the parts' order."""
        given = self.shares(step) if callable(self.shares) else self.shares
        unknown = sorted(set(given) - set(self.parts))
        weights = [float(given.get(name, 0.0)) for name in self.parts]
        if unknown or min(weights) < 0 or not 0 < sum(weights) < float("inf"):
            raise InvalidConfig(
                f"Shares {dict(given)} after {step} batches"
                + (f", of which {', '.join(unknown)} are of no part." if unknown else "."),
                why="shares are at least 0, one is positive, and their names are those of the "
                f"parts: {', '.join(self.parts)}.",
                fix="correct the names or numbers.",
            )
        return weights

    def batches(self, batch_size: int, lab: Lab) -> Iterator[Batch]:
        """Batches without end, each part with its own stream: another part's share does not change
        its examples.
        """
        names = list(self.parts)
        draw = lab.child("part").generator()
        streams: dict[str, Iterator[Batch]] = {}
        step = 0
        while True:
            weights = torch.tensor(self.weights(step), dtype=torch.float64)
            name = names[int(torch.multinomial(weights, 1, generator=draw))]
            if name not in streams:
                streams[name] = self._stream(name, batch_size, lab.child("parts", name))
            yield next(streams[name])
            step += 1

    def _stream(self, name: str, batch_size: int, lab: Lab) -> Iterator[Batch]:
        part = self.parts[name]
        if isinstance(part, Dataset):
            yield from forever(part, batch_size, lab)
        else:
            generator = lab.generator()
            while True:
                yield to_device(part(batch_size, generator), lab)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for batch in self.batches(READ_SIZE, self.lab):
            for k in range(size(batch)):
                yield {name: self._fill(tensor[k]) for name, tensor in batch.items()}

    def _fill(self, row: Tensor) -> Tensor:
        if self.width is None or row.dim() == 0:
            return row
        return F.pad(row, (0, self.width - len(row)))
