"""Study: a paper's claims as independent cells, pure rows, and effects with margins."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from statistics import fmean
from typing import Generic, TypeVar

from unseen import stats
from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.figure import Figure
from unseen.lab import Lab
from unseen.reading import Reading
from unseen.study.claim import (
    Claim,
    Effect,
    Groups,
    Judgement,
    Row,
    Rows,
    Scale,
    Unit,
    Value,
    Verdict,
)
from unseen.study.source import Source

__all__ = [
    "Claim",
    "Effect",
    "Groups",
    "Judgement",
    "Row",
    "Rows",
    "Scale",
    "Study",
    "Unit",
    "Value",
    "Verdict",
    "average",
    "column",
    "gap",
    "match",
    "pick",
    "rate",
]

Config = TypeVar("Config")
Cell = TypeVar("Cell")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Study(Generic[Config, Cell]):
    """Cells are independent jobs; `run` is pure: the same cell and lab give the same rows."""

    name: str
    source: Source
    scales: Mapping[Scale, Config]
    cells: Callable[[Config], Iterable[Cell]]
    run: Callable[[Cell, Lab], Iterable[Row]]
    claims: Sequence[Claim]
    system: str = ""
    """Two-digit number of the system that the study belongs to."""
    figures: Sequence[Callable[[Rows], Figure]] = ()
    table: Callable[[Rows], Sequence[Row]] | None = None
    """The summary to print; without it, means over seeds of every numeric column."""
    differs: str = ""
    """How the laptop scale differs from the paper: data, models, sizes, what that may change."""
    not_tested: str = ""
    """Central claims of the abstract that the study does not test."""

    def __post_init__(self) -> None:
        says = [claim.says for claim in self.claims]
        if twice := sorted({one for one in says if says.count(one) > 1}):
            raise InvalidConfig(
                f"Study `{self.name}` makes a claim twice: “{twice[0]}”.",
                why="a ledger tells claims apart by their words.",
                fix="say in each what is judged there.",
            )


def pick(rows: Rows, **where: Value) -> list[Row]:
    """The rows with these values."""
    return [row for row in rows if all(row.get(name) == value for name, value in where.items())]


def column(rows: Rows, name: str, **where: Value) -> list[float]:
    """One column of the matching rows; an error that names what is missing."""
    chosen = pick(rows, **where)
    if not chosen:
        raise InvalidData(
            f"No row has {', '.join(f'{k}={v}' for k, v in where.items()) or 'anything'}.",
            why=f"the effect on `{name}` reads those rows.",
            fix="run the missing cells (`unseen run … --retry-failed`).",
        )
    known = {key for row in chosen for key in row}
    if name not in known:
        raise UnknownName.near("column", name, known)
    return [float(row[name]) for row in chosen if name in row]


def average(
    name: str,
    where: Mapping[str, Value] = {},
    /,
    *,
    within: tuple[float, float] = (-inf, inf),
    pair: str | tuple[str, ...] = "seed",
    **more: Value,
) -> Effect:
    """Mean of a column over the matching rows. Rows of one unit (`pair`, default: the seed) are
    averaged first: they are not drawn anew by themselves.
    """
    keys = (pair,) if isinstance(pair, str) else pair

    def read(rows: Rows) -> Reading:
        values = column(rows, name, **where, **more)
        chosen = [row for row in pick(rows, **where, **more) if name in row]
        if all(key in row for row in chosen for key in keys):
            found: dict[tuple[Value, ...], list[float]] = {}
            for row in chosen:
                found.setdefault(tuple(row[key] for key in keys), []).append(float(row[name]))
            values = [fmean(group) for group in found.values()]
        return stats.mean(values, within=within)

    return read


def rate(successes: str, n: str, where: Mapping[str, Value] = {}, /, **more: Value) -> Effect:
    """Pooled proportion Σ successes / Σ n with Wilson's interval, for rows that carry counts."""

    def read(rows: Rows) -> Reading:
        right, total = (sum(column(rows, name, **where, **more)) for name in (successes, n))
        return stats.proportion(right, int(total))

    return read


def gap(
    name: str,
    of: Mapping[str, Value],
    against: Mapping[str, Value],
    pair: str | tuple[str, ...] = "seed",
) -> Effect:
    """Mean of the paired differences of a column between two selections, matched by `pair`
    (default: the seed).

    Rows of one side that share a pair are averaged first. A pair on one side only is refused.
    """
    keys = (pair,) if isinstance(pair, str) else pair

    def effect(rows: Rows) -> Reading:
        left, right = (_by_pair(rows, name, where, keys) for where in (of, against))
        return stats.difference(*match(left, right, " × ".join(keys)))

    return effect


def _by_pair(
    rows: Rows, name: str, where: Mapping[str, Value], keys: tuple[str, ...]
) -> dict[tuple[Value, ...], float]:
    """The column's mean for every pair; each must have equally many rows."""
    column(rows, name, **where)  # raises with the reason when empty
    found: dict[tuple[Value, ...], list[float]] = {}
    for row in pick(rows, **where):
        if name in row:
            found.setdefault(tuple(row[k] for k in keys), []).append(float(row[name]))
    most = max(map(len, found.values()))
    if short := [key for key, values in found.items() if len(values) < most]:
        raise InvalidData(
            f"{' × '.join(keys)} {_list(short)} has fewer rows of `{name}` than others ({most}).",
            why="means over different conditions are compared.",
            fix="run the missing cells (`unseen run … --retry-failed`).",
        )
    return {key: fmean(values) for key, values in found.items()}


def match(
    left: Mapping[T, float], right: Mapping[T, float], what: str = "seed"
) -> tuple[list[float], list[float]]:
    """Both sides' values, pair by pair; a pair on one side only is refused."""
    if alone := [key for key in (*left, *right) if (key in left) != (key in right)]:
        raise InvalidData(
            f"{what} {_list(alone)} is on one side only.",
            why="the difference is paired, and what is missing may not be missing by chance.",
            fix="run the missing cells (`unseen run … --retry-failed`), or restrict the rows.",
        )
    return list(left.values()), [right[key] for key in left]


def _list(keys: Sequence[object]) -> str:
    texts = ["/".join(map(str, key)) if isinstance(key, tuple) else str(key) for key in keys]
    return ", ".join(texts[:5]) + (" …" if len(texts) > 5 else "")
