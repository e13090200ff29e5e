"""Batches whose activations and gradients do not fit into the memory, a piece at a time.

Sums over examples and scores of examples do not depend on how a batch is cut, but for the order of
a sum; labels are drawn for the whole batch.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unseen.engine.batches import size
from unseen.task import Batch, PerExample


@dataclass(frozen=True)
class Pieces:
    """How batches are cut: `step` examples at a time, or whole (0)."""

    step: int = 0
    bytes_each: int = 0
    """Of the activations and gradients of one example, about."""

    def slices(self, n: int) -> list[slice]:
        """The pieces of n examples."""
        step = self.step or max(1, n)
        return [slice(at, min(at + step, n)) for at in range(0, n, step)]

    def cut(self, batch: Batch) -> Iterator[tuple[slice, Batch]]:
        """Each piece and where it is; a batch that stays whole is not copied."""
        found = self.slices(size(batch))
        for rows in found:
            yield rows, batch if len(found) == 1 else cut_rows(batch, rows)

    def bytes_of(self, n: int) -> int:
        """What a batch of n examples takes while it runs, about; 0 where that was not asked."""
        return self.at_most(n) * self.bytes_each

    def at_most(self, wanted: int) -> int:
        """Examples that may run together where `wanted` are asked for."""
        return min(wanted, self.step) if self.step else wanted

    def sentence(self, batch_size: int, memory: int) -> str:
        """What a reader should know; empty where batches stay whole."""
        if not self.step:
            return ""
        said = (
            f"The activations and gradients of {batch_size} examples take about "
            f"{batch_size * self.bytes_each / 2**30:.2g} GiB, more than the {memory / 2**30:.2g} "
            f"GiB allowed (`memory`): batches run in pieces of {self.step}."
        )
        if self.bytes_each > memory:
            said += " One example alone takes more than that."
        return said


def cut_rows(batch: Batch, rows: slice) -> Batch:
    """Some examples of a batch."""
    return {name: tensor[rows] for name, tensor in batch.items()}


def pieces_within(memory: int, model: nn.Module, batch: Batch, f: PerExample) -> Pieces:
    """Pieces of batches like this one that stay within so many bytes; 0 bytes: whole batches."""
    if memory <= 0 or size(batch) < 2:
        return Pieces()
    # the gradients of activations are as large as these
    each = 2 * saved_bytes(model, cut_rows(batch, slice(1)), f)
    if each * size(batch) <= memory:
        return Pieces(0, each)
    return Pieces(max(1, memory // each), each)


def saved_bytes(model: nn.Module, batch: Batch, f: PerExample) -> int:
    """What a backward pass of f would need, without parameters and the batch itself; 0 if that
    cannot be seen.
    """
    known = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
    known |= {tensor.untyped_storage().data_ptr() for tensor in batch.values()}
    seen: dict[int, int] = {}
    held: list[Tensor] = []  # a freed tensor's address would be counted once for two

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            seen[storage.data_ptr()] = storage.nbytes()
            held.append(tensor)
        return tensor

    try:
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
            f(model, batch)
    except RuntimeError:  # functional transforms inside the model know no such hooks
        return 0
    return sum(seen.values())
