"""How long many studies will take: from the seconds that their ledgers recorded, corrected by how
long this machine has needed so far; and the one line of progress that says so.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import ceil
from pathlib import Path
from statistics import median

from unseen.errors import CorruptFile
from unseen.lab import Sink
from unseen.runs import ledger
from unseen.runs.progress import Cells, Shares, View, duration
from unseen.runs.store import Failure
from unseen.study import Scale

WITHOUT_LEDGER = {Scale.SMOKE: 5.0, Scale.LAPTOP: 400.0, Scale.PAPER: 86_400.0}
"""CPU seconds of a study of which nothing is known, where no other study says more."""
PRIOR = 0.05
"""Weight of the ledgers' seconds: as if this share of the work had taken just as long here."""


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    """The work that a study has left."""

    name: str
    cells: int
    missing: int
    seconds: float
    """CPU seconds of all its cells, as its ledger recorded them; else what is usual."""
    is_recorded: bool

    @property
    def remaining(self) -> float:
        """CPU seconds of the missing cells."""
        return self.seconds * self.missing / self.cells if self.cells else 0.0

    def wall(self, jobs: int) -> float:
        """Seconds until they are computed, so many at once on idle cores: the last round may have
        fewer cells than jobs.
        """
        return self.seconds * ceil(self.missing / jobs) / self.cells if self.cells else 0.0


def recorded_seconds(folder: Path, scale: Scale) -> dict[str, float]:
    """CPU seconds by study, of the ledgers of that scale that can be read."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        try:
            text = ledger.read(path)
        except CorruptFile:  # an estimate is no reason to stop
            continue
        if text["scale"] == scale.value and "seconds" in text:
            found[path.stem] = float(text["seconds"])
    return found


def plan_studies(
    cells: Mapping[str, tuple[int, int]], recorded: Mapping[str, float], scale: Scale
) -> list[StudyPlan]:
    """A plan for every study from the number of its cells and of those that are missing. One
    without a ledger counts as the median of those with one.
    """
    usual = median(recorded.values()) if recorded else WITHOUT_LEDGER[scale]
    return [
        StudyPlan(
            name=name,
            cells=total,
            missing=missing,
            seconds=recorded.get(name, usual),
            is_recorded=name in recorded,
        )
        for name, (total, missing) in cells.items()
    ]


def describe_plans(plans: Sequence[StudyPlan], jobs: int) -> str:
    """What is to be computed, what the estimate rests on, and when it will end."""
    open_ = [plan for plan in plans if plan.missing]
    if not open_:
        return "all cells are in the store"
    left, wall = (sum(plan.remaining for plan in open_), sum(plan.wall(jobs) for plan in open_))
    unknown = sum(not plan.is_recorded for plan in open_)
    basis = "from their ledgers" if not unknown else f"{unknown} of them without a ledger: a guess"
    return (
        f"{len(open_)} of {len(plans)} studies have missing cells: about {duration(left)} of CPU "
        f"time ({basis}); with {jobs} job{'s' * (jobs != 1)} on idle cores about {duration(wall)}, "
        f"until {clock(wall)}"
    )


def clock(seconds: float) -> str:
    """The time of day in so many seconds, with the date where it is another one."""
    now = datetime.now()
    then = now + timedelta(seconds=seconds)
    return then.strftime("%H:%M" if then.date() == now.date() else "%Y-%m-%d %H:%M")


@dataclass
class Schedule(Cells):
    """How far all studies are, in expected seconds; what a view draws."""

    plans: Sequence[StudyPlan] = ()
    jobs: int = 1
    number: int = 0
    """Of the study at work, counted from 1."""
    inner: Cells = field(default_factory=Cells)
    """Of the study at work."""
    finished: float = 0.0
    """Expected seconds of the cells that were computed, without the study at work."""
    unforeseen: float = 0.0
    """Seconds spent on seeds added to earlier studies, as far as what was expected is without."""
    added_since: float | None = None
    """When the seeds at work were added."""

    @property
    def computed_seconds(self) -> float:
        """Expected seconds of what was computed."""
        return self.finished + (self._left_at_start() * self.share)

    @property
    def ahead(self) -> float:
        """Expected seconds of what is not."""
        later = sum(plan.wall(self.jobs) for plan in self.plans[self.number :])
        return later + self._left_at_start() * (1 - self.share)

    @property
    def position(self) -> float:
        return self.total - self.ahead

    @property
    def seconds_left(self) -> float:
        """Until the end: the expected seconds ahead, times what one of them has taken here so
        far.
        """
        prior = PRIOR * sum(plan.wall(self.jobs) for plan in self.plans)
        if not prior:
            return 0.0
        elapsed = time.monotonic() - self.started - self.unforeseen_until_now()
        return self.ahead * (elapsed + prior) / (self.computed_seconds + prior)

    def unforeseen_until_now(self) -> float:
        """`unforeseen`, with the study at work. What a ledger recorded is of added seeds, too: of a
        study of which a third is missing, a third is expected.
        """
        if self.added_since is None:
            return self.unforeseen
        plan = self.plans[self.number - 1]
        found = 1 - plan.missing / plan.cells if plan.cells else 1.0
        return self.unforeseen + found * (time.monotonic() - self.added_since)

    @property
    def says(self) -> str:
        cells = f"{self.inner.stored + self.inner.computed}/{self.inner.total} {self.inner.unit}"
        left = self.seconds_left
        parts = [
            f"study {self.number} of {len(self.plans)}: {self.inner.study} {cells}",
            f"{self.failed} cell{'s' * (self.failed != 1)} failed" if self.failed else "",
            f"about {duration(left)} left, until {clock(left)}",
        ]
        return " · ".join(part for part in parts if part)

    def _left_at_start(self) -> float:
        return self.plans[self.number - 1].wall(self.jobs) if self.number else 0.0


class AllStudies:
    """The watcher of a run of many studies: one line for all of them."""

    def __init__(self, view: View, plans: Sequence[StudyPlan], jobs: int) -> None:
        total = max(1, round(sum(plan.wall(jobs) for plan in plans)))
        self.view = view
        self.schedule = Schedule("all studies", total, plans=plans, jobs=jobs)
        self.sink: Sink = Shares(self._share)
        self.view.begin(self.schedule)

    def start_study(self, number: int) -> None:
        """What the watcher hears from now on is of the plan of that number, counted from 1. Of the
        one before, nothing more is computed.
        """
        here = self.schedule
        here.finished, here.share = here.computed_seconds, 0.0
        here.unforeseen, here.added_since = here.unforeseen_until_now(), None
        here.number, here.inner = number, Cells()

    def begin(self, study: str, total: int, stored: int, unit: str = "cells") -> None:
        """Of the study at work, or of seeds added to it, which no plan foresees."""
        is_added = bool(self.schedule.inner.study)
        unit = "cells of added seeds" if is_added else unit
        self.schedule.inner = Cells(study, total, stored, unit=unit)
        if is_added:
            self.schedule.share = 1.0
            if self.schedule.added_since is None:
                self.schedule.added_since = time.monotonic()
        self.view.draw(self.schedule)

    def on_finish(self, outcome: object) -> None:
        here = self.schedule
        here.inner.computed, here.inner.share = here.inner.computed + 1, 0.0
        here.failed += isinstance(outcome, Failure)
        self._count()
        self.view.draw(here)

    def end(self) -> None:
        """Of cells; the study may go on with added seeds, and others come after it."""

    def close(self) -> None:
        self.view.end(self.schedule)

    def _share(self, path: tuple[str, ...], share: float) -> None:
        self.schedule.inner.share = share
        self._count()
        self.view.draw(self.schedule, " ".join(path[1:])[:40])

    def _count(self) -> None:
        """The share of the missing cells that is computed; added seeds leave it at 1."""
        inner = self.schedule.inner
        missing = inner.total - inner.stored
        if missing > 0:
            share = min(1.0, (inner.computed + inner.share) / missing)
            self.schedule.share = max(self.schedule.share, share)
