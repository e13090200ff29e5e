"""Whether a metric holds at a site within a margin: three answers, what the data exclude, and how
many labels would decide.

"No difference seen" is not "no difference" (Altman & Bland, 1995, doi:10.1136/bmj.311.7003.485): a
site holds where the whole interval of its gap is within the margin, fails where it is beyond, and
is undecided otherwise. Intervals are widened for the number of sites (Bonferroni), so that all
answers of an audit are right together in 95 %.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import ceil, floor, isfinite, log10

from scipy import stats as scipy_stats

from unseen.errors import InvalidConfig
from unseen.questions.audit.results import LOWER_IS_BETTER, Findings, Gap, evaluation_sites
from unseen.reading import Reading
from unseen.stats import widen, z_quantile

MARGIN = 0.05
"""How much worse still counts as holding, where none is named: 5 points of a share or an area."""
RELATIVE_MARGIN = 0.1
"""The same for errors in the target's own unit: a tenth of the error at the known sites."""
SHARES = ("accuracy", "AUC")
"""Metrics between 0 and 1."""
POWER = 0.8
"""So often would the labels that are named show that a site which is no worse holds."""


class Verdict(StrEnum):
    """The answer at a site."""

    HOLDS = "holds within the margin"
    FAILS = "does not hold within the margin"
    UNDECIDED = "undecided at this n"


@dataclass(frozen=True, kw_only=True)
class SiteAnswer:
    """Whether a metric holds at one site."""

    site: str
    metric: str
    margin: float
    verdict: Verdict
    worse: Reading
    """By how much it is worse there, widened for the number of sites; its upper limit is what the
    data do not exclude.
    """
    n: int
    """Labelled examples of the site."""
    labels: int | None
    """How many would decide it; None where no number would, since what it is compared with is as
    uncertain.
    """


def check_margin(margin: float | None) -> None:
    """Refuses what is no margin."""
    if margin is not None and not 0 < margin < float("inf"):
        raise InvalidConfig(
            f"margin={margin}.",
            why="it says how much worse a metric may be and still hold: a number above zero.",
            fix="use --margin 0.05, in the unit of the metric.",
        )


def default_margin(one: Findings, gap: Gap) -> float:
    """The margin where none is named."""
    reference = one.score(gap.reference, gap.metric)
    if gap.metric in LOWER_IS_BETTER and reference is not None:
        return RELATIVE_MARGIN * reference.value
    return MARGIN


def answer(one: Findings, gap: Gap, among: int, margin: float | None) -> SiteAnswer:
    """The answer at the site of a gap, of which the audit has so many."""
    margin = default_margin(one, gap) if margin is None else margin
    worse, reading = _within_range(gap, among), one.score(gap.split, gap.metric)
    verdict = Verdict.UNDECIDED
    if worse.high <= margin:
        verdict = Verdict.HOLDS
    elif worse.low > margin:
        verdict = Verdict.FAILS
    n = gap.worse.n if reading is None else reading.n
    labels = labels_needed(gap, among, margin)
    if labels is not None and labels <= n and verdict is Verdict.UNDECIDED:
        # enough for a site that is no worse: this one is near the margin
        labels = labels_needed(gap, among, abs(margin - worse.value))
    return SiteAnswer(
        site=one.sites.get(gap.split, gap.split),
        metric=gap.metric,
        margin=margin,
        verdict=verdict,
        worse=worse,
        n=n,
        labels=labels,
    )


def _within_range(gap: Gap, among: int) -> Reading:
    """By how much it is worse, widened; two shares or areas differ by at most 1."""
    worse = widen(gap.worse, among)
    if gap.metric not in SHARES:
        return worse
    return replace(worse, low=max(-1.0, worse.low), high=min(1.0, worse.high))


def labels_needed(gap: Gap, among: int, distance: float) -> int | None:
    """The least n with (widening + z_power / z) · upper half-width(n) ≤ distance, in two digits:
    only the limit is widened, not the spread of the value by which it misses.
    """
    width, wide = gap.worse.high - gap.worse.low, widen(gap.worse, among)
    if gap.resolution is None or not width > 0 or not distance > 0:
        return None
    widening = (wide.high - wide.low) / width
    factor = widening + float(scipy_stats.norm.ppf(POWER)) / z_quantile()
    left = (distance / factor) ** 2 - gap.resolution.fixed
    if left <= 0:
        return None
    n = max(2.0, gap.resolution.per_label / left)
    unit = 10 ** max(0, floor(log10(n)) - 1)
    return ceil(n / unit) * unit


def site_answers(
    findings: Sequence[Findings], metric: str, margin: float | None = None
) -> list[SiteAnswer]:
    """The answers at the sites of use, in order."""
    among = sum(len(evaluation_sites(one)) for one in findings)
    return [
        answer(one, gap, among, margin)
        for one in findings
        for gap in one.gaps
        if gap.metric == metric and gap.split in evaluation_sites(one)
    ]


def in_words(found: SiteAnswer) -> str:
    """What the data exclude, and what would decide."""
    margin = f"{found.margin:.3g}"
    if found.verdict is Verdict.FAILS:
        return f"It does not hold within {margin}: it is worse by {found.worse.low:.2g} or more."
    if found.verdict is Verdict.HOLDS:
        return f"It holds within {margin}."
    if not isfinite(found.worse.high):
        return "No interval exists, so the data exclude nothing."
    if found.metric in SHARES and found.worse.high >= 1:
        return "The intervals are so wide that the data exclude nothing."
    excluded = f"The data exclude that it is worse by more than {found.worse.high:.2g}"
    if found.labels is None:
        return (
            f"{excluded}; labels from there alone cannot show whether it holds within {margin}: "
            "what it is compared with, and the training runs, are as uncertain."
        )
    if found.labels <= found.n:
        return f"{excluded}; whether it holds within {margin} is undecided."
    return (
        f"{excluded}; whether it holds within {margin} is undecided, which about "
        f"{found.labels:,} labelled examples from there (today {found.n:,}) would change in "
        f"{POWER:.0%} of cases.".replace("%", " %")
    )
