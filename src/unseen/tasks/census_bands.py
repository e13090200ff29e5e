"""UCI Adult in bands of age or of years of schooling, as ordered domains; sex or race is
sensitive.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

import numpy as np
import pandas as pd
from jaxtyping import Float

from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.task import Task
from unseen.tasks.census import census_frame, synthetic_people
from unseen.tasks.sensitive import Sensitive
from unseen.tasks.table import Table
from unseen.tasks.table.splitting import Shares


class Band(StrEnum):
    """What orders the people into domains. (The census is of one year, 1994: there are no bands of
    calendar years.)
    """

    AGE = "age"
    SCHOOLING = "education_num"
    """Years of schooling, 1 to 16."""


EDGES = {Band.AGE: (25.0, 35.0, 45.0, 55.0, 65.0), Band.SCHOOLING: (9.0, 10.0, 13.0, 14.0)}


@dataclass(frozen=True)
class BandedFrame:
    """The frame with a column `band` ("17 to 24", "25 to 34", …) instead of the column that it is
    made of.
    """

    data: Callable[[], pd.DataFrame]
    column: str
    edges: tuple[float, ...]

    def __call__(self) -> pd.DataFrame:
        frame = self.data()
        bands = band_names(frame[self.column].to_numpy(float), self.edges)
        return frame.drop(columns=self.column).assign(band=bands)


def band_names(values: Float[np.ndarray, " n"], edges: tuple[float, ...]) -> list[str]:
    """For each whole number the band it is in, named so that the order of the names is that of the
    numbers.
    """
    rising = all(a < b for a, b in pairwise(edges))
    if not edges or not rising or edges[0] <= values.min() or edges[-1] > values.max():
        raise InvalidConfig(
            f"Bands with edges {edges} do not divide values from {values.min():g} to "
            f"{values.max():g}.",
            why="edges rise, and every band holds somebody.",
            fix="give rising edges inside the range.",
        )
    lows, highs = [values.min(), *edges], [*(edge - 1 for edge in edges), values.max()]
    digits = len(f"{values.max():.0f}")
    names = [
        f"{low:0{digits}.0f} to {high:0{digits}.0f}" for low, high in zip(lows, highs, strict=True)
    ]
    return [names[k] for k in np.searchsorted(edges, values, side="right")]


@dataclass(frozen=True)
class CensusBands:
    """Income above 50K in a band left out, by default the last; `a` = 1 where `sensitive` is at
    `level`.

    The column that makes the bands is no feature, nor is the other spelling of schooling.
    """

    held_out: str | None = None
    by: Band = Band.AGE
    edges: tuple[float, ...] | None = None
    """Lower edges of all bands but the first; None: `EDGES`."""
    sensitive: str = "sex"
    level: str = "Female"
    visible: bool = True
    """Whether the sensitive column is among the features."""
    shares: Shares = Shares()
    data: Callable[[], pd.DataFrame] = census_frame

    def table(self) -> Table:
        schooling = "education_num" if self.by is Band.AGE else "education"
        return Table(
            BandedFrame(self.data, self.by.value, self.edges or EDGES[self.by]),
            target="income",
            site="band",
            groups=(self.sensitive,),
            drop=("fnlwgt", schooling),  # a sampling weight; the same in other words
            shares=self.shares,
        )

    def sensitive_table(self) -> Sensitive:
        return Sensitive(self.table(), self.sensitive, self.level, self.held_out, self.visible)

    def domains(self) -> tuple[str, ...]:
        return self.sensitive_table().domains()

    def build(self, lab: Lab) -> Task:
        return self.sensitive_table().build(lab)


def example() -> CensusBands:
    """On generated people: the census is not part of the package."""
    return CensusBands(edges=(40.0, 65.0), data=synthetic_people)
