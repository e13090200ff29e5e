"""German credit: was a loan of a bank good or bad? (Hofmann, 1994, doi:10.24432/C5NC77, CC BY 4.0.)
1,000 loans of 1973–75.

The words for the codes are those of the release. Some of them are wrong (Grömping, 2019, South
German credit data): code A92 means a woman who is not single *or a single man*, so that sex cannot
be read; age can.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd

from unseen.data.files import data_file
from unseen.lab import Lab
from unseen.task import Task
from unseen.tasks.sensitive import Sensitive
from unseen.tasks.table import Table
from unseen.tasks.table.splitting import Shares

COLUMNS = [
    *(
        "checking",
        "months",
        "history",
        "purpose",
        "amount",
        "savings",
        "employed_since",
        "instalment_rate",
    ),
    *(
        "status_and_sex",
        "guarantor",
        "resident_since",
        "property",
        "age",
        "other_plans",
        "housing",
        "credits_here",
    ),
    *("job", "dependants", "telephone", "foreign_worker", "credit"),
]
WORDS = {
    **{"A11": "below 0 DM", "A12": "below 200 DM", "A13": "200 DM or more", "A14": "no account"},
    **{
        "A30": "none taken",
        "A31": "all paid here",
        "A32": "paid so far",
        "A33": "delayed",
        "A34": "critical",
    },
    **{
        "A40": "new car",
        "A41": "used car",
        "A42": "furniture",
        "A43": "radio, television",
        "A44": "appliances",
    },
    **{
        "A45": "repairs",
        "A46": "education",
        "A48": "retraining",
        "A49": "business",
        "A410": "other",
    },
    **{
        "A61": "below 100 DM",
        "A62": "below 500 DM",
        "A63": "below 1000 DM",
        "A64": "1000 DM or more",
    },
    **{
        "A65": "unknown",
        "A71": "unemployed",
        "A72": "below 1 year",
        "A73": "below 4 years",
        "A74": "below 7 years",
    },
    **{"A75": "7 years or more", "A101": "none", "A102": "co-applicant", "A103": "guarantor"},
    **{"A121": "real estate", "A122": "building savings", "A123": "car or other", "A124": "none"},
    **{
        "A141": "bank",
        "A142": "stores",
        "A143": "none",
        "A151": "rent",
        "A152": "own",
        "A153": "free",
    },
    **{
        "A171": "unskilled, non-resident",
        "A172": "unskilled",
        "A173": "skilled",
        "A174": "management",
    },
    **{"A191": "none", "A192": "yes", "A201": "yes", "A202": "no"},
}
"""Codes of the file in words (german.names)."""
WOMEN = ("A92", "A95")


_FILE = "german-credit/german.csv"


def credit_frame() -> pd.DataFrame:
    """1,000 loans, 70 % good: 19 features in words and numbers, `sex`, `credit` (good or bad).

    `sex` is the usual reading of `status_and_sex` (A92, A95: female), with the reservation above.
    """
    return _credit().copy()


@lru_cache(maxsize=1)
def _credit() -> pd.DataFrame:
    frame = pd.read_csv(data_file(_FILE), header=None, names=COLUMNS)
    sex = np.where(frame.pop("status_and_sex").isin(WOMEN), "female", "male")
    frame = frame.map(lambda cell: WORDS.get(cell, cell))
    return frame.assign(sex=sex, credit=np.where(frame.credit == 1, "good", "bad"))


@dataclass(frozen=True)
class GermanCredit:
    """Good or bad credit; `a` = 1 where `sensitive` is at `level`. For random loans, or for a
    purpose left out.
    """

    held_out: str | None = None
    by_purpose: bool = False
    """Purposes of the loan as domains (those with at least `min_rows` loans)."""
    min_rows: int = 50
    sensitive: str = "age:25"
    level: str = "≥ 25"
    """With sensitive="sex", "female" or "male"; see above how far that can be trusted."""
    visible: bool = True
    """Whether the sensitive column is among the features."""
    shares: Shares = Shares()
    data: Callable[[], pd.DataFrame] = credit_frame

    def table(self) -> Table:
        return Table(
            Purposes(self.data, self.min_rows) if self.by_purpose else self.data,
            target="credit",
            site="purpose" if self.by_purpose else None,
            groups=(self.sensitive,),
            shares=self.shares,
        )

    def sensitive_table(self) -> Sensitive:
        return Sensitive(self.table(), self.sensitive, self.level, self.held_out, self.visible)

    def domains(self) -> tuple[str, ...]:
        return self.sensitive_table().domains()

    def build(self, lab: Lab) -> Task:
        return self.sensitive_table().build(lab)


@dataclass(frozen=True)
class Purposes:
    """The loans for purposes with at least `min_rows` loans, as a source for `Table`."""

    data: Callable[[], pd.DataFrame]
    min_rows: int

    def __call__(self) -> pd.DataFrame:
        frame = self.data()
        counts = frame.purpose.value_counts()
        return frame[frame.purpose.isin(counts.index[counts >= self.min_rows])].reset_index(
            drop=True
        )


def synthetic_loans() -> pd.DataFrame:
    """300 rows with some columns of `credit_frame`, drawn at random: for examples where the file is
    absent. Not data.
    """
    rng = np.random.default_rng(0)
    months, amount = rng.integers(4, 60, 300), rng.integers(300, 15_000, 300)
    bad = months / 24 + amount / 8_000 + rng.normal(size=300) > 2.6
    return pd.DataFrame(
        {
            "months": months,
            "amount": amount,
            "purpose": rng.choice(["new car", "furniture", "business"], 300),
            "age": rng.integers(19, 75, 300),
            "sex": rng.choice(["female", "male"], 300),
            "credit": np.where(bad, "bad", "good"),
        }
    )


def example() -> GermanCredit:
    """On generated rows: the data are not part of the package."""
    return GermanCredit(by_purpose=True, data=synthetic_loans)
