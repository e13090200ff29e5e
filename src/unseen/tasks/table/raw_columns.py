"""Columns of a table as inputs of a tensor, without loss: a pipeline that reads words, dates, gaps
and names gets its table back.

Every column is one input, the rank of the cell among the column's different cells, scaled to
[−1, 1]. Exchanged between rows, or moved a little, it is still a cell of the table.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from unseen.errors import InvalidData

MOST_LEVELS = 2**22
"""Ranks beyond which float32 no longer tells neighbours apart."""


@dataclass(frozen=True, eq=False)
class RawColumns:
    """The different cells of each column in order, and how rows become tensors and back."""

    levels: Sequence[pd.Series]
    start: int = 0
    """How many inputs stand before these."""

    @property
    def names(self) -> list[str]:
        return [str(one.name) for one in self.levels]

    def __call__(self, x: Tensor) -> pd.DataFrame:
        """The rows whose ranks the inputs hold."""
        part = x.detach()[:, self.start :].double().cpu().numpy()
        columns: dict[str, Any] = {}
        for k, cells in enumerate(self.levels):
            top = len(cells) - 1
            rank = np.rint((part[:, k] + 1) / 2 * top).clip(0, top).astype(np.int64)
            columns[str(cells.name)] = cells.take(rank).reset_index(drop=True)
        return pd.DataFrame(columns)

    def __deepcopy__(self, memo: dict[int, Any]) -> "RawColumns":
        return self  # nothing changes it, and it may be large


@dataclass(frozen=True, eq=False)
class RawArray:
    """The same without names, as a numpy array."""

    columns: RawColumns

    def __call__(self, x: Tensor) -> np.ndarray:
        return self.columns(x).to_numpy()

    def __deepcopy__(self, memo: dict[int, Any]) -> "RawArray":
        return self


def encode_columns(frame: pd.DataFrame, start: int = 0) -> tuple[RawColumns, Tensor]:
    """The columns, and [row, column] of their ranks."""
    levels: list[pd.Series] = []
    ranks: list[np.ndarray] = []
    for name in frame.columns:
        cells, codes = _rank(frame[name].reset_index(drop=True))
        if len(cells) > MOST_LEVELS:
            raise InvalidData(
                f"Column `{name}` has {len(cells):,} different cells.",
                why=f"up to {MOST_LEVELS:,} are given to the model without loss.",
                fix="leave it out (--drop), or draw a sample of the rows.",
            )
        levels.append(cells.rename(str(name)))
        ranks.append(2 * codes / max(1, len(cells) - 1) - 1)
    table = np.stack(ranks, 1) if ranks else np.zeros((len(frame), 0))
    return RawColumns(tuple(levels), start), torch.from_numpy(table.astype(np.float32))


def _rank(column: pd.Series) -> tuple[pd.Series, np.ndarray]:
    """The different cells in order, of the column's own type, and the position of each cell."""
    try:
        codes, _ = pd.factorize(column, use_na_sentinel=False)
    except TypeError:  # lists cannot be hashed: each is a cell of its own
        codes = np.arange(len(column))
    _, first = np.unique(codes, return_index=True)
    cells = column.iloc[first].reset_index(drop=True)
    try:
        order = cells.sort_values().index.to_numpy()
    except TypeError:  # words beside numbers have no order
        return cells, codes
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return cells.iloc[order].reset_index(drop=True), place[codes]


def as_pandas_reads(frame: pd.DataFrame) -> pd.DataFrame:
    """Text cells as `pandas.read_csv` types them, with its own missing values."""
    return pd.read_csv(
        StringIO(frame.to_csv(index=False)), low_memory=False, skip_blank_lines=False
    )
