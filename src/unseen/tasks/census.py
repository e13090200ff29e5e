"""UCI Adult: does a person of the 1994 US census earn more than 50,000 dollars a year?

Becker & Kohavi (1996), doi:10.24432/C5XW20, CC BY 4.0. 32,561 and 16,281 rows of the original two
files, in one table.
"""

import gzip
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd

from unseen.data.files import data_file
from unseen.lab import Lab
from unseen.task import Task
from unseen.tasks.table import Table
from unseen.tasks.table.splitting import Shares

COLUMNS = [
    "age",
    "workclass",
    "fnlwgt",
    "education",
    "education_num",
    "marital_status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "capital_gain",
    "capital_loss",
    "hours_per_week",
    "native_country",
    "income",
]


def census_frame() -> pd.DataFrame:
    """48,842 people, 23.9 % of them above 50K."""
    return _census().copy()


@lru_cache(maxsize=1)
def _census() -> pd.DataFrame:
    parts = [
        pd.read_csv(
            io.BytesIO(gzip.decompress(data_file(f"adult/{name}").read_bytes())),
            header=None,
            names=COLUMNS,
            na_values="?",
            skipinitialspace=True,
        )
        for name in ("adult.data.gz", "adult.test.gz")
    ]
    frame = pd.concat(parts, ignore_index=True)
    frame["income"] = frame.income.str.rstrip(".")  # the test file ends its labels with a full stop
    return frame


@dataclass(frozen=True)
class Adult:
    """Income above 50K for random people, or at a level of `site` left out ("native_country",
    "workclass").
    """

    site: str | None = None
    held_out: str | None = None
    groups: tuple[str, ...] = ("sex", "race", "age:30,45,60")
    shares: Shares = Shares()
    data: Callable[[], pd.DataFrame] = census_frame

    def table(self) -> Table:
        return Table(
            self.data,
            target="income",
            site=self.site,
            held_out=self.held_out,
            groups=self.groups,
            drop=("fnlwgt", "education_num"),  # a sampling weight; `education` as a number
            shares=self.shares,
        )

    def build(self, lab: Lab) -> Task:
        return self.table().build(lab)


def synthetic_people() -> pd.DataFrame:
    """300 rows with the columns of the census, drawn at random: for examples where the file is
    absent. Not data.
    """
    rng = np.random.default_rng(0)
    hours, schooling = rng.normal(40, 9, 300).round(), rng.integers(5, 16, 300)
    frame = pd.DataFrame(dict.fromkeys(COLUMNS, "x"), index=range(300))
    return frame.assign(
        age=rng.integers(17, 90, 300),
        hours_per_week=hours,
        education=schooling.astype(str),
        sex=rng.choice(["Female", "Male"], 300),
        race=rng.choice(["White", "Black", "Other"], 300),
        income=np.where(hours / 9 + schooling / 3 + rng.normal(size=300) > 8.5, ">50K", "<=50K"),
    )


def example() -> Adult:
    return Adult(data=synthetic_people)
