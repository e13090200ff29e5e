"""Repetition: a study's claims with seeds nobody used, against the intervals of its ledger."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, sqrt
from statistics import fmean
from typing import Any

from scipy import stats as scipy_stats

from unseen import stats
from unseen.reading import Reading
from unseen.runs import ledger, seeds
from unseen.runs.runner import Result
from unseen.study import Claim, Groups, Scale, Study

FIRST = 2_000
"""Where fresh seeds start; some studies chose their settings on seeds from 1,000 on."""


@dataclass(frozen=True)
class Repetition:
    """One effect, as the ledger has it and with fresh seeds."""

    study: str
    says: str
    group: str
    recorded: Reading
    fresh: Reading

    @property
    def is_inside(self) -> bool:
        return self.recorded.low <= self.fresh.value <= self.recorded.high

    @property
    def chance(self) -> float:
        """How often the interval holds an equally large repetition where nothing has changed: the
        repetition varies, too, so the difference has √2 standard errors.
        """
        freedom = self.recorded.freedom
        freedom = freedom if isfinite(freedom) else max(1, self.recorded.n - 1)
        t = stats.t_quantile(freedom) / sqrt(2)
        return float(1 - 2 * scipy_stats.t.sf(t, freedom))

    @property
    def width_ratio(self) -> float:
        """Width of the fresh interval over that of the recorded one."""
        return (self.fresh.high - self.fresh.low) / (self.recorded.high - self.recorded.low)


def first_fresh_seed(text: Mapping[str, Any]) -> int:
    """The first thousand from `FIRST` on beyond the seeds that the ledger may have used."""
    used = int(text.get("seeds", 0)) * 2**seeds.DOUBLINGS
    return max(FIRST, -(-used // 1_000) * 1_000)


def repeatable_claims(
    study: Study[Any, Any], text: Mapping[str, Any], words: Sequence[str] = ()
) -> list[Claim]:
    """Claims about what is trained whose effect the ledger has with an interval; with `words`,
    those that contain one of them.
    """
    lines = {line["says"]: line for line in text["claims"]}
    wanted = [word.casefold() for word in words]
    return [
        claim
        for claim in study.claims
        if claim.unit.is_trained
        and (not wanted or any(word in claim.says.casefold() for word in wanted))
        and claim.says in lines
        and _readings_of(lines[claim.says])
    ]


def _readings_of(line: Mapping[str, Any]) -> dict[str, Reading]:
    """The line's readings, of each group where there are some, that have a width."""
    whole = ledger.recorded_reading(line)
    found = whole.readings if isinstance(whole, Groups) else {"": whole} if whole else {}
    return {name: one for name, one in found.items() if one.low < one.high}


def run_again(
    study: Study[Any, Any],
    text: Mapping[str, Any],
    first: int,
    claims: Sequence[Claim],
    is_part: bool,
    compute: Callable[[Study[Any, Any]], Result],
) -> list[Repetition] | None:
    """The effects of these claims with seeds from `first` on; none while cells are missing.

    Of a part of the claims only the cells that they need are computed, as the first fresh seed
    shows them. A claim whose seeds were doubled gets as many again.
    """
    scale = Scale(text["scale"])
    cells = seeds.move_seeds(study.cells(study.scales[scale]), first)
    if is_part:
        cells = _of_part(study, cells, claims, compute)
    result = compute(seeds.with_cells(study, cells))
    if not cells or len(result.runs) < result.total:
        return None
    lines = {line["says"]: line for line in text["claims"]}
    span = seeds.count_seeds(result.rows, first)
    rows = list(result.rows)
    doublings = {claim.says: int(lines[claim.says].get("doublings", 0)) for claim in claims}
    for k in range(max(doublings.values(), default=0)):
        doubled = [claim for claim in claims if doublings[claim.says] > k]
        needed = seeds.needed_cells(doubled, cells, result)
        more = [
            cell
            for times in range(2**k, 2 ** (k + 1))
            for cell in seeds.move_seeds(needed, times * span)
        ]
        extra = compute(seeds.with_cells(study, more))
        if len(extra.runs) < extra.total:
            return None
        rows += extra.rows
    found = []
    for claim in claims:
        mine = seeds.restrict_seeds(rows, first + span * 2 ** doublings[claim.says])
        fresh = seeds.read(claim, mine)
        readings = fresh.readings if isinstance(fresh, Groups) else {"": fresh} if fresh else {}
        found += [
            Repetition(study.name, claim.says, name, recorded, readings[name])
            for name, recorded in _readings_of(lines[claim.says]).items()
            if name in readings
        ]
    return found


def _of_part(
    study: Study[Any, Any],
    cells: Sequence[Any],
    claims: Sequence[Claim],
    compute: Callable[[Study[Any, Any]], Result],
) -> list[Any]:
    """The cells that the claims need, by those of the first seed."""
    lowest = min(cell.seed for cell in cells)
    one = [cell for cell in cells if cell.seed == lowest]
    result = compute(seeds.with_cells(study, one))
    if len(result.runs) < result.total:
        return []
    kinds = {_without_seed(cell) for cell in seeds.needed_cells(claims, one, result)}
    return [cell for cell in cells if _without_seed(cell) in kinds]


def _without_seed(cell: Any) -> Any:
    (bare,) = seeds.move_seeds([cell], -cell.seed)
    return bare


@dataclass(frozen=True)
class Coverage:
    """How many effects lie inside the recorded intervals, and what was to be expected."""

    inside: int
    total: int
    expected: float
    width_ratio: float
    """Mean width of fresh intervals over recorded ones."""

    @staticmethod
    def of(found: Sequence[Repetition]) -> "Coverage":
        widths = [one.width_ratio for one in found if isfinite(one.width_ratio)]
        return Coverage(
            sum(one.is_inside for one in found),
            len(found),
            fmean(one.chance for one in found),
            fmean(widths) if widths else float("nan"),
        )

    @property
    def share(self) -> Reading:
        """Effects of one study hang together: the interval is somewhat too short."""
        return stats.proportion(self.inside, self.total)
