"""In-memory, memory-mapped or streamed data as batches on the lab's device."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset, Subset, default_collate

from unseen.errors import InvalidData
from unseen.lab import Lab
from unseen.task import Batch


class Columns(Dataset[dict[str, Tensor]]):
    """Examples as tensors by name with a shared first axis; any index (int, slice, tensor) gives a
    dictionary.
    """

    def __init__(self, **columns: Tensor) -> None:
        sizes = {name: len(tensor) for name, tensor in columns.items()}
        if not sizes or len(set(sizes.values())) > 1:
            raise InvalidData(
                f"Columns got tensors of lengths {sizes}.",
                why="every tensor must hold the same examples along its first axis.",
                fix="give at least one tensor, all with equal first axes.",
            )
        self.columns = columns

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, index: int | slice | Tensor | Sequence[int]) -> dict[str, Tensor]:
        if isinstance(index, Tensor) and index.dtype == torch.int64:
            return {name: tensor.index_select(0, index) for name, tensor in self.columns.items()}
        return {name: tensor[index] for name, tensor in self.columns.items()}

    def subset(self, index: slice | Tensor | Sequence[int]) -> "Columns":
        """The chosen examples as new columns."""
        return Columns(**self[index])

    def __repr__(self) -> str:
        inside = ", ".join(
            f"{name}: {tuple(tensor.shape)}" for name, tensor in self.columns.items()
        )
        return f"Columns({inside})"


class Tokens(Dataset[dict[str, Tensor]]):
    """Windows of `length` tokens over a one-dimensional, possibly memory-mapped, integer array."""

    def __init__(self, array: Any, length: int) -> None:
        if length < 2 or len(array) < length:
            raise InvalidData(
                f"Tokens got {len(array)} tokens and windows of {length}.",
                why="a window needs a token and its successor, and at least one window must fit.",
                fix="lower `length` or give more text.",
            )
        self.array, self.length = array, length

    def __len__(self) -> int:
        return len(self.array) // self.length

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        start = int(index) * self.length
        if not 0 <= int(index) < len(self):
            raise IndexError(index)
        return {"tokens": torch.as_tensor(self.array[start : start + self.length].astype("int64"))}


def size(batch: Batch) -> int:
    """The number of examples."""
    return len(next(iter(batch.values())))


def length(data: Dataset[Any]) -> int | None:
    """The number of examples, or None for a stream."""
    return None if isinstance(data, IterableDataset) else len(data)  # type: ignore[arg-type]


def model_to_device(model: nn.Module, lab: Lab) -> nn.Module:
    """The model on the lab's device, floating tensors in its dtype, complex ones with parts of at
    least that precision; changed in place.
    """
    complex_dtype = torch.promote_types(lab.dtype, torch.complex32)

    def move(tensor: Tensor) -> Tensor:
        if tensor.is_complex():  # `model.to(dtype)` would drop the imaginary part
            return tensor.to(lab.device, complex_dtype)
        return tensor.to(lab.device, lab.dtype if tensor.is_floating_point() else tensor.dtype)

    return model._apply(move)


def to_device(batch: Batch, lab: Lab) -> Batch:
    """The batch on the lab's device, floating tensors in its dtype. Checks nothing: see
    `finite`.
    """

    def move(tensor: Tensor) -> Tensor:
        return tensor.to(lab.device, lab.dtype if tensor.is_floating_point() else tensor.dtype)

    return {name: move(tensor) for name, tensor in batch.items()}


def gather(data: Dataset[Any], index: Tensor) -> Batch:
    """The examples of a map-style dataset at `index`."""
    if isinstance(data, Columns):
        return data[index]
    return default_collate([data[int(i)] for i in index])


def subset(data: Dataset[Any], index: Tensor) -> Dataset[Any]:
    """The chosen examples of a map-style dataset as one of their own."""
    return data.subset(index) if isinstance(data, Columns) else Subset(data, index.tolist())


def once(data: Dataset[Any], batch_size: int, lab: Lab) -> Iterator[Batch]:
    """Every example once, in order; the last batch may be smaller. Empty data raise."""
    if isinstance(data, Columns):
        chunks: Iterator[Batch] = (
            data[i : i + batch_size] for i in range(0, len(data), batch_size)
        )
    elif isinstance(data, IterableDataset):
        chunks = _collate(data, batch_size)
    else:
        index = torch.arange(len(data))  # type: ignore[arg-type]
        chunks = (
            gather(data, part) for part in index.split(batch_size) if len(part)
        )  # of nothing: one empty part
    empty = True
    for chunk in chunks:
        if size(chunk):
            empty = False
            yield to_device(chunk, lab)
    if empty:
        raise InvalidData(
            "The split holds no examples.",
            why="nothing can be computed from nothing.",
            fix="check the split's rows.",
        )


def forever(data: Dataset[Any], batch_size: int, lab: Lab) -> Iterator[Batch]:
    """Shuffled passes without end; every batch is full (data smaller than a batch come whole).

    The order depends on the lab's stream only. A stream (iterable dataset) keeps its own order;
    data with `batches`, as `engine.mixture.Mixture`, form them themselves.
    """
    if (batches := getattr(data, "batches", None)) is not None:
        yield from batches(batch_size, lab)
    if isinstance(data, IterableDataset):
        while True:
            yield from once(data, batch_size, lab)
    n = len(data)  # type: ignore[arg-type]
    if n == 0:
        raise InvalidData(
            "The split holds no examples.",
            why="nothing can be learned.",
            fix="check the split's rows.",
        )
    for index in orders(n, batch_size, lab):
        yield to_device(gather(data, index), lab)


def orders(n: int, batch_size: int, lab: Lab) -> Iterator[Tensor]:
    """The index batches of `forever`: shuffled passes over 0 … n − 1, full batches only."""
    generator = lab.generator()
    batch_size = min(batch_size, n)
    while True:
        order = torch.randperm(n, generator=generator)
        yield from order[: n - n % batch_size].split(batch_size)


def whole(data: Dataset[Any], lab: Lab) -> Batch:
    """All examples as one batch (for small data)."""
    if isinstance(data, Columns):
        return to_device(data.columns, lab)
    batches = list(once(data, 1024, lab))
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def _collate(data: Iterable[Mapping[str, Tensor]], batch_size: int) -> Iterator[Batch]:
    rows: list[Mapping[str, Tensor]] = []
    for row in data:
        rows.append(row)
        if len(rows) == batch_size:
            yield default_collate(rows)
            rows = []
    if rows:
        yield default_collate(rows)
