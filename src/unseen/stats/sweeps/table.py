"""Many trained models with their hyperparameters, gaps and measures, and the pairs among them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from unseen.errors import InvalidData, UnknownName

LEVELS = 32
"""Most values of a hyperparameter: lines along one that never repeats hold one model each."""


@runtime_checkable
class Columns(Protocol):
    """Columns by name: a data frame, or a dictionary of arrays."""

    def __getitem__(self, name: str, /) -> Any: ...
    def __contains__(self, name: object, /) -> bool: ...
    def __iter__(self) -> Iterator[Any]: ...


@dataclass(frozen=True)
class Outcome:
    """A statistic with the number of pairs, lines or environments behind it.

    NaN with a reason where there is none: never 0 for what was not there.
    """

    value: float
    n: int
    reason: str = ""


@dataclass(frozen=True)
class Pairs:
    """Pairs of models that differ on one axis and agree on all others, line by line."""

    axis: str
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    line: NDArray[np.int64]
    """The line of each pair, 0 … lines − 1, in order."""

    @property
    def lines(self) -> int:
        return int(self.line[-1]) + 1 if len(self.line) else 0

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Where each line's pairs begin."""
        return np.flatnonzero(np.diff(self.line, prepend=-1))


@dataclass(frozen=True)
class Sweep:
    """`n` trained models: `codes` [model, axis] number the values of each hyperparameter, `gap`
    [model] is what should be foretold, `values` [model, measure] what should foretell it.
    """

    axes: tuple[str, ...]
    codes: NDArray[np.int64]
    gap: NDArray[np.float64]
    measures: tuple[str, ...]
    values: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        table: Columns,
        *,
        gap: str,
        axes: Sequence[str],
        measures: Sequence[str],
    ) -> "Sweep":
        """From a table with one row per model."""
        for name in (gap, *axes, *measures):
            if name not in table:
                raise UnknownName.near("column", name, list(table))
        columns = [np.asarray(table[axis]) for axis in axes]
        codes = [np.unique(column, return_inverse=True)[1].reshape(-1) for column in columns]
        gaps = np.asarray(table[gap], dtype=np.float64)
        values = [np.asarray(table[name], dtype=np.float64) for name in measures]
        _refuse(axes, codes, gaps, measures)
        return cls(tuple(axes), np.stack(codes, 1), gaps, tuple(measures), np.stack(values, 1))

    @property
    def n(self) -> int:
        return len(self.gap)

    @cached_property
    def configuration(self) -> NDArray[np.int64]:
        """The number of each model's combination of hyperparameters; seeds share one."""
        return np.unique(self.codes, axis=0, return_inverse=True)[1].reshape(-1)

    @cached_property
    def pairs(self) -> dict[str, Pairs]:
        return {axis: self._pairs(k) for k, axis in enumerate(self.axes)}

    def _pairs(self, k: int) -> Pairs:
        """Of models that agree on the other axes, those that differ on this one."""
        others = np.delete(self.codes, k, axis=1)
        line = np.unique(others, axis=0, return_inverse=True)[1].reshape(-1)
        order = np.argsort(line, kind="stable")
        sizes = np.bincount(line)
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        first, second = [], []
        for size in np.unique(sizes[sizes > 1]):
            i, j = np.triu_indices(size, 1)
            members = order[starts[sizes == size][:, None] + np.arange(size)]
            first.append(members[:, i].reshape(-1))
            second.append(members[:, j].reshape(-1))
        if not first:
            empty = np.empty(0, dtype=np.int64)
            return Pairs(self.axes[k], empty, empty, empty)
        a, b = np.concatenate(first), np.concatenate(second)
        differ = self.codes[a, k] != self.codes[b, k]
        a, b = a[differ], b[differ]
        by_line = np.argsort(line[a], kind="stable")
        a, b = a[by_line], b[by_line]
        return Pairs(self.axes[k], a, b, np.unique(line[a], return_inverse=True)[1].reshape(-1))

    def by_missing(self) -> Iterator[tuple["Sweep", tuple[int, ...]]]:
        """Sweeps of the measures that exist for the same models, without the others, and which
        measures those are.
        """
        present = np.isfinite(self.values)
        patterns: dict[bytes, list[int]] = {}
        for k in range(len(self.measures)):
            patterns.setdefault(present[:, k].tobytes(), []).append(k)
        for columns in patterns.values():
            rows = present[:, columns[0]]
            names = tuple(self.measures[k] for k in columns)
            part = self.values[rows][:, columns]
            yield Sweep(self.axes, self.codes[rows], self.gap[rows], names, part), tuple(columns)


def _refuse(
    axes: Sequence[str],
    codes: Sequence[NDArray[np.int64]],
    gaps: NDArray[np.float64],
    measures: Sequence[str],
) -> None:
    if not axes or not measures:
        raise InvalidData(
            f"A sweep over {len(axes)} hyperparameters and {len(measures)} measures.",
            why="measures are compared along hyperparameters.",
            fix="name at least one of each.",
        )
    if len(gaps) < 3:
        raise InvalidData(
            f"A sweep of {len(gaps)} models.",
            why="rank correlations compare pairs of models.",
            fix="give at least three.",
        )
    if not np.isfinite(gaps).all():
        raise InvalidData(
            f"{int((~np.isfinite(gaps)).sum())} of {len(gaps)} gaps are not finite.",
            why="there is nothing to foretell for these models.",
            fix="leave out models that were not evaluated.",
        )
    for axis, code in zip(axes, codes, strict=True):
        if code.max() >= LEVELS:
            raise InvalidData(
                f"Hyperparameter `{axis}` has {code.max() + 1} values.",
                why=f"models are compared where all others agree; more than {LEVELS} values leave "
                "next to no such pairs.",
                fix="round it to a few values, or leave it out of the axes.",
            )
