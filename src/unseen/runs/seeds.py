"""Other seeds and more of them: cells with seeds moved on, those that a claim needs, and twice the
seeds for claims whose interval ends near the margin.

A study's rows name their `seed`. Cells whose seeds are moved by as many as there are give rows of
seeds that were not there; everything else about a cell stays.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from unseen.errors import UnseenError
from unseen.reading import Reading
from unseen.runs.runner import Result
from unseen.study import Claim, Groups, Judgement, Row, Rows, Scale, Study

DOUBLINGS = 2
"""How often the seeds of a claim are doubled at most."""

Compute = Callable[[Study[Any, Any]], Result]


def move_seeds(cells: Iterable[Any], by: int) -> list[Any]:
    """The cells with `by` added to their seeds."""
    return [replace(cell, seed=cell.seed + by) for cell in cells]


def with_cells(study: Study[Any, Any], cells: Sequence[Any]) -> Study[Any, Any]:
    """The study with these cells, whatever the configuration."""
    return replace(study, cells=lambda _: cells)


def from_seed(study: Study[Any, Any], first: int) -> Study[Any, Any]:
    """The study with all its seeds moved on: what was seed 0 is `first`."""
    return replace(study, cells=lambda config: move_seeds(study.cells(config), first))


def count_seeds(rows: Rows, first: int = 0) -> int:
    """How many seeds from `first` on the rows span; 0 if none names one."""
    seeds = [int(row["seed"]) for row in rows if "seed" in row]
    return max(seeds) - first + 1 if seeds else 0


def restrict_seeds(rows: Rows, end: int) -> list[Row]:
    """The rows of seeds below `end`, and those of no seed."""
    return [row for row in rows if "seed" not in row or int(row["seed"]) < end]


def read(claim: Claim, rows: Rows) -> Reading | None:
    """The claim's effect, or none where the rows do not give it."""
    try:
        return claim.effect(rows)
    except UnseenError:
        return None


def needed_cells(claims: Sequence[Claim], cells: Sequence[Any], result: Result) -> list[Any]:
    """The cells without whose rows the effect of one of the claims would be another."""
    rows_of = [list(run.rows) for run in result.runs]

    def without(k: int) -> list[Row]:
        return [row for n, rows in enumerate(rows_of) if n != k for row in rows]

    whole = [_read_part(claim, result.rows) for claim in claims]
    return [
        cell
        for k, cell in enumerate(cells)
        if any(
            _differs(_read_part(claim, without(k)), reading)
            for claim, reading in zip(claims, whole, strict=True)
        )
    ]


def _read_part(claim: Claim, rows: Rows) -> Reading | None:
    """The claim's effect, or none where rows are missing: an effect of pairs, a mean of nothing or
    an index may then fail in any way.
    """
    try:
        return claim.effect(rows)
    except Exception:
        return None


def _differs(one: Reading | None, other: Reading | None) -> bool:
    if one is None or other is None:
        return True
    if isinstance(one, Groups) and isinstance(other, Groups):
        if set(one.readings) != set(other.readings):
            return True
        return any(_differs(one.readings[name], other.readings[name]) for name in one.readings)
    return (one.value, one.low, one.high, one.n) != (other.value, other.low, other.high, other.n)


@dataclass(frozen=True)
class Verdicts:
    """The judgements of a run, and what was computed for those near their margin."""

    judgements: list[Judgement]
    doublings: Mapping[str, int] = field(default_factory=dict)
    """How often the seeds of a claim were doubled, by what it says."""
    extra: tuple[Result, ...] = ()

    @property
    def rows(self) -> list[Row]:
        """The rows of the seeds that were added."""
        return [row for result in self.extra for row in result.rows]


def decide_with_more_seeds(
    study: Study[Any, Any],
    scale: Scale,
    cells: Sequence[Any],
    base: Result,
    judgements: Sequence[Judgement],
    compute: Compute,
    first: int = 0,
    most: int = DOUBLINGS,
) -> Verdicts:
    """Judges again, with twice the seeds, the claims that end near their margin; at most twice.

    Only the cells that such a claim needs are computed with further seeds, and only this claim
    reads their rows. What cannot be computed leaves the claim undecided.
    """
    found, doublings, extra = list(judgements), dict[str, int](), list[Result]()
    span = count_seeds(base.rows, first)
    for k in range(most if span else 0):
        near = [
            n
            for n, one in enumerate(found)
            if one.is_near and doublings.get(one.says, 0) == k and study.claims[n].unit.is_trained
        ]
        needed = needed_cells([study.claims[n] for n in near], cells, base) if near else []
        more = [
            cell for times in range(2**k, 2 ** (k + 1)) for cell in move_seeds(needed, times * span)
        ]
        result = compute(with_cells(study, more)) if more else None
        if result is None or len(result.runs) < result.total:
            extra += [result] if result else []
            break
        extra.append(result)
        rows = [*base.rows, *(row for one in extra for row in one.rows)]
        for n in near:
            claim = study.claims[n]
            doublings[claim.says] = k + 1
            judgement = claim.judge(restrict_seeds(rows, first + span * 2 ** (k + 1)), scale)
            found[n] = replace(judgement, doublings=k + 1)
    return Verdicts(found, doublings, tuple(extra))


def decide_kept(
    study: Study[Any, Any], scale: Scale, rows: Rows, seeds: int, doublings: Mapping[str, int]
) -> list[Judgement]:
    """The claims on kept rows, each on as many seeds as it was judged on."""

    def decide(claim: Claim) -> Judgement:
        times = doublings.get(claim.says, 0)
        known = restrict_seeds(rows, seeds * 2**times) if seeds else rows
        return replace(claim.judge(known, scale), doublings=times)

    return [decide(claim) for claim in study.claims]
