"""Study: a paper's claims as independent cells, pure rows, and effects with margins."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from enum import StrEnum
from math import inf, isnan
from statistics import fmean
from typing import Generic, TypeAlias, TypeVar

from unseen import stats
from unseen.errors import InvalidData, UnknownName, UnseenError
from unseen.figure import Figure
from unseen.lab import Lab
from unseen.reading import Reading
from unseen.study.source import Source

Config = TypeVar("Config")
Cell = TypeVar("Cell")
Value: TypeAlias = float | int | str | bool
Row: TypeAlias = Mapping[str, Value]
Rows: TypeAlias = Sequence[Row]
Effect: TypeAlias = Callable[[Rows], Reading]


class Scale(StrEnum):
    """How much work: seconds in CI, at most ten minutes on two cores, the paper's size."""

    SMOKE = "smoke"
    LAPTOP = "laptop"
    PAPER = "paper"

    @property
    def rank(self) -> int:
        return list(Scale).index(self)


class Verdict(StrEnum):
    """What the interval of the effect says about the margin."""

    SUPPORTED = "supported"
    REFUTED = "refuted"
    UNDECIDED = "undecided"
    NOT_JUDGED = "not judged"

    @property
    def sign(self) -> str:
        return {"supported": "✓", "refuted": "✗", "undecided": "?", "not judged": "–"}[self.value]


@dataclass(frozen=True)
class Judgement:
    """A claim's verdict with the reading behind it and the comparison in words."""

    says: str
    verdict: Verdict
    reading: Reading | None
    because: str


@dataclass(frozen=True)
class Claim:
    """One sentence of the paper, the effect that would show it, and the margin that its whole
    interval must clear.
    """

    says: str
    effect: Effect
    _: KW_ONLY
    above: float = -inf
    below: float = inf
    needs: Scale = Scale.LAPTOP

    def judge(self, rows: Rows, scale: Scale) -> Judgement:
        """Interval inside the margins: supported; outside: refuted; across or unknown:
        undecided.
        """
        if scale.rank < self.needs.rank:
            reading = self._read(rows)
            return Judgement(
                self.says,
                Verdict.NOT_JUDGED,
                reading if isinstance(reading, Reading) else None,
                f"means something from {self.needs} scale on",
            )
        reading = self._read(rows)
        if not isinstance(reading, Reading):
            return Judgement(
                self.says, Verdict.UNDECIDED, None, f"the effect has no value: {reading.what}"
            )
        wanted = self._margin()
        shown = f"{reading.value:.4g} [{reading.low:.4g}, {reading.high:.4g}]"
        if isnan(reading.low) or isnan(reading.high):
            return Judgement(
                self.says,
                Verdict.UNDECIDED,
                reading,
                f"{reading.value:.4g} has no interval; {wanted} asked",
            )
        if reading.low >= self.above and reading.high <= self.below:
            return Judgement(self.says, Verdict.SUPPORTED, reading, f"{shown} lies {wanted}")
        if reading.high < self.above or reading.low > self.below:
            return Judgement(
                self.says, Verdict.REFUTED, reading, f"{shown} lies outside: {wanted} asked"
            )
        return Judgement(
            self.says, Verdict.UNDECIDED, reading, f"{shown} reaches across: {wanted} asked"
        )

    def _read(self, rows: Rows) -> Reading | UnseenError:
        try:
            return self.effect(rows)
        # a missing or failed cell leaves an effect without a value: said in the verdict
        except UnseenError as error:
            return error

    def _margin(self) -> str:
        if self.above > -inf and self.below < inf:
            return f"within [{self.above:g}, {self.below:g}]"
        return f"above {self.above:g}" if self.above > -inf else f"below {self.below:g}"


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
    **more: Value,
) -> Effect:
    """Mean of a column over the matching rows (one per seed)."""
    return lambda rows: stats.mean(column(rows, name, **where, **more), within=within)


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

    Rows of one side that share a pair are averaged first.
    """
    keys = (pair,) if isinstance(pair, str) else pair

    def effect(rows: Rows) -> Reading:
        def table(where: Mapping[str, Value]) -> dict[tuple[Value, ...], float]:
            column(rows, name, **where)  # raises with the reason when empty
            found: dict[tuple[Value, ...], list[float]] = {}
            for row in pick(rows, **where):
                if name in row:
                    found.setdefault(tuple(row[k] for k in keys), []).append(float(row[name]))
            return {key: fmean(values) for key, values in found.items()}

        left, right = table(of), table(against)
        shared = [key for key in left if key in right]
        if not shared:
            raise InvalidData(
                f"No {' × '.join(keys)} has `{name}` on both sides.",
                why="the difference is paired.",
                fix="run the missing cells (`unseen run … --retry-failed`).",
            )
        return stats.difference([left[key] for key in shared], [right[key] for key in shared])

    return effect
