"""Claim: a sentence of the paper, the effect that would show it, and the margin that decides it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from enum import StrEnum
from math import inf, isfinite, isnan, nan
from typing import TypeAlias

from unseen import stats
from unseen.errors import InvalidConfig, UnseenError
from unseen.reading import Reading

Value: TypeAlias = float | int | str | bool
Row: TypeAlias = Mapping[str, Value]
Rows: TypeAlias = Sequence[Row]
Effect: TypeAlias = Callable[[Rows], Reading]

NEAR = 0.1
"""Share of an interval's width within which another processor may move its end."""
NEAR_MARGIN = "within a tenth of its width from the margin, where another processor could turn it"
EQUAL_VALUES = "an interval over equal values says nothing, so it is not decided"


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


class Unit(StrEnum):
    """What an interval takes for drawn anew."""

    SEED = "seed"
    """Where something is trained: another seed is another model."""
    SITE = "site"
    """Sites of trained models, for a statement about further sites."""
    ITEM = "item"
    """Items of a file, or that a fixed model answers: one run is enough."""
    TASK = "task"
    LANGUAGE = "language"
    SPLIT = "split"
    YEAR = "year"
    ATTRIBUTE = "attribute"
    MODEL = "model"
    """One model that was trained or fine-tuned once: reported, not judged."""

    @property
    def is_trained(self) -> bool:
        """Whether training stands behind it: then another processor gives other numbers."""
        return self in (Unit.SEED, Unit.SITE)


@dataclass(frozen=True)
class Groups(Reading):
    """Readings of several groups for a claim about every one of them.

    The value is that of the group farthest from what is claimed, the limits are the lowest and
    the highest of all groups.
    """

    readings: Mapping[str, Reading] = field(default_factory=dict)

    @staticmethod
    def of(readings: Mapping[str, Reading], distance: Callable[[Reading], float]) -> "Groups":
        """Shows the group of the largest distance."""
        if not readings:
            raise InvalidConfig(
                "There is no group.",
                why="the claim is about every one of several.",
                fix="run the missing cells, or check the column that names the groups.",
            )
        worst = max(readings.values(), key=distance)
        limits = [(reading.low, reading.high) for reading in readings.values()]
        low, high = (nan, nan) if any(map(_lacks_interval, readings.values())) else (
            min(low for low, _ in limits), max(high for _, high in limits)
        )  # fmt: skip
        n = min(reading.n for reading in readings.values())
        return Groups(
            worst.value, low, high, n, worst.unit, freedom=worst.freedom, readings=readings
        )


def _lacks_interval(reading: Reading) -> bool:
    return isnan(reading.low) or isnan(reading.high)


@dataclass(frozen=True)
class Judgement:
    """A claim's verdict with the reading behind it and the comparison in words."""

    says: str
    verdict: Verdict
    reading: Reading | None
    because: str
    unit: Unit = Unit.SEED
    is_near: bool = False
    """Whether an end of the interval lies so near the margin that more seeds should decide."""
    p: float = 1.0
    """Two-sided p of the margin, from the interval and its degrees of freedom."""
    doublings: int = 0
    """How often its seeds were doubled because an interval ended near the margin."""


@dataclass(frozen=True)
class Claim:
    """One sentence of the paper, the effect that would show it, and the margin that its whole
    interval must clear.

    An effect of several `Groups` is claimed of every group: all intervals must clear the margin,
    and one group beyond it, with an interval widened for as many groups (Bonferroni), refutes.
    Where something is trained an interval that ends within a tenth of its width from the margin
    decides nothing, since another processor may turn it. The reason names the group that decides:
    the one hardest to clear, the one that refutes, or the one that stands in the way.
    """

    says: str
    effect: Effect
    _: KW_ONLY
    above: float = -inf
    below: float = inf
    needs: Scale = Scale.LAPTOP
    unit: Unit = Unit.SEED
    sign_because: str = ""
    """Why the sign alone is the claim, where the margin is 0."""
    option: str = ""
    """The option of `unseen run` that computes its rows; without them it is not judged."""

    def __post_init__(self) -> None:
        if self.above == -inf and self.below == inf:
            raise InvalidConfig(
                f"“{self.says}” has no margin.",
                why="nothing could refute it.",
                fix="set `above`, `below` or both; 0 claims a sign and says so in `sign_because`.",
            )
        if not self.above < self.below:
            raise InvalidConfig(
                f"“{self.says}” asks for values above {self.above:g} and below {self.below:g}.",
                why="no interval lies there.",
                fix="give an `above` smaller than `below`.",
            )
        if self.is_sign != bool(self.sign_because):
            raise InvalidConfig(
                f"“{self.says}” has the margin {self._margin()}"
                + (" and no reason for it." if self.is_sign else " and a reason for a sign."),
                why="a margin of 0 claims a sign, however small the effect.",
                fix="give the smallest effect that matters as the margin, or `sign_because` with a "
                "margin of 0.",
            )

    @property
    def is_sign(self) -> bool:
        """Whether the claim is the sign of the effect, whatever its size."""
        return (self.above, self.below) in ((0, inf), (-inf, 0))

    def judge(self, rows: Rows, scale: Scale) -> Judgement:
        """Interval inside the margins: supported; outside: refuted; across or unknown:
        undecided.
        """
        reading = self._read(rows)
        if scale.rank < self.needs.rank:
            return self._report(reading, f"means something from {self.needs} scale on")
        if self.unit is Unit.MODEL:
            return self._report(reading, "one model stands behind it: reported, not judged")
        if self.option and not isinstance(reading, Reading):
            return self._report(reading, f"its rows are computed with {self.option} only")
        if not isinstance(reading, Reading):
            because = f"the effect has no value: {reading.what}"
            return Judgement(self.says, Verdict.UNDECIDED, None, because, self.unit)
        seeds = {row["seed"] for row in rows if "seed" in row}
        if self.unit is Unit.SEED and len(seeds) == 1:
            because = f"{interval_text(reading)} is of a single seed; {self._margin()} asked"
            return Judgement(self.says, Verdict.UNDECIDED, reading, because, self.unit)
        return self.decide(reading)

    def decide(self, reading: Reading) -> Judgement:
        """The verdict of a reading, whatever the rows behind it."""
        readings = reading.readings if isinstance(reading, Groups) else {"": reading}
        defects = [name for name, one in readings.items() if defect(one)]
        if defects:
            because = self._why_undecided(readings, defects)
            return Judgement(self.says, Verdict.UNDECIDED, reading, because, self.unit)
        wide = {name: stats.widen(one, len(readings)) for name, one in readings.items()}
        slack = NEAR if self.unit.is_trained else 0.0

        def inside(slack: float) -> bool:
            return all(self._clears(one, slack) for one in readings.values())

        def outside(slack: float) -> list[str]:
            return [name for name, one in wide.items() if self._violates(one, slack)]

        near = inside(-slack) != inside(slack) or bool(outside(-slack)) != bool(outside(slack))
        verdict, wanted = Verdict.UNDECIDED, self._margin()
        if inside(slack):
            verdict = Verdict.SUPPORTED
            text = _group_text(readings, self._hardest(readings))
            because = f"{text} lies {wanted}{_other_groups(len(readings) - 1)}"
        elif against := outside(slack):
            verdict = Verdict.REFUTED
            name = min(against, key=lambda name: self._p_against(wide[name]))
            because = f"{_group_text(readings, name)} lies outside: {wanted} asked"
        else:
            because = self._why_undecided(readings, [])
        p_for = max(self._p_for(one) for one in readings.values())
        p_against = min(self._p_against(one) for one in wide.values())
        p = {Verdict.SUPPORTED: p_for, Verdict.REFUTED: p_against}.get(
            verdict, min(p_for, p_against)
        )
        return Judgement(self.says, verdict, reading, because, self.unit, near, p)

    def _why_undecided(self, readings: Mapping[str, Reading], defects: Sequence[str]) -> str:
        """The group that stands in the way: one whose interval reaches across before one that ends
        near the margin, and that before one whose interval says nothing.
        """
        wanted = f"{self._margin()} asked"
        known = {name: one for name, one in readings.items() if name not in defects}
        across = {
            name: one
            for name, one in known.items()
            if not self._clears(one, 0.0) and not self._violates(one, 0.0)
        }
        if across:
            name = self._hardest(across)
            return f"{_group_text(known, name)} reaches across: {wanted}"
        if defects:
            one = readings[defects[0]]
            if one.low == one.high == one.value and one.n > 1:
                name = defects[0] and f"{defects[0]}: "
                every = f"every {self.unit} gave {one.value:.4g}"
                return f"{name}{every}: {EQUAL_VALUES}; {wanted}"
            return f"{_group_text(readings, defects[0])} {defect(one)}; {wanted}"
        name = self._hardest(known)
        if len(known) > 1 and self._violates(known[name], 0.0):
            # beyond the margin by itself, but not when widened for so many groups
            wide = stats.widen(known[name], len(known))
            if not self._violates(wide, 0.0):
                low_high = f"[{wide.low:.4g}, {wide.high:.4g}]"
                text = f"{_group_text(known, name)}, widened for {len(known)} groups {low_high},"
                return f"{text} reaches across: {wanted}"
        return f"{_group_text(known, name)} ends {NEAR_MARGIN}: {wanted}"

    def _hardest(self, readings: Mapping[str, Reading]) -> str:
        """The group that is farthest from clearing the margin, or clears it by least."""

        def room(reading: Reading) -> float:
            return min(reading.low - self.above, self.below - reading.high)

        return max(readings, key=lambda name: (self._p_for(readings[name]), -room(readings[name])))

    def _clears(self, reading: Reading, slack: float) -> bool:
        low, high = (end for end in _ends(reading, slack))
        if self.is_sign:
            return low > self.above and high < self.below
        return low >= self.above and high <= self.below

    def _violates(self, reading: Reading, slack: float) -> bool:
        low, high = _ends(reading, slack)
        return high < self.above or low > self.below

    def _p_for(self, reading: Reading) -> float:
        """Of the hypothesis that the effect lies outside: the larger p of both margins."""
        return max(
            p_beyond(reading, self.above, above=True), p_beyond(reading, self.below, above=False)
        )

    def _p_against(self, reading: Reading) -> float:
        """Of the hypothesis that the effect lies inside."""
        return min(
            1.0 if self.above == -inf else p_beyond(reading, self.above, above=False),
            1.0 if self.below == inf else p_beyond(reading, self.below, above=True),
        )

    def _report(self, reading: Reading | UnseenError, because: str) -> Judgement:
        seen = reading if isinstance(reading, Reading) else None
        return Judgement(self.says, Verdict.NOT_JUDGED, seen, because, self.unit)

    def _read(self, rows: Rows) -> Reading | UnseenError:
        try:
            return self.effect(rows)
        # a missing or failed cell leaves an effect without a value: said in the verdict
        except UnseenError as error:
            return error

    def _margin(self) -> str:
        if self.above > -inf and self.below < inf:
            return f"within [{self.above:g}, {self.below:g}]"
        side = f"above {self.above:g}" if self.above > -inf else f"below {self.below:g}"
        return side + (" (sign)" if self.is_sign else "")


def _ends(reading: Reading, slack: float) -> tuple[float, float]:
    """The limits, moved outwards by a share of the width."""
    by = slack * (reading.high - reading.low) if isfinite(reading.high - reading.low) else 0.0
    return reading.low - by, reading.high + by


def interval_text(reading: Reading) -> str:
    """Value and interval as verdicts print them."""
    if _lacks_interval(reading):
        return f"{reading.value:.4g}"
    return f"{reading.value:.4g} [{reading.low:.4g}, {reading.high:.4g}]"


def _group_text(readings: Mapping[str, Reading], name: str) -> str:
    """A group's own value and interval, after its name where it has one."""
    return (name and f"{name}: ") + interval_text(readings[name])


def _other_groups(count: int) -> str:
    if count < 1:
        return ""
    return ", as does the other group" if count == 1 else f", as do the other {count} groups"


def defect(reading: Reading) -> str:
    """Why an interval decides nothing; empty if it can."""
    if isnan(reading.value):
        return "is no number"
    if _lacks_interval(reading):
        return "has no interval"
    if reading.n < 2:
        return "is of a single unit"
    if reading.low > reading.high:
        return "has its limits the wrong way round"
    if reading.low == reading.high:
        return "has an interval without width"
    return ""


def p_beyond(reading: Reading, margin: float, *, above: bool) -> float:
    """Two-sided p for the effect being above (or below) a margin, at most 0.05 where its 95 %
    interval is; 1 where the value itself is not there.

    The distance from the margin is measured in the half-width towards it, as t with the degrees of
    freedom of the reading; where it names none, with its units less one. Of intervals that are not
    symmetric (Wilson's) this is an approximation, exact at the margin that the interval touches.
    """
    if margin in (-inf, inf):
        return 0.0
    distance = reading.value - margin if above else margin - reading.value
    half = reading.value - reading.low if above else reading.high - reading.value
    if distance <= 0:
        return 1.0
    if not half > 0 or half == inf:
        return 0.0 if half == 0 else 1.0
    freedom = reading.freedom if isfinite(reading.freedom) else max(1, reading.n - 1)
    return stats.two_sided_p(distance / half * stats.t_quantile(freedom), freedom)


def after_holm(judgements: Sequence[Judgement]) -> list[bool]:
    """Which verdicts hold after Holm's correction for all claims that are judged."""
    judged = [k for k, one in enumerate(judgements) if one.verdict is not Verdict.NOT_JUDGED]
    rejected = stats.holm([judgements[k].p for k in judged])
    decided = (Verdict.SUPPORTED, Verdict.REFUTED)
    kept = {k for k, reject in zip(judged, rejected, strict=True) if reject}
    return [k in kept and one.verdict in decided for k, one in enumerate(judgements)]
