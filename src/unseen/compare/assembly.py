"""From sheets to results: what each method reaches under each protocol, and what is missing, with its reason."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from unseen import stats
from unseen.compare import standings
from unseen.compare.contest import Contest, judged
from unseen.compare.entrants import BASELINE, Entrant
from unseen.compare.protocols import Protocol, Sheet
from unseen.compare.quantities import Area, BySeed, Mean, Quantity
from unseen.compare.results import AVERAGE, WORST, Cell, Change, Choice, Dot
from unseen.compare.sweep import Run, Sweep
from unseen.engine.batches import whole
from unseen.lab import Lab
from unseen.measure import Reading

Sheets = Mapping[tuple[str, str], Sheet]
"""By method and task."""


@dataclass(frozen=True, kw_only=True)
class Assembly:
    """The sheets of a comparison with where each place is judged."""

    contest: Contest
    entrants: Sequence[Entrant]
    sheets: Sheets
    protocols: Sequence[Protocol]
    seeds: int

    @property
    def places(self) -> dict[str, str]:
        """Place → the task that judges it."""
        return {place: at for at, task in self.contest.tasks.items() for place in judged(task)}

    def quantities(self) -> list[Quantity]:
        """The mean score, and the area under the ROC curve where both classes are judged at some place."""
        found: list[Quantity] = [Mean(self.contest.metric, self.contest.scale)]
        margins = {place for sheet in self.sheets.values() for place in sheet.margin}
        positive = {place: self._positive(place) for place in self.places if place in margins}
        positive = {place: y for place, y in positive.items() if 0 < y.sum() < y.size}
        return [*found, Area(positive)] if positive else found

    def _positive(self, place: str) -> ndarray:
        task = self.contest.tasks[self.places[place]]
        return whole(task.splits[judged(task)[place]].data, Lab())["y"].numpy() > 0

    def columns(self, quantity: Quantity) -> list[str]:
        """The places at which the quantity exists."""
        return [p for p in self.places if not isinstance(quantity, Area) or p in quantity.positive]

    def values(self, quantity: Quantity, protocol: Protocol, method: str, place: str) -> BySeed:
        """What the chosen run of every seed did; empty where the method has none."""
        sheet = self.sheets.get((method, self.places[place]))
        table = {} if sheet is None else (sheet.margin if isinstance(quantity, Area) else sheet.score)
        return standings.picked(sheet, protocol, table[place]) if sheet is not None and place in table else {}

    def why_not(self, protocol: Protocol, method: str, place: str) -> str:
        sheet = self.sheets.get((method, self.places[place]))
        if sheet is None:
            return "could not be trained"
        if sheet.diverged.all():
            return "every run diverged"
        return "this protocol has nothing to select by" if protocol not in sheet.validation else "every draw diverged"

    def cells(self, quantity: Quantity, protocol: Protocol) -> tuple[list[Cell], list[Change]]:
        """All methods in all columns under one protocol, and their differences from the baseline."""
        methods, columns = [entrant.name for entrant in self.entrants], self.columns(quantity)
        values = {(m, c): self.values(quantity, protocol, m, c) for m in methods for c in columns}
        readings = {(m, c): quantity.reading(c, v) for (m, c), v in values.items() if v}
        lows: dict[str, str] = {}
        for m in methods:
            if len(columns) > 1 and all((m, c) in readings for c in columns):
                mine = {c: readings[m, c] for c in columns}
                lows[m] = standings.worst(mine)
                readings[m, AVERAGE], readings[m, WORST] = standings.average(list(mine.values())), mine[lows[m]]

        def differs(column: str, a: str, b: str) -> Reading:
            if column == AVERAGE:
                return standings.average([quantity.change(c, values[a, c], values[b, c]) for c in columns])
            if column == WORST and lows[a] != lows[b]:  # other examples, so nothing is paired
                return stats.apart(readings[a, WORST], readings[b, WORST])
            place = lows[a] if column == WORST else column
            return quantity.change(place, values[a, place], values[b, place])

        cells, changes = [], []
        base = self.baseline
        for column in [*columns, *([AVERAGE, WORST] if len(columns) > 1 else [])]:
            known = {m: readings[m, column] for m in methods if (m, column) in readings}
            pairs = {(a, b): differs(column, a, b) for a in known for b in known if a != b}
            best = standings.stands_out({m: r.value for m, r in known.items()}, pairs)
            for m in methods:
                seeds = min((len(values[m, c]) for c in columns if column in (c, AVERAGE, WORST)), default=0)
                note = self._note(protocol, m, column, columns, seeds, lows)
                cells.append(
                    Cell(
                        metric=quantity.name,
                        protocol=protocol,
                        method=m,
                        column=column,
                        reading=known.get(m),
                        seeds=seeds,
                        best=m == best,
                        note=note,
                    )
                )
                if (m, base) in pairs:
                    told = {"metric": quantity.name, "protocol": protocol, "method": m, "column": column}
                    changes.append(Change(**told, reading=pairs[m, base]))
        return cells, changes

    def _note(
        self, protocol: Protocol, method: str, column: str, columns: Sequence[str], seeds: int, lows: Mapping[str, str]
    ) -> str:
        if seeds == 0 and column in columns:
            return self.why_not(protocol, method, column)
        if seeds == 0:
            gone = [c for c in columns if not self.sheets.get((method, self.places[c]))]
            return f"no value at {', '.join(gone)}" if gone else "no value at some place"
        few = [f"{seeds} of {self.seeds} seeds: in the others every draw diverged"] if seeds < self.seeds else []
        return "; ".join([*([lows[method]] if column == WORST and method in lows else []), *few])

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
                for seed, draw in enumerate(sheet.chosen(protocol).tolist()):
                    if draw >= 0:
                        values = repr(sweep.method(by_name[method], Run(seed, draw)))
                        told = {"protocol": protocol, "method": method, "left_out": at, "seed": seed, "draw": draw}
                        made.append(Choice(**told, is_default=draw == 0, values=values))
        return made

    def dots(self) -> list[Dot]:
        """Every run that is finite on all tasks: in-distribution score against score at the places left out."""
        found = []
        for entrant in self.entrants:
            mine = [self.sheets[entrant.name, at] for at in self.contest.tasks if (entrant.name, at) in self.sheets]
            if len(mine) < len(self.contest.tasks) or any(s.seen is None or not s.score for s in mine):
                continue
            known = np.mean([s.seen for s in mine], axis=0)
            new = np.mean([np.mean([v.mean(-1) for v in s.score.values()], axis=0) for s in mine], axis=0)
            finite = ~np.any([s.diverged for s in mine], axis=0)
            for seed, draw in np.argwhere(finite).tolist():
                x, y = (float(self.contest.scale * a[seed, draw]) for a in (known, new))
                found.append(Dot(method=entrant.name, seed=seed, draw=draw, seen=x, unseen=y))
        return found
