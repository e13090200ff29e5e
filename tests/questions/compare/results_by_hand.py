"""Results made by hand: three methods at two sites, of which one method has no value at `west`."""

from dataclasses import replace

from unseen.questions.compare.protocols import Protocol
from unseen.questions.compare.results import AVERAGE, WORST, Cell, Change, Results, RunPoint
from unseen.reading import Reading

METHODS = ("ERM", "new_one", "gone")


def by_hand(gain: float = 0.05, half: float = 0.01) -> Results:
    """`new_one` differs from ERM by `gain` ± `half` everywhere."""
    cells, changes = [], []
    for protocol in Protocol:
        for method in METHODS:
            for column in ("west", "east", AVERAGE, WORST):
                value = 0.7 + 0.1 * (column == "east") + gain * (method == "new_one")
                reading = Reading(value, value - 0.03, value + 0.03, 100, "fraction")
                cell = Cell(
                    metric="accuracy",
                    protocol=protocol,
                    method=method,
                    column=column,
                    reading=reading,
                    seeds=3,
                )
                cell = replace(cell, note="west") if column == WORST else cell
                if method == "gone" and column != "east":
                    cell = replace(cell, reading=None, seeds=0, note="every run diverged")
                cells.append(replace(cell, best=method == "new_one" and gain > half))
                if method == "new_one":
                    change = Reading(gain, gain - half, gain + half, 100)
                    changes.append(
                        Change(
                            metric="accuracy",
                            protocol=protocol,
                            method=method,
                            column=column,
                            reading=change,
                        )
                    )
    return Results(
        name="clinics & more",
        sites=["west", "east"],
        methods=METHODS,
        baseline="ERM",
        metrics=["accuracy"],
        protocols=list(Protocol),
        seeds=3,
        draws=4,
        cells=cells,
        changes=changes,
        choices=[],
        dots=[RunPoint(method="ERM", seed=0, draw=0, seen=0.9, unseen=0.7)],
        sizes={"west": 60, "east": 40},
        diverged={"ERM": (0, 24), "new_one": (0, 24), "gone": (20, 24)},
        missing={"gone · west": "it needs <two> domains."},
        trained={"ERM": "24 models trained together"},
    )
