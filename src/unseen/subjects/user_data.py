"""Data as people bring them, as examples by name: a `DataLoader` stands for the examples that it
draws from, pairs are the input `x` and the target `y`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    default_collate,
)

from unseen.engine.batches import Columns, length
from unseen.errors import InvalidData

PAIR = ("x", "y")


class NamedExamples(Dataset[dict[str, Tensor]]):
    """A dataset of tuples with a name for each entry: `NamedExamples(data, "x", "y", "weight")`."""

    def __init__(self, data: Dataset[Any], *names: str) -> None:
        self.data, self.names = data, names

    def __len__(self) -> int:
        return len(self.data)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return _by_name(self.data[int(index)], self.names)


class NamedStream(IterableDataset[dict[str, Tensor]]):
    """A stream of tuples with a name for each entry."""

    def __init__(self, data: IterableDataset[Any], *names: str) -> None:
        self.data, self.names = data, names

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return (_by_name(row, self.names) for row in self.data)


def _by_name(row: Sequence[Any], names: Sequence[str]) -> dict[str, Tensor]:
    return {name: torch.as_tensor(entry) for name, entry in zip(names, row, strict=True)}


def examples_by_name(data: Any, split: str) -> Dataset[Any]:
    """The examples as dictionaries of tensors: of a loader those that it draws from, of pairs `x`
    and `y`.
    """
    data = _of_loader(data, split) if isinstance(data, DataLoader) else data
    if isinstance(data, Columns) or length(data) == 0:
        return data
    row = next(iter(data)) if isinstance(data, IterableDataset) else data[0]
    if isinstance(row, Mapping):
        return data
    if not isinstance(row, tuple | list) or len(row) != len(PAIR):
        raise InvalidData(
            f"An example of split `{split}` is a {type(row).__name__}"
            + (f" of {len(row)} entries." if isinstance(row, tuple | list) else "."),
            why="objectives, measures and groups read tensors by name.",
            fix='name the entries: unseen.NamedExamples(data, "x", "y", "weight"), or return a '
            'dictionary, for example {"x": image, "y": label}.',
        )
    if isinstance(data, TensorDataset):
        return Columns(**dict(zip(PAIR, data.tensors, strict=True)))
    return (
        NamedStream(data, *PAIR)
        if isinstance(data, IterableDataset)
        else NamedExamples(data, *PAIR)
    )


def _of_loader(loader: DataLoader[Any], split: str) -> Dataset[Any]:
    """What the loader draws from; refused where the loader changes examples or leaves some out."""
    is_whole = isinstance(loader.dataset, IterableDataset) or isinstance(
        loader.sampler, SequentialSampler | RandomSampler
    )
    if loader.collate_fn is default_collate and is_whole and loader.batch_size is not None:
        return loader.dataset
    what = (
        "collate_fn"
        if loader.collate_fn is not default_collate
        else f"sampler ({type(loader.sampler).__name__})"
    )
    raise InvalidData(
        f"The DataLoader of split `{split}` has a {what} of its own.",
        why="Unseen draws its own minibatches, so that training, folds and influence know which "
        "example is which.",
        fix="give the dataset itself, with examples as dictionaries of tensors of equal shapes; "
        "a subset as torch.utils.data.Subset(dataset, indices).",
    )
