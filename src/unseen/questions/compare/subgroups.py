"""What is reached within subgroups of the judged examples: women, a decade of age, a scanner."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from unseen.engine.batches import whole
from unseen.lab import Lab
from unseen.questions.compare.quantities import BySeed, Mean
from unseen.questions.compare.setup import Contest, judged
from unseen.reading import Reading

SMALLEST = 10
"""Examples of a subgroup at a place, below which nothing is said of it there."""


@dataclass(frozen=True, eq=False)
class Subgroup:
    """The mean score of a subgroup's examples, at the places that have enough of them."""

    name: str
    inside: Mapping[str, Bool[ndarray, " n"]]
    """Which judged examples belong to it, by place."""
    scale: float = 1.0

    def exists(self, place: str) -> bool:
        return place in self.inside

    def reading(self, place: str, values: BySeed) -> Reading:
        return Mean(self.name, self.scale).reading(place, self._own(place, values))

    def change(self, place: str, one: BySeed, other: BySeed) -> Reading:
        return Mean(self.name, self.scale).change(place, self._own(place, one), self._own(place, other))

    def _own(self, place: str, values: BySeed) -> BySeed:
        return {seed: each[self.inside[place]] for seed, each in values.items()}


def subgroups_of(contest: Contest, places: Mapping[str, str]) -> dict[str, list[Subgroup]]:
    """The subgroups of every grouping that have `SMALLEST` examples at some place; `places` names each one's task."""
    found: dict[str, list[Subgroup]] = {}
    for spec, group in contest.groups.items():
        codes = {}
        for place, at in places.items():
            task = contest.tasks[at]
            codes[place] = group(whole(task.splits[judged(task)[place]].data, Lab())).numpy()
        names = contest.levels.get(spec, ())
        for code in sorted({int(c) for each in codes.values() for c in np.unique(each) if c >= 0}):
            inside = {place: each == code for place, each in codes.items() if (each == code).sum() >= SMALLEST}
            level = names[code] if code < len(names) else str(code)
            if inside:
                found.setdefault(spec, []).append(
                    Subgroup(f"{contest.metric}: {spec.split(':')[0]} {level}", inside, contest.scale)
                )
    return found
