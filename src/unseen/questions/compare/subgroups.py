"""What is reached within subgroups of the evaluation examples: women, a decade of age, a
scanner.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from unseen.engine.batches import whole
from unseen.lab import Lab
from unseen.questions.compare.quantities import BySeed, Mean, score_name, score_scale
from unseen.questions.compare.splits import evaluated_splits
from unseen.reading import Reading
from unseen.subjects.subject import Subject

SMALLEST = 10
"""Examples of a subgroup at a site, below which nothing is said of it there."""


@dataclass(frozen=True, eq=False)
class Subgroup:
    """The mean score of a subgroup's examples, at the sites that have enough of them."""

    name: str
    inside: Mapping[str, Bool[ndarray, " n"]]
    """Which evaluation examples belong to it, by site."""
    scale: float = 1.0

    def exists(self, site: str) -> bool:
        return site in self.inside

    def reading(self, site: str, values: BySeed) -> Reading:
        return Mean(self.name, self.scale).reading(site, self._members_of(site, values))

    def change(self, site: str, one: BySeed, other: BySeed) -> Reading:
        return Mean(self.name, self.scale).change(
            site, self._members_of(site, one), self._members_of(site, other)
        )

    def _members_of(self, site: str, values: BySeed) -> BySeed:
        return {seed: each[self.inside[site]] for seed, each in values.items()}


def subgroups_of(sites: Mapping[str, Subject]) -> dict[str, list[Subgroup]]:
    """The subgroups of every grouping that have `SMALLEST` examples at some site, by the site's
    subject.
    """
    found: dict[str, list[Subgroup]] = {}
    first = next(iter(sites.values()))
    name, scale = score_name(first.task), score_scale(first)
    for spec, group in first.groups.items():
        codes = {}
        for site, subject in sites.items():
            split = subject.task.splits[evaluated_splits(subject.task)[site]]
            codes[site] = group(whole(split.data, Lab())).numpy()
        names = first.levels.get(spec, ())
        for code in sorted({int(c) for each in codes.values() for c in np.unique(each) if c >= 0}):
            inside = {
                site: each == code
                for site, each in codes.items()
                if (each == code).sum() >= SMALLEST
            }
            level = names[code] if code < len(names) else str(code)
            if inside:
                found.setdefault(spec, []).append(
                    Subgroup(f"{name}: {spec.split(':')[0]} {level}", inside, scale)
                )
    return found
