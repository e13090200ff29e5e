"""Examples whose label counts: −100 stands for none (`ignore_index` of torch's cross-entropy).

An example without a label is left out of loss, score and n alike; of a sequence, the tokens whose
label is −100 (`objectives`).
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from unseen.engine.batches import Columns, gather, length
from unseen.objectives import IGNORED, squared_error
from unseen.task import Objective

CHUNK = 256
"""Examples that are held at a time while labels are looked at: they may be images."""


def drop_unlabelled(data: Dataset[Any], objective: Objective) -> tuple[Dataset[Any], Tensor | None]:
    """The examples whose label counts, and their positions; the data as they are and None where
    all do.
    """
    if objective.loss is squared_error:  # −100 is a number like any other
        return data, None
    n = length(data)
    if n is None:
        return LabelledStream(data), None  # type: ignore[arg-type]
    if n == 0 or not {"y", "labels"} & set(data[0]):
        return data, None
    parts = [gather(data, rows) for rows in torch.arange(n).split(CHUNK)]
    counted = torch.cat([has_label(part) for part in parts])
    if bool(counted.all()):
        return data, None
    rows = counted.nonzero().flatten()
    if isinstance(data, Columns):
        return Columns(**({"index": rows} | data[rows])), rows
    return IndexedExamples(data, rows), rows


def has_label(batch: Mapping[str, Tensor]) -> Tensor:
    """Which examples have a label that counts: of a sequence, at any position that is predicted."""
    if "labels" in batch and "tokens" in batch:
        predicted = batch["labels"][:, 1:] != IGNORED
        mask = batch.get("mask")
        return (predicted if mask is None else predicted & mask[:, 1:].bool()).any(1)
    y = batch["y"] if "y" in batch else batch["labels"]
    if y.is_floating_point():
        return torch.ones(len(y), dtype=torch.bool, device=y.device)
    return (y.reshape(len(y), -1) != IGNORED).any(1)


class IndexedExamples(Dataset[dict[str, Tensor]]):
    """Some of a dataset's examples; `index` is their position there."""

    def __init__(self, data: Dataset[Any], rows: Tensor) -> None:
        self.data, self.rows = data, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"index": self.rows[int(index)], **self.data[int(self.rows[int(index)])]}


class LabelledStream(IterableDataset[dict[str, Tensor]]):
    """The examples of a stream whose label counts."""

    def __init__(self, data: IterableDataset[dict[str, Tensor]]) -> None:
        self.data = data

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for row in self.data:
            batch = {name: torch.as_tensor(entry)[None] for name, entry in row.items()}
            if not {"y", "labels"} & set(batch) or bool(has_label(batch)):
                yield row
