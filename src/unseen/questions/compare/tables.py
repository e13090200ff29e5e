"""From sheets to results: what each method reaches under each protocol, and what is missing, with
its reason.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
from numpy import ndarray

from unseen import stats
from unseen.engine.batches import whole
from unseen.lab import Lab
from unseen.questions.compare import statistics
from unseen.questions.compare.candidates import BASELINE, MethodSpec
from unseen.questions.compare.protocols import MethodScores, Protocol
from unseen.questions.compare.quantities import (
    Area,
    BySeed,
    Mean,
    Quantity,
    gain,
    score_name,
    score_scale,
)
from unseen.questions.compare.results import AVERAGE, WORST, Cell, Change, Choice, RunPoint
from unseen.questions.compare.run_groups import Run
from unseen.questions.compare.splits import evaluated_splits
from unseen.questions.compare.sweep import Sweep
from unseen.reading import Reading
from unseen.subjects.subject import Subject


@dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """One quantity under one protocol: every method's values at every site, on average and at its
    worst site.
    """

    quantity: Quantity
    methods: Sequence[str]
    sites: Sequence[str]
    values: Mapping[tuple[str, str], BySeed]
    """By method and site; empty where there are none."""

    @property
    def columns(self) -> list[str]:
        """The sites, and what is read from all of them where there are several."""
        return [*self.sites, *([AVERAGE, WORST] if len(self.sites) > 1 else [])]

    @cached_property
    def readings(self) -> dict[tuple[str, str], Reading]:
        found = {
            (m, site): self.quantity.reading(site, v) for (m, site), v in self.values.items() if v
        }
        for m in self.lowest if len(self.sites) > 1 else ():
            found[m, AVERAGE] = stats.average([found[m, each] for each in self.sites])
            lowest = stats.lowest_of([self._gain(found[m, each]) for each in self.sites])
            found[m, WORST] = self._gain(lowest)
        return found

    def _gain(self, reading: Reading) -> Reading:
        """The reading so that more is better, and back."""
        return gain(self.quantity.name, reading)

    @cached_property
    def lowest(self) -> dict[str, str]:
        """The worst site of every method that has a value at each site."""
        whole = [m for m in self.methods if all(self.values[m, site] for site in self.sites)]
        at = {
            m: {
                site: self._gain(self.quantity.reading(site, self.values[m, site]))
                for site in self.sites
            }
            for m in whole
        }
        return {m: statistics.worst(readings) for m, readings in at.items()}

    def readings_in(self, column: str) -> dict[str, Reading]:
        """The readings of the methods that have one."""
        return {m: self.readings[m, column] for m in self.methods if (m, column) in self.readings}

    def seeds(self, method: str, column: str) -> int:
        """How many seeds stand behind the number; 0: there is none."""
        used = [column] if column in self.sites else self.sites
        return min(len(self.values[method, site]) for site in used)

    def differences(self, column: str) -> dict[tuple[str, str], Reading]:
        """Paired differences of all pairs of methods that share a seed."""
        found = {}
        for a, b in combinations(self.readings_in(column), 2):
            if (change := self._difference(column, a, b)) is not None:
                found[a, b] = change
                found[b, a] = Reading(
                    -change.value, -change.high, -change.low, change.n, change.unit
                )
        return found

    def _difference(self, column: str, a: str, b: str) -> Reading | None:
        if column == WORST:
            return self._worst_difference(a, b)
        changes = self._changes(self.sites if column == AVERAGE else [column], a, b)
        return None if changes is None else stats.average(changes)

    def _changes(self, sites: Sequence[str], a: str, b: str) -> list[Reading] | None:
        pairs = [(site, self.values[a, site], self.values[b, site]) for site in sites]
        if not all(one.keys() & other.keys() for _, one, other in pairs):
            return None
        return [self.quantity.change(site, one, other) for site, one, other in pairs]

    def _worst_difference(self, a: str, b: str) -> Reading | None:
        """The difference of the lowest values. It lies between the smallest and the largest
        difference at the sites that may be the lowest of either, so its limits are the farthest of
        theirs: which site is the lowest in truth is not known.
        """
        sites = [site for site in self.sites if {a, b} & self._may_be_lowest(site)]
        if (changes := self._changes(sites, a, b)) is None:
            return None
        worst = [self.readings[m, WORST] for m in (a, b)]
        gap = worst[0].value - worst[1].value
        return Reading(
            gap,
            min(gap, *(r.low for r in changes)),
            max(gap, *(r.high for r in changes)),
            sum(r.n for r in worst),
            worst[0].unit,
            freedom=min(r.freedom for r in changes),
        )

    def _may_be_lowest(self, site: str) -> set[str]:
        """The methods whose lower limit there is not above the upper limit of their lowest."""
        above = {
            m
            for m in self.lowest
            if self._gain(self.readings[m, site]).low > self._gain(self.readings[m, WORST]).high
        }
        return {*self.lowest} - above


AllScores = Mapping[tuple[str, str], MethodScores]
"""By method and task."""


@dataclass(frozen=True, kw_only=True)
class ResultTable:
    """The sheets of a comparison with where each site is evaluated."""

    subjects: Sequence[Subject]
    entrants: Sequence[MethodSpec]
    sheets: AllScores
    protocols: Sequence[Protocol]
    seeds: int

    @cached_property
    def sites(self) -> dict[str, Subject]:
        """Site → the subject that is evaluated there."""
        return {
            site: subject for subject in self.subjects for site in evaluated_splits(subject.task)
        }

    def quantities(self) -> list[Quantity]:
        """The mean score, and the area under the ROC curve where both classes are evaluated at some
        site.
        """
        found: list[Quantity] = [
            Mean(score_name(self.subjects[0].task), score_scale(self.subjects[0]))
        ]
        margins = {site for sheet in self.sheets.values() for site in sheet.margin}
        positive = {site: self._positive(site) for site in self.sites if site in margins}
        positive = {site: y for site, y in positive.items() if 0 < y.sum() < y.size}
        return [*found, Area(positive)] if positive else found

    def _positive(self, site: str) -> ndarray:
        task = self.sites[site].task
        return whole(task.splits[evaluated_splits(task)[site]].data, Lab())["y"].numpy() > 0

    def columns(self, quantity: Quantity) -> list[str]:
        """The sites at which the quantity exists."""
        return [site for site in self.sites if quantity.exists(site)]

    def values(self, quantity: Quantity, protocol: Protocol, method: str, site: str) -> BySeed:
        """What the chosen run of every seed did; empty where the method has none."""
        sheet = self.sheets.get((method, self.sites[site].label))
        table = (
            {} if sheet is None else (sheet.margin if isinstance(quantity, Area) else sheet.score)
        )
        return (
            statistics.scores_of_chosen(sheet, protocol, table[site])
            if sheet is not None and site in table
            else {}
        )

    def why_not(self, protocol: Protocol, method: str, site: str) -> str:
        sheet = self.sheets.get((method, self.sites[site].label))
        if sheet is None:
            return "could not be trained"
        if sheet.diverged.all():
            return "every run diverged"
        return (
            "this protocol has nothing to select by"
            if protocol not in sheet.validation
            else "every draw diverged"
        )

    def cells(self, quantity: Quantity, protocol: Protocol) -> tuple[list[Cell], list[Change]]:
        """All methods in all columns under one protocol, and their differences from the
        baseline.
        """
        methods, columns = [entrant.name for entrant in self.entrants], self.columns(quantity)
        values = {(m, c): self.values(quantity, protocol, m, c) for m in methods for c in columns}
        board = ScoreTable(quantity=quantity, methods=methods, sites=columns, values=values)
        cells, changes = [], []
        for column in board.columns:
            pairs = board.differences(column)
            best = statistics.stands_out(
                {m: gain(quantity.name, r).value for m, r in board.readings_in(column).items()},
                {pair: gain(quantity.name, change) for pair, change in pairs.items()},
            )
            for m in methods:
                seeds = board.seeds(m, column)
                cells.append(
                    Cell(
                        metric=quantity.name,
                        protocol=protocol,
                        method=m,
                        column=column,
                        reading=board.readings_in(column).get(m),
                        seeds=seeds,
                        best=m == best,
                        note=self._note(protocol, m, column, seeds, board),
                    )
                )
                if (change := pairs.get((m, self.baseline))) is not None:
                    changes.append(
                        Change(
                            metric=quantity.name,
                            protocol=protocol,
                            method=m,
                            column=column,
                            reading=change,
                        )
                    )
        return cells, changes

    def _note(
        self, protocol: Protocol, method: str, column: str, seeds: int, board: "ScoreTable"
    ) -> str:
        """What the number does not say: why there is none, which site is the worst, or that seeds
        are missing.
        """
        if seeds == 0 and column in board.sites:
            return self.why_not(protocol, method, column)
        if seeds == 0:
            gone = [site for site in board.sites if not board.values[method, site]]
            return f"no value at {', '.join(gone)}"
        few = (
            [f"{seeds} of {self.seeds} seeds: in the others every draw diverged"]
            if seeds < self.seeds
            else []
        )
        return "; ".join([*([board.lowest[method]] if column == WORST else []), *few])

    @property
    def baseline(self) -> str:
        """ERM where it takes part, else the first method."""
        names = [entrant.name for entrant in self.entrants]
        return BASELINE if BASELINE in names else names[0]

    def choices(self, sweep: Sweep) -> list[Choice]:
        """Which draw every seed reports, with the hyperparameters."""
        made = []
        by_name = {entrant.name: entrant for entrant in self.entrants}
        for (method, at), sheet in self.sheets.items():
            for protocol in self.protocols:
                for seed, draw in enumerate(sheet.selected_draws(protocol).tolist()):
                    if draw >= 0:
                        values = repr(sweep.method(by_name[method], at, Run(seed, draw)))
                        told = {
                            "protocol": protocol,
                            "method": method,
                            "left_out": at,
                            "seed": seed,
                            "draw": draw,
                        }
                        made.append(Choice(**told, is_default=draw == 0, values=values))
        return made

    def dots(self) -> list[RunPoint]:
        """Every run that is finite on all tasks: in-distribution score against score at the sites
        left out.
        """
        found = []
        for entrant in self.entrants:
            mine = [
                self.sheets[key]
                for one in self.subjects
                if (key := (entrant.name, one.label)) in self.sheets
            ]
            seen = [s.seen for s in mine if s.seen is not None and s.score]
            if len(seen) < len(self.subjects):
                continue
            known = np.mean(seen, axis=0)
            new = np.mean(
                [np.mean([v.mean(-1) for v in s.score.values()], axis=0) for s in mine], axis=0
            )
            finite = ~np.any([s.diverged for s in mine], axis=0)
            for seed, draw in np.argwhere(finite).tolist():
                x, y = (float(score_scale(self.subjects[0]) * a[seed, draw]) for a in (known, new))
                found.append(RunPoint(method=entrant.name, seed=seed, draw=draw, seen=x, unseen=y))
        return found
