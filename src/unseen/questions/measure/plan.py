"""Which measures are read in a given time, and in which order: estimated before anything is read.

The estimate counts operations and touched weights, at the speed of one core of a laptop: the same
measures are read on every machine and at every load.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf

from unseen.errors import TooBig, reason
from unseen.reading import MeasureEntry, Work
from unseen.runs.progress import duration
from unseen.text import join_words

MINUTES = 10.0
"""What all measures of a model may take where nothing else is said."""
CORE = 7e10
"""Operations per second of one core; of other devices a hundred times as many. With it a Llama of 6
million weights on 256 tokens takes 0.8 to 1.9 times the estimate, measure by measure, but for the
largest eigenvalue, which is often found in a tenth of the products."""
SWEEP = 2e-9
"""Seconds per weight that is read, drawn or written."""
GRADIENT, PRODUCT = 3, 9
"""What a pass with a gradient, and a product with the Hessian, take in passes without."""
OVERHEAD = 0.05
"""Seconds of every measure."""
TICKS = 1_000
"""Steps of the progress that is shown."""


@dataclass(frozen=True)
class Setting:
    """What the time depends on beside the measure."""

    operations: float
    """Of one example on its way through the model."""
    weights: int
    is_core: bool = True
    """False on an accelerator."""

    def seconds(self, work: Work, examples: float) -> float:
        """About how long it takes."""
        passes = work.forward + GRADIENT * work.gradients + PRODUCT * work.products
        operations = passes * examples * self.operations / CORE
        return (operations + work.sweeps * self.weights * SWEEP) / (1 if self.is_core else 100)

    def gigabytes(self, work: Work) -> float:
        """About what it holds in memory beside the model."""
        return work.copies * self.weights * 4 / 1e9


@dataclass(frozen=True)
class Plan:
    """Measures in the order in which they are read, each with its share of the time in ticks."""

    steps: Sequence[tuple[MeasureEntry, int]]
    left_out: Mapping[str, str]

    def ticks(self) -> Iterator[MeasureEntry | None]:
        """Each measure, and behind it nothing as often as its share of the time says: what counts
        them knows how much is done.
        """
        for entry, count in self.steps:
            yield entry
            yield from [None] * (count - 1)

    @property
    def total(self) -> int:
        return sum(count for _, count in self.steps)


def plan_measures(
    entries: Sequence[MeasureEntry],
    seconds: Callable[[MeasureEntry], float],
    setting: Setting,
    minutes: float,
) -> Plan:
    """The cheapest first, as long as all together take at most so many minutes; what several
    measures share is spent once. Those that would not fit into memory are left out, too.
    """
    costs = [(seconds(entry), entry) for entry in entries]
    costs.sort(key=lambda one: one[0])
    chosen, left_out = list[tuple[MeasureEntry, float]](), dict[str, str]()
    spent, paid, room = 0.0, set[str](), physical_memory() * 0.9
    for cost, entry in costs:
        shared = entry.effort.shared
        due = 0.0 if shared and shared in paid else cost
        if setting.gigabytes(entry.effort) > room:
            left_out[entry.name] = reason(_too_large(entry, setting))
        elif due and spent + due > 60 * minutes:
            names = [one.name for one in entries if shared and one.effort.shared == shared]
            left_out[entry.name] = reason(_too_long(names or [entry.name], shared, cost, minutes))
        else:
            spent += due
            paid.add(shared)
            chosen.append((entry, due + OVERHEAD))
    whole = sum(due for _, due in chosen)
    steps = [(entry, max(1, round(TICKS * due / whole))) for entry, due in chosen]
    return Plan(steps, left_out)


def physical_memory() -> float:
    """Of this machine, in gigabytes; infinite where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (AttributeError, ValueError, OSError):
        return inf


def _too_long(names: Sequence[str], shared: str, cost: float, minutes: float) -> TooBig:
    """One reason for all that would be read together."""
    options = [f'--measure "{name}"' for name in names]
    return TooBig(
        f"It would take about {duration(cost)} of one core"
        + (f", for {shared}." if shared else "."),
        why=f"all measures of a model together may take {duration(60 * minutes)}, the cheapest "
        "first.",
        fix=f"name it to have it all the same, {join_words(options)}, or raise --minutes.",
    )


def _too_large(entry: MeasureEntry, setting: Setting) -> TooBig:
    return TooBig(
        f"It would hold about {setting.gigabytes(entry.effort):,.0f} GB.",
        why=f"this machine has {physical_memory():,.0f} GB: it would be stopped without a result.",
        fix="measure a smaller model, or take a machine with more memory.",
    )
