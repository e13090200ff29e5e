"""Whether the scores at unseen sites meet a bar that was set before."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from unseen.questions.audit.results import LOWER_IS_BETTER, Findings
from unseen.reading import Reading
from unseen.stats import widen
from unseen.text import count_noun, format_reading, join_words


@dataclass(frozen=True)
class BarAnswer:
    """On which side of a bar the sites are."""

    metric: str
    bar: float
    met: list[str] = field(default_factory=list)
    """Sites whose whole interval is on the better side."""
    missed: list[str] = field(default_factory=list)
    """Sites, with their score, whose interval widened for the number of sites is on the other."""
    undecided: list[str] = field(default_factory=list)
    """Sites, with their score, whose interval is across it."""

    @property
    def is_met(self) -> bool | None:
        """At every site; None where one is undecided and none misses it."""
        if self.missed:
            return False
        return True if self.met and not self.undecided else None

    def __str__(self) -> str:
        parts = [
            f"{word} at {join_words(sites)}"
            for word, sites in (("missed", self.missed), ("undecided", self.undecided))
            if sites
        ]
        if not parts:
            parts = ["met at every site" if self.met else "no score to compare with it"]
        elif self.met:
            parts.append(f"met at {count_noun(len(self.met), 'site')}")
        return f"bar of {self.metric} {self.bar:g}: {'; '.join(parts)}"


def compare_with_bar(findings: Sequence[Findings], bar: float) -> BarAnswer:
    """Which sites meet the bar, miss it, or are undecided."""
    readings = [
        (one, split, reading)
        for one in findings
        for split in one.unseen or list(one.sizes)[-1:]
        if (reading := one.score(split, one.score_name)) is not None
    ]
    found = BarAnswer(findings[0].score_name, bar)
    for one, split, reading in readings:
        site = one.sites.get(split, split)
        is_missed, is_met = _sides(one.score_name, reading, bar, len(readings))
        if is_met:
            found.met.append(site)
        else:
            sites = found.missed if is_missed else found.undecided
            sites.append(f"{site} ({format_reading(reading)})")
    return found


def _sides(metric: str, reading: Reading, bar: float, among: int) -> tuple[bool, bool]:
    """Whether one of so many scores misses a bar, and whether it meets it."""
    wide = widen(reading, among)
    if metric in LOWER_IS_BETTER:  # a bar for an error is an upper one
        return wide.low > bar, reading.high <= bar
    return wide.high < bar, reading.low >= bar
