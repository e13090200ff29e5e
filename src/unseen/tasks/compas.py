"""COMPAS: was a defendant of Broward County charged with a new crime within two years?

ProPublica (Larson et al., 2016). Real people: report aggregates only. No licence is stated, so
nothing is shipped.
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
from unseen.tasks.sensitive import Sensitive
from unseen.tasks.table import Table
from unseen.tasks.table.splitting import Shares

FEATURES = [
    "sex",
    "age",
    "race",
    "juv_fel_count",
    "juv_misd_count",
    "juv_other_count",
    "priors_count",
    "c_charge_degree",
]


_FILE = "compas/compas-scores-two-years-columns.csv.gz"


def compas_frame() -> pd.DataFrame:
    """6,172 people after ProPublica's filter: features, day and `quarter` of the screening,
    `charged_again` (yes or no).

    Kept are people screened within 30 days of their arrest, with a known outcome, a score, and a
    charge above an ordinance.
    """
    return _compas().copy()


@lru_cache(maxsize=1)
def _compas() -> pd.DataFrame:
    raw = pd.read_csv(io.BytesIO(gzip.decompress(data_file(_FILE).read_bytes())))
    kept = (
        raw.days_b_screening_arrest.between(-30, 30)
        & (raw.is_recid != -1)
        & (raw.c_charge_degree != "O")
    )
    raw = raw[kept & raw.score_text.notna() & (raw.score_text != "N/A")].reset_index(drop=True)
    day = pd.to_datetime(raw.compas_screening_date)
    return raw[FEATURES].assign(
        screened=raw.compas_screening_date,
        quarter=day.dt.year.astype(str) + " Q" + day.dt.quarter.astype(str),
        charged_again=np.where(raw.two_year_recid == 1, "yes", "no"),
    )


def two_year_frame() -> pd.DataFrame:
    """Those screened before April 2014, who could be followed for two years: 5,297 people.

    ProPublica left out the later ones only if they were *not* charged again, so that almost all who
    remain were (2014 Q3 and Q4: all). As a domain, a late quarter would be an artefact (Barenstein,
    2019, arXiv:1906.04711).
    """
    frame = compas_frame()
    return frame[frame.screened < "2014-04"].reset_index(drop=True)


@dataclass(frozen=True)
class Compas:
    """A new charge within two years; `a` = 1 where `sensitive` is at `level`. For random people, or
    for a quarter left out.

    The risk scores are no features: they are what others predicted.
    """

    held_out: str | None = None
    by_quarter: bool = True
    """Quarters of the screening, 2013 Q1 to 2014 Q1, as ordered domains."""
    sensitive: str = "race"
    level: str = "African-American"
    visible: bool = True
    """Whether the sensitive column is among the features."""
    shares: Shares = Shares()
    data: Callable[[], pd.DataFrame] = two_year_frame

    def table(self) -> Table:
        return Table(
            self.data,
            target="charged_again",
            site="quarter" if self.by_quarter else None,
            groups=(self.sensitive,),
            drop=("screened",) if self.by_quarter else ("screened", "quarter"),
            shares=self.shares,
        )

    def sensitive_table(self) -> Sensitive:
        return Sensitive(self.table(), self.sensitive, self.level, self.held_out, self.visible)

    def domains(self) -> tuple[str, ...]:
        return self.sensitive_table().domains()

    def build(self, lab: Lab) -> Task:
        return self.sensitive_table().build(lab)


def synthetic_defendants() -> pd.DataFrame:
    """300 rows with the columns of `compas_frame`, drawn at random: for examples where the file is
    absent. Not data.
    """
    rng = np.random.default_rng(0)
    age, priors = rng.integers(18, 70, 300), rng.poisson(3, 300)
    return pd.DataFrame(
        {
            "sex": rng.choice(["Female", "Male"], 300),
            "age": age,
            "race": rng.choice(["African-American", "Caucasian", "Hispanic"], 300),
            "juv_fel_count": rng.poisson(0.1, 300),
            "juv_misd_count": rng.poisson(0.1, 300),
            "juv_other_count": rng.poisson(0.2, 300),
            "priors_count": priors,
            "c_charge_degree": rng.choice(["F", "M"], 300),
            "screened": "2013",
            "quarter": rng.choice(["2013 Q1", "2013 Q2", "2013 Q3"], 300),
            "charged_again": np.where(
                priors / 3 - age / 20 + rng.normal(size=300) > -1, "yes", "no"
            ),
        }
    )


def example() -> Compas:
    """On generated rows: the data are not part of the package."""
    return Compas(data=synthetic_defendants)
