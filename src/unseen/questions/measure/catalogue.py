"""Every measure of a trained model: each file of `measures/` lists its own as `MEASURES`, and the
folder is the catalogue.
"""

import difflib
import functools
import importlib
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from unseen import measures
from unseen.errors import UnknownName
from unseen.lazy import modules
from unseen.measures.bounds import GeneralizationMeasure
from unseen.reading import Direction, Measure, MeasureEntry, Need

FAMILIES = (
    "performance",
    "calibration",
    "training",
    "sharpness",
    "pac-bayes",
    "norm",
    "margin",
    "spectral",
    "path",
    "gradient",
    "optimisation",
    "function",
    "diversity",
    "data",
)
"""In the order of the report; others come behind them."""
EQUATION = re.compile(r" \(\d+\)\.$")
"""The number of the paper's equation, which a report does not explain."""
CIRCULAR = " fft"
"""Ends the names of measures whose norms are those of convolutions, not of reshaped matrices."""


@functools.cache
def catalogue() -> tuple[MeasureEntry, ...]:
    """All entries, family by family."""
    found = [entry for path in modules(Path(measures.__file__).parent) for entry in _entries(path)]
    return tuple(sorted(found, key=lambda entry: family_order(entry.family)))


def _entries(module: str) -> Iterator[MeasureEntry]:
    """Importing this module imports every file of the folder: a second, once."""
    found = importlib.import_module(f"{measures.__name__}.{module}")
    for one in getattr(found, "MEASURES", ()):
        yield bound_entry(one) if isinstance(one, GeneralizationMeasure) else one


def bound_entry(measure: GeneralizationMeasure) -> MeasureEntry:
    """A generalization measure by its name in words; a sweep's columns have the one with `_`."""
    name = measure.name.replace("_", " ")
    needs = {Need.GRADIENTS}
    if name.endswith(CIRCULAR):
        # of matrices both ways to take a norm are one
        name, needs = f"{name.removesuffix(CIRCULAR)}, circular", {*needs, Need.CONVOLUTIONS}
    if measure.needs_start:
        needs.add(Need.START)
    return MeasureEntry(
        name=name,
        measure=measure,
        meaning=EQUATION.sub(".", measure.meaning),
        direction=Direction(measure.direction.value),
        family=measure.family.value,
        passes=measure.passes,
        needs=frozenset(needs),
        work=measure.work,
    )


def family_order(family: str) -> int:
    return FAMILIES.index(family) if family in FAMILIES else len(FAMILIES)


def select_measures(
    names: Collection[str], others: Collection[str] = ()
) -> tuple[MeasureEntry, ...]:
    """The entries of these names, in the catalogue's order; all where none is named. `others` are
    names that no entry has, and that are known all the same.
    """
    known = {*others, *(entry.name for entry in catalogue())}
    for name in names:
        if name not in known:
            raise _unknown_measure(name, sorted(known))
    return tuple(entry for entry in catalogue() if not names or entry.name in names)


def _unknown_measure(name: str, known: Sequence[str]) -> UnknownName:
    """With quoted names, since some hold a comma."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    quoted = [f'"{one}"' for one in close or known]
    return UnknownName(
        f"There is no measure `{name}`.",
        why=f"{len(known)} names are known here.",
        fix=f"did you mean {' or '.join(quoted)}?"
        if close
        else f"choose one of: {', '.join(quoted)}.",
    )


def plain_entry(name: str, measure: Measure[Any]) -> MeasureEntry:
    """A measure that is no entry of the catalogue, of a network's training examples."""
    return MeasureEntry(
        name=name,
        measure=measure,
        meaning="",
        direction=Direction.NEITHER,
        family="your own",
        passes=1,
        needs=frozenset({Need.GRADIENTS}),
    )
